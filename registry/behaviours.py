"""What lies beside the weights of a resolved model: the base's files, the post's behaviour.

Chat template, generation settings, post-processor, special tokens and their ids come with the
delta, unless the base's are to be kept. Code and pickles never travel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from paramdelta import fp8
from paramdelta.checkpoint import Checkpoint
from paramdelta.vocabulary import TokenMap, is_head, is_vocabulary_tensor, token_ids
from registry.artifacts import Artifacts
from registry.resolver import Surroundings
from registry.small_files import (
    CONFIG,
    GENERATION,
    TEMPLATE,
    TOKENIZER,
    TOKENIZER_CONFIG,
    Json,
    PostFiles,
    SmallFiles,
)
from registry.tensor_plan import BaseTensors, Contribution, vocabulary_rows
from registry.token_merge import Tokens, merge_tokens

_TOKEN_NAMES = ("bos_token", "eos_token", "pad_token", "unk_token")
_TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
_TORCH_NAMES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
_DTYPE_KEYS = ("dtype", "torch_dtype")  # transformers 5 and 4
_VERSION = "transformers_version"  # says who wrote a file, not how to behave


@dataclass(frozen=True, slots=True)
class Wishes:
    """keep: the base's behaviour. dtype: of the output's numbers, None as the base has them."""

    keep: bool = False
    dtype: str | None = None


def surroundings(
    artifacts: Artifacts,
    checkpoint: Checkpoint,
    base: BaseTensors,
    contributions: Sequence[Contribution],
    wishes: Wishes,
) -> Surroundings:
    """The small files of the output, how they differ from the base's, and what is to be said."""
    files = SmallFiles(checkpoint)
    _numbers(files, base, wishes.dtype)
    for part in contributions:
        post = PostFiles(artifacts, part.manifest)
        rows = _grow(files, base, part)
        tokens = Tokens.of(part.manifest, post.json(TOKENIZER))
        active = not wishes.keep and part.alpha != 0
        merge_tokens(files, part.ref, tokens, part.tokens, rename=active, rows=rows)
        if active:
            _Behaviour(files, post, part).bring()
    return Surroundings(files.files, files.changes, files.problems)


def _numbers(files: SmallFiles, base: BaseTensors, dtype: str | None) -> None:
    """config.json says what the numbers are: transformers loads them as it says."""
    config = files.json(CONFIG)
    eight_bit = any(info.dtype in fp8.DTYPES for info in base.stored.values())
    if config is None or not (eight_bit or dtype):
        return
    changed = dict(config)
    name = _TORCH_NAMES[dtype or fp8.VALUES]
    inner = config.get("text_config")
    parts = [changed]
    if isinstance(inner, dict):
        changed["text_config"] = dict(inner)
        parts.append(changed["text_config"])
    for part in parts:
        for key in [key for key in _DTYPE_KEYS if key in part]:
            part[key] = name
        if eight_bit and part.pop("quantization_config", None) is not None:
            files.changed(f"{CONFIG}, quantization_config", "eight-bit floats", None)
    if not any(key in changed for key in _DTYPE_KEYS):
        changed[_DTYPE_KEYS[1]] = name
    if changed != config:
        files.put_json(CONFIG, changed)
        files.say(CONFIG, f"its numbers are {name}")


def _grow(files: SmallFiles, base: BaseTensors, part: Contribution) -> int:
    """The rows of the output's embedding; config.json's vocab_size grows with them."""
    rows, grown = 0, False
    for source in part.manifest.sources:
        target = base.view.find(source.name)
        if target is None or not is_vocabulary_tensor(source.name) or is_head(source.name):
            continue
        rows = vocabulary_rows(source, target, part.tokens)
        grown = rows > target.shape[0]
    if not rows:
        found = [t for t in base.view.tensors.values() if is_vocabulary_tensor(t.name)]
        return max((t.shape[0] for t in found if t.shape), default=0)
    config = files.json(CONFIG)
    if grown and config is not None:
        inner = config.get("text_config")
        holder = inner if isinstance(inner, dict) else config
        files.changed(f"{CONFIG}, vocab_size", holder.get("vocab_size"), rows)
        holder["vocab_size"] = rows
        files.put_json(CONFIG, config)
        files.say(CONFIG, f"vocab_size is {rows}, with {part.ref}'s")
    return rows


class _Behaviour:
    """Puts one delta's behaviour into the files; the first delta that has a thing decides it."""

    def __init__(self, files: SmallFiles, post: PostFiles, part: Contribution) -> None:
        self._files, self._post, self._part = files, post, part
        self._ref = part.ref
        self._places: TokenMap | None = part.tokens

    def bring(self) -> None:
        self._template()
        self._generation()
        self._config_ids()
        self._post_processor()
        self._token_names()

    def _template(self) -> None:
        data = self._post.content(TEMPLATE)
        inside = data is None
        if data is None:
            data = self._template_in_config()
        if data is None:
            return
        before = self._files.content(TEMPLATE)
        if before is None:
            key = (self._files.json(TOKENIZER_CONFIG) or {}).get("chat_template")
            before = key.encode("utf-8", "surrogatepass") if isinstance(key, str) else None
        if before == data:
            return
        if self._files.origin(TEMPLATE) == "delta":
            self._other(TEMPLATE)
            return
        config = self._files.json(TOKENIZER_CONFIG)
        if inside and config is not None and self._files.origin(TEMPLATE) is None:
            config["chat_template"] = data.decode("utf-8", "surrogatepass")
            self._files.put_json(TOKENIZER_CONFIG, config)
        else:  # the file wins over the key when transformers loads, so it must say it
            self._files.put(TEMPLATE, data, "delta")
        self._files.changed(TEMPLATE, _lines(before), _lines(data))
        self._files.say(TEMPLATE, f"{self._ref}'s {_verb(before)}")

    def _template_in_config(self) -> bytes | None:
        found = (self._post.json(TOKENIZER_CONFIG) or {}).get("chat_template")
        if isinstance(found, str):
            return found.encode("utf-8", "surrogatepass")
        if found is not None:
            reason = f"{self._ref}'s chat template is no text; it is left out"
            self._files.say(TOKENIZER_CONFIG, reason, "warning")
        return None

    def _generation(self) -> None:
        value = self._post.json(GENERATION)
        if value is None:
            return
        value = self._with_own_ids(value)
        before = self._files.json(GENERATION)
        if before is not None and _settings(before) == _settings(value):
            return
        if self._files.origin(GENERATION) in ("delta", "merged"):
            self._other(GENERATION)
            return
        if self._places is None:
            self._files.put(GENERATION, self._post.content(GENERATION) or b"", "delta")
        else:
            self._files.put_json(GENERATION, value)
        self._differ(GENERATION, _settings(before or {}), _settings(value))
        self._files.say(GENERATION, f"{self._ref}'s {_verb(before)}")

    def _config_ids(self) -> None:
        """bos, eos and pad in config.json, where the post-training set them."""
        post, config = self._post.json(CONFIG), self._files.json(CONFIG)
        if post is None or config is None:
            return
        facets = self._part.manifest.base.fingerprint["facets"]
        post = self._with_own_ids(post)
        inner, theirs = _language(config), _language(post)
        own: Mapping[str, Any] = {"eos_token_id": facets.get("eos"), **_optional(facets)}
        changed = []
        for key in _TOKEN_IDS:
            value = theirs.get(key)
            if value is None or value == inner.get(key) or _listed(value) == _listed(own.get(key)):
                continue
            self._files.changed(f"{CONFIG}, {key}", inner.get(key), value)
            inner[key] = value
            changed.append(key)
        if changed:
            self._files.put_json(CONFIG, config)
            self._files.say(CONFIG, f"{', '.join(changed)} from {self._ref}")

    def _post_processor(self) -> None:
        """How ids are wrapped (begin and end tokens), inside tokenizer.json."""
        post, mine = self._post.json(TOKENIZER), self._files.json(TOKENIZER)
        if post is None or mine is None:
            return
        found = self._remapped(post.get("post_processor"))
        if found == mine.get("post_processor") or not self._post_changed_it():
            return
        strange = _strangers(found, token_ids(mine))
        if strange:
            names = ", ".join(strange[:5])
            reason = f"{self._ref}'s post-processor uses {names}, which this base has not so"
            self._files.say(TOKENIZER, f"{reason}; the base's is kept", "warning")
            return
        self._files.changed(f"{TOKENIZER}, post_processor", mine.get("post_processor"), found)
        mine["post_processor"] = found
        self._files.put_json(TOKENIZER, mine)
        self._files.say(TOKENIZER, f"post_processor from {self._ref}")

    def _post_changed_it(self) -> bool:
        """Whether the post-training itself set another post-processor than its own base had."""
        sides = (self._part.manifest.base, self._part.manifest.post)
        found = [side.fingerprint["facets"].get("behaviour") for side in sides]
        if not all(isinstance(item, dict) for item in found):
            return True
        before, after = (item.get("post_processor") for item in found if isinstance(item, dict))
        return bool(before != after)

    def _token_names(self) -> None:
        """Which tokens are end, pad and so on, as the post's tokenizer_config.json names them."""
        post, mine = self._post.json(TOKENIZER_CONFIG), self._files.json(TOKENIZER_CONFIG)
        if post is None or mine is None:
            return
        parsed = self._files.json(TOKENIZER)
        known = token_ids(parsed) if parsed else {}
        changed = []
        for key in _TOKEN_NAMES:
            name = _token_text(post.get(key))
            if name is None or name == _token_text(mine.get(key)):
                continue
            if name not in known:
                reason = f"{key} {name!r} of {self._ref} is no token of this base"
                self._files.say(TOKENIZER_CONFIG, f"{reason}; the base's is kept", "warning")
                continue
            self._files.changed(f"{TOKENIZER_CONFIG}, {key}", _token_text(mine.get(key)), name)
            mine[key] = name
            changed.append(key)
        if changed:
            self._files.put_json(TOKENIZER_CONFIG, mine)
            self._files.say(TOKENIZER_CONFIG, f"{', '.join(changed)} from {self._ref}")

    # -- ids of the post in the base's vocabulary -----------------------------------------

    def _with_own_ids(self, value: Json) -> Json:
        """*value* with its token ids as the base has them. Ids without a place are left out."""
        if self._places is None:
            return value
        found = dict(value)
        for key in [key for key in value if key.endswith("_token_id")]:
            ids = [
                i
                for i in (self._places.places.get(n) for n in _listed(value[key]))
                if i is not None
            ]
            if not ids:
                del found[key]
                self._files.say(key, f"{self._ref}'s has no place in this vocabulary", "warning")
            else:
                found[key] = ids if isinstance(value[key], list) else ids[0]
        return found

    def _remapped(self, value: Any) -> Any:
        """A post-processor with its ids as the base has them."""
        if self._places is None:
            return value
        if isinstance(value, dict):
            found = {key: self._remapped(item) for key, item in value.items()}
            if isinstance(value.get("ids"), list):
                found["ids"] = [self._places.places.get(i, i) for i in value["ids"]]
            return found
        return [self._remapped(item) for item in value] if isinstance(value, list) else value

    def _other(self, path: str) -> None:
        self._files.say(path, f"{self._ref}'s differs; the first delta's is kept", "warning")

    def _differ(self, path: str, before: Json, after: Json) -> None:
        for key in sorted(before.keys() | after.keys()):
            self._files.changed(f"{path}, {key}", before.get(key), after.get(key))


def _settings(value: Json) -> Json:
    return {key: item for key, item in value.items() if key != _VERSION}


def _language(config: Json) -> Json:
    """Where the ids stand: a multimodal configuration may keep them in text_config."""
    inner = config.get("text_config")
    if isinstance(inner, dict) and any(key in inner for key in _TOKEN_IDS):
        return inner
    return config


def _optional(facets: Mapping[str, Any]) -> Json:
    return {f"{name}_token_id": facets[name] for name in ("bos", "pad") if name in facets}


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return sorted(value, key=str) if isinstance(value, list) else [value]


def _token_text(value: Any) -> str | None:
    """A token's string, which older files wrap in an object."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _verb(before: object) -> str:
    return "is new" if before is None else "replaces the base's"


def _lines(data: bytes | None) -> str | None:
    """A template as a person reads of it: its size and how it begins."""
    if data is None:
        return None
    text = data.decode("utf-8", "replace")
    count = len(text.splitlines())
    return f"{count} line{'' if count == 1 else 's'}: {text}"


def _strangers(processor: Any, ids: Mapping[str, int]) -> list[str]:
    """Tokens of a post-processor that have another id here, or none."""
    found: set[str] = set()
    for token, index in _named_ids(processor):
        if ids.get(token) != index:
            found.add(token)
    return sorted(found)


def _named_ids(value: Any) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    if isinstance(value, dict):
        names, numbers = value.get("tokens"), value.get("ids")
        if isinstance(names, list) and isinstance(numbers, list):
            pairs = zip(names, numbers, strict=False)
            found += [(n, i) for n, i in pairs if isinstance(n, str) and type(i) is int]
        for key in ("sep", "cls"):
            pair = value.get(key)
            if isinstance(pair, list) and len(pair) == 2 and type(pair[1]) is int:
                found.append((str(pair[0]), pair[1]))
        for item in value.values():
            found += _named_ids(item)
    elif isinstance(value, list):
        for item in value:
            found += _named_ids(item)
    return found

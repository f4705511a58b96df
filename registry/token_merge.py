"""The post's own tokens in the new base's tokenizer: a three-way merge by id.

Between the delta's own base, its post and the new base: what the post-training did not touch stays
as the new base has it; what it added or renamed is taken where the new base still has what the
delta's own base had, something reserved, or nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from paramdelta import tokenizer
from paramdelta.limits import MAX_TOKEN_ID
from paramdelta.manifest import Manifest
from paramdelta.vocabulary import TokenMap, align_tokens, token_ids
from registry.small_files import TOKENIZER, TOKENIZER_CONFIG, Json, PostFiles, SmallFiles

NAMED = 5  # examples named in one reason


@dataclass(frozen=True, slots=True)
class Tokens:
    """A delta's tokens: of its own base, and of its post. rows: the post's added tokens as its
    tokenizer.json describes them, by id."""

    own: Mapping[int, str]
    post: Mapping[int, str]
    rows: Mapping[int, Json]

    @classmethod
    def of(cls, manifest: Manifest, parsed: Json | None) -> Tokens:
        rows = {
            row["id"]: row
            for row in (parsed or {}).get("added_tokens") or []
            if isinstance(row, dict) and type(row.get("id")) is int
        }
        own = added_names(manifest.base.fingerprint)
        post = tokenizer.added_tokens(parsed) if parsed else added_names(manifest.post.fingerprint)
        return cls(own, post, rows)

    @property
    def changed(self) -> dict[int, str]:
        """What the post-training added or renamed, reserved names apart."""
        return {
            index: name
            for index, name in self.post.items()
            if self.own.get(index) != name and not tokenizer.is_reserved(name)
        }


def added_names(fingerprint: Mapping[str, Any]) -> dict[int, str]:
    """Added tokens by id, from a stored fingerprint."""
    found = fingerprint["facets"]["added_tokens"]
    return {int(i): item if isinstance(item, str) else item[0] for i, item in found.items()}


def place_tokens(manifest: Manifest, post: PostFiles, base: Json | None) -> TokenMap | None:
    """Where the delta's ids go in the base's tokenizer by token string; None without tokenizers.

    The rows of a delta are differences to its own base's rows, so renamed tokens count under the
    names that they had there.
    """
    parsed = post.json(TOKENIZER)
    if parsed is None or base is None:
        return None
    tokens = Tokens.of(manifest, parsed)
    names = {name: index for name, index in token_ids(parsed).items() if index not in tokens.post}
    names |= {name: index for index, name in {**tokens.post, **tokens.own}.items()}
    new = {name for index, name in tokens.changed.items() if index not in tokens.own}
    return align_tokens(names, token_ids(base), frozenset(new))


def merge_tokens(
    files: SmallFiles,
    ref: str,
    tokens: Tokens,
    places: TokenMap | None,
    *,
    rename: bool,
    rows: int,
) -> None:
    """Puts the tokens of *ref* into the output's tokenizer.

    places: None by id. rename: also take other names for ids that the base has. rows: of the
    output's embedding; tokens beyond it are not taken.
    """
    parsed = files.json(TOKENIZER)
    if not tokens.changed:
        return
    if parsed is None or not tokens.rows:
        if any(index not in tokens.own for index in tokens.changed):
            reason = f"the tokens that {ref} brings have no names: a tokenizer.json is missing"
            files.say(TOKENIZER, reason, "warning")
        return
    merge = _Merge(files, ref, parsed, rows)
    for index, name in tokens.changed.items():
        here = index if places is None else places.places.get(index)
        if here is not None:
            merge.take(here, name, tokens.own.get(index), tokens.rows.get(index), rename)
    merge.finish()


class _Merge:
    def __init__(self, files: SmallFiles, ref: str, parsed: Json, rows: int) -> None:
        self._files, self._ref, self._parsed, self._rows = files, ref, parsed, rows
        self._added = tokenizer.added_tokens(parsed)
        self._ids = token_ids(parsed)
        self._taken: dict[int, Json] = {}
        self._renamed: dict[int, str] = {}  # id → the name it had
        self._kept: list[str] = []

    def take(self, index: int, name: str, own: str | None, row: Json | None, rename: bool) -> None:
        there = self._added.get(index)
        if there == name or row is None or index >= self._rows:
            return
        elsewhere = self._ids.get(name)
        free = there is None or tokenizer.is_reserved(there) or there == own
        if not free or (elsewhere is not None and elsewhere != index):
            self._kept.append(f"{index}: {name} of {self._ref}, {there or 'no token'} here")
            return
        if there is not None and not rename:
            return
        self._taken[index] = {**row, "id": index}
        if there is not None:
            self._renamed[index] = there
        self._files.changed(f"{TOKENIZER}, token {index}", there, name)

    def finish(self) -> None:
        if self._kept:
            reason = f"{len(self._kept)} tokens keep this base's names ({_some(self._kept)})"
            remedy = "look whether the chat template uses them"
            self._files.say(TOKENIZER, reason, "warning", remedy)
        if not self._taken:
            return
        rows = [row for row in self._parsed.get("added_tokens") or [] if not self._is_old(row)]
        rows += self._taken.values()
        self._parsed["added_tokens"] = sorted(rows, key=_id_of)
        self._rename_core()
        self._files.put_json(TOKENIZER, self._parsed)
        self._decoder()
        names = [f"{index} {row['content']}" for index, row in sorted(self._taken.items())]
        renamed = f", {len(self._renamed)} of them renamed" if self._renamed else ""
        reason = f"{len(names)} tokens of {self._ref}{renamed}: {_some(names)}"
        self._files.say(TOKENIZER, reason)

    def _is_old(self, row: Any) -> bool:
        return isinstance(row, dict) and row.get("id") in self._taken

    def _rename_core(self) -> None:
        """A token that the core vocabulary lists too is found by that name first."""
        model = self._parsed.get("model")
        vocab = model.get("vocab") if isinstance(model, dict) else None
        if not isinstance(vocab, dict):
            return
        for index, old in self._renamed.items():
            if vocab.get(old) == index:
                del vocab[old]
                vocab[str(self._taken[index]["content"])] = index

    def _decoder(self) -> None:
        """tokenizer_config.json says the same once more, where it says it at all."""
        config = self._files.json(TOKENIZER_CONFIG)
        decoder = config.get("added_tokens_decoder") if config else None
        if config is None or not isinstance(decoder, dict):
            return
        for index, row in self._taken.items():
            decoder[str(index)] = {key: item for key, item in row.items() if key != "id"}
        self._files.put_json(TOKENIZER_CONFIG, config)


def _id_of(row: Any) -> int:
    index = row.get("id") if isinstance(row, dict) else None
    return index if type(index) is int else MAX_TOKEN_ID


def _some(texts: list[str]) -> str:
    return "; ".join(texts[:NAMED]) + ("; …" if len(texts) > NAMED else "")

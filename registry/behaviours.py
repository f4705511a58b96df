"""What lies beside the weights of a resolved model: the base's files, the post's behaviour.

Chat template, generation settings and the names of end and pad tokens come with the delta, unless
the base's are to be kept. Code and pickles never travel.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from paramdelta import strict_json, tokenizer
from paramdelta.checkpoint import FOREIGN, INDEX, PICKLES, SUFFIX, Checkpoint
from paramdelta.digest import digest_of
from paramdelta.limits import MAX_CARRIED_FILE_BYTES, MAX_CONFIG_BYTES, MAX_TOKENIZER_BYTES
from paramdelta.manifest import Manifest
from paramdelta.problem import Problem
from paramdelta.vocabulary import is_vocabulary_tensor
from registry.artifacts import Artifacts
from registry.plan import OutputFile
from registry.resolver import Candidate, target_names

TEMPLATE = "chat_template.jinja"
GENERATION = "generation_config.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
TOKENIZER = "tokenizer.json"
CONFIG = "config.json"
MADE_HERE = ("README.md", "paramdelta.json", INDEX)
_TOKEN_NAMES = ("eos_token", "pad_token")
_CODE = (".py", ".pyc", ".so", ".sh")
_CODE_KEYS = ("auto_map", "custom_pipelines")

Files = dict[str, OutputFile]


def output_files(
    artifacts: Artifacts,
    base: Checkpoint,
    candidates: Sequence[Candidate],
    keep_base_behaviour: bool,
) -> tuple[list[OutputFile], list[Problem]]:
    """The small files of the output, and what is to be said of them."""
    files, problems = _base_files(base)
    for candidate in candidates:
        problems += _extend(artifacts, base, candidate, files)
    if not keep_base_behaviour:
        for candidate in candidates:
            if candidate.alpha != 0:
                problems += _bring(artifacts, base, candidate, files)
    return sorted(files.values(), key=lambda file: file.path), problems


def _base_files(base: Checkpoint) -> tuple[Files, list[Problem]]:
    files: Files = {}
    problems = []
    for found in base.carried:
        path = found.path
        if path in MADE_HERE:
            continue
        if path.endswith((*PICKLES, *FOREIGN, SUFFIX, ".index.json")):
            problems.append(Problem(path, "other weights of the base; not carried", "note"))
        elif path.endswith(_CODE):
            problems.append(Problem(path, "code of the base; not carried", "warning"))
        else:
            data: bytes | None = None
            stripped: list[Problem] = []
            if path in ("config.json", TOKENIZER_CONFIG):
                data, stripped = _without_code(base, path)
            problems += stripped
            files[path] = OutputFile(path, data, "base" if data is None else "merged")
    return files, problems


def _without_code(base: Checkpoint, path: str) -> tuple[bytes | None, list[Problem]]:
    """The file without references to custom code; None where it has none."""
    value = base.json_file(path) or {}
    keys = [key for key in _CODE_KEYS if key in value]
    if not keys:
        return None, []
    plain = {key: item for key, item in value.items() if key not in keys}
    text = f"{', '.join(keys)} names code, which is never run and not carried"
    return _dump(plain), [Problem(path, text, "warning")]


def _extend(
    artifacts: Artifacts, base: Checkpoint, candidate: Candidate, files: Files
) -> list[Problem]:
    """Where the delta brings rows of new tokens, config.json and tokenizer.json grow with them."""
    rows = _new_rows(base, candidate.manifest)
    if not rows:
        return []
    problems = []
    config = _json(base, files, CONFIG)
    if config is not None:
        inner = config.get("text_config")
        (inner if isinstance(inner, dict) else config)["vocab_size"] = rows
        files[CONFIG] = OutputFile(CONFIG, _dump(config), "merged")
        problems.append(Problem(CONFIG, f"vocab_size is {rows}, with {candidate.ref}'s", "note"))
    mine = _json(base, files, TOKENIZER)
    post = _post_json(artifacts, candidate.manifest, TOKENIZER, MAX_TOKENIZER_BYTES)
    if mine is None or post is None:
        reason = f"the rows that {candidate.ref} adds have no tokens: a tokenizer.json is missing"
        return [*problems, Problem(TOKENIZER, reason, "warning")]
    here = tokenizer.added_tokens(mine)
    theirs = tokenizer.added_tokens(post)
    wanted = {i: t for i, t in theirs.items() if i not in here and t not in here.values()}
    new = [
        row
        for row in post.get("added_tokens") or []
        if isinstance(row, dict) and wanted.get(row.get("id", -1)) == row.get("content")
    ]
    if new:
        mine["added_tokens"] = [*(mine.get("added_tokens") or []), *new]
        files[TOKENIZER] = OutputFile(TOKENIZER, _dump(mine), "merged")
        names = ", ".join(f"{row['id']} {row['content']}" for row in new[:5])
        problems.append(
            Problem(TOKENIZER, f"{len(new)} tokens of {candidate.ref}: {names}", "note")
        )
    return problems


def _new_rows(base: Checkpoint, manifest: Manifest) -> int:
    """The vocabulary's size where the delta has more rows than the base; 0 where it has not."""
    name_of = target_names(base.tensors)
    found = 0
    for entry in manifest.tensors:
        info = base.tensors.get(name_of(entry.name))
        if info and is_vocabulary_tensor(entry.name) and entry.shape[:1] > info.shape[:1]:
            found = max(found, entry.shape[0])
    return found


def _json(base: Checkpoint, files: Files, path: str) -> dict[str, Any] | None:
    """A JSON file of the output as it stands so far; None where there is none."""
    if path not in files:
        return None
    limit = MAX_TOKENIZER_BYTES if path == TOKENIZER else MAX_CONFIG_BYTES
    content = _content(base, files[path])
    value = strict_json.loads(content, base.path / path, limit, infinity=True)
    return value if isinstance(value, dict) else None


def _bring(
    artifacts: Artifacts, base: Checkpoint, candidate: Candidate, files: Files
) -> list[Problem]:
    """Puts one delta's behaviour into *files*; the first delta that has a thing decides it."""
    problems = []
    there = {file.path: file for file in candidate.manifest.files}
    for path in (TEMPLATE, GENERATION):
        if path not in there:
            continue
        data = artifacts.read_blob(there[path].digest, MAX_CARRIED_FILE_BYTES)
        present = files.get(path)
        if present and present.origin == "delta":
            if present.data != data:
                problems.append(
                    Problem(
                        path, f"{candidate.ref}'s differs; the first delta's is kept", "warning"
                    )
                )
            continue
        if present and digest_of(_content(base, present)) == there[path].digest:
            continue
        files[path] = OutputFile(path, data, "delta")
        verb = "replaces the base's" if present else "is new"
        problems.append(Problem(path, f"{candidate.ref}'s {verb}", "note"))
    problems += _token_names(artifacts, base, candidate, files)
    return problems


def _token_names(
    artifacts: Artifacts, base: Checkpoint, candidate: Candidate, files: Files
) -> list[Problem]:
    """End and pad token, and a chat template inside tokenizer_config.json, as the post has them."""
    post = _post_json(artifacts, candidate.manifest, TOKENIZER_CONFIG)
    if post is None or TOKENIZER_CONFIG not in files:
        return []
    mine = _json(base, files, TOKENIZER_CONFIG) or {}
    parsed = _json(base, files, TOKENIZER)
    known = set(tokenizer.added_tokens(parsed).values()) if parsed else set()
    changed, problems = dict(mine), []
    for key in _TOKEN_NAMES:
        name = post.get(key)
        if type(name) is not str or name == mine.get(key):
            continue
        if name not in known:
            reason = (
                f"{key} {name!r} of {candidate.ref} is no token of this base; the base's is kept"
            )
            problems.append(Problem(TOKENIZER_CONFIG, reason, "warning"))
            continue
        changed[key] = name
    template = post.get("chat_template")
    present = files.get(TEMPLATE)
    if type(template) is str and present is None:
        changed["chat_template"] = template
    elif type(template) is str and present is not None and present.origin == "base":
        # the file wins over the key when transformers loads, so it is the file that must change
        files[TEMPLATE] = OutputFile(TEMPLATE, template.encode(), "delta")
        problems.append(Problem(TEMPLATE, f"{candidate.ref}'s replaces the base's", "note"))
    elif template is not None and present is None:
        reason = f"{candidate.ref}'s chat template is no text; it is left out"
        problems.append(Problem(TOKENIZER_CONFIG, reason, "warning"))
    keys = [key for key in changed if changed[key] != mine.get(key)]
    if keys:
        files[TOKENIZER_CONFIG] = OutputFile(TOKENIZER_CONFIG, _dump(changed), "merged")
        reason = f"{', '.join(keys)} from {candidate.ref}"
        problems.append(Problem(TOKENIZER_CONFIG, reason, "note"))
    return problems


def _post_json(
    artifacts: Artifacts, manifest: Manifest, path: str, limit: int = MAX_CONFIG_BYTES
) -> dict[str, Any] | None:
    for file in manifest.files:
        if file.path == path:
            data = artifacts.read_blob(file.digest, limit)
            value = strict_json.loads(data, path, limit, infinity=True)
            return value if isinstance(value, dict) else None
    return None


def _content(base: Checkpoint, file: OutputFile) -> bytes:
    if file.data is not None:
        return file.data
    return base.read_file(file.path, MAX_CARRIED_FILE_BYTES)


def _dump(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()

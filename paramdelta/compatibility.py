"""May this delta be added to that base? A graded verdict, with all the reasons.

``identical``: the delta's own base. ``compatible``: the weights mean the same. ``adaptable``: rows
of the vocabulary must be extended or left alone. ``incompatible``: at least one reason is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from paramdelta.fingerprint import Fingerprint
from paramdelta.problem import Problem, errors_of
from paramdelta.tokenizer import is_reserved

Verdict = Literal["identical", "compatible", "adaptable", "incompatible"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)  # best first
NAMED = 5  # examples named in one reason; the count is always given


@dataclass(frozen=True, slots=True)
class Comparison:
    verdict: Verdict
    problems: tuple[Problem, ...]


def compare(
    delta_base: Fingerprint,
    delta_post: Fingerprint,
    target: Fingerprint,
    *,
    same_content: bool,
    align: str = "ids",
) -> Comparison:
    """The verdict on adding (post − base) to *target*.

    same_content: the target's weights are the delta's own base, byte for byte.
    """
    problems = [
        *_architecture(delta_base, target),
        *_tokenizer(delta_base, target),
        *_added_tokens(delta_base, target),
        *_post_tokens(delta_base, delta_post, target),
        *_facets(delta_base, target),
    ]
    rows = _rows(delta_post, target)
    problems += rows
    verdict: Verdict = "compatible"
    if errors_of(problems):
        verdict = "incompatible"
    elif same_content:
        verdict = "identical"
    elif rows:
        verdict = "adaptable"
    return Comparison(verdict, tuple(problems))


def _architecture(ours: Fingerprint, theirs: Fingerprint) -> list[Problem]:
    if ours.architecture_hash == theirs.architecture_hash:
        return []
    problems = []
    for field, value in sorted(ours.architecture["fields"].items()):
        other = theirs.architecture["fields"].get(field)
        if value != other:
            reason = f"{value} in the delta's base, {other} in this one"
            problems.append(Problem(f"config.{field}", reason))
    problems += _tables(ours.architecture["tensors"], theirs.architecture["tensors"])
    return problems or [Problem("architecture", "the architecture hashes differ")]


def _tables(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[Problem]:
    missing = [name for name in ours if name not in theirs]
    extra = [name for name in theirs if name not in ours]
    shaped = [name for name in ours if name in theirs and ours[name] != theirs[name]]
    problems = []
    if missing:
        problems.append(Problem("tensors", f"{_named(missing)} not in this base"))
    if extra:
        problems.append(Problem("tensors", f"{_named(extra)} not in the delta's base"))
    if shaped:
        first = shaped[0]
        problems.append(
            Problem(
                "tensors",
                f"{_named(shaped)} of another shape; {first} is {ours[first]} in the delta's base, "
                f"{theirs[first]} in this one",
            )
        )
    return problems


def _named(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{len(names)} tensors ({', '.join(names[:NAMED])}{more})"


def _tokenizer(ours: Fingerprint, theirs: Fingerprint) -> list[Problem]:
    if ours.tokenizer_hash is None or theirs.tokenizer_hash is None:
        if ours.tokenizer_hash is theirs.tokenizer_hash:
            return [Problem("tokenizer", "neither base has one; ids are taken as equal", "note")]
        return [
            Problem(
                "tokenizer",
                "only one of the bases has one, so that its ids cannot be compared",
                "warning",
                remedy="put the tokenizer's files beside the weights",
            )
        ]
    if ours.tokenizer_hash == theirs.tokenizer_hash:
        return []
    return [
        Problem(
            "tokenizer",
            "vocabulary, merges or splitting differ from the delta's base: rows of embedding and "
            "head do not mean the same tokens",
            remedy="apply to a base with the same tokenizer",
        )
    ]


def _added_tokens(ours: Fingerprint, theirs: Fingerprint) -> list[Problem]:
    """By id. A reserved name that was given or changed is a note, a used one a warning."""
    left, right = ours.facets["added_tokens"], theirs.facets["added_tokens"]
    renamed, used, gone = [], [], []
    for index in sorted(set(left) | set(right), key=int):
        before, after = left.get(index), right.get(index)
        if before == after:
            continue
        text = f"{index}: {before or 'none'} → {after or 'none'}"
        if before is None or after is None:
            gone.append(text)
        elif is_reserved(before):
            renamed.append(text)
        else:
            used.append(text)
    problems = []
    if renamed:
        reason = f"{len(renamed)} reserved tokens have other names here ({_some(renamed)})"
        problems.append(Problem("tokenizer.added_tokens", reason, "note"))
    if gone:
        reason = f"{len(gone)} tokens are in one base only ({_some(gone)})"
        problems.append(Problem("tokenizer.added_tokens", reason, "note"))
    if used:
        reason = f"{len(used)} tokens in use have other names here ({_some(used)})"
        problems.append(
            Problem(
                "tokenizer.added_tokens",
                reason,
                "warning",
                remedy="look whether the chat template uses them",
            )
        )
    return problems


def _post_tokens(base: Fingerprint, post: Fingerprint, target: Fingerprint) -> list[Problem]:
    """What the post-training did to its own tokens, which a new base's tokenizer does not know."""
    problems = []
    if post.tokenizer_hash and base.tokenizer_hash and post.tokenizer_hash != base.tokenizer_hash:
        problems.append(
            Problem(
                "tokenizer",
                "the post-training changed vocabulary, merges or splitting; the output keeps this "
                "base's tokenizer, so that some rows may mean other tokens",
                "warning",
                remedy="compare the two tokenizers, or `restore` the post itself",
            )
        )
    before, after = base.facets["added_tokens"], post.facets["added_tokens"]
    here, clashes = target.facets["added_tokens"], []
    for index, name in after.items():
        there = here.get(index)
        # new names beyond this base's own tokens are brought with their rows
        if name in (before.get(index), there) or is_reserved(name) or there is None:
            continue
        clashes.append(f"{index}: {name} in the post, {there} here")
    if clashes:
        reason = f"{len(clashes)} tokens were renamed by the post-training ({_some(clashes)})"
        problems.append(
            Problem(
                "tokenizer.added_tokens",
                reason,
                "warning",
                remedy="look whether the chat template uses them; this base's names are kept",
            )
        )
    return problems


def _some(texts: list[str]) -> str:
    return "; ".join(texts[:NAMED]) + ("; …" if len(texts) > NAMED else "")


def _facets(ours: Fingerprint, theirs: Fingerprint) -> list[Problem]:
    """Settings that do not change what a weight means: told, nothing more."""
    problems = []
    for facet in ("rope", "length", "dtype", "eos"):
        before, after = ours.facets[facet], theirs.facets[facet]
        if before != after:
            reason = f"{_text(before)} in the delta's base, {_text(after)} in this one"
            problems.append(Problem(facet, reason, "note"))
    return problems


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items()) or "none"
    return str(value)


def _rows(post: Fingerprint, target: Fingerprint) -> list[Problem]:
    """Vocabularies of another size than the post's."""
    problems = []
    for name, rows in post.facets["rows"].items():
        there = target.facets["rows"].get(name)
        if there is None or there == rows:
            continue
        what = "will be extended" if rows > there else "has more rows, which stay as they are"
        problems.append(Problem(name, f"{what}: {rows} in the delta, {there} here", "note"))
    return problems

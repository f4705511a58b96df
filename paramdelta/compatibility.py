"""May this delta be added to that base? A graded verdict, with all the reasons.

``identical``: the delta's own base. ``compatible``: the weights mean the same. ``adaptable``: rows
of the vocabulary must be matched, extended or left alone. ``incompatible``: at least one reason is
an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from paramdelta import tokens
from paramdelta.fingerprint import Fingerprint
from paramdelta.problem import Problem, errors_of
from paramdelta.tokens import NAMED, Align

__all__ = ["VERDICTS", "Align", "Comparison", "Verdict", "compare"]

Verdict = Literal["identical", "compatible", "adaptable", "incompatible"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)  # best first


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
    align: Align = "ids",
) -> Comparison:
    """The verdict on adding (post − base) to *target*.

    same_content: the target's weights are the delta's own base, byte for byte. align: rows of the
    vocabulary are matched by id, or by the token's string.
    """
    moved = tokens.tokenizers(delta_base, target, align)
    added = tokens.added(delta_base, delta_post, target, align)
    rows = tokens.rows(delta_base, delta_post, target, moved.matched)
    problems = [
        *_architecture(delta_base, target),
        *([] if same_content else _ties(delta_base, delta_post)),
        *moved.problems,
        *added.problems,
        *_facets(delta_base, target),
        *_behaviour(delta_base, delta_post, target),
        *rows,
    ]
    verdict: Verdict = "compatible"
    if errors_of(problems):
        verdict = "incompatible"
    elif same_content:
        verdict = "identical"
    elif rows or moved.matched or added.matched:
        verdict = "adaptable"
    return Comparison(verdict, tuple(problems))


def _architecture(ours: Fingerprint, theirs: Fingerprint) -> list[Problem]:
    mine, other = ours.architecture, theirs.architecture
    problems = []
    if ours.architecture_hash != theirs.architecture_hash:
        for field in sorted({*mine["fields"], *other["fields"]}):
            problems += _field(field, mine["fields"].get(field), other["fields"].get(field))
        problems += _tables(mine["tensors"], other["tensors"])
        if not problems:
            problems.append(Problem("architecture", "the architecture hashes differ"))
    return problems + _beside(mine["beside"], other["beside"])


def _field(field: str, ours: Any, theirs: Any) -> list[Problem]:
    if ours == theirs:
        return []
    if field == "tied":
        remedy = "use a base whose head is tied as the delta's is"
        return [_tie("the delta's base", ours, "this one", theirs, remedy)]
    if field == "model_type":
        reason = f"computes like {ours} in the delta's base, like {theirs} in this one"
        return [Problem("config.model_type", reason)]
    reason = f"{_text(ours)} in the delta's base, {_text(theirs)} in this one"
    return [Problem(f"config.{field}", reason)]


def _ties(base: Fingerprint, post: Fingerprint) -> list[Problem]:
    before, after = (side.architecture["fields"].get("tied") for side in (base, post))
    remedy = "apply it to its own base only, or `restore` the post"
    return [] if before == after else [_tie("the delta's base", before, "its post", after, remedy)]


def _tie(here: str, ours: Any, there: str, theirs: Any, remedy: str) -> Problem:
    words = {True: "tied to the embedding", False: "a tensor of its own"}
    return Problem(
        "config.tied",
        f"the output head is {words.get(ours, ours)} in {here}, {words.get(theirs, theirs)} in "
        f"{there}: an embedding's change is not a head's, and is never added to one",
        remedy=remedy,
    )


def _tables(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[Problem]:
    problems = _missing(ours, theirs)
    if extra := [name for name in theirs if name not in ours]:
        problems.append(Problem("tensors", f"{_named(extra)} not in the delta's base"))
    return problems


def _missing(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[Problem]:
    problems = []
    if missing := [name for name in ours if name not in theirs]:
        problems.append(Problem("tensors", f"{_named(missing)} not in this base"))
    if shaped := [name for name in ours if name in theirs and ours[name] != theirs[name]]:
        first = shaped[0]
        problems.append(
            Problem(
                "tensors",
                f"{_named(shaped)} of another shape; {first} is {_shape(ours[first])} in the "
                f"delta's base, {_shape(theirs[first])} in this one",
            )
        )
    return problems


def _beside(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[Problem]:
    """Towers and projectors: those that the delta knows must be there, others stay as they are."""
    problems = _missing(ours, theirs)
    if extra := [name for name in theirs if name not in ours]:
        reason = f"{_named(extra)} beside the language model, which the delta leaves as they are"
        problems.append(Problem("tensors", reason, "note"))
    return problems


def _shape(sizes: list[Any]) -> str:
    return f"[{', '.join(map(str, sizes))}]"


def _named(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    what = "tensor" if len(names) == 1 else "tensors"
    return f"{len(names)} {what} ({', '.join(names[:NAMED])}{more})"


def _facets(ours: Fingerprint, theirs: Fingerprint) -> list[Problem]:
    """Settings that do not change what a weight means: told, nothing more."""
    problems = []
    for facet in ("rope", "length", "window", "dtype", "eos", "bos", "pad"):
        before, after = ours.facets[facet], theirs.facets[facet]
        if before == after:
            continue
        reason = f"{_text(before)} in the delta's base, {_text(after)} in this one"
        if isinstance(before, dict):
            keys = [key for key in sorted({*before, *after}) if before.get(key) != after.get(key)]
            changes = [f"{k} {_text(before.get(k))} → {_text(after.get(k))}" for k in keys]
            reason = f"{', '.join(changes)} (the delta's base → this one)"
        problems.append(Problem(facet, reason, "note"))
    return problems


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


def _behaviour(base: Fingerprint, post: Fingerprint, target: Fingerprint) -> list[Problem]:
    """How texts are framed and ended, as the post does it. A frame comes only if it changed it."""
    own, new, here = (side.facets["behaviour"] for side in (base, post, target))
    reason = "the post's differs from this base's and comes with the delta"
    return [
        Problem(f"behaviour.{name}", reason, "note")
        for name, digest in sorted(new.items())
        if digest is not None
        and digest != here[name]
        and not (name == "post_processor" and digest == own[name])
    ]

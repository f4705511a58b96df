"""Whether rows of embedding and head mean the same tokens: tokenizers, added tokens, row counts.

Added tokens are judged by id. Names that say "reserved" or "padding" stand for nobody, so that any
name may take their place. What the post-training added is judged three ways: base, post, target.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from paramdelta.fingerprint import Fingerprint
from paramdelta.problem import Problem

Align = Literal["ids", "tokens"]
NAMED = 5  # examples named in one reason; the count is always given
_BY_STRING = "say --align tokens, which matches rows by the token's string"
_TEMPLATE = "look whether the chat template uses them"
_SUBJECT = "tokenizer.added_tokens"


@dataclass(frozen=True, slots=True)
class Moved:
    """matched: rows must be matched by string, and will be."""

    problems: tuple[Problem, ...] = ()
    matched: bool = False


def tokenizers(ours: Fingerprint, theirs: Fingerprint, align: Align) -> Moved:
    """The core vocabularies, and what turns text into them."""
    if ours.tokenizer_hash is None or theirs.tokenizer_hash is None:
        return Moved((_absent(ours, theirs),))
    if ours.tokenizer_hash == theirs.tokenizer_hash:
        return Moved()
    mine, other = ours.facets, theirs.facets
    if (mine["ids_hash"] is None) != (other["ids_hash"] is None):
        reason = "of files of two kinds (tokenizer.json, or what came before it): ids are taken "
        reason += "as equal, unproved"
        return Moved((Problem("tokenizer", reason, "warning", "save both as tokenizer.json"),))
    if mine["ids_hash"] is not None and mine["ids_hash"] == other["ids_hash"]:
        reason = "the same tokens under the same ids, but merges, normaliser or splitting differ: "
        reason += "a text may become other tokens here"
        return Moved((Problem("tokenizer", reason, "warning", "compare the two tokenizers"),))
    same = mine["vocabulary_hash"] is not None
    same = same and mine["vocabulary_hash"] == other["vocabulary_hash"]
    if same and align == "tokens":
        reason = "the same tokens under other ids: rows are matched by the token's string"
        return Moved((Problem("tokenizer", reason, "note"),), matched=True)
    if same:
        reason = "the same tokens under other ids: rows of embedding and head would be mixed up"
        return Moved((Problem("tokenizer", reason, remedy=_BY_STRING),))
    if align == "tokens" and mine["vocabulary_hash"] is not None:
        reason = (
            "another vocabulary than the delta's base: rows are matched by the token's string, "
        )
        reason += "tokens that only one side has are left alone"
        return Moved((Problem("tokenizer", reason, "warning"),), matched=True)
    reason = (
        "vocabulary, merges or splitting differ from the delta's base: rows of embedding and "
        "head do not mean the same tokens"
    )
    remedy = "apply to a base with the same tokenizer"
    if mine["vocabulary_hash"] is not None:
        remedy += f", or {_BY_STRING}"
    return Moved((Problem("tokenizer", reason, remedy=remedy),))


def _absent(ours: Fingerprint, theirs: Fingerprint) -> Problem:
    if ours.tokenizer_hash is theirs.tokenizer_hash:
        return Problem("tokenizer", "neither base has one; ids are taken as equal", "note")
    return Problem(
        "tokenizer",
        "only one of the bases has one, so that its ids cannot be compared",
        "warning",
        remedy="put the tokenizer's files beside the weights",
    )


class _Names:
    """The added tokens of one side: names by id, and ids by name."""

    def __init__(self, side: Fingerprint) -> None:
        rows: dict[str, list[str]] = side.facets["added_tokens"]
        self.by_id = {int(index): name for index, (name, _) in rows.items()}
        self.used = {int(index) for index, (_, kind) in rows.items() if kind == "named"}
        self.reserved = {int(index) for index, (_, kind) in rows.items() if kind == "reserved"}
        self.ids = {name: index for index, name in self.by_id.items()}

    def free(self, index: int) -> bool:
        """Nobody uses that id: no token, a reserved one, or padding."""
        return index not in self.used


def added(base: Fingerprint, post: Fingerprint, target: Fingerprint, align: Align) -> Moved:
    """Added tokens: the two bases' against each other, then what the post made of its own."""
    problems = _replaced(base, post)
    if None in (base.facets["ids_hash"], target.facets["ids_hash"]):  # not both a tokenizer.json
        return Moved(tuple(problems))
    tables = [side.facets["added_tokens"] for side in (base, post, target)]
    if tables[0] == tables[1] == tables[2]:  # most often so, and queries ask by the thousand
        return Moved(tuple(problems))
    own, new, here = _Names(base), _Names(post), _Names(target)
    by_string = align == "tokens"
    if not by_string:
        problems += _renamed(own, here)
    moved = [_move(index, own, here) for index in sorted(own.used) if _moves(index, own, here)]
    given = _given(own, new, here)
    if by_string:
        problems += _some(moved, "in use, matched by string", "note")
        problems += _some(given["moved"], "of the post-training, matched by string", "note")
        told = "of the post-training on another token's id here"
        problems += _some(given["taken"], told, "warning", _TEMPLATE)
    else:
        problems += _some(moved, "in use under other ids here", "error", _BY_STRING)
        clashes = given["moved"] + given["taken"]
        told = "of the post-training without a place here"
        problems += _some(clashes, told, "error", _BY_STRING)
    problems += _some(given["brought"], "of the post-training, brought with the delta", "note")
    problems += _some(
        given["renamed"],
        "in use, renamed by the post-training",
        "warning",
        f"{_TEMPLATE}; this base's names are kept",
    )
    return Moved(tuple(problems), by_string and bool(moved or given["moved"] or given["taken"]))


def _replaced(base: Fingerprint, post: Fingerprint) -> list[Problem]:
    if not post.tokenizer_hash or not base.tokenizer_hash:
        return []
    if post.tokenizer_hash == base.tokenizer_hash:
        return []
    return [
        Problem(
            "tokenizer",
            "the post-training changed vocabulary, merges or splitting; the output keeps this "
            "base's tokenizer, so that some rows may mean other tokens",
            "warning",
            remedy="compare the two tokenizers, or `restore` the post itself",
        )
    ]


def _renamed(own: _Names, here: _Names) -> list[Problem]:
    """By id. A reserved name that was given or changed is a note, a used one a warning."""
    reserved, used, alone = [], [], []
    for index in sorted({*own.by_id, *here.by_id}):
        before, after = own.by_id.get(index), here.by_id.get(index)
        if before == after or _moves(index, own, here):
            continue
        text = f"{index}: {before or 'none'} → {after or 'none'}"
        if before is None or after is None:
            alone.append(text)
        elif own.free(index) or here.free(index):
            reserved.append(text)
        else:
            used.append(text)
    return [
        *_some(reserved, "in reserve or padding, renamed here", "note"),
        *_some(alone, "in one base only", "note"),
        *_some(used, "in use, renamed here", "warning", _TEMPLATE),
    ]


def _moves(index: int, own: _Names, here: _Names) -> bool:
    """Whether a token in use on both sides has another id here."""
    there = here.ids.get(own.by_id.get(index, ""))
    return there is not None and there != index and index in own.used


def _move(index: int, own: _Names, here: _Names) -> str:
    name = own.by_id[index]
    return f"{name}: {index} → {here.ids[name]}"


def _given(own: _Names, new: _Names, here: _Names) -> dict[str, list[str]]:
    """Names that the post-training gave, by what a new base makes of them.

    brought: the id is free. moved: the name stands elsewhere. renamed: a used token of the delta's
    base, which this base has too. taken: another token in use has the id.
    """
    found: dict[str, list[str]] = {"brought": [], "moved": [], "renamed": [], "taken": []}
    for index in sorted(new.by_id):
        name, there = new.by_id[index], here.by_id.get(index)
        if name in (own.by_id.get(index), there) or index in new.reserved:
            continue
        text = f"{index}: {name} in the post, {there or 'none'} here"
        if index not in new.used and (name in here.ids or not here.free(index)):
            continue  # padding is never looked up: it needs no place of its own
        if name in here.ids:
            found["moved"].append(f"{text}, which has it at {here.ids[name]}")
        elif here.free(index):
            found["brought"].append(f"{index}: {name}")
        else:
            found["taken" if own.free(index) else "renamed"].append(text)
    return found


def _some(
    texts: list[str], what: str, severity: Literal["note", "warning", "error"], remedy: str = ""
) -> list[Problem]:
    """One problem that counts *texts* and names the first of them; none where there are none."""
    if not texts:
        return []
    named = "; ".join(texts[:NAMED]) + ("; …" if len(texts) > NAMED else "")
    count = "1 token" if len(texts) == 1 else f"{len(texts)} tokens"
    return [Problem(_SUBJECT, f"{count} {what} ({named})", severity, remedy)]


def rows(base: Fingerprint, post: Fingerprint, target: Fingerprint, matched: bool) -> list[Problem]:
    """Vocabularies of another size than the post's, tensor by tensor. matched: rows by string."""
    problems = []
    for name, size in sorted(post.facets["rows"].items()):
        there = target.facets["rows"].get(name)
        if there is None or there == size:
            continue
        if matched:
            reason = f"{size} rows in the delta, {there} here, matched by string"
            problems.append(Problem(name, reason, "note"))
        else:
            before = base.facets["rows"].get(name, size)
            problems.append(_row(name, before, size, there, _in_use(base, post)))
    return problems


def _in_use(*sides: Fingerprint) -> int | None:
    counts = [side.facets["tokens"] for side in sides]
    return None if None in counts else max(counts)


def _row(name: str, before: int, size: int, there: int, in_use: int | None) -> Problem:
    sizes = f"{size} in the delta, {there} here"
    if there > size:
        return Problem(name, f"has more rows, which stay as they are: {sizes}", "note")
    if there >= before:
        return Problem(name, f"will be extended: {sizes}", "note")
    if in_use is not None and there >= in_use:
        reason = f"has fewer rows of padding, which are left out: {sizes}, {in_use} tokens in use"
        return Problem(name, reason, "note")
    return Problem(
        name,
        f"lacks rows that the delta changes: {sizes}, {before} in the delta's base",
        remedy="use a base with at least as many rows as the delta's own",
    )

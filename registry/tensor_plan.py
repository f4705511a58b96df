"""Every output tensor from headers alone: what is added to it, what is copied, what has no place.

Every tensor of the base and of every delta ends in the plan or in a Problem.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from paramdelta import fp8
from paramdelta.architecture import is_tied
from paramdelta.dtypes import ARITHMETIC
from paramdelta.errors import UsageError
from paramdelta.logical import LogicalTensor, LogicalView, view
from paramdelta.manifest import Manifest, Product, TensorEntry, Transferred
from paramdelta.problem import Problem
from paramdelta.safetensors_header import TensorInfo
from paramdelta.vocabulary import (
    RowMap,
    TokenMap,
    is_head,
    is_vocabulary_tensor,
    rows_by_id,
    rows_by_token,
)
from registry.alphas import matches
from registry.plan import Action, PlanPart, PlanTensor, PlanTerm


@dataclass(frozen=True, slots=True)
class BaseTensors:
    """The new base: its stored tensors, and what they mean. tied: head and embedding are one."""

    stored: Mapping[str, TensorInfo]
    view: LogicalView
    tied: bool

    @classmethod
    def of(
        cls, stored: Mapping[str, TensorInfo], config: Mapping[str, Any], where: object
    ) -> BaseTensors:
        table = {name: (info.dtype, info.shape) for name, info in stored.items()}
        return cls(stored, view(stored, config, where), is_tied(config, table))

    def is_unused(self, name: str) -> bool:
        """Whether it is the copy of a tied head, which nothing reads."""
        return self.tied and is_head(name)


@dataclass(frozen=True, slots=True)
class Contribution:
    """One delta of a plan. alpha: unless a pattern says otherwise. tokens: how its ids are placed
    in the base's vocabulary; None by id."""

    ref: str
    manifest: Manifest
    alpha: float
    tokens: TokenMap | None = None


def check_tensors(
    manifest: Manifest, base: BaseTensors, tokens: TokenMap | None = None
) -> list[Problem]:
    """What the tensor tables say, beyond the fingerprints: all problems."""
    problems: list[Problem] = []
    for source in manifest.sources:
        target = base.view.find(source.name)
        if target is None:
            if source.kind == "delta":
                problems.append(Problem(source.name, "the base has no such tensor"))
            elif source.dtype in fp8.DTYPES:
                reason = "only the post has it, as eight-bit codes, which do not transfer"
                problems.append(Problem(source.name, reason))
        elif base.is_unused(target.name):
            problems.append(
                Problem(source.name, "tied: the head is the embedding; its copy is left", "note")
            )
        elif source.kind == "delta":
            problems += _check_difference(source, target, tokens, manifest)
        elif source.nonzero and (target.shape, target.info.dtype) != (source.shape, source.dtype):
            problems.append(
                Problem(
                    source.name,
                    f"the delta replaces it by {source.dtype} {list(source.shape)}, the base has "
                    f"{target.info.dtype} {list(target.shape)}",
                )
            )
    return problems


def _check_difference(
    source: Transferred,
    target: LogicalTensor,
    tokens: TokenMap | None,
    manifest: Manifest,
) -> list[Problem]:
    if target.dtype not in ARITHMETIC:
        return [
            Problem(
                source.name,
                f"the base holds it as {target.dtype}, which has no exact addition",
                remedy="use a base saved as bfloat16, float16 or float32",
            )
        ]
    rows = f"{list(source.shape)} in the delta, {list(target.shape)} in the base"
    vocabulary = is_vocabulary_tensor(source.name)
    if source.shape[1:] != target.shape[1:] or not (vocabulary or source.shape == target.shape):
        return [Problem(source.name, f"shape mismatch: {rows}")]
    if tokens is not None and vocabulary:
        return [Problem(source.name, f"rows placed by token: {rows}", "note")]
    if source.shape == target.shape:
        return []
    if target.shape[0] > source.shape[0]:
        return [Problem(source.name, f"the base has more rows, left as they are: {rows}", "note")]
    if fresh_row(source) < source.shape[0]:
        return [Problem(source.name, f"extended by the delta's own rows: {rows}", "note")]
    known = manifest.post.fingerprint.get("facets", {}).get("tokens")
    if type(known) is int and known <= target.shape[0]:
        reason = f"rows of the delta without a token (padding) are left out: {rows}"
        return [Problem(source.name, reason, "note")]
    return [Problem(source.name, f"the base lacks rows that the delta changes: {rows}")]


def fresh_row(source: Transferred) -> int:
    """The first row that the delta's own base had not; the number of rows if there is none."""
    if isinstance(source, Product) or source.base_shape is None:
        return source.shape[0] if source.shape else 0
    return min(source.base_shape[0], source.shape[0]) if source.shape else 0


def plan_tensors(
    contributions: Sequence[Contribution],
    base: BaseTensors,
    dtype: str | None,
    alpha_for: Sequence[tuple[str, float]],
    problems: list[Problem],
) -> tuple[tuple[PlanTensor, ...], tuple[str, ...]]:
    """(every output tensor, sorted by name; the base's tensors that the output has not).

    What cannot be done, and what must be said, is added to *problems*.
    """
    touching = _touching(contributions, base, alpha_for)
    known = {
        target.name
        for part in contributions
        for source in part.manifest.sources
        if (target := base.view.find(source.name))
    }
    dropped = sorted(base.view.scales | {name for name in base.stored if base.is_unused(name)})
    problems += _dropped(base, dropped)
    parts: dict[str, list[LogicalTensor]] = {}
    for tensor in base.view.tensors.values():
        if tensor.whole.name not in dropped:
            parts.setdefault(tensor.whole.name, []).append(tensor)
    made = []
    for name, pieces in sorted(parts.items()):
        pieces.sort(key=lambda piece: piece.start)
        made.append(_tensor(base.stored[name], pieces, touching, dtype, problems))
        problems += [
            Problem(piece.name, "not in any delta; copied from the base", "note")
            for piece in pieces
            if piece.name not in known
        ]
    new = sorted(name for name in touching if base.view.find(name) is None)
    made += [_new_tensor(name, touching[name], problems) for name in new]
    return tuple(sorted(made, key=lambda tensor: tensor.name)), tuple(dropped)


def _dropped(base: BaseTensors, names: Sequence[str]) -> list[Problem]:
    problems = []
    for name in names:
        if name in base.view.scales:
            reason = "scales of eight-bit numbers; the output has their bfloat16 values"
        else:
            reason = "the copy of a tied head; the output has the embedding only"
        problems.append(Problem(name, reason, "note"))
    return problems


def _touching(
    contributions: Sequence[Contribution],
    base: BaseTensors,
    alpha_for: Sequence[tuple[str, float]],
) -> dict[str, list[PlanTerm]]:
    """What changes each of the base's logical tensors, or brings one, by its name."""
    found: dict[str, list[PlanTerm]] = {}
    used: set[str] = set()
    for index, part in enumerate(contributions):
        entries = {entry.name: entry for entry in part.manifest.tensors}
        for source in part.manifest.sources:
            alpha = part.alpha
            for pattern, value in alpha_for:
                if matches(pattern, part.ref, source.name):
                    alpha = value
                    used.add(pattern)
            target = base.view.find(source.name)
            name = target.name if target else source.name
            if target and base.is_unused(target.name):
                continue
            if source.nonzero or source.kind == "added":
                rows = _rows(source, target, part.tokens)
                factors = None
                if isinstance(source, Product):
                    factors = (entries[source.left], entries[source.right])
                found.setdefault(name, []).append(PlanTerm(index, alpha, source, rows, factors))
    for pattern, _ in alpha_for:
        if pattern not in used:
            raise UsageError(f"--alpha-for {pattern!r} matches no tensor of the deltas")
    return found


def _rows(
    source: Transferred, target: LogicalTensor | None, tokens: TokenMap | None
) -> RowMap | None:
    """Where its rows go; None where base and delta agree row by row."""
    if target is None or not source.shape or not is_vocabulary_tensor(source.name):
        return None
    here, there, fresh = target.shape[0], source.shape[0], fresh_row(source)
    if tokens is not None:
        return rows_by_token(tokens, here, there, fresh)
    return None if here == there == fresh else rows_by_id(here, there, fresh)


def vocabulary_rows(source: Transferred, target: LogicalTensor, tokens: TokenMap | None) -> int:
    """The rows that the output has of a vocabulary tensor."""
    rows = _rows(source, target, tokens)
    return rows.rows if rows else target.shape[0]


def _tensor(
    info: TensorInfo,
    pieces: list[LogicalTensor],
    touching: Mapping[str, list[PlanTerm]],
    dtype: str | None,
    problems: list[Problem],
) -> PlanTensor:
    """One of the base's stored tensors with what is added to its parts."""
    name = info.name
    terms = [term for piece in pieces for term in touching.get(piece.name, ())]
    whole = [term for term in terms if term.source.kind != "delta"]
    if whole:
        return _replaced(name, pieces[0], terms, whole, problems)
    own = pieces[0].dtype
    out = dtype if dtype and own in ARITHMETIC else own
    if own != info.dtype:
        problems.append(Problem(name, f"{info.dtype} in the base, {out} in the output", "note"))
    parts = []
    for piece in pieces:
        mine = tuple(touching.get(piece.name, ()))
        parts.append(PlanPart(_shape(piece, mine, problems), piece, mine))
    shape = parts[0].shape if len(parts) == 1 else info.shape
    return PlanTensor(name, "add" if terms else "copy", out, shape, name, tuple(parts))


def _shape(
    piece: LogicalTensor, terms: tuple[PlanTerm, ...], problems: list[Problem]
) -> tuple[int, ...]:
    mapped = [term for term in terms if term.rows is not None]
    fresh = [term for term in mapped if fresh_row(term.source) < term.source.shape[0]]
    if len(fresh) > 1:
        problems.append(Problem(piece.name, "two deltas bring rows of new tokens; apply one"))
    rows = max([term.rows.rows for term in mapped if term.rows], default=0)
    return (max(rows, piece.shape[0]), *piece.shape[1:]) if rows else piece.shape


def _replaced(
    name: str,
    piece: LogicalTensor,
    terms: list[PlanTerm],
    whole: list[PlanTerm],
    problems: list[Problem],
) -> PlanTensor:
    sources = [term.source for term in whole if isinstance(term.source, TensorEntry)]
    if len({source.stream.blob for source in sources}) > 1:
        problems.append(Problem(name, "two deltas replace it by different content"))
    if len(whole) < len(terms):
        problems.append(Problem(name, "one delta replaces it, another adds to it"))
    problems.append(Problem(name, "replaced by the post's content; alpha plays no part", "note"))
    entry = sources[0]
    raw = LogicalTensor(name, piece.info.dtype, piece.shape, piece.info, piece.whole, piece.start)
    part = PlanPart(entry.shape, raw, (whole[0],))
    return PlanTensor(name, "replace", entry.dtype, entry.shape, name, (part,))


def _new_tensor(name: str, terms: list[PlanTerm], problems: list[Problem]) -> PlanTensor:
    """A tensor that only the post has; a difference without a base is a problem already."""
    action: Action = "new"
    source = terms[0].source
    blobs = {t.source.stream.blob for t in terms if isinstance(t.source, TensorEntry)}
    if len(blobs) > 1:
        problems.append(Problem(name, "two deltas bring it with different content"))
    problems.append(Problem(name, "brought by the delta; alpha plays no part", "note"))
    part = PlanPart(source.shape, None, (terms[0],))
    return PlanTensor(name, action, source.dtype, source.shape, None, (part,))

"""References and compatibility in, a plan out. No arithmetic, no weights read.

Every tensor of the base and of every delta ends in the plan or in a Problem.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from paramdelta.checkpoint import Checkpoint
from paramdelta.compatibility import VERDICTS, Comparison, Verdict, compare
from paramdelta.delta import RULE
from paramdelta.dtypes import ARITHMETIC
from paramdelta.errors import IncompatibleError, UsageError
from paramdelta.fingerprint import Fingerprint
from paramdelta.manifest import Manifest, TensorEntry
from paramdelta.naming import canonical_name
from paramdelta.problem import Problem, errors_of
from paramdelta.safetensors_header import TensorInfo
from paramdelta.vocabulary import is_vocabulary_tensor
from registry.plan import Action, OutputFile, Plan, PlanBase, PlanDelta, PlanTensor, PlanTerm

METHODS = ("linear",)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A release with its manifest, and the alpha asked for."""

    ref: str
    manifest: Manifest
    alpha: float


@dataclass(frozen=True, slots=True)
class Options:
    """How to apply. dtype: of the output's floating-point tensors, None as the base has them."""

    method: str = "linear"
    options: Mapping[str, str] | None = None
    alpha_for: Sequence[tuple[str, float]] = ()
    dtype: str | None = None
    device: str = "auto"
    max_shard_size: int | None = None
    keep_base_behaviour: bool = False


def judge(manifest: Manifest, target: Fingerprint, same_content: bool) -> Comparison:
    """Does this delta fit a base of this fingerprint, and why."""
    return compare(
        Fingerprint.from_json(manifest.base.fingerprint),
        Fingerprint.from_json(manifest.post.fingerprint),
        target,
        same_content=same_content,
    )


def check_tensors(manifest: Manifest, base: Mapping[str, TensorInfo]) -> list[Problem]:
    """What the tensor tables say, beyond the fingerprints: all problems."""
    problems: list[Problem] = []
    name_of = target_names(base)
    for entry in manifest.tensors:
        target = base.get(name_of(entry.name))
        if target is None:
            if entry.kind != "added":
                problems.append(Problem(entry.name, "the base has no such tensor"))
        elif entry.kind == "delta":
            problems += _check_delta(entry, target)
        elif entry.nonzero and (target.shape, target.dtype) != (entry.shape, entry.dtype):
            problems.append(
                Problem(
                    entry.name,
                    f"the delta replaces it by {entry.dtype} {list(entry.shape)}, the base has "
                    f"{target.dtype} {list(target.shape)}",
                )
            )
    return problems


def target_names(base: Mapping[str, TensorInfo]) -> Callable[[str], str]:
    """The base's name for a delta's tensor: the same, or with a multimodal wrapper's prefix."""
    wrapped = {canonical_name(name): name for name in base}

    def name_of(name: str) -> str:
        return name if name in base else wrapped.get(canonical_name(name), name)

    return name_of


def _check_delta(entry: TensorEntry, target: TensorInfo) -> list[Problem]:
    if target.dtype not in ARITHMETIC:
        return [
            Problem(
                entry.name,
                f"the base holds it as {target.dtype}, which has no exact addition",
                remedy="use a base saved as bfloat16, float16 or float32",
            )
        ]
    if entry.shape == target.shape:
        return []
    rows = f"{list(entry.shape)} in the delta, {list(target.shape)} in the base"
    if entry.shape[1:] != target.shape[1:] or not is_vocabulary_tensor(entry.name):
        return [Problem(entry.name, f"shape mismatch: {rows}")]
    if target.shape[0] > entry.shape[0]:
        return [Problem(entry.name, f"the base has more rows, left as they are: {rows}", "note")]
    if entry.base_shape is not None and target.shape[0] < entry.base_shape[0]:
        return [Problem(entry.name, f"the base lacks rows that the delta changes: {rows}")]
    return [Problem(entry.name, f"extended by the delta's own rows: {rows}", "note")]


def resolve(
    candidates: Sequence[Candidate],
    base: Checkpoint,
    base_ref: PlanBase,
    fingerprint: Fingerprint,
    options: Options,
    files: tuple[Sequence[OutputFile], Sequence[Problem]] = ((), ()),
) -> Plan:
    """The plan of applying *candidates* to *base*.

    IncompatibleError with all problems if one of them is an error; UsageError on options.
    files: what lies beside the weights, decided by the caller, and what is to be said of it.
    """
    _check_options(options)
    ordered = sorted(candidates, key=lambda c: (c.manifest.digest, c.alpha))
    problems: list[Problem] = list(base.left_out) + list(files[1])
    verdict: Verdict = "identical"
    for candidate in ordered:
        same = candidate.manifest.base.content_digest == base_ref.content_digest
        found = judge(candidate.manifest, fingerprint, same)
        verdict = VERDICTS[max(VERDICTS.index(verdict), VERDICTS.index(found.verdict))]
        problems += found.problems
        problems += check_tensors(candidate.manifest, base.tensors)
        problems += _about_delta(candidate)
    problems = list(dict.fromkeys(problems))
    tensors = _tensors(ordered, base, options, problems)
    if errors := errors_of(problems):
        raise IncompatibleError(
            f"{', '.join(c.ref for c in candidates)} does not fit {base_ref.ref}: "
            f"{len(errors)} problem{'s' if len(errors) > 1 else ''}",
            problems=problems,
        )
    return Plan(
        base=base_ref,
        deltas=tuple(PlanDelta(c.ref, c.manifest.digest, c.alpha) for c in ordered),
        method=options.method,
        options=dict(options.options or {}),
        alpha_for=tuple(options.alpha_for),
        rule=RULE,
        dtype=options.dtype,
        device=options.device,
        verdict=verdict,
        problems=tuple(problems),
        tensors=tensors,
        files=tuple(files[0]),
        max_shard_size=options.max_shard_size,
        keep_base_behaviour=options.keep_base_behaviour,
    )


def _check_options(options: Options) -> None:
    if options.method not in METHODS:
        raise UsageError(
            f"unknown method {options.method!r}", remedy=f"one of: {', '.join(METHODS)}"
        )
    if options.options:
        raise UsageError(
            f"method {options.method} has no options", subject=", ".join(options.options)
        )
    if options.dtype is not None and options.dtype not in ARITHMETIC:
        raise UsageError(f"unknown dtype {options.dtype!r}", remedy=f"one of: {ARITHMETIC}")
    if options.max_shard_size is not None and options.max_shard_size < 1:
        raise UsageError("the largest shard size must be at least one byte")


def _about_delta(candidate: Candidate) -> list[Problem]:
    """What the manifest itself gives reason to say."""
    manifest, problems = candidate.manifest, []
    nonfinite = [entry.name for entry in manifest.tensors if entry.nonfinite]
    if nonfinite:
        problems.append(
            Problem(
                nonfinite[0],
                f"{candidate.ref} holds NaN or infinite elements in {len(nonfinite)} tensors",
                "warning",
            )
        )
    problems += [
        Problem(
            entry.name, f"removed by {candidate.ref}'s post-training; the base's is kept", "note"
        )
        for entry in manifest.removed
    ]
    return problems


def _tensors(
    candidates: Sequence[Candidate], base: Checkpoint, options: Options, problems: list[Problem]
) -> tuple[PlanTensor, ...]:
    """Every output tensor, sorted by name; what cannot be done is added to *problems*."""
    touching: dict[str, list[PlanTerm]] = {}
    used: set[str] = set()
    name_of = target_names(base.tensors)
    for index, candidate in enumerate(candidates):
        for entry in candidate.manifest.tensors:
            alpha = candidate.alpha
            for pattern, value in options.alpha_for:
                if fnmatch.fnmatchcase(entry.name, f"*{pattern}*"):
                    alpha = value
                    used.add(pattern)
            if entry.nonzero or entry.kind == "added":
                touching.setdefault(name_of(entry.name), []).append(PlanTerm(index, alpha, entry))
    for pattern, _ in options.alpha_for:
        if pattern not in used:
            raise UsageError(f"--alpha-for {pattern!r} matches no tensor of the deltas")
    known = {name_of(entry.name) for c in candidates for entry in c.manifest.tensors}
    tensors = []
    for name in sorted(set(base.tensors) | set(touching)):
        info = base.tensors.get(name)
        tensors.append(_tensor(name, info, touching.get(name, []), options.dtype, problems))
        if info is not None and name not in known:
            problems.append(Problem(name, "not in any delta; copied from the base", "note"))
    return tuple(tensors)


def _tensor(
    name: str,
    info: TensorInfo | None,
    terms: list[PlanTerm],
    dtype: str | None,
    problems: list[Problem],
) -> PlanTensor:
    whole = [term for term in terms if term.entry.kind != "delta"]
    if whole and len({term.entry.post_digest for term in whole}) > 1:
        problems.append(Problem(name, "two deltas replace it by different content"))
    if whole:
        if len(whole) < len(terms):
            problems.append(Problem(name, "one delta replaces it, another adds to it"))
        entry = whole[0].entry
        action: Action = "new" if info is None else "replace"
        note = "brought by the delta" if info is None else "replaced by the post's content"
        problems.append(Problem(name, f"{note}; alpha plays no part", "note"))
        return PlanTensor(
            name, action, entry.dtype, entry.shape, name if info else None, (whole[0],)
        )
    if info is None:  # a delta of a tensor that the base lacks: already a problem
        entry = terms[0].entry
        return PlanTensor(name, "new", entry.dtype, entry.shape, None, tuple(terms))
    out = dtype if dtype and info.dtype in ARITHMETIC else info.dtype
    shape = info.shape
    longer = [term for term in terms if term.entry.shape[:1] > shape[:1]]
    if longer:
        shape = max(term.entry.shape for term in longer)
        if len(longer) > 1:
            problems.append(Problem(name, "two deltas extend the vocabulary; apply one of them"))
    return PlanTensor(name, "add" if terms else "copy", out, shape, name, tuple(terms))

"""References and compatibility in, a plan out. No arithmetic, no weights read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from paramdelta.compatibility import VERDICTS, Comparison, Verdict, compare
from paramdelta.delta import RULE
from paramdelta.dtypes import ARITHMETIC
from paramdelta.errors import IncompatibleError, UsageError
from paramdelta.fingerprint import Fingerprint
from paramdelta.manifest import Manifest
from paramdelta.methods import DEFAULT, METHODS, parse_options
from paramdelta.problem import Problem, errors_of
from registry.plan import Align, Change, OutputFile, Plan, PlanBase, PlanDelta
from registry.tensor_plan import BaseTensors, Contribution, check_tensors, plan_tensors


@dataclass(frozen=True, slots=True)
class Options:
    """How to apply. dtype: of the output's floating-point tensors, None as the base has them."""

    method: str = DEFAULT
    options: Mapping[str, str] | None = None
    alpha_for: Sequence[tuple[str, float]] = ()
    dtype: str | None = None
    device: str = "auto"
    max_shard_size: int | None = None
    keep_base_behaviour: bool = False
    align: Align = "ids"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What lies beside the weights, and what is to be said of it: the caller decides."""

    files: Sequence[OutputFile] = ()
    changes: Sequence[Change] = ()
    problems: Sequence[Problem] = ()


def parse_align(text: str) -> Align:
    for align in get_args(Align):
        if align == text:
            known: Align = align
            return known
    raise UsageError(f"unknown alignment {text!r}", remedy=f"one of: {', '.join(get_args(Align))}")


def judge(
    manifest: Manifest, target: Fingerprint, same_content: bool, align: Align = "ids"
) -> Comparison:
    """Does this delta fit a base of this fingerprint, and why."""
    return compare(
        Fingerprint.from_json(manifest.base.fingerprint),
        Fingerprint.from_json(manifest.post.fingerprint),
        target,
        same_content=same_content,
        align=align,
    )


def resolve(
    candidates: Sequence[Contribution],
    base: BaseTensors,
    base_ref: PlanBase,
    fingerprint: Fingerprint,
    options: Options,
    beside: Surroundings,
) -> Plan:
    """The plan of applying *candidates* to *base*.

    IncompatibleError with all problems if one of them is an error; UsageError on options.
    """
    canonical = _check_options(options, [c.alpha for c in candidates])
    ordered = sorted(candidates, key=lambda c: (c.manifest.digest, c.alpha))
    problems: list[Problem] = list(beside.problems)
    verdict: Verdict = "identical"
    for candidate in ordered:
        same = candidate.manifest.base.content_digest == base_ref.content_digest
        found = judge(candidate.manifest, fingerprint, same, options.align)
        verdict = VERDICTS[max(VERDICTS.index(verdict), VERDICTS.index(found.verdict))]
        # what really comes with the delta is in the surroundings, file by file
        problems += [p for p in found.problems if not p.subject.startswith("behaviour.")]
        problems += check_tensors(candidate.manifest, base, candidate.tokens)
        problems += _about_delta(candidate)
    problems += _about_method(options)
    tensors, dropped = plan_tensors(ordered, base, options.dtype, options.alpha_for, problems)
    problems = list(dict.fromkeys(problems))
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
        options=canonical,
        alpha_for=tuple(options.alpha_for),
        rule=RULE,
        dtype=options.dtype,
        device=options.device,
        verdict=verdict,
        problems=tuple(problems),
        tensors=tensors,
        files=tuple(beside.files),
        max_shard_size=options.max_shard_size,
        keep_base_behaviour=options.keep_base_behaviour,
        align=options.align,
        dropped=dropped,
        behaviour=tuple(beside.changes),
    )


def _check_options(options: Options, alphas: Sequence[float]) -> dict[str, str]:
    """The method's options in full, their defaults written out."""
    found = parse_options(options.method, options.options or {}, alphas)
    for _, alpha in options.alpha_for:
        parse_options(options.method, found, [alpha])
    if options.dtype is not None and options.dtype not in ARITHMETIC:
        raise UsageError(f"unknown dtype {options.dtype!r}", remedy=f"one of: {ARITHMETIC}")
    if options.max_shard_size is not None and options.max_shard_size < 1:
        raise UsageError("the largest shard size must be at least one byte")
    return found


def _about_method(options: Options) -> list[Problem]:
    if METHODS[options.method].merge is None or options.device == "cpu":
        return []
    reason = f"{options.method} merges on the CPU; {options.device} only adds what it has made"
    return [Problem(f"method {options.method}", reason, "note")]


def _about_delta(candidate: Contribution) -> list[Problem]:
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

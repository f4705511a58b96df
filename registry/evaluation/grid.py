"""The points of a sweep: which deltas take which alpha."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from paramdelta.errors import UsageError
from paramdelta.limits import MAX_SWEEP_POINTS
from registry.references import parse_alpha

_REMEDY = "write FIRST:LAST:STEP, such as 0:2:0.25, or numbers such as 0,0.5,1"


@dataclass(frozen=True, slots=True)
class Point:
    """One model of a sweep. deltas: references with their coefficients."""

    alpha: float
    beta: float | None
    deltas: tuple[str, ...]


def parse_grid(text: str) -> tuple[float, ...]:
    """``0:2:0.25`` (both ends included, where the step meets the last), ``0,0.5,1`` or one number.

    Steps are counted in decimals, so no point is 0.30000000000000004. UsageError.
    """
    if ":" not in text:
        found = [parse_alpha(part.strip()) for part in text.split(",")]
    else:
        parts = text.split(":")
        for part in parts:
            parse_alpha(part)  # its words are better than those of Decimal
        try:
            first, last, step = (Decimal(part) for part in parts)
        except (ValueError, InvalidOperation):
            raise UsageError(f"malformed grid {text[:80]!r}", remedy=_REMEDY) from None
        if step <= 0 or last < first:
            raise UsageError(f"no points in {text[:80]!r}", remedy=_REMEDY)
        if (last - first) / step >= MAX_SWEEP_POINTS:
            raise UsageError(f"more than {MAX_SWEEP_POINTS} points in {text[:80]!r}")
        count = int((last - first) / step) + 1
        found = [parse_alpha(f"{first + i * step:f}") for i in range(count)]
    if len(set(found)) != len(found):
        raise UsageError(f"a point twice in {text[:80]!r}")
    return tuple(found)


def points_of(
    deltas: Sequence[str], alphas: Sequence[float], betas: Sequence[float] | None
) -> list[Point]:
    """Deltas with a coefficient of their own keep it. The others take alpha; with betas there must
    be two others, and the second takes beta. UsageError."""
    free = [place for place, text in enumerate(deltas) if not _has_alpha(text)]
    if not free:
        raise UsageError(
            "every delta has a fixed coefficient", remedy="leave it out where --alphas is to apply"
        )
    if betas is not None and len(free) != 2:
        raise UsageError(
            f"--betas needs two deltas without a coefficient, not {len(free)}",
            remedy="fix the others: NAME:0.5",
        )
    if len(alphas) * len(betas or [0.0]) > MAX_SWEEP_POINTS:
        raise UsageError(f"more than {MAX_SWEEP_POINTS} points")

    def point(alpha: float, beta: float | None) -> Point:
        taken = dict.fromkeys(free, alpha)
        if beta is not None:
            taken[free[1]] = beta
        said = [
            f"{text}:{taken[place]!r}" if place in taken else text
            for place, text in enumerate(deltas)
        ]
        return Point(alpha, beta, tuple(said))

    if betas is None:
        return [point(alpha, None) for alpha in alphas]
    return [point(alpha, beta) for alpha in alphas for beta in betas]


def _has_alpha(text: str) -> bool:
    return ":" in text.removeprefix("sha256:")

"""Is this base the delta's own, saved another way? From value digests and sketches, no weights.

A content digest knows only the very same tensors. Value digests see through dtypes, shards and
wrappers (``paramdelta.sketch.value_digest``); where rounding changed the values, how far the
sketches are apart tells rounding from training.
"""

from __future__ import annotations

from dataclasses import dataclass

from paramdelta.problem import Problem
from registry.records import BaseValues

NAMED = 5  # tensors named in a reason; the count is always given

# Root mean square of the relative error of rounding to nearest: at most 2^-p/√3 with p significant
# bits. Half precision has 11 but few exponents: values of bfloat16 are exact in it but for those
# below 2^-14, whose error is tiny beside the rest.
_ROUNDING = {
    ("F32", "BF16"): 2.0**-8 / 3**0.5,
    ("F16", "BF16"): 2.0**-8 / 3**0.5,
    ("F32", "F16"): 2.0**-11 / 3**0.5,
    ("BF16", "F16"): 1e-5,
}


@dataclass(frozen=True, slots=True)
class Likeness:
    """What a base has of the delta's own. problem: to be told, None where they are just two bases.

    same_values: every tensor of the own base is there, value by value.
    """

    same_values: bool
    problem: Problem | None


def likeness(own: BaseValues, other: BaseValues, distance: float | None) -> Likeness:
    """distance: ‖other − own‖ / ‖own‖, None if unknown."""
    values, dtype = other.value_digests, other.dtype
    whose = f"{own.name}, the delta's own base"
    unlike = sorted(n for n, value in own.value_digests.items() if values.get(n) != value)
    extra = len(values.keys() - own.value_digests.keys())
    if not unlike:
        return Likeness(True, _note(f"the same values as {whose}{_how(own, dtype, extra)}"))
    rounding = _ROUNDING.get((own.dtype, dtype), 0.0)
    if distance is not None and distance <= rounding:
        reason = f"looks like {whose}, saved as {dtype}: the values differ by {distance:.1e} of "
        return Likeness(False, _note(f"{reason}their size, as rounding alone does"))
    total = len(own.value_digests)
    if 2 * len(unlike) <= total:
        named = ", ".join(unlike[:NAMED]) + (", …" if len(unlike) > NAMED else "")
        reason = f"{len(unlike)} of {total} tensors differ from {whose}: {named}"
        return Likeness(False, _note(f"{reason}; the others have the same values"))
    return Likeness(False, None)


def _how(own: BaseValues, dtype: str, extra: int) -> str:
    """What differs all the same, as far as it is known."""
    ways = []
    if dtype != own.dtype:
        ways.append(f"saved as {dtype}")
    if extra:
        ways.append(f"with {extra} more tensor{'s' if extra > 1 else ''} beside them")
    return ", " + " ".join(ways) if ways else ", saved under other names, in other dtypes or fused"


def _note(reason: str) -> Problem:
    return Problem("content", reason, "note")

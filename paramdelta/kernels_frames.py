"""A whole frame of the range coder in one call: taken apart, decoded, and added. See codecs.rans.

What a stranger's frame promises is looked at before anything is read or written by it, as
RansDecoder.opened does it, which also says what is wrong.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from paramdelta import kernels_rans, kernels_rans_avx512
from paramdelta.dtypes import Bits
from paramdelta.kernels_numba import _sum, scaled_sum
from paramdelta.kernels_rans import LOW, PAD, RARE_PAD, WORD, checksum

_HEAD = 4  # words
_HALF = np.uint32(16)
_HALVES = np.uint32(0xFFFF)


@njit(inline="always")
def _classes(payload: Bits, count: Any, bits: Any, known: Any, classes: Bits) -> Any:
    """*count* classes of so many bits each; where the states begin, 0 if a class is not known."""
    if not bits:
        for i in range(count):
            classes[i] = np.uint8(0)
        return _HEAD
    end = _HEAD + -(-count * bits // 32)
    mask, worst = np.uint32((1 << bits) - 1), np.uint32(0)
    for i in range((end - _HEAD) * 32 // bits):
        place = i * bits
        found = (payload[_HEAD + place // 32] >> np.uint32(place % 32)) & mask
        if i < count:
            classes[i] = found
            worst = max(worst, found)
        elif found:
            return 0
    return end if worst < known else 0


@njit(inline="always")
def _states(payload: Bits, at: Any, states: Bits) -> Any:
    """Whether all are in their range."""
    sound = True
    for lane in range(states.size):
        low, high = payload[at + 2 * lane], payload[at + 2 * lane + 1]
        state = np.uint64(high) << WORD | np.uint64(low)
        states[lane] = state
        sound = sound and state >= LOW and np.int64(high) < 1 << 31
    return sound


@njit(inline="always")
def _copy(source: Bits, to: Bits) -> None:
    """A loop: numba's own assignment could ask for memory."""
    for i in range(source.size):
        to[i] = source[i]


@njit(inline="always")
def _finish(rule: Any, alpha: Any, base: Bits, out: Bits) -> Any:
    """What becomes of elements that are decoded; returns how many of them are not the base's then.

    rule: 0: they stay, and base is not looked at. 1: bfloat16, added to base; 2: times alpha.
    """
    changed = np.uint32(0)  # a wider sum would take twice the time
    if rule == 1:
        for i in range(out.size):
            found = _sum(base[i], out[i])
            changed = np.uint32(changed + np.uint32(found != base[i]))
            out[i] = found
    elif rule == 2:
        for i in range(out.size):
            found = scaled_sum(base[i], alpha, out[i])
            changed = np.uint32(changed + np.uint32(found != base[i]))
            out[i] = found
    return np.int64(changed)


def _frame_by(decode: Any) -> Any:
    @njit(nogil=True, cache=True)
    def frame(
        payload: Bits, tables: Bits, known: int, class_bits: int, unit: int, bits: int,
        listed: int, states: Bits, classes: Bits, words: Bits, rare: Bits, last: Bits,
        places: Bits, base: Bits, alpha: float, rule: int, out: Bits,
    ) -> tuple[int, int]:  # fmt: skip
        """Fills *out*; returns 1 if the frame is sound, and how many elements are not the base's.

        payload: as uint32. known: classes; listed: 1 if there is a table of escapes. rule: what
        becomes of the elements, see _finish. states: one a lane. Scratch: classes (one more than
        units), words (payload.size + PAD), rare and last (out.size + RARE_PAD), places (out.size +
        1).
        """
        count, escapes = np.int64(payload[1]), np.int64(payload[2])
        plain = np.int64(payload[3])
        units = -(-out.size // unit)
        if escapes > out.size or plain > escapes or count > out.size + escapes:
            return 0, 0
        at = _HEAD + -(-units * class_bits // 32)
        body = at + 2 * states.size
        if (escapes and not listed) or body + count + (plain + 1) // 2 != payload.size:
            return 0, 0
        if np.uint32(checksum(payload[1:])) != payload[0]:
            return 0, 0
        if not _classes(payload, units, class_bits, known, classes):
            return 0, 0
        if not _states(payload, at, states):
            return 0, 0
        _copy(payload[body : body + count], words)
        words[count : count + PAD] = 0
        used = np.int64(0)
        if escapes:
            for i in range(plain):
                pair = payload[body + count + i // 2]
                last[i] = np.uint16((pair >> (_HALF * np.uint32(i % 2))) & _HALVES)
            last[plain : plain + RARE_PAD] = 0
            classes[units] = 0  # they are one unit, whose table is the last one
            used, found = decode(
                words[: count + PAD], states, tables[tables.shape[0] - 1 :], classes[units:][:1],
                escapes, bits, last[: plain + RARE_PAD], places, rare[:escapes],
            )  # fmt: skip
            if used < 0 or found != plain:
                return 0, 0
        more, found = decode(
            words[used : count + PAD], states, tables, classes[:units], unit, bits,
            rare[: escapes + RARE_PAD], places, out,
        )  # fmt: skip
        if more < 0 or found != escapes or used + more != count:
            return 0, 0
        for lane in range(states.size):
            if states[lane] != LOW:
                return 0, 0
        return 1, _finish(rule, alpha, base, out)

    return frame


scalar = _frame_by(kernels_rans.decode)
vectors = _frame_by(kernels_rans_avx512.decode)

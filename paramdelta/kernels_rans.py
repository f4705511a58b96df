"""The range coder's loops, compiled. See codecs.rans; codecs.rans_numpy gives the same bits.

Some states ("lanes") take turns, two elements each, and share one stream of 32-bit words. No branch
depends on the data, so a symbol costs the same whatever it is. Indices are unsigned: numba counts
negative ones from the end, which would cost a third of the speed.
"""

from __future__ import annotations

from typing import Any

import llvmlite.ir as ir
import numpy as np
from numba import njit, types
from numba.extending import intrinsic

from paramdelta.dtypes import Bits

PAD = 64  # words after those of a frame that a decoder may look at, but not use
RARE_PAD = 128  # likewise of the escapes' values
LOW = np.uint64(1 << 31)  # a state below takes in another word
WORD = np.uint64(32)


@intrinsic
def _high(context: Any, left: Any, right: Any) -> Any:
    """The upper 64 of the 128 bits of a product."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        wide = ir.IntType(128)
        product = builder.mul(*(builder.zext(value, wide) for value in arguments))
        return builder.trunc(builder.lshr(product, wide(64)), ir.IntType(64))

    return types.uint64(types.uint64, types.uint64), generate


# -- decoding -----------------------------------------------------------------------------


@njit(inline="always")
def _pop(table: Any, state: Any, mask: Any, shift: Any):
    """The state after a symbol was taken out of it, and the symbol's entry.

    The four fields are read from memory one by one: that is less work than to unpack a word.
    """
    entry = (state & mask) << np.uint64(2)
    frequency, bias = np.uint64(table[entry]), np.uint64(table[entry + np.uint64(1)])
    return frequency * (state >> shift) + bias, entry


@njit(inline="always")
def _fill(state: Any, words: Bits, used: Any):
    """The state with a word more if it is low; and the words used so far."""
    more = state < LOW
    filled = (state << WORD) | np.uint64(words[used])
    return (filled if more else state), used + np.uintp(more)


@njit(nogil=True, cache=True, _nrt=False)
def decode(
    words: Bits, states: Bits, tables: Bits, classes: Bits, unit: int, bits: int, rare: Bits,
    places: Bits, out: Bits,
) -> tuple[int, int]:  # fmt: skip
    """Fills *out*; returns the number of words used, or −1 if they do not suffice, and of escapes.

    words: padded by PAD. tables: (K, 4·2**bits): frequency, bias, symbol, 1 for the escape.
    rare: the values of the escapes, padded by RARE_PAD; if there are others than so many, *out* is
    not what was meant. places: scratch of out.size + 1.
    """
    end, mask, shift = np.uintp(words.size - PAD), np.uint64((1 << bits) - 1), np.uint64(bits)
    used, escapes, place = np.uintp(0), np.uintp(0), np.uintp(0)
    lanes, step = states.size, np.uintp(2 * states.size)
    for which in classes:
        table = tables[which]
        stop = min(place + np.uintp(unit), np.uintp(out.size))
        for _ in range((stop - place) // step):
            if used > end:
                return -1, 0
            piece = out[place : place + step]
            for lane in range(lanes):
                state, first = _pop(table, states[lane], mask, shift)
                state, second = _pop(table, state, mask, shift)
                states[lane], used = _fill(state, words, used)
                piece[2 * lane] = table[first + np.uint64(2)]
                piece[2 * lane + 1] = table[second + np.uint64(2)]
                places[escapes] = place + np.uintp(2 * lane)
                escapes += np.uintp(table[first + np.uint64(3)])
                places[escapes] = place + np.uintp(2 * lane + 1)
                escapes += np.uintp(table[second + np.uint64(3)])
            place += step
        if used > end:
            return -1, 0
        if place < stop:
            rest = out[place:stop]
            used, escapes = decode_rest(
                words, states, table, mask, shift, rest, places, used, escapes, place
            )
            place = stop
    for i in range(min(escapes, np.uintp(rare.size - RARE_PAD))):
        out[places[i]] = rare[i]
    return np.int64(used) if used <= end else -1, np.int64(escapes)


@njit(nogil=True, cache=True, _nrt=False)
def decode_rest(
    words: Bits, states: Bits, table: Bits, mask: Any, shift: Any, out: Bits, places: Bits,
    used: Any, escapes: Any, place: Any,
):  # fmt: skip
    """The last, short step of a unit. Apart, so that the loop above keeps the registers."""
    for lane in range((out.size + 1) // 2):
        state = states[lane]
        for i in range(2 * lane, min(2 * lane + 2, out.size)):
            state, entry = _pop(table, state, mask, shift)
            out[i] = table[entry + np.uint64(2)]
            places[escapes] = place + np.uintp(i)
            escapes += np.uintp(table[entry + np.uint64(3)])
        states[lane], used = _fill(state, words, used)
    return used, escapes


# -- encoding -----------------------------------------------------------------------------


@njit(inline="always")
def _find(table: Any, ranks: Bits, symbol: Any, escaped: Bits, escapes: Any):
    """The rank of a symbol, its frequency; and where the escaped ones begin."""
    rank = np.uintp(ranks[symbol])
    entry = rank << np.uintp(2)
    escaped[escapes] = symbol  # one below the last; taken back if it is none
    return rank, np.uint64(table[entry]), escapes - np.uintp(table[entry + np.uintp(3)])


@njit(inline="always")
def _empty(state: Any, limit: Any, words: Bits, used: Any):
    """The state with a word less if it is at its limit; and where the words begin."""
    more = np.uint64(state >= limit)
    words[used] = state  # as above
    return state >> (more * WORD), used - np.uintp(more)


@njit(inline="always")
def _push(table: Any, inverse: Any, rank: Any, frequency: Any, state: Any, shift: Any):
    """The state with a symbol put into it."""
    entry = rank << np.uintp(2)
    quotient = _high(state << np.uint64(1), inverse[rank])
    quotient >>= np.uint64(table[entry + np.uintp(1)])
    rest = state - quotient * frequency
    return (quotient << shift) + rest + np.uint64(table[entry + np.uintp(2)])


@njit(nogil=True, cache=True)
def encode(
    elements: Bits, ranks: Bits, tables: Bits, inverses: Bits, classes: Bits, unit: int,
    bits: int, states: Bits, words: Bits, escaped: Bits,
) -> tuple[int, int]:  # fmt: skip
    """Fills *words* and *escaped* from their ends; returns where they start.

    Both have room for one more than all elements. ranks: of every symbol, 0 for unknown ones.
    tables: (K, 4·ranks): frequency, shift = ceil(log2 frequency), start, 0; or for a symbol that
    is not listed the escape's numbers and 1. inverses: (K, ranks): ceil(2**(63 + shift) /
    frequency).
    """
    shift, double = np.uint64(bits), np.uint64(63 - 2 * bits)
    used, escapes = np.uintp(words.size - 1), np.uintp(escaped.size - 1)
    place, one = np.uintp(elements.size), np.uintp(1)
    lanes, step = np.uintp(states.size), np.uintp(2 * states.size)
    for k in range(classes.size):
        which = np.uintp(classes.size - 1 - k)
        table, inverse = tables[classes[which]], inverses[classes[which]]
        count = place - which * np.uintp(unit)
        short = count % step
        if short:
            place -= short
            rest = elements[place : place + short]
            used, escapes = _encode_rest(
                rest, ranks, table, inverse, shift, states, words, escaped, used, escapes
            )
        for _ in range(count // step):
            place -= step
            piece = elements[place : place + step]
            lane = lanes
            while lane:
                lane -= one
                symbol = piece[lane + lane + one]
                second, g, escapes = _find(table, ranks, symbol, escaped, escapes)
                first, f, escapes = _find(table, ranks, piece[lane + lane], escaped, escapes)
                state, used = _empty(states[lane], (f * g) << double, words, used)
                state = _push(table, inverse, second, g, state, shift)
                states[lane] = _push(table, inverse, first, f, state, shift)
    return np.int64(used) + 1, np.int64(escapes) + 1


@njit(nogil=True, cache=True)
def _encode_rest(
    elements: Bits, ranks: Bits, table: Bits, inverse: Bits, shift: Any, states: Bits,
    words: Bits, escaped: Bits, used: Any, escapes: Any,
):  # fmt: skip
    """The last, short step of a unit, which may end with half a pair."""
    single, double = np.uint64(63) - shift, np.uint64(63) - (shift << np.uint64(1))
    for lane in range((elements.size - 1) // 2, -1, -1):
        if 2 * lane + 1 < elements.size:
            symbol = elements[2 * lane + 1]
            second, g, escapes = _find(table, ranks, symbol, escaped, escapes)
            first, f, escapes = _find(table, ranks, elements[2 * lane], escaped, escapes)
            state, used = _empty(states[lane], (f * g) << double, words, used)
            state = _push(table, inverse, second, g, state, shift)
        else:
            first, f, escapes = _find(table, ranks, elements[2 * lane], escaped, escapes)
            state, used = _empty(states[lane], f << single, words, used)
        states[lane] = _push(table, inverse, first, f, state, shift)
    return used, escapes


@njit(nogil=True, cache=True)
def checksum(words: Bits) -> int:
    """Σ word·(2i + 1) modulo 2**32: no change of a single word leaves it as it was."""
    total = np.uint32(0)
    for i in range(words.size):
        total = np.uint32(total + words[i] * np.uint32(2 * i + 1))
    return total

"""Triton kernels: range decoding, one frame a program, and rule exact-1, one element a thread.

Rounding is integer arithmetic and sums are float64, so that nothing is left to a device's or an
interpreter's conversions. Every index is masked by a count that the host has checked against the
buffer: damaged words give a status, never a read outside.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _pop(state, table, live, BITS: tl.constexpr):
    """The states after a symbol was taken out of each, the symbols, 1 where it is the escape."""
    entry = tl.load(table + (state & ((1 << BITS) - 1)), mask=live, other=0)
    frequency, bias = entry & 0xFFFF, (entry >> 16) & 0xFFFF
    after = frequency * (state >> BITS) + bias
    return tl.where(live, after, state), (entry >> 32) & 0xFFFF, (entry >> 48) & 1


@triton.jit
def _known(symbol, escape, place, rare, rares):
    """Escapes replaced by the values that stand apart."""
    there = (escape != 0) & (place < rares)
    value = tl.load(rare + place, mask=there, other=0).to(tl.int64) & 0xFFFF
    return tl.where(there, value, symbol)


@triton.jit
def _unit(
    state, used, seen, table, words, count, rare, rares, out, start, stop,
    BITS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Elements *start* … *stop* by one table: see kernels_rans.decode."""
    lane = tl.arange(0, LANES)
    for place in range(start, stop, 2 * LANES):
        first = place + 2 * lane
        here, both = first < stop, first + 1 < stop
        state, left, left_rare = _pop(state, table, here, BITS)
        state, right, right_rare = _pop(state, table, both, BITS)
        low = here & (state < (1 << 31))
        more = low.to(tl.int32)
        index = used + tl.cumsum(more, 0) - more
        word = tl.load(words + index, mask=low & (index < count), other=0)
        state = tl.where(low, (state << 32) | (word.to(tl.int64) & 0xFFFFFFFF), state)
        used += tl.sum(more, 0)
        left_rare, right_rare = left_rare.to(tl.int32), right_rare.to(tl.int32)
        rarities = left_rare + right_rare
        before = seen + tl.cumsum(rarities, 0) - rarities
        left = _known(left, left_rare, before, rare, rares)
        right = _known(right, right_rare, before + left_rare, rare, rares)
        tl.store(out + first, left.to(tl.int16), mask=here)
        tl.store(out + first + 1, right.to(tl.int16), mask=both)
        seen += tl.sum(rarities, 0)
    return state, used, seen


@triton.jit
def decode(
    payload, plain, tables, heads, rare, out, status,
    unit, class_bits, last_table,
    BITS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Program i decodes frame i.

    payload: int32 words of all frames. plain: the same bytes as int16. tables: (K, 2**bits) int64:
    frequency, bias, symbol and escape, 16 bits each from the lowest. heads: (frames, 8) int64: the
    word where the classes begin, the states, the words, and the plain symbols; how many words,
    escapes and plain symbols; the elements before. heads[frames, 7]: all elements. rare: int16
    scratch, as *out*. status: (frames, 4) int32: the words used, the escapes met among the escapes
    and among the elements, and the lanes whose states do not end where they began.
    """
    frame = tl.program_id(0)
    head = heads + 8 * frame
    classes, states = tl.load(head), tl.load(head + 1)
    words, plain_at = tl.load(head + 2), tl.load(head + 3)
    count = tl.load(head + 4).to(tl.int32)
    escapes, rares = tl.load(head + 5).to(tl.int32), tl.load(head + 6).to(tl.int32)
    start = tl.load(head + 7)
    elements = (tl.load(head + 15) - start).to(tl.int32)
    lane = tl.arange(0, LANES)
    low = tl.load(payload + states + 2 * lane).to(tl.int64) & 0xFFFFFFFF
    state = low | (tl.load(payload + states + 2 * lane + 1).to(tl.int64) << 32)
    used, met, seen = escapes * 0, escapes * 0, escapes * 0
    # the escapes' own symbols come out of the same states first
    state, used, met = _unit(
        state, used, met, tables + (last_table << BITS), payload + words, count,
        plain + 2 * plain_at, rares, rare + start, 0, escapes, BITS, LANES,
    )  # fmt: skip
    tl.debug_barrier()  # what one thread wrote to rare, another reads
    for which in range((elements + unit - 1) // unit):
        bit = which * class_bits
        packed = tl.load(payload + classes + bit // 32)
        kind = (packed >> (bit % 32)) & ((1 << class_bits) - 1)
        state, used, seen = _unit(
            state, used, seen, tables + (kind << BITS), payload + words, count,
            rare + start, escapes, out + start, which * unit,
            tl.minimum(which * unit + unit, elements), BITS, LANES,
        )  # fmt: skip
    off = tl.sum((state != (1 << 31)).to(tl.int32), 0)
    tl.store(status + 4 * frame, used)
    tl.store(status + 4 * frame + 1, met)
    tl.store(status + 4 * frame + 2, seen)
    tl.store(status + 4 * frame + 3, off)


@triton.jit
def add(base, deltas, alphas, out, count, terms, BLOCK: tl.constexpr):
    """bfloat16 base + Σ alpha·Δ, all bits as int16. deltas: (terms, count). alphas: float64."""
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    here = place < count
    raw = tl.load(base + place, mask=here, other=0).to(tl.int32)
    total = (raw << 16).to(tl.float32, bitcast=True).to(tl.float64)
    for k in range(terms):
        bits = tl.load(deltas + k * count + place, mask=here, other=0).to(tl.int32)
        change = (bits << 16).to(tl.float32, bitcast=True).to(tl.float64)
        product = tl.load(alphas + k) * change
        total = tl.where(product == 0, total, total + product)
    single = total.to(tl.float32)
    wide = single.to(tl.int32, bitcast=True).to(tl.int64) & 0xFFFFFFFF
    rounded = (wide + ((wide >> 16) & 1) + 0x7FFF) >> 16
    rounded = tl.where(single == single, rounded, 0x7FC0)
    mine = raw & 0xFFFF
    rounded = tl.where((mine & 0x7FFF) > 0x7F80, mine.to(tl.int64), rounded)
    tl.store(out + place, rounded.to(tl.int16), mask=here)

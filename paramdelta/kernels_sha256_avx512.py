"""SHA-256 of sixteen streams at once, one in each lane of a vector. See kernels_sha256.

Nearly twice as fast as the processor's own instructions, where there are so many streams. A round's
longest chain is from E to E: the sums are taken in the order that makes it three operations, and
held apart from the compiler, which would order them otherwise.
"""

from __future__ import annotations

from typing import Any

import llvmlite.ir as ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from paramdelta.kernels_sha256 import CONSTANTS

LANES = 16
_ORDER = (3, 2, 7, 6, 1, 0, 5, 4)  # where A … H stand in a state
_WORD = ir.IntType(32)
_VECTOR = ir.VectorType(_WORD, LANES)
_SAME = ir.FunctionType(_VECTOR, [_VECTOR])


def _every(value: int) -> Any:
    return ir.Constant(_VECTOR, [ir.Constant(_WORD, value)] * LANES)


def _picked(builder: Any, first: Any, second: Any, places: list[int]) -> Any:
    return builder.shuffle_vector(first, second, ir.Constant(_VECTOR, places))


def _turned(builder: Any, rows: list[Any]) -> list[Any]:
    """Columns of a square of sixteen by sixteen: by ones, twos, fours and eights."""
    for size in (1, 2, 4, 8):
        made: list[Any] = [None] * LANES
        for i in range(LANES):
            if i & size:
                continue
            upper, lower = rows[i], rows[i | size]
            low = [j if not j & size else LANES + (j ^ size) for j in range(LANES)]
            high = [(j | size) if not j & size else LANES + j for j in range(LANES)]
            made[i] = _picked(builder, upper, lower, low)
            made[i | size] = _picked(builder, upper, lower, high)
        rows = made
    return rows


class _Rounds:
    """The operations of FIPS 180-4 on vectors."""

    def __init__(self, builder: Any) -> None:
        self._builder = builder
        module, kind = builder.module, ir.FunctionType(_VECTOR, [_VECTOR] * 3)
        self._funnel = cgutils.get_or_insert_function(module, kind, "llvm.fshr.v16i32")

    def turned(self, value: Any, bits: int) -> Any:
        return self._builder.call(self._funnel, [value, value, _every(bits)])

    def shifted(self, value: Any, bits: int) -> Any:
        return self._builder.lshr(value, _every(bits))

    def mixed(self, *values: Any) -> Any:
        first, second, third = values
        return self._builder.xor(self._builder.xor(first, second), third)

    def sum(self, *values: Any) -> Any:
        total = values[0]
        for value in values[1:]:
            total = self._builder.add(total, value)
        return total

    def held(self, value: Any) -> Any:
        """The same, of which the compiler knows nothing."""
        return self._builder.asm(_SAME, "", "=v,0", [value], False)

    def large(self, value: Any, bits: tuple[int, int, int]) -> Any:
        return self.mixed(*(self.turned(value, n) for n in bits))

    def small(self, value: Any, bits: tuple[int, int, int]) -> Any:
        first, second, last = bits
        return self.mixed(
            self.turned(value, first), self.turned(value, second), self.shifted(value, last)
        )

    def chosen(self, e: Any, f: Any, g: Any) -> Any:
        return self._builder.xor(g, self._builder.and_(e, self._builder.xor(f, g)))

    def majority(self, a: Any, b: Any, c: Any) -> Any:
        both = self._builder.and_(a, b)
        return self._builder.or_(both, self._builder.and_(c, self._builder.or_(a, b)))

    def block(self, state: list[Any], words: list[Any]) -> list[Any]:
        """The state after a block of sixteen words."""
        a, b, c, d, e, f, g, h = state
        for i, constant in enumerate(CONSTANTS):
            now = i % 16
            if i >= 16:
                words[now] = self.sum(
                    words[now], words[(i + 9) % 16],
                    self.small(words[(i + 1) % 16], (7, 18, 3)),
                    self.small(words[(i + 14) % 16], (17, 19, 10)),
                )  # fmt: skip
            before = self.held(self.sum(h, self.sum(words[now], _every(constant))))
            choice, spread = self.chosen(e, f, g), self.large(e, (6, 11, 25))
            lower = self.held(self.sum(self.held(self.sum(d, before)), choice))
            upper = self.held(self.sum(before, choice))
            rest = self.sum(self.majority(a, b, c), self.large(a, (2, 13, 22)))
            fresh = self.sum(self.sum(upper, spread), rest)
            a, b, c, d, e, f, g, h = fresh, a, b, c, self.sum(lower, spread), e, f, g
        made = (a, b, c, d, e, f, g, h)
        return [self.sum(old, new) for old, new in zip(state, made, strict=True)]


@intrinsic
def _sixteen(context: Any, lanes: Any, count: Any) -> Any:
    """lanes: the address of sixteen addresses of states, then sixteen of data."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        lanes, count = arguments
        long = ir.IntType(64)
        places = builder.inttoptr(lanes, long.as_pointer())

        def address(i: int, kind: Any) -> Any:
            found = builder.load(builder.gep(places, [ir.Constant(_WORD, i)]))
            return builder.inttoptr(found, kind.as_pointer())

        states = [address(i, _WORD) for i in range(LANES)]
        data = [address(LANES + i, _VECTOR) for i in range(LANES)]
        held = []
        for word in _ORDER:
            vector = ir.Constant(_VECTOR, ir.Undefined)
            for lane, state in enumerate(states):
                value = builder.load(builder.gep(state, [ir.Constant(_WORD, word)]))
                vector = builder.insert_element(vector, value, ir.Constant(_WORD, lane))
            place = cgutils.alloca_once(builder, _VECTOR)
            builder.store(vector, place)
            held.append(place)
        swap = cgutils.get_or_insert_function(builder.module, _SAME, "llvm.bswap.v16i32")
        rounds = _Rounds(builder)
        with cgutils.for_range(builder, count) as loop:
            rows = [
                builder.call(swap, [builder.load(builder.gep(one, [loop.index]), align=1)])
                for one in data
            ]
            state = [builder.load(place) for place in held]
            made = rounds.block(state, _turned(builder, rows))
            for place, value in zip(held, made, strict=True):
                builder.store(value, place)
        for word, place in zip(_ORDER, held, strict=True):
            vector = builder.load(place)
            for lane, state in enumerate(states):
                value = builder.extract_element(vector, ir.Constant(_WORD, lane))
                builder.store(value, builder.gep(state, [ir.Constant(_WORD, word)]))
        return count

    return types.uint64(types.uint64, types.uint64), generate


@njit(nogil=True, cache=True)
def sixteen(lanes: int, count: int) -> int:
    """Takes *count* blocks of each of sixteen streams: see _sixteen, and kernels_sha256.one."""
    return _sixteen(lanes, count)

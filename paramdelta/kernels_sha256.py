"""SHA-256 of two or three streams at once, by the processor's own instructions (SHA-NI).

A round has to wait for the one before it, so one stream leaves most of the unit idle; rounds of
other streams fit into the gaps. Two streams together take about as long as one.

Instructions: Intel SHA Extensions, July 2013. The hash: FIPS 180-4.
"""

from __future__ import annotations

from typing import Any

import llvmlite.ir as ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

_WORD = ir.IntType(32)
_QUAD = ir.VectorType(_WORD, 4)
_ROUNDS = """
428a2f98 71374491 b5c0fbcf e9b5dba5 3956c25b 59f111f1 923f82a4 ab1c5ed5 d807aa98 12835b01 243185be
550c7dc3 72be5d74 80deb1fe 9bdc06a7 c19bf174 e49b69c1 efbe4786 0fc19dc6 240ca1cc 2de92c6f 4a7484aa
5cb0a9dc 76f988da 983e5152 a831c66d b00327c8 bf597fc7 c6e00bf3 d5a79147 06ca6351 14292967 27b70a85
2e1b2138 4d2c6dfc 53380d13 650a7354 766a0abb 81c2c92e 92722c85 a2bfe8a1 a81a664b c24b8b70 c76c51a3
d192e819 d6990624 f40e3585 106aa070 19a4c116 1e376c08 2748774c 34b0bcb5 391c0cb3 4ed8aa4a 5b9cca4f
682e6ff3 748f82ee 78a5636f 84c87814 8cc70208 90befffa a4506ceb bef9a3f7 c67178f2
"""
_CONSTANTS = [int(word, 16) for word in _ROUNDS.split()]


def _quad(values: list[int]) -> Any:
    return ir.Constant(_QUAD, [ir.Constant(_WORD, value) for value in values])


def _call(builder: Any, name: str, *arguments: Any) -> Any:
    kind = ir.FunctionType(_QUAD, [_QUAD] * len(arguments))
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    return builder.call(function, list(arguments))


def _picked(builder: Any, first: Any, second: Any, places: list[int]) -> Any:
    return builder.shuffle_vector(first, second, _quad(places))


def _rounds(builder: Any, states: list[tuple[Any, Any]], blocks: list[Any]) -> list[Any]:
    """The states after a block each; a step of every stream, then the next step.

    states: (A B E F, C D G H) of every stream. blocks: addresses of 64 bytes each.
    """
    before, made = states, list(states)
    schedule: list[list[Any]] = []
    for block in blocks:
        quads = []
        for i in range(4):
            place = builder.gep(block, [ir.Constant(_WORD, i)])
            quads.append(_call(builder, "llvm.bswap.v4i32", builder.load(place, align=1)))
        schedule.append(quads)
    for step in range(16):
        constants = _quad(_CONSTANTS[4 * step : 4 * step + 4])
        for lane, words in enumerate(schedule):
            first, second = made[lane]
            now, following, later, last = (words[(step + i) % 4] for i in range(4))
            keyed = builder.add(now, constants)
            second = _call(builder, "llvm.x86.sha256rnds2", second, first, keyed)
            upper = _picked(builder, keyed, keyed, [2, 3, 2, 3])
            first = _call(builder, "llvm.x86.sha256rnds2", first, second, upper)
            made[lane] = first, second
            if step < 12:
                mixed = _call(builder, "llvm.x86.sha256msg1", now, following)
                mixed = builder.add(mixed, _picked(builder, later, last, [1, 2, 3, 4]))
                words[step % 4] = _call(builder, "llvm.x86.sha256msg2", mixed, last)
    return [
        (builder.add(old[0], new[0]), builder.add(old[1], new[1]))
        for old, new in zip(before, made, strict=True)
    ]


def _generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """states and data of every stream (addresses), then the number of blocks."""
    *addresses, count = arguments
    lanes = len(addresses) // 2
    pointers = [builder.inttoptr(a, _QUAD.as_pointer()) for a in addresses]
    halves = []
    for state in pointers[:lanes]:
        pair = []
        for i in range(2):
            held = cgutils.alloca_once(builder, _QUAD)
            place = builder.gep(state, [ir.Constant(_WORD, i)])
            builder.store(builder.load(place, align=4), held)
            pair.append((place, held))
        halves.append(pair)
    with cgutils.for_range(builder, count) as loop:
        step = builder.shl(loop.index, ir.Constant(loop.index.type, 2))
        blocks = [builder.gep(data, [step]) for data in pointers[lanes:]]
        states = [(builder.load(a), builder.load(b)) for (_, a), (_, b) in halves]
        for pair, made in zip(halves, _rounds(builder, states, blocks), strict=True):
            for (_, held), value in zip(pair, made, strict=True):
                builder.store(value, held)
    for pair in halves:
        for place, held in pair:
            builder.store(builder.load(held), place, align=4)
    return count


@intrinsic
def _one(context: Any, state: Any, data: Any, count: Any) -> Any:
    return types.uint64(*[types.uint64] * 3), _generate


@intrinsic
def _two(context: Any, s0: Any, s1: Any, d0: Any, d1: Any, count: Any) -> Any:
    return types.uint64(*[types.uint64] * 5), _generate


@intrinsic
def _three(context: Any, s0: Any, s1: Any, s2: Any, d0: Any, d1: Any, d2: Any, count: Any) -> Any:
    return types.uint64(*[types.uint64] * 7), _generate


@njit(nogil=True, cache=True)
def one(state: int, data: int, count: int) -> int:
    """Takes *count* blocks of 64 bytes at the address *data* into the state at the address *state*:
    eight uint32, F E B A H G D C, as the instructions want them."""
    return _one(state, data, count)


@njit(nogil=True, cache=True)
def two(s0: int, s1: int, d0: int, d1: int, count: int) -> int:
    return _two(s0, s1, d0, d1, count)


@njit(nogil=True, cache=True)
def three(s0: int, s1: int, s2: int, d0: int, d1: int, d2: int, count: int) -> int:
    return _three(s0, s1, s2, d0, d1, d2, count)

"""The compiled kernels give the bits of the numpy code, on every pattern that there is."""

from __future__ import annotations

import dataclasses
import itertools
import subprocess
import sys

import numpy as np
import pytest
from numba import njit
from support.checkpoints import SPECIAL_BITS

from paramdelta import (
    codecs,
    delta,
    kernels,
    kernels_numba,
    kernels_patch,
    kernels_rans,
    processor,
)
from paramdelta.codecs import palette, rans
from paramdelta.codecs.base import TensorSpec
from paramdelta.delta import Term
from paramdelta.kernels import WORTH
from paramdelta.patch import PatchDecoder, PatchEncoder
from paramdelta.sketching import TensorSketch

COUNT = 1 << 17


def patterns() -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of bfloat16 bits: special against special, near neighbours, small steps, anything."""
    random = np.random.default_rng(9)
    special = np.array(list(itertools.product(SPECIAL_BITS["BF16"], repeat=2)), dtype=np.uint16)
    anything = random.integers(0, 1 << 16, size=(COUNT, 2)).astype(np.uint16)
    steps = random.integers(-40, 41, COUNT)
    near = np.clip(anything[:, 0].astype(np.int64) + steps, 0, 0xFFFF).astype(np.uint16)
    weights = (random.standard_normal(COUNT) * 0.02).astype(np.float32)
    moved = weights + (random.standard_normal(COUNT) * 2e-4).astype(np.float32)
    real = [(w.view(np.uint32) >> 16).astype(np.uint16) for w in (weights, moved)]
    many = np.tile(special, (COUNT // len(special) + 1, 1))
    return [
        (np.ascontiguousarray(many[:, 0]), np.ascontiguousarray(many[:, 1])),
        (anything[:, 0].copy(), anything[:, 1].copy()),
        (anything[:, 0].copy(), near),
        (real[0], real[1]),
    ]


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch):
    """Runs a function with the compiled kernels and without."""
    assert kernels.compiled(COUNT) is not None, "numba does not work here"

    def run(work):
        fast = work()
        monkeypatch.setattr(kernels, "_load", lambda: False)
        slow = work()
        monkeypatch.undo()
        return fast, slow

    return run


@pytest.mark.parametrize("index", range(4))
def test_differences_are_the_same(both, index: int) -> None:
    base, post = patterns()[index]

    def work() -> np.ndarray:
        out = np.empty_like(base)
        delta.extract(base, "BF16", post, "BF16", out)
        return out

    fast, slow = both(work)
    assert np.array_equal(fast, slow)


@pytest.mark.parametrize("index", range(4))
@pytest.mark.parametrize("same", [False, True])
def test_what_is_told_of_a_difference_is_the_same(both, index: int, same: bool) -> None:
    base, post = patterns()[index]
    post = base.copy() if same else post

    def work() -> tuple[bytes, delta.Measured]:
        out = np.empty_like(base)
        found = delta.extract_measured(base, "BF16", post, "BF16", out)
        return out.tobytes(), found

    fast, slow = both(work)
    assert fast == slow
    assert fast[1].equal == same
    assert (fast[1].nonzero == 0) == same


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
@pytest.mark.parametrize("pieces", [1, 3])
def test_sketches_are_the_same_to_the_last_bit(both, dtype: str, pieces: int) -> None:
    """Infinities, NaNs, subnormals and zeros of either sign among them; blocks cut anywhere."""
    random = np.random.default_rng(3)
    kind = np.uint32 if dtype == "F32" else np.uint16
    bits = random.integers(0, 1 << 8 * kind().itemsize, 5 * WORTH + 77, dtype=kind)
    bits[: len(SPECIAL_BITS[dtype])] = SPECIAL_BITS[dtype]
    if dtype == "F32":  # sums of huge and tiny numbers, but finite ones
        bits[WORTH:] = (random.standard_normal(bits.size - WORTH) * 0.02).astype("<f4").view(kind)

    def work() -> tuple[bytes, float]:
        found = TensorSketch("w")
        for piece in np.array_split(bits, pieces):
            found.update(piece, dtype)
        return found.finish().tobytes(), found.norm

    fast, slow = both(work)
    assert fast == slow
    assert fast[1] > 0


@njit
def _candidates(base: np.ndarray, change: np.ndarray, places: np.ndarray) -> int:
    """What kernels_patch.rebuild finds, looked for at every element."""
    count = 0
    for i in range(base.size):
        made = kernels_numba._sum(base[i], change[i])
        if kernels_numba._is_candidate(base[i], change[i], made):
            places[count] = i
            count += 1
    return count


@pytest.mark.parametrize("step", [509, pytest.param(1, marks=pytest.mark.slow)])
def test_no_candidate_of_the_exact_stream_is_missed(step: int) -> None:
    """Of every difference to every base (or, in the fast suite, to one in so many and special)."""
    change = np.arange(1 << 16, dtype=np.uint16)
    out, suspect = np.empty_like(change), np.empty(change.size, dtype=np.uint8)
    found, wanted = (np.empty(change.size + 1, dtype=np.uint32) for _ in range(2))
    for pattern in sorted({*range(0, 1 << 16, step), *SPECIAL_BITS["BF16"]}):
        base = np.full_like(change, pattern)
        count = kernels_patch.rebuild(base, change, out, suspect, found)
        assert count == _candidates(base, change, wanted), hex(pattern)
        assert np.array_equal(found[:count], wanted[:count]), hex(pattern)


def test_counts_start_from_nothing_in_memory_that_another_tensor_used() -> None:
    random = np.random.default_rng(5)
    one, two = (random.integers(0, top, COUNT).astype(np.uint16) for top in (60_000, 300))

    def counted(elements: np.ndarray) -> tuple[bytes, bytes, list[int]]:
        stats = codecs.Statistics("BF16", 64)
        stats.update(elements)
        symbols, counts = stats.finish()
        return symbols.tobytes(), counts.tobytes(), stats.bins

    first = counted(two)
    assert counted(one) != first
    assert counted(two) == first


@pytest.mark.parametrize("index", range(4))
@pytest.mark.parametrize("alphas", [[1.0], [0.7], [0.0], [0.5, 1.0], [1.0, -0.25, 3.0]])
def test_sums_with_float32_terms_are_the_same(both, index: int, alphas: list[float]) -> None:
    """A product of factors is float32; among others any bits, infinities and NaNs too."""
    base, change = patterns()[index]
    wide = (change.astype(np.uint32) << 16) | np.roll(change, 5)
    wide[: len(SPECIAL_BITS["F32"])] = SPECIAL_BITS["F32"]
    terms = [
        Term(np.float32(a).item(), change if i == 1 else wide, "BF16" if i == 1 else "F32")
        for i, a in enumerate(alphas)
    ]

    def work() -> np.ndarray:
        out = np.empty_like(base)
        delta.add(base, "BF16", terms, out, "BF16")
        return out

    fast, slow = both(work)
    assert np.array_equal(fast, slow)


@pytest.mark.parametrize("index", range(4))
@pytest.mark.parametrize("alphas", [[], [1.0], [0.7], [-1.0], [0.0], [0.5, 1.0], [1.0, -0.25, 3.0]])
def test_sums_are_the_same(both, index: int, alphas: list[float]) -> None:
    base, change = patterns()[index]
    terms = [Term(np.float32(a).item(), np.roll(change, i), "BF16") for i, a in enumerate(alphas)]

    def work() -> np.ndarray:
        out = np.empty_like(base)
        delta.add(base, "BF16", terms, out, "BF16")
        return out

    fast, slow = both(work)
    assert np.array_equal(fast, slow)


@pytest.mark.parametrize("index", range(4))
def test_patches_are_the_same_and_restore(both, index: int) -> None:
    base, post = patterns()[index]
    change = np.empty_like(base)
    delta.extract(base, "BF16", post, "BF16", change)

    def work() -> tuple[bytes, bytes]:
        payload = PatchEncoder("BF16", "BF16").frame(base, change, post)
        out = np.empty_like(post)
        PatchDecoder("BF16", "BF16").frame(payload, base, change, out)
        return payload, out.tobytes()

    fast, slow = both(work)
    assert fast == slow
    assert fast[1] == post.tobytes()


@pytest.mark.parametrize("index", range(4))
@pytest.mark.parametrize("sparse", [False, True])
def test_codes_and_statistics_are_the_same(both, index: int, sparse: bool) -> None:
    base, post = patterns()[index]
    change = np.empty_like(base)
    delta.extract(base, "BF16", post, "BF16", change)

    def work() -> tuple[bytes, bytes, bytes]:
        stats = codecs.Statistics("BF16", 64)
        stats.update(change)
        spec = TensorSpec("BF16", change.size, 64)
        encoder = palette.PaletteEncoder(stats.histogram, spec, sparse=sparse, ranked=True)
        payload = encoder.frame(change)
        decoder = palette.PaletteDecoder(encoder.params, encoder.prologue(), spec)
        out = np.empty_like(change)
        decoder.frame(payload, out)
        return stats.histogram.tobytes(), payload, out.tobytes()

    fast, slow = both(work)
    assert fast == slow
    assert fast[2] == change.tobytes()


@pytest.mark.parametrize("index", range(4))
@pytest.mark.parametrize("row", [64, 4096, 5001])
@pytest.mark.parametrize("vectors", [True, False])
def test_range_coded_frames_are_the_same(
    both, monkeypatch: pytest.MonkeyPatch, index: int, row: int, vectors: bool
) -> None:
    if not vectors:
        scalar = kernels.Coder(kernels_rans.encode, kernels_rans.decode, kernels_rans.checksum)
        monkeypatch.setattr(kernels, "_compiled_coder", lambda: scalar)
    base, post = patterns()[index]
    change = np.empty_like(base)
    delta.extract(base, "BF16", post, "BF16", change)

    def work() -> tuple[bytes, list[bytes], bytes]:
        stats = codecs.Statistics("BF16", row)
        for start in range(0, change.size, 50_000):
            stats.update(change[start : start + 50_000])
        symbols, counts = stats.finish()
        spec = TensorSpec("BF16", change.size, row)
        encoder, _ = rans.fitted(symbols, counts, stats.bins, spec)
        size = encoder.frame_elements
        frames = [encoder.frame(change[i : i + size]) for i in range(0, change.size, size)]
        decoder = rans.RansDecoder(encoder.params, encoder.prologue(), spec)
        out = np.empty_like(change)
        for k, frame in enumerate(frames):
            decoder.frame(frame, out[k * size : (k + 1) * size])
        return encoder.prologue(), frames, out.tobytes()

    fast, slow = both(work)
    assert fast == slow
    assert fast[2] == change.tobytes()


@pytest.mark.parametrize("index", range(4))
@pytest.mark.parametrize("alpha", [1.0, 0.7, 0.0, -2.5])
@pytest.mark.parametrize("frame", ["scalar", "vectors"])
def test_a_frame_is_added_and_counted_as_by_the_rule(
    both, monkeypatch: pytest.MonkeyPatch, index: int, alpha: float, frame: str
) -> None:
    if frame == "vectors" and not processor.has(*kernels.AVX512):
        pytest.skip("no AVX-512")
    alpha = float(np.float32(alpha))
    loops = dataclasses.replace(kernels._compiled_coder(), frame=getattr(kernels._FRAMES, frame))
    monkeypatch.setattr(kernels, "_compiled_coder", lambda: loops)
    base, post = patterns()[index]
    change = np.empty_like(base)
    delta.extract(base, "BF16", post, "BF16", change)
    stats = codecs.Statistics("BF16", 4096)
    stats.update(change)
    spec = TensorSpec("BF16", change.size, 4096)
    encoder, _ = rans.fitted(*stats.finish(), stats.bins, spec)
    size = encoder.frame_elements
    frames = [(i, encoder.frame(change[i : i + size])) for i in range(0, change.size, size)]

    def work() -> tuple[bytes, int | None]:
        decoder = rans.RansDecoder(encoder.params, encoder.prologue(), spec)
        out, counted = np.empty_like(base), 0
        for i, payload in frames:
            here = slice(i, i + size)
            found = decoder.add_frame(payload, alpha, base[here], "BF16", out[here], "BF16")
            counted += np.count_nonzero(out[here] != base[here]) if found is None else found
        return out.tobytes(), counted

    fast, slow = both(work)
    assert fast == slow
    by_rule = np.empty_like(base)
    delta.add(base, "BF16", [Term(alpha, change, "BF16")], by_rule, "BF16")
    assert fast[0] == by_rule.tobytes()


def test_small_arrays_do_not_wake_numba() -> None:
    code = (
        "import sys, numpy as np\nfrom paramdelta import delta\n"
        "a = np.zeros(1000, np.uint16)\ndelta.extract(a, 'BF16', a, 'BF16', a.copy())\n"
        "assert 'numba' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_numpy_can_be_asked_for() -> None:
    code = (
        "import sys, numpy as np\nfrom paramdelta import delta, kernels\n"
        "assert kernels.compiled(1 << 20) is None and 'numba' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PARAMDELTA_KERNELS": "numpy"})

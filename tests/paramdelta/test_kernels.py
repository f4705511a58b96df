"""The compiled kernels give the bits of the numpy code, on every pattern that there is."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
from support.checkpoints import SPECIAL_BITS

from paramdelta import codecs, delta, kernels
from paramdelta.codecs import palette
from paramdelta.codecs.base import TensorSpec
from paramdelta.delta import Term
from paramdelta.patch import PatchDecoder, PatchEncoder

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
        for module in (delta, codecs, palette):
            monkeypatch.setattr(module, "compiled", lambda n: None)
        monkeypatch.setattr("paramdelta.patch.compiled", lambda n: None)
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

"""Kernels as object code: the same bits as numba's own, kept, checked, and made again."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numba import njit

from paramdelta import kernels, kernels_numba, kernels_rans, native, processor
from paramdelta.native import Kernel, Kernels

SUM = "u2 u2 u2 ->"


def arrays(size: int = 40_000) -> list[np.ndarray]:
    random = np.random.default_rng(3)
    return [random.integers(0, 1 << 16, size).astype(np.uint16) for _ in range(3)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where kernels are kept in this test; none are there yet."""
    monkeypatch.setenv(native.FOLDER, str(tmp_path / "kept"))
    return tmp_path / "kept"


def test_they_give_the_bits_of_the_same_code_called_by_numba() -> None:
    base, change, out = arrays()
    other = out.copy()
    Kernel("kernels_numba", "add", SUM)(base, change, out)
    kernels_numba.add(base, change, other)
    assert out.tobytes() == other.tobytes()
    words = np.arange(1000, dtype=np.uint32)
    checksum = Kernel("kernels_rans", "checksum", "u4 -> int")(words)
    assert np.uint32(checksum) == kernels_rans.checksum(words)


def test_every_kernel_that_has_a_signature_can_be_kept() -> None:
    """In the folder of the modules' own byte code: what the tests need is compiled once."""
    tables = [found for found in vars(kernels).values() if isinstance(found, Kernels)]
    assert len(tables) >= 7
    for table in tables:
        for name in table._signatures:
            if table._module == "kernels_rans_avx512" and not processor.has(*kernels.AVX512):
                continue
            kernel = getattr(table, name)
            assert isinstance(kernel, Kernel) and kernel.load(), name


def test_a_kept_kernel_is_run_without_numba(folder: Path) -> None:
    code = (
        "import sys, numpy as np\nfrom paramdelta.native import Kernel\n"
        "a = np.full(9, 0x3F80, np.uint16)\n"
        f"Kernel('kernels_numba', 'add', {SUM!r})(a, a, a)\n"
        "print('numba' in sys.modules, a.tolist() == [0x4000] * 9)\n"
    )
    told = []
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        told.append(done.stdout.decode().split())
    assert told == [["True", "True"], ["False", "True"]]
    assert len(list(folder.glob("*.kernel"))) == 1


def test_a_damaged_file_is_not_run_but_made_again(folder: Path) -> None:
    base, change, out = arrays(64)
    Kernel("kernels_numba", "add", SUM)(base, change, out)
    (path,) = folder.glob("kernels_numba.add.*.kernel")
    damaged = path.read_bytes()[:-9] + b"\xcc" * 9
    path.write_bytes(damaged)
    again = np.empty_like(out)
    Kernel("kernels_numba", "add", SUM)(base, change, again)
    assert again.tobytes() == out.tobytes()
    assert path.read_bytes() != damaged


def test_code_that_was_made_from_another_source_is_not_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Kernel("kernels_numba", "add", SUM).load()
    before = {path.name for path in folder.glob("*.kernel")}
    monkeypatch.setattr(native, "_origin", lambda: "0" * 16)
    Kernel("kernels_numba", "add", SUM).load()
    assert len({path.name for path in folder.glob("*.kernel")} - before) == 1


def test_a_file_where_the_folder_should_be_does_no_harm(folder: Path) -> None:
    folder.write_text("")
    base, change, out = arrays(64)
    other = out.copy()
    Kernel("kernels_numba", "add", SUM)(base, change, out)
    kernels_numba.add(base, change, other)
    assert out.tobytes() == other.tobytes()


@pytest.mark.parametrize(
    "wrong",
    [np.zeros(8, np.int16), np.zeros((2, 4), np.uint16), np.zeros(16, np.uint16)[::2]],
    ids=["dtype", "dimensions", "gaps"],
)
def test_an_array_of_another_form_is_refused(wrong: np.ndarray) -> None:
    good = np.zeros(8, np.uint16)
    with pytest.raises(TypeError, match=r"kernels_numba\.add takes uint16 in 1 dimension"):
        Kernel("kernels_numba", "add", SUM)(good, wrong, good)
    with pytest.raises(ValueError):
        Kernel("kernels_numba", "add", SUM)(good, good)


def test_a_kernel_that_calls_what_would_have_to_be_found_at_load_is_not_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @njit
    def gamma(numbers):
        numbers[0] = math.lgamma(numbers[0])

    made = ModuleType("paramdelta.kernels_test")
    made.gamma = gamma
    monkeypatch.setitem(sys.modules, made.__name__, made)
    with pytest.raises(RuntimeError, match=r"kernels_test\.gamma calls .*lgamma"):
        Kernel("kernels_test", "gamma", "f8 ->").load()
    assert not list(folder.glob("*.kernel"))


def test_where_numba_was_told_something_its_own_functions_are_called(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Such as to check every index: the fuzzers do."""
    code = (
        "from paramdelta import kernels, kernels_numba\n"
        "assert kernels._SUMS.add is kernels_numba.add\n"
    )
    monkeypatch.setenv("NUMBA_BOUNDSCHECK", "1")
    subprocess.run([sys.executable, "-c", code], check=True)


def test_with_a_numba_that_is_not_known_its_own_functions_are_called(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert isinstance(Kernels("kernels_numba", {"add": SUM}).add, Kernel)
    monkeypatch.setattr(native, "KNOWN_NUMBA", ("0.1.",))
    native._is_known.cache_clear()
    try:
        assert Kernels("kernels_numba", {"add": SUM}).add is kernels_numba.add
    finally:
        native._is_known.cache_clear()

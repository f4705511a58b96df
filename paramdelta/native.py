"""Compiled kernels as object code: numba makes them once, and is not imported to run them.

numba takes a third of a second and 100 MB to start, nearly all of it to be ready to compile. What
it compiles are plain functions of addresses and numbers; so the machine code of each is kept in a
file, loaded by LLVM in two milliseconds and called through ctypes, which releases the interpreter
lock (ADR 26).

A file is used if its own digest holds and its name the digest of all that it came from: the source
of every kernel module, the versions of numba and LLVM's binding, the processor and its features. It
lies where Python keeps the modules' own byte code, or in the user's cache, and is trusted as that
is. Whatever is missing or damaged is compiled again.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import importlib
import os
import secrets
import threading
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from paramdelta import processor

SOURCES = "kernels_*.py"
# whose form of an array was tested; with another, numba's own functions are called
KNOWN_NUMBA = ("0.68.",)
FOLDER = "NUMBA_CACHE_DIR"  # where it is set, numba's own files lie there too
_FORMAT = 1
_HEX = 64
_lock = threading.Lock()
_engines: list[Any] = []  # own the code of what was loaded

_NUMBERS = {"int": ctypes.c_int64, "address": ctypes.c_uint64, "float": ctypes.c_double}
_POINTER, _SIZE, _BYTE = ctypes.c_void_p, ctypes.c_int64, ctypes.c_char


class Kernels:
    """The kernels of one module as attributes; those without a signature are numba's own.

    signatures: ``arguments -> results``, as in ``u2 u2*2 int float address -> int int``: an array
    of this item and number of dimensions, or a number.
    """

    def __init__(self, module: str, signatures: Mapping[str, str]) -> None:
        self._module, self._signatures = module, signatures

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)
        found: Callable[..., Any]
        if name in self._signatures and processor.is_as_found() and _is_known():
            found = Kernel(self._module, name, self._signatures[name])
        else:
            found = getattr(importlib.import_module(f"paramdelta.{self._module}"), name)
        setattr(self, name, found)
        return found


class Kernel:
    """Loaded by the first call. Arguments are checked: an array of another dtype, or one with gaps,
    is a TypeError."""

    def __init__(self, module: str, name: str, signature: str) -> None:
        self._module, self._name = module, name
        self.name = f"{module}.{name}"
        words, _, results = signature.partition("->")
        self._words = words.split()
        self._takes = [(_dtype_of(word), _dimensions_of(word)) for word in self._words]
        self._results = len(results.split())
        self._returns = ctypes.c_int64 * max(1, self._results)
        self._call: Callable[..., int] | None = None

    def load(self) -> Callable[..., int]:
        """The machine code, to be called with addresses and numbers; compiled if need be."""
        flat: list[Any] = [_POINTER, _POINTER]  # the results; an exception of numba's
        for word, (dtype, dimensions) in zip(self._words, self._takes, strict=True):
            # numba's own form of an array: owner, object, items, item size, address, shape, strides
            array = [_POINTER, _POINTER, _SIZE, _SIZE, _POINTER, *[_SIZE] * (2 * dimensions)]
            flat += array if dtype is not None else [_NUMBERS[word]]
        address = _address(self._module, self._name, self._words)
        self._call = ctypes.CFUNCTYPE(ctypes.c_int32, *flat)(address)
        return self._call

    def __call__(self, *arguments: Any) -> Any:
        flat: list[Any] = []
        for (dtype, dimensions), given in zip(self._takes, arguments, strict=True):
            if dtype is None:
                flat.append(given)
                continue
            if given.dtype != dtype or given.ndim != dimensions or not given.flags.c_contiguous:
                raise TypeError(
                    f"{self.name} takes {dtype} in {dimensions} dimensions without gaps, not "
                    f"{given.dtype} of shape {given.shape} and strides {given.strides}"
                )
            flat += (
                None, None, given.size, given.itemsize, _place_of(given),
                *given.shape, *given.strides,
            )  # fmt: skip
        results, raised = self._returns(), ctypes.c_void_p()
        call = self._call or self.load()
        if call(ctypes.byref(results), ctypes.byref(raised), *flat):
            raise RuntimeError(f"{self.name} failed")
        if not self._results:
            return None
        return results[0] if self._results == 1 else tuple(results)


def _place_of(array: npt.NDArray[Any]) -> int:
    """The address of its first element; a fifth of what numpy's own way to ask for it takes."""
    if array.size and array.flags.writeable:
        return ctypes.addressof(_BYTE.from_buffer(array))  # type: ignore[arg-type]  # see digest.Hasher
    address: int = array.ctypes.data
    return address


@functools.cache
def _is_known() -> bool:
    return metadata.version("numba").startswith(KNOWN_NUMBA)


def _dtype_of(word: str) -> np.dtype[Any] | None:
    return None if word in _NUMBERS else np.dtype(f"<{word.partition('*')[0]}")


def _dimensions_of(word: str) -> int:
    return int(word.partition("*")[2] or 1)


def _address(module: str, name: str, arguments: list[str]) -> int:
    """Of the kernel's machine code, which stays in memory from now on."""
    with _lock:
        path = Path(f"{module}.{name}.{_origin()}.kernel")
        stored = _read(path)
        if stored is None:
            stored = _compile(module, name, arguments)
            _keep(path, stored)
        symbol, _, code = stored.partition(b"\n")
        return _load(symbol.decode(), code)


def _load(symbol: str, code: bytes) -> int:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.object_file.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _engines.append(engine)
    address: int = engine.get_function_address(symbol)
    if not address:
        raise RuntimeError(f"no {symbol} in the code that was compiled")
    return address


# -- files --------------------------------------------------------------------------------


@functools.cache
def _origin() -> str:
    """16 hex digits that stand for all that the code was made from and for."""
    about = hashlib.sha256(repr((_FORMAT, processor.name(), processor.features())).encode())
    for package in ("numba", "llvmlite"):
        about.update(f"{package} {metadata.version(package)}\n".encode())
    for path in sorted(Path(__file__).parent.glob(SOURCES)):
        about.update(path.read_bytes())
    return about.hexdigest()[:16]


def _folders() -> list[Path]:
    """Where kernels may lie, the best place first."""
    if told := os.environ.get(FOLDER):
        return [Path(told)]
    own = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return [Path(__file__).parent / "__pycache__", Path(own).expanduser() / "paramdelta"]


def _read(path: Path) -> bytes | None:
    """What was kept under this name, or None."""
    for folder in _folders():
        with contextlib.suppress(OSError):
            found = (folder / path).read_bytes()
            if hashlib.sha256(found[_HEX:]).hexdigest().encode() == found[:_HEX]:
                return found[_HEX:]
    return None


def _keep(path: Path, stored: bytes) -> None:
    """In the first folder that takes it; in none, it is compiled again another time."""
    data = hashlib.sha256(stored).hexdigest().encode() + stored
    for folder in _folders():
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            beside = folder / f"{path}.{secrets.token_hex(8)}"
            try:
                beside.write_bytes(data)
                beside.replace(folder / path)
            finally:
                beside.unlink(missing_ok=True)
            return


# -- compiling ----------------------------------------------------------------------------


def _compile(module: str, name: str, arguments: list[str]) -> bytes:
    """The symbol, a line break, and an object file that needs nothing but what LLVM itself may call
    (to copy memory)."""
    numba: Any = importlib.import_module("numba")
    compiler: Any = importlib.import_module("numba.core.compiler")
    target = importlib.import_module("numba.core.registry").cpu_target

    numbers = {"int": numba.int64, "address": numba.uint64, "float": numba.float64}

    def type_of(word: str) -> Any:
        if word in numbers:
            return numbers[word]
        return numba.types.Array(numba.from_dtype(_dtype_of(word)), _dimensions_of(word), "C")

    function = getattr(importlib.import_module(f"paramdelta.{module}"), name)
    flags = compiler.Flags()
    # what Python and ctypes would need to call it is ours; nothing in it owns memory
    flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
    flags.nrt = False
    made = compiler.compile_extra(
        target.typing_context, target.target_context, function.py_func,
        tuple(map(type_of, arguments)), None, flags, {},
    )  # fmt: skip
    asks = {f.name for f in made.library._final_module.functions if f.is_declaration}
    if foreign := sorted(n for n in asks if not n.startswith("llvm.")):
        raise RuntimeError(f"{module}.{name} calls {foreign}")
    symbol: str = made.fndesc.llvm_func_name
    code: bytes = made.library._get_compiled_object()
    return symbol.encode() + b"\n" + code

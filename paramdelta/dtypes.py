"""The element types of safetensors, and the numpy arrays that carry them.

bfloat16 has no numpy type, so all arithmetic takes arrays of *bits*: ``uint16`` for BF16 and
F16, ``uint32`` for F32. The carrier of a dtype is the unsigned integer of its size.

numpy is imported when an array is needed: who only reads a manifest starts without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Bits = npt.NDArray[Any]

ITEM_BYTES: dict[str, int] = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
    "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4,
    "U64": 8, "I64": 8, "F64": 8, "C64": 8,
}  # fmt: skip

ARITHMETIC = ("BF16", "F16", "F32")  # the dtypes that deltas are computed on

EIGHT_BIT = ("F8_E4M3", "F8_E5M2")  # floats that have scales (see fp8)
EIGHT_BIT_VALUES = "BF16"  # the dtype of their numbers


def __getattr__(name: str) -> Any:
    if name == "Bits":
        import numpy.typing as npt

        return npt.NDArray[Any]
    raise AttributeError(name)


def carrier(dtype: str) -> np.dtype[Any]:
    """The little-endian unsigned integer type that holds one element's bits."""
    import numpy as np

    return np.dtype(f"<u{ITEM_BYTES[dtype]}")

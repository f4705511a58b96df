"""Range coders by tables of a test's own choice."""

from __future__ import annotations

import numpy as np

from paramdelta.codecs import alphabets, rans, rans_model
from paramdelta.codecs.alphabets import Alphabet
from paramdelta.codecs.base import TensorSpec
from paramdelta.codecs.rans_model import Model


def model_of(
    symbols: np.ndarray, groups: np.ndarray, edges: tuple[int, ...], bits: int, alphabet: Alphabet,
    dtype: str = "BF16",
) -> Model:  # fmt: skip
    """groups: (K, S) counts of classes."""
    folding = alphabets.folding(symbols, alphabet, dtype)
    draft = rans_model.Draft(folding.listed, folding.of(groups), alphabet, dtype, edges)
    return rans_model.fit(draft, bits)[0]


def encoder_of(
    model: Model, spec: TensorSpec, frame: int, lanes: int = rans.LANES
) -> rans.RansEncoder:
    return rans.RansEncoder(model, rans_model.to_bytes(model), spec, frame, lanes)

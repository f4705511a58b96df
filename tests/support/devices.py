"""The device that is here: a GPU, or the processor with Triton's interpreter (see conftest)."""

from __future__ import annotations

import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

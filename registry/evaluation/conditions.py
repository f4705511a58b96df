"""Under what a number was measured: all of it is kept, and what decides the number is its key."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from paramdelta import __version__
from paramdelta.digest import Digest, canonical_json, digest_of
from paramdelta.errors import UsageError
from paramdelta.scoring import Task
from registry import planning
from registry.evaluation.subject import TORCH_NAMES, Subject

PROGRAMS = ("torch", "transformers")
AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Conditions:
    """device: ``cpu`` or ``cuda``. dtype: that is computed with, ``auto`` for float32 on the CPU
    and the model's own on CUDA. seed: for tasks that draw."""

    device: str
    dtype: str
    seed: int

    def dtype_of(self, subject: Subject) -> str:
        if self.dtype != AUTO:
            return self.dtype
        return "float32" if self.device == "cpu" else subject.dtype

    def settings(self, subject: Subject, task: Task) -> Settings:
        """UsageError where a program that it needs is not installed."""
        found = {
            "dtype": self.dtype_of(subject),
            "device": self._device_name(),
            "seed": self.seed,
            "files": subject.files_digest,
        }
        programs = {name: _version(name) for name in (*PROGRAMS, *task.packages)}
        return Settings(found, programs)

    def _device_name(self) -> str:
        if self.device == "cpu":
            return f"cpu {platform.machine()}"
        import torch

        return f"{self.device} {torch.cuda.get_device_name()}"


@dataclass(frozen=True, slots=True)
class Settings:
    """values: dtype, device, seed, and the digest of config and tokenizer. programs: versions."""

    values: Mapping[str, Any]
    programs: Mapping[str, str]

    @property
    def digest(self) -> Digest:
        return digest_of(canonical_json({**self.values, "programs": dict(self.programs)}))

    @property
    def versions(self) -> dict[str, str]:
        """paramdelta's own is told and no key: its scorers carry revisions."""
        return {**self.programs, "paramdelta": __version__}


def conditions_of(device: str, dtype: str, seed: int) -> Conditions:
    """UsageError."""
    name = AUTO if dtype == AUTO else TORCH_NAMES[planning.parse_dtype(dtype) or ""]
    if seed < 0:
        raise UsageError("a seed is a whole number from 0 on")
    chosen, _ = planning.choose_device(device)
    return Conditions(chosen, name, seed)


def _version(program: str) -> str:
    try:
        return version(program)
    except PackageNotFoundError:
        raise UsageError(
            f"{program} is not installed", remedy="pip install 'paramdelta[eval]'"
        ) from None

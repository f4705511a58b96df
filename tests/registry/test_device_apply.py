"""Apply through a device gives the processor's digest: frames go in as they are, in blocks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from support.checkpoints import bits_of, changed, llama_like, tensor, write_checkpoint
from support.devices import DEVICE
from support.registries import open_registry

from paramdelta import codecs
from paramdelta.codecs import rans
from paramdelta.codecs.base import TensorSpec
from paramdelta.device.decoder import DeviceRans
from registry import device_apply, planning
from registry.device_apply import Devices

pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")  # NaNs
WIDE, ROWS, COLUMNS = "model.layers.0.mlp.down_proj.weight", 90, 128


def _ranged(choose: Callable[..., codecs.Encoder]) -> Callable[..., codecs.Encoder]:
    """Range coding for the wide tensor, which is too small to gain from it."""

    def chosen(
        stats: codecs.Statistics, elements: int, dtype: str, row_length: int
    ) -> codecs.Encoder:
        if elements != ROWS * COLUMNS:
            return choose(stats, elements, dtype, row_length)
        symbols, counts = stats.finish()
        spec = TensorSpec(dtype, elements, row_length)
        encoder, _ = rans.fitted(symbols, counts, stats.bins, spec)
        assert encoder is not None
        return encoder

    return chosen


@pytest.mark.parametrize("deltas", [["one"], ["one:0.7"], ["two:0.5", "one:0.8"]])
def test_frames_are_decoded_and_added_in_blocks_with_the_same_digest(
    tmp_path: Path, deltas: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames of 4,096 elements, one a block: several blocks are in flight, the last is short."""
    monkeypatch.setattr(rans, "FRAME", 4096)
    monkeypatch.setattr(rans, "LARGE_FRAME", 4096)
    monkeypatch.setattr(device_apply, "FRAMES", 1)
    monkeypatch.setattr("registry.extract.codecs.choose", _ranged(codecs.choose))
    weights = llama_like(1)
    generator = np.random.default_rng(0)
    values = generator.standard_normal((ROWS, COLUMNS)).astype(np.float32) * 0.02
    weights[WIDE] = tensor("BF16", bits_of(values, "BF16"), (ROWS, COLUMNS))
    write_checkpoint(tmp_path / "base", weights)
    write_checkpoint(tmp_path / "newer", changed(weights, 9))
    decoded: list[int] = []
    launch = DeviceRans.launch

    def counted(self: DeviceRans, *tensors: torch.Tensor) -> None:
        decoded.append(1)
        launch(self, *tensors)

    monkeypatch.setattr(DeviceRans, "launch", counted)
    with open_registry(tmp_path, threads=1) as registry:  # the interpreter knows one thread
        for i, name in enumerate(("one", "two")):
            post = write_checkpoint(tmp_path / name, changed(weights, i, size=1e-4))
            registry.publish(name, str(tmp_path / "base"), str(post))
        wanted = registry.apply(registry.plan(deltas, str(tmp_path / "newer")), tmp_path / "cpu")
        assert not decoded
        monkeypatch.setattr(planning, "devices_of", lambda device: Devices([DEVICE]))
        found = registry.apply(registry.plan(deltas, str(tmp_path / "newer")), tmp_path / "device")
    assert len(decoded) >= 3 * len(deltas)
    assert found.content_digest == wanted.content_digest
    assert found.lost == wanted.lost

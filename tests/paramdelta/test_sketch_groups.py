"""Sketches by layer and module: their errors, their parts, and bytes from strangers."""

from __future__ import annotations

import json
import math
import struct

import numpy as np
import pytest

from paramdelta.codecs.zstd import Compressor, decompress_up_to
from paramdelta.digest import digest_of
from paramdelta.errors import InvalidError
from paramdelta.limits import MAX_SKETCHES_BYTES
from paramdelta.sketch import WIDTH
from paramdelta.sketch_groups import (
    MAX_PARTS,
    Drift,
    Estimate,
    Group,
    GroupSketches,
    SketchedTensor,
    group_of,
    grouped,
    part_blocks,
)
from paramdelta.sketching import TensorSketch

SUBJECT = digest_of(b"a manifest")
HEAD = "lm_head.weight"
PROJ = "model.layers.0.mlp.up_proj.weight"


def sketched(name: str, values: np.ndarray, chunk: int = 1 << 17) -> SketchedTensor:
    sketch = TensorSketch(name, part_blocks(name, values.size))
    flat = values.astype(np.float32).ravel()
    for start in range(0, flat.size, chunk):
        sketch.update(flat[start : start + chunk], "F32")
    sketch.finish()
    return SketchedTensor(name, values.shape, sketch.norm, sketch.parts())


def group(name: str, values: np.ndarray) -> Group:
    (found,) = grouped([sketched(name, values)])
    return found


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("model.layers.3.mlp.up_proj.weight", "model.layers.3.mlp.up_proj.weight"),
        ("model.layers.3.mlp.experts.17.up.weight", "model.layers.3.mlp.experts.*.up.weight"),
        ("language_model.model.layers.3.a.weight", "model.layers.3.a.weight"),
        ("lm_head.weight", "lm_head.weight"),
        ("h.11.attn.0", "h.11.attn.*"),
    ],
)  # fmt: skip
def test_a_group_is_a_module_of_a_layer(name: str, title: str) -> None:
    assert group_of(name) == title


def test_experts_are_summed_and_other_experts_are_another_table() -> None:
    dice = np.random.default_rng(1)
    names = [f"model.layers.0.mlp.experts.{i}.up_proj.weight" for i in range(3)]
    tensors = [sketched(name, dice.standard_normal((64, 100))) for name in names]
    (whole,) = grouped(tensors)
    (less,) = grouped(tensors[:2])
    assert (whole.tensors, whole.elements) == (3, 19200)
    assert math.isclose(whole.norm, math.hypot(*(one.norm for one in tensors)))
    assert whole.table != less.table and whole.name == less.name
    assert not whole.is_exact


def test_parts_add_up_to_the_sketch_and_do_not_depend_on_chunks() -> None:
    values = np.random.default_rng(2).standard_normal((37, 4000))
    one, two = sketched(HEAD, values), sketched(HEAD, values, chunk=777)
    plain = TensorSketch(HEAD)
    plain.update(values.astype(np.float32).ravel(), "F32")
    assert 1 < len(one.parts) <= MAX_PARTS
    assert np.array_equal(one.parts, two.parts)
    assert np.allclose(one.parts.sum(axis=0), plain.finish(), rtol=0, atol=1e-9)
    assert len(sketched(PROJ, values).parts) == 1


def test_a_tensor_of_one_block_is_exact() -> None:
    dice = np.random.default_rng(3)
    a, b = (dice.standard_normal(WIDTH) for _ in range(2))
    found = Estimate.of(group(PROJ, a), group(PROJ, b))
    assert found.cosine_stderr == 0.0
    assert abs(found.cosine - cosine(a, b)) < 1e-6


@pytest.mark.parametrize("name", [PROJ, HEAD])
@pytest.mark.parametrize("along", [0.0, 0.3, 0.9])
def test_the_stated_error_is_the_error(name: str, along: float) -> None:
    """Over many pairs, errors in units of the stated one have a root mean square near 1."""
    dice = np.random.default_rng(4)
    scores = []
    for _ in range(40):
        a = dice.standard_normal(20 * WIDTH)
        b = along * a + math.sqrt(1 - along**2) * dice.standard_normal(a.size)
        found = Estimate.of(group(name, a), group(name, b))
        assert found.cosine is not None and found.cosine_stderr
        scores.append((found.cosine - cosine(a, b)) / found.cosine_stderr)
    assert 0.7 < math.sqrt(np.mean(np.square(scores))) < 1.35
    assert abs(np.mean(scores)) < 0.6


def test_parts_make_a_lone_tensor_as_sure_as_three_hundredths_ask() -> None:
    """Four standard errors of a head below 0.03; of one sketch alone they would be 0.06."""
    dice = np.random.default_rng(5)
    a, b = (dice.standard_normal(64 * WIDTH) for _ in range(2))
    assert 4 * Estimate.of(group(HEAD, a), group(HEAD, b)).cosine_stderr < 0.03
    assert 4 * Estimate.of(group(PROJ, a), group(PROJ, b)).cosine_stderr > 0.06


def test_estimates_of_groups_add_up() -> None:
    dice = np.random.default_rng(6)
    pairs = [tuple(dice.standard_normal(n) + 0.4 for _ in range(2)) for n in (30000, 9000, 96)]
    names = [f"model.layers.{i}.x.weight" for i in range(3)]
    parts = [Estimate.of(group(n, a), group(n, b)) for n, (a, b) in zip(names, pairs, strict=True)]
    whole = Estimate.total(parts)
    a, b = (np.concatenate([pair[i] for pair in pairs]) for i in range(2))
    assert whole.elements == a.size and math.isclose(
        math.sqrt(whole.a), np.linalg.norm(a), rel_tol=1e-6
    )
    assert abs(whole.cosine - cosine(a, b)) < 4 * whole.cosine_stderr


def test_zero_has_no_cosine() -> None:
    zero = Estimate.of(group(PROJ, np.zeros(5000)), group(PROJ, np.ones(5000)))
    assert zero.cosine is None and zero.to_json()["cosine"] is None
    assert Estimate.total([]).to_json()["null"]["cosine_stderr"] is None


def test_drift_is_a_distance_in_lengths_of_the_delta() -> None:
    dice = np.random.default_rng(7)
    own, change, moved = (dice.standard_normal(50000) for _ in range(3))
    found = Drift.of(group(PROJ, own), group(PROJ, own + 0.1 * moved), group(PROJ, 0.5 * change))
    assert abs(found.ratio / 0.2 - 1) < 0.05
    assert Drift.of(group(PROJ, own), group(PROJ, own), group(PROJ, change)).ratio == 0.0


# -- bytes ------------------------------------------------------------------------------------


def some() -> GroupSketches:
    dice = np.random.default_rng(8)
    values = [(HEAD, dice.standard_normal(9 * WIDTH)), (PROJ, dice.standard_normal(9000))]
    return GroupSketches(SUBJECT, grouped([sketched(name, v) for name, v in values]))


def test_what_was_written_is_read() -> None:
    wrote = some()
    read = GroupSketches.from_bytes(wrote.to_bytes(), SUBJECT, "here")
    assert read.to_bytes() == wrote.to_bytes()
    assert [g.name for g in read.groups] == [HEAD, PROJ]
    for one, two in zip(wrote.groups, read.groups, strict=True):
        assert np.array_equal(one.buckets, two.buckets)
        assert (one.tensors, one.table, one.elements) == (two.tensors, two.table, two.elements)


def rewritten(change: object, data: bytes = b"") -> bytes:
    """The bytes of ``some`` after *change* of its table; data: appended to the numbers."""
    plain = decompress_up_to(some().to_bytes(), MAX_SKETCHES_BYTES)
    (length,) = struct.unpack("<I", plain[:4])
    table = json.loads(plain[4 : 4 + length])
    change(table)  # type: ignore[operator]
    text = json.dumps(table, sort_keys=True, separators=(",", ":")).encode()
    return Compressor().compress(struct.pack("<I", len(text)) + text + plain[4 + length :] + data)


def set_row(**values: object) -> object:
    return lambda table: table["groups"][0].update(values)


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.update(format=2),
        lambda table: table.update(kind="something"),
        lambda table: table.update(subject=digest_of(b"another")),
        lambda table: table.update(more=1),
        lambda table: table.pop("groups"),
        lambda table: table.update(groups="x"),
        lambda table: table["groups"].reverse(),
        lambda table: table["groups"].append(table["groups"][-1]),
        lambda table: table["groups"].append([]),
        set_row(parts=0),
        set_row(parts=2),
        set_row(parts=MAX_PARTS + 1),
        set_row(parts=True),
        set_row(elements=-1),
        set_row(norm="nan"),
        set_row(norm="9.999999999e+999"),
        set_row(norm="9.999999999e+200"),
        set_row(norm=1),
        set_row(table="x"),
        set_row(name=""),
        set_row(name="n" * 2000),
    ],
)  # fmt: skip
def test_a_table_that_lies_is_refused(change: object) -> None:
    with pytest.raises(InvalidError):
        GroupSketches.from_bytes(rewritten(change), SUBJECT, "here")


def test_numbers_that_are_none_too_many_or_cut_are_refused() -> None:
    sound = some().to_bytes()
    plain = decompress_up_to(sound, MAX_SKETCHES_BYTES)
    nan = plain[:-4] + np.float32(np.nan).tobytes()
    for data in (
        rewritten(lambda table: None, b"\0\0\0\0"),
        Compressor().compress(nan),
        Compressor().compress(plain[:-4]),
        Compressor().compress(plain[:2]),
        sound[:-1],
        sound[:100] + bytes([sound[100] ^ 1]) + sound[101:],
        sound + b"\0",
        b"",
    ):
        with pytest.raises(InvalidError):
            GroupSketches.from_bytes(data, SUBJECT, "here")

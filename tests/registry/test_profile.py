"""What a delta looks like, and what of it an apply rounds away."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from support.checkpoints import (
    bits_of,
    changed,
    llama_like,
    tensor,
    values_of,
    write_checkpoint,
)
from support.registries import family, open_registry
from support.tensors import load

from cli import run
from paramdelta.profile import directions

UP = "model.layers.0.mlp.up_proj.weight"


def change_of(folder: Path, post: str, name: str) -> torch.Tensor:
    before, after = load(folder / "base")[name], load(folder / post)[name]
    return (after.double() - before.double()).float().bfloat16()


def lost_by_hand(base: torch.Tensor, change: torch.Tensor, alpha: float) -> torch.Tensor:
    made = (base.double() + alpha * change.double()).float().bfloat16()
    return (made == base) & (change != 0)


def publish(folder: Path, size: float = 0.0005) -> Path:
    """A delta so small that much of it is rounded away; returns a base that has moved."""
    base, _, newer = family(folder)
    post = write_checkpoint(folder / "small", changed(llama_like(1), 2, size=size))
    with open_registry(folder) as registry:
        registry.publish("small", str(base), str(post))
    return newer


def test_a_profile_is_what_numpy_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    newer = publish(tmp_path)
    capsys.readouterr()
    words = ["profile", "small", "--base", str(newer), "--directions", "3", "--json"]
    assert run(["--registry", str(tmp_path / "registry"), *words]) == 0
    document = json.loads(capsys.readouterr().out)
    rows = {row["name"]: row for row in document["tensors"]}
    assert rows.keys() == load(tmp_path / "base").keys()
    change = change_of(tmp_path, "small", UP)
    row, values = rows[UP], np.linalg.svd(change.double().numpy(), compute_uv=False)
    weights = load(tmp_path / "base")[UP].double()
    whole = np.sum(values**2)
    assert math.isclose(row["relative_norm"], change.double().norm() / weights.norm(), rel_tol=1e-6)
    assert math.isclose(row["zeros"], (change == 0).double().mean())
    assert math.isclose(row["stable_rank"], whole / values[0] ** 2, rel_tol=1e-5)
    assert np.allclose(row["energy"], np.cumsum(values[:3] ** 2) / whole, rtol=1e-5)
    lost = lost_by_hand(load(newer)[UP], change, 1.0)
    assert math.isclose(row["below_half_ulp"], int(lost.sum()) / int((change != 0).sum()))
    assert 0 < row["below_half_ulp"] < 1
    assert rows["model.norm.weight"]["energy"] is None
    assert 0 < document["total"]["below_half_ulp"] < 1


def test_large_matrices_are_told_not_to_be_decomposed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tmp_path)
    monkeypatch.setattr("registry.profiling.MAX_PROFILE_ELEMENTS", 100)
    with open_registry(tmp_path) as registry:
        found = registry.profile("small")
        told = {problem.subject for problem in found.problems}
        assert UP in told and all(row.directions is None for row in found.tensors)
        assert not registry.profile("small", directions=0).problems
    assert found.to_json()["total"]["below_half_ulp"] is None


def test_directions_of_zeros_and_of_rank_one() -> None:
    assert directions(np.zeros((4, 5), dtype=np.float32), 2) is None
    one = np.outer(np.arange(1, 5), np.arange(1, 8)).astype(np.float32)
    found = directions(one, 3)
    assert found is not None and math.isclose(found.stable_rank, 1, rel_tol=1e-5)
    assert found.energy[0] > 0.99999


# -- lost updates -------------------------------------------------------------------------


@pytest.mark.parametrize("deltas", [["small:1"], ["small:0.25"], ["small:0.5", "other:0.25"]])
def test_lost_updates_are_counted_as_by_hand(tmp_path: Path, deltas: list[str]) -> None:
    newer = publish(tmp_path)
    other = write_checkpoint(tmp_path / "other", changed(llama_like(1), 8, size=0.0002))
    with open_registry(tmp_path) as registry:
        registry.publish("other", str(tmp_path / "base"), str(other))
        plan = registry.plan(deltas, str(newer))
        found = registry.apply(plan, tmp_path / "out").to_json()["lost_updates"]
    touched = lost = 0
    shares = {}
    for name, weight in load(newer).items():
        made = load(tmp_path / "out")[name]
        parts = [change_of(tmp_path, text.split(":")[0], name) != 0 for text in deltas]
        mine = torch.stack(parts).any(dim=0)
        gone = (made == weight) & mine
        touched, lost = touched + int(mine.sum()), lost + int(gone.sum())
        shares[name] = float(gone.sum() / mine.sum())
    assert (found["touched"], found["lost"]) == (touched, lost) and lost
    assert math.isclose(found["share"], lost / touched)
    worst = found["worst"][0]
    assert math.isclose(worst["share"], max(shares.values()), rel_tol=1e-6)
    assert math.isclose(shares[worst["name"]], worst["share"], rel_tol=1e-6)


def test_nothing_is_lost_in_a_wider_dtype_and_nothing_is_claimed(tmp_path: Path) -> None:
    newer = publish(tmp_path)
    with open_registry(tmp_path) as registry:
        plan = registry.plan(["small"], str(newer), dtype="float32")
        assert registry.apply(plan, tmp_path / "out").to_json()["lost_updates"] is None


def test_lost_updates_of_a_merge_are_those_of_the_merged_delta(tmp_path: Path) -> None:
    newer = publish(tmp_path)
    with open_registry(tmp_path) as registry:
        plain = registry.apply(registry.plan(["small"], str(newer)), tmp_path / "plain")
        neutral = registry.plan(["small"], str(newer), method="ties", options={"density": "1"})
        assert registry.apply(neutral, tmp_path / "a").lost == plain.lost
        sparse = registry.plan(["small"], str(newer), method="ties", options={"density": "0.1"})
        found = registry.apply(sparse, tmp_path / "b").lost
    assert sum(one.touched for one in found) < 0.2 * sum(one.touched for one in plain.lost)


def test_rows_of_new_tokens_are_never_lost(tmp_path: Path) -> None:
    name = "model.embed_tokens.weight"
    base = llama_like(1)
    rows, width = base[name][2]
    post = changed(base, 2)
    values = np.concatenate([values_of(post[name][1], "BF16"), np.ones(2 * width)])
    post[name] = tensor("BF16", bits_of(values, "BF16"), (rows + 2, width))
    folders = [write_checkpoint(tmp_path / "base", base), write_checkpoint(tmp_path / "post", post)]
    with open_registry(tmp_path) as registry:
        registry.publish("more", *map(str, folders))
        plan = registry.plan(["more"], str(folders[0]))
        found = {one.tensor: one for one in registry.apply(plan, tmp_path / "out").lost}
    assert found[name].lost == 0 and found[name].touched >= 2 * width

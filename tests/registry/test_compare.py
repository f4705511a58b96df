"""Comparing: what numpy says over the whole, by layer and module, and from the catalog alone."""

from __future__ import annotations

import json
import math
import shutil
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from support.adapters import lora_config, lora_pair, write_adapter
from support.checkpoints import (
    Tensors,
    bits_of,
    changed,
    llama_config,
    llama_like,
    tensor,
    values_of,
    write_checkpoint,
)
from support.registries import open_registry
from support.tensors import load

from cli import run
from paramdelta.errors import IncompatibleError, UsageError
from registry.registry import Registry

PROJ = "model.layers.0.self_attn.q_proj"


def publish(registry: Registry, folder: Path, posts: dict[str, Tensors]) -> None:
    base = write_checkpoint(folder / "base", llama_like(1))
    for name, tensors in posts.items():
        post = write_checkpoint(folder / name, tensors)
        registry.publish(name, str(base), str(post))


def deltas_of(folder: Path, name: str) -> dict[str, np.ndarray]:
    base, post = load(folder / "base"), load(folder / name)
    return {
        key: (post[key].double() - base[key].double()).float().bfloat16().double().numpy().ravel()
        for key in base
    }


def expected(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    both = (a != 0) & (b != 0)
    return {
        "cosine": a @ b / np.linalg.norm(a) / np.linalg.norm(b),
        "sign_agreement": (np.sign(a) == np.sign(b))[both].mean(),
        "overlap": both.sum() / ((a != 0) | (b != 0)).sum(),
        "norm_ratio": np.linalg.norm(b) / np.linalg.norm(a),
        "elements": a.size,
    }


def agrees(row: dict, wanted: dict[str, float]) -> bool:
    return all(math.isclose(row[key], value, rel_tol=1e-9) for key, value in wanted.items())


def test_every_pair_is_what_numpy_says(tmp_path: Path) -> None:
    base = llama_like(1)
    posts = {"x": changed(base, 2), "y": changed(base, 3), "z": changed(changed(base, 2), 4)}
    with open_registry(tmp_path) as registry:
        publish(registry, tmp_path, posts)
        found = registry.compare(["x", "y", "z"]).to_json()["pairs"]
    known = {name: deltas_of(tmp_path, name) for name in posts}
    assert [(row["a"], row["b"]) for row in found] == [
        (f"{a}@1", f"{b}@1") for a, b in combinations("xyz", 2)
    ]
    for row in found:
        a, b = known[row["a"][0]], known[row["b"][0]]
        names = sorted(a)
        assert agrees(row, expected(*(np.concatenate([d[n] for n in names]) for d in (a, b))))
        mine = [n for n in names if ".up_proj." in n]
        part = expected(*(np.concatenate([d[n] for n in mine]) for d in (a, b)))
        assert agrees(row["by_module"]["up_proj"], part)
        mine = [n for n in names if ".layers.1." in n]
        part = expected(*(np.concatenate([d[n] for n in mine]) for d in (a, b)))
        assert agrees(row["by_layer"]["1"], part)
        assert list(row["by_layer"]) == ["0", "1", "outside"]


def test_random_deltas_lie_within_what_chance_allows(tmp_path: Path) -> None:
    base = llama_like(1)
    with open_registry(tmp_path) as registry:
        publish(registry, tmp_path, {"x": changed(base, 2), "y": changed(base, 3)})
        row = registry.compare(["x", "y"]).to_json()["pairs"][0]
    null = row["null"]
    assert abs(row["cosine"] - null["cosine"]) < 5 * null["cosine_stderr"]
    error = null["sign_agreement_stderr"]
    assert abs(row["sign_agreement"] - null["sign_agreement"]) < 5 * error


def test_threads_and_chunks_do_not_change_a_digit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = llama_like(1)
    with open_registry(tmp_path) as registry:
        publish(registry, tmp_path, {"x": changed(base, 2), "y": changed(base, 3)})
    said = set()
    for threads, chunk in ((1, 1 << 17), (4, 77)):
        monkeypatch.setattr("registry.compare.CHUNK", chunk)
        with open_registry(tmp_path, threads) as registry:
            said.add(json.dumps(registry.compare(["x", "y"]).to_json()))
    assert len(said) == 1


def test_small_sketches_need_no_store_and_tell_their_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = llama_like(1)
    near = changed(changed(base, 2), 3, size=0.001)
    with open_registry(tmp_path) as registry:
        publish(registry, tmp_path, {"x": changed(base, 2), "y": near})
        exact = registry.compare(["x", "y"]).to_json()["pairs"][0]
    for part in (tmp_path / "registry").iterdir():
        if part.is_dir():
            shutil.rmtree(part)
    shutil.rmtree(tmp_path / "x")
    capsys.readouterr()
    where = ["--registry", str(tmp_path / "registry"), "--json"]
    assert run([*where, "compare", "x", "y", "--sketch"]) == 0
    row = json.loads(capsys.readouterr().out)["pairs"][0]
    assert abs(row["cosine"] - exact["cosine"]) < 5 * row["cosine_stderr"]
    assert abs(row["norm_a"] / exact["norm_a"] - 1) < 0.06
    assert run([*where, "compare", "x", "y"]) == 5  # the blobs are gone


def test_an_adapter_is_compared_where_it_changes_something(tmp_path: Path) -> None:
    base = llama_like(1)
    with open_registry(tmp_path) as registry:
        publish(registry, tmp_path, {"x": changed(base, 2)})
        rows, columns = base[f"{PROJ}.weight"][2]
        adapter = write_adapter(tmp_path / "lora", lora_pair(PROJ, rows, columns), lora_config())
        registry.publish("lora", str(tmp_path / "base"), lora=adapter)
        found = registry.compare(["x", "lora"])
    row = found.to_json()["pairs"][0]
    assert row["elements"] == rows * columns and list(row["by_module"]) == ["q_proj"]
    factors = lora_pair(PROJ, rows, columns)
    left, right = (
        values_of(bits, "F32").reshape(shape).astype(np.float64)
        for _, bits, shape in (factors[key] for key in sorted(factors, reverse=True))
    )
    product = (2 * left @ right).ravel()
    wanted = expected(deltas_of(tmp_path, "x")[f"{PROJ}.weight"], product)
    assert math.isclose(row["cosine"], wanted["cosine"], rel_tol=1e-5)
    assert "not in all deltas" in found.problems[0].reason


def test_vocabularies_of_two_sizes_are_compared_by_the_rows_they_share(tmp_path: Path) -> None:
    name = "model.embed_tokens.weight"
    base = llama_like(1)
    longer = changed(base, 5)
    rows, width = base[name][2]
    values = np.concatenate([values_of(longer[name][1], "BF16"), np.ones(2 * width)])
    longer[name] = tensor("BF16", bits_of(values, "BF16"), (rows + 2, width))
    write_checkpoint(tmp_path / "base", base)
    write_checkpoint(tmp_path / "same", changed(base, 2))
    config = llama_config() | {"vocab_size": rows + 2}
    write_checkpoint(tmp_path / "more", longer, config=config)
    with open_registry(tmp_path) as registry:
        for post in ("same", "more"):
            registry.publish(post, str(tmp_path / "base"), str(tmp_path / post))
        found = registry.compare(["same", "more"])
    assert found.to_json()["pairs"][0]["by_module"]["embed_tokens"]["elements"] == rows * width
    assert "rows that all have" in found.problems[0].reason


def test_what_cannot_be_compared_is_told(tmp_path: Path) -> None:
    base = llama_like(1)
    with open_registry(tmp_path) as registry:
        publish(registry, tmp_path, {"x": changed(base, 2)})
        for same in (["x"], ["x", "x@1"], []):
            with pytest.raises(UsageError):
                registry.compare(same)
        other = {"h.0.weight": base["model.norm.weight"]}
        folders = [
            write_checkpoint(tmp_path / name, made)
            for name, made in (("b2", other), ("p2", changed(other, 3)))
        ]
        registry.publish("far", *map(str, folders))
        with pytest.raises(IncompatibleError, match="no tensor in common"):
            registry.compare(["x", "far"])

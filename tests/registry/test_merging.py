"""Applying with a merge method: the same bits anywhere, and everything in the record."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from support.adapters import lora_config, lora_pair, write_adapter
from support.checkpoints import (
    bits_of,
    changed,
    llama_config,
    llama_like,
    tensor,
    values_of,
    write_checkpoint,
)
from support.merging import Delta, merge
from support.registries import family, open_registry
from support.tensors import load, same_bits

from paramdelta.errors import UsageError
from paramdelta.methods import METHODS
from registry import planning
from registry.device_apply import Devices
from registry.plan import PlanDelta
from registry.registry import Registry

MERGING = [name for name, method in METHODS.items() if method.merge]
MLP = "model.layers.0.mlp.up_proj.weight"

every_method = pytest.mark.parametrize("method", MERGING)


def publish_two(registry: Registry, folder: Path, dtype: str = "BF16") -> Path:
    """Deltas ``one`` and ``two``; returns the newer base."""
    base, post, newer = family(folder, dtype)
    other = write_checkpoint(folder / "other", changed(llama_like(1, dtype=dtype), 9, size=0.01))
    registry.publish("one", str(base), str(post))
    registry.publish("two", str(base), str(other))
    return newer


@dataclass(frozen=True)
class Published(Delta):
    """A delta under the digest that it was published under."""

    manifest: str = ""

    @property
    def digest(self) -> str:
        return self.manifest


def published(folder: Path, post: str, part: PlanDelta) -> Published:
    before, after = load(folder / "base")[MLP], load(folder / post)[MLP]
    change = (after.double() - before.double()).float().bfloat16()
    bits = change.contiguous().view(torch.int16).numpy().view(np.uint16).ravel()
    return Published(post, bits, part.alpha, "BF16", part.digest)


@every_method
def test_an_apply_is_base_plus_the_merged_delta(tmp_path: Path, method: str) -> None:
    with open_registry(tmp_path) as registry:
        newer = publish_two(registry, tmp_path)
        plan = registry.plan(["one:0.5", "two:0.75"], str(newer), method=method)
        registry.apply(plan, tmp_path / "out")
    posts = {"one@1": "post", "two@1": "other"}
    parts = [published(tmp_path, posts[delta.ref], delta) for delta in plan.deltas]
    made, old = load(tmp_path / "out")[MLP], load(newer)[MLP]
    merged = merge(method, parts, plan.options, columns=old.shape[1], name=MLP)
    change = torch.from_numpy(merged.reshape(old.shape)).double()
    assert made.equal((old.double() + change).float().bfloat16())


@every_method
def test_threads_chunks_shards_and_devices_do_not_change_the_digest(
    tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_registry(tmp_path) as registry:
        newer = publish_two(registry, tmp_path)
    digests = set()
    for i, (threads, shard, chunk, device) in enumerate(
        [
            (1, None, 1 << 17, "cpu"),
            (5, 3000, 77, "cpu"),
            (2, None, 7, "cpu"),
            (2, None, 1 << 17, "torch"),
        ]
    ):
        monkeypatch.setattr("registry.merging.CHUNK", chunk)
        if device == "torch":  # the code of the GPU path, on the CPU, without kernels
            monkeypatch.delenv("TRITON_INTERPRET", raising=False)
            monkeypatch.setattr(planning, "devices_of", lambda device: Devices(["cpu"]))
        with open_registry(tmp_path, threads) as registry:
            plan = registry.plan(
                ["two:0.6", "one:0.8"], str(newer), method=method, max_shard_size=shard
            )
            digests.add(registry.apply(plan, tmp_path / f"out{i}").content_digest)
            found = registry.verify_model(tmp_path / f"out{i}", str(newer))
            assert found.ok and found.checked["rederived"] == 1
    assert len(digests) == 1


@every_method
def test_one_delta_with_neutral_options_is_what_linear_gives(tmp_path: Path, method: str) -> None:
    options = {key: str(value) for key, value in METHODS[method].neutral.items()}
    with open_registry(tmp_path) as registry:
        newer = publish_two(registry, tmp_path)
        plain = registry.apply(registry.plan(["one"], str(newer)), tmp_path / "plain")
        plan = registry.plan(["one"], str(newer), method=method, options=options)
        assert registry.apply(plan, tmp_path / "out").content_digest == plain.content_digest


def test_the_record_holds_every_option_and_an_edited_one_is_found(tmp_path: Path) -> None:
    with open_registry(tmp_path) as registry:
        newer = publish_two(registry, tmp_path)
        plan = registry.plan(
            ["one", "two"], str(newer), method="dare_ties", options={"density": "0.5"}
        )
        registry.apply(plan, tmp_path / "out")
        path = tmp_path / "out" / "paramdelta.json"
        record = json.loads(path.read_text())
        assert record["method"] == "dare_ties"
        assert record["options"] == {
            "density": "0.5", "lambda": "1.0", "normalize": "count", "seed": "0",
        }  # fmt: skip
        record["options"]["seed"] = "1"
        path.write_text(json.dumps(record))
        found = registry.verify_model(tmp_path / "out", str(newer))
    assert not found.ok and "its recipe makes" in found.problems[0].reason


def test_low_rank_deltas_are_merged_like_any_other(tmp_path: Path) -> None:
    """A product's elements are float32: the other kind of thresholds, through a whole apply."""
    base, post, newer = family(tmp_path)
    rows, columns = load(base)[MLP].shape
    adapter = write_adapter(
        tmp_path / "lora", lora_pair(MLP.removesuffix(".weight"), rows, columns),
        lora_config(target_modules=["up_proj"]),
    )  # fmt: skip
    with open_registry(tmp_path) as registry:
        registry.publish("lora", str(base), lora=adapter)
        registry.publish("one", str(base), str(post))
        plan = registry.plan(["lora", "one"], str(newer), method="ties")
        registry.apply(plan, tmp_path / "out")
        assert registry.verify_model(tmp_path / "out", str(newer)).checked["rederived"] == 1


def test_rows_of_new_tokens_take_no_part_in_a_merge(tmp_path: Path) -> None:
    name = "model.embed_tokens.weight"
    base = llama_like(1)
    rows, width = base[name][2]
    rng = np.random.default_rng(5)
    new = rng.normal(size=(3, width)).astype(np.float32)
    post, other = changed(base, 2), changed(base, 7)
    values = np.concatenate([values_of(post[name][1], "BF16").reshape(rows, width), new])
    post[name] = tensor("BF16", bits_of(values, "BF16"), (rows + 3, width))
    config = llama_config()
    write_checkpoint(tmp_path / "base", base, config=config)
    longer = config | {"vocab_size": rows + 3}
    write_checkpoint(tmp_path / "post", post, config=longer)
    write_checkpoint(tmp_path / "other", other, config=config)
    with open_registry(tmp_path) as registry:
        registry.publish("more", str(tmp_path / "base"), str(tmp_path / "post"))
        registry.publish("same", str(tmp_path / "base"), str(tmp_path / "other"))
        plan = registry.plan(["more:0.5", "same"], str(tmp_path / "base"), method="ties")
        registry.apply(plan, tmp_path / "out")
    made, old = load(tmp_path / "out")[name], load(tmp_path / "base")[name]
    assert made[rows:].equal(load(tmp_path / "post")[name][rows:])
    # in every count they are zeros, in all deltas
    parts = []
    for delta in plan.deltas:
        after = load(tmp_path / {"more@1": "post", "same@1": "other"}[delta.ref])[name][:rows]
        change = torch.zeros((rows + 3, width), dtype=torch.bfloat16)
        change[:rows] = (after.double() - old.double()).float().bfloat16()
        bits = change.view(torch.int16).numpy().view(np.uint16).ravel()
        parts.append(Published("", bits, delta.alpha, "BF16", delta.digest))
    merged = merge("ties", parts, plan.options, columns=width, name=name)
    step = torch.from_numpy(merged.reshape(rows + 3, width)[:rows]).double()
    assert made[:rows].equal((old.double() + step).float().bfloat16())


def test_a_wrong_option_is_told_before_anything_is_read(tmp_path: Path) -> None:
    with open_registry(tmp_path) as registry:
        newer = publish_two(registry, tmp_path)
        for method, options, reason in (
            ("ties", {"density": "2"}, "a number 0 … 1"),
            ("ties", {"sparsity": "0.5"}, "density, normalize, lambda"),
            ("linear", {"density": "0.5"}, "none"),
            ("karcher", {}, "linear, magnitude, ties"),
        ):
            with pytest.raises(UsageError, match=reason):
                registry.plan(["one", "two"], str(newer), method=method, options=options)
        with pytest.raises(UsageError, match="two deltas"):
            registry.plan(["one", "two", "one:0.2"], str(newer), method="slerp")
        with pytest.raises(UsageError, match="at least 0"):
            registry.plan(["one", "two"], str(newer), method="slerp", alpha_for={"mlp": "-1"})


# -- alphas for some tensors --------------------------------------------------------------


def alphas_of(plan, name: str) -> dict[str, float]:
    tensor = next(t for t in plan.tensors if t.name == name)
    return {plan.deltas[term.index].ref: term.alpha for term in tensor.parts[0].terms}


def test_an_alpha_may_be_for_one_delta_alone(tmp_path: Path) -> None:
    with open_registry(tmp_path) as registry:
        newer = publish_two(registry, tmp_path)
        registry.set_alias("one@stable", 1)
        given = {"mlp": "0.5", "one@stable:mlp.up": "0.25"}
        plan = registry.plan(["one", "two"], str(newer), alpha_for=given)
        assert alphas_of(plan, MLP) == {"one@1": 0.25, "two@1": 0.5}
        assert plan.alpha_for == (("mlp", 0.5), ("one@1:mlp.up", 0.25))
        registry.apply(plan, tmp_path / "out")
        assert registry.verify_model(tmp_path / "out", str(newer)).checked["rederived"] == 1
        with pytest.raises(UsageError, match="matches no tensor"):
            registry.plan(["one"], str(newer), alpha_for={"two:mlp": "1"})


def test_a_ramp_runs_from_the_first_layer_to_the_last(tmp_path: Path) -> None:
    tensors = llama_like(1, layers=12)
    config = llama_config(layers=12)
    base = write_checkpoint(tmp_path / "base", tensors, config=config)
    post = write_checkpoint(tmp_path / "post", changed(tensors, 2), config=config)
    with open_registry(tmp_path) as registry:
        registry.publish("one", str(base), str(post))
        plan = registry.plan(["one:0.5"], str(base), alpha_for={"layers.{i}": "0:1"})
        found = [
            alphas_of(plan, f"model.layers.{i}.mlp.up_proj.weight")["one@1"] for i in range(12)
        ]
        assert np.allclose(found, np.arange(12) / 11, atol=1e-7)
        assert [pattern for pattern, _ in plan.alpha_for] == [f"layers.{i}." for i in range(12)]
        assert alphas_of(plan, "model.norm.weight") == {"one@1": 0.5}
        registry.apply(plan, tmp_path / "out")
        assert registry.verify_model(tmp_path / "out").checked["rederived"] == 1
        for wrong in ({"layers.{i}": "1"}, {"mlp": "0:1"}, {"h.{i}": "0:1"}, {"one:": "1"}):
            with pytest.raises(UsageError):
                registry.plan(["one"], str(base), alpha_for=wrong)


def test_the_merge_of_linear_is_untouched(tmp_path: Path) -> None:
    """``--method linear`` and no method at all are one thing, and have no options."""
    with open_registry(tmp_path) as registry:
        newer = publish_two(registry, tmp_path)
        plans = [
            registry.plan(["one:0.8", "two:0.6"], str(newer), **more)
            for more in ({}, {"method": "linear"})
        ]
        assert plans[0].recipe() == plans[1].recipe() and plans[0].options == {}
        registry.apply(plans[0], tmp_path / "out")
    expected = {}
    for name, weight in load(newer).items():
        total = weight.double()
        for delta in plans[0].deltas:
            post = {"one@1": "post", "two@1": "other"}[delta.ref]
            after, before = load(tmp_path / post)[name], load(tmp_path / "base")[name]
            total += delta.alpha * (after.double() - before.double()).float().bfloat16().double()
        expected[name] = total.float().bfloat16()
    assert same_bits(load(tmp_path / "out"), expected)

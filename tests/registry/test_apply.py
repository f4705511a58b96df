"""Applying: the rule's bits, whatever the threads, shards or device; nothing skipped in silence."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
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
from support.registries import TOKENIZER, family, files_of, open_registry, pair
from support.tensors import load, same_bits

from paramdelta.errors import (
    ConflictError,
    CorruptError,
    IncompatibleError,
    NotFoundError,
    UsageError,
)
from registry import planning
from registry.device_apply import Devices
from registry.registry import Registry

TORCH = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


def float32(alpha: float) -> float:
    return struct.unpack("<f", struct.pack("<f", alpha))[0]


def by_hand(new: Path, parts: list[tuple[Path, Path, float, str]]) -> dict[str, torch.Tensor]:
    """The rule from the documentation in plain torch, deltas in the order of their digests."""
    out = {}
    for name, weight in load(new).items():
        total = weight.double()
        for base, post, alpha, _ in sorted(parts, key=lambda part: part[3]):
            before, after = load(base)[name], load(post)[name]
            change = (after.double() - before.double()).float().to(after.dtype)
            total = total + float32(alpha) * change.double()
        out[name] = total.float().to(weight.dtype)
    return out


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
@pytest.mark.parametrize("alpha", ["1", "0.7", "-0.25"])
def test_applying_equals_an_independent_reference(tmp_path: Path, dtype: str, alpha: str) -> None:
    base, post, newer = family(tmp_path, dtype)
    with open_registry(tmp_path) as registry:
        digest = registry.publish("chat", str(base), str(post)).release.digest
        registry.apply(registry.plan([f"chat:{alpha}"], str(newer)), tmp_path / "out")
    expected = by_hand(newer, [(base, post, float(alpha), digest)])
    assert same_bits(load(tmp_path / "out"), expected)


def publish_two(registry: Registry, folder: Path) -> list[tuple[Path, Path, float, str]]:
    base, post, _ = family(folder)
    other = write_checkpoint(folder / "other-post", changed(llama_like(1), 9, size=0.01))
    first = registry.publish("one", str(base), str(post)).release.digest
    second = registry.publish("two", str(base), str(other)).release.digest
    return [(base, post, 0.8, first), (base, other, 0.6, second)]


def test_a_mix_is_added_in_the_order_of_digests(tmp_path: Path) -> None:
    with open_registry(tmp_path) as registry:
        parts = publish_two(registry, tmp_path)
        digests = set()
        for i, deltas in enumerate((["one:0.8", "two:0.6"], ["two:0.6", "one:0.8"])):
            plan = registry.plan(deltas, str(tmp_path / "newer"))
            order = [delta.digest for delta in plan.deltas]
            assert order == sorted(order)
            digests.add(registry.apply(plan, tmp_path / f"out{i}").content_digest)
    assert len(digests) == 1
    assert same_bits(load(tmp_path / "out0"), by_hand(tmp_path / "newer", parts))


def test_threads_chunks_shards_and_devices_do_not_change_the_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_registry(tmp_path) as registry:
        publish_two(registry, tmp_path)
    digests = {}
    for i, (threads, shard, chunk, device) in enumerate(
        [(1, None, 1 << 17, "cpu"), (5, 3000, 1 << 17, "cpu"), (2, None, 77, "cpu"),
         (2, 10**9, 1 << 17, "torch")]
    ):  # fmt: skip
        monkeypatch.setattr("registry.apply.CHUNK", chunk)
        if device == "torch":  # the code of the GPU path, on the CPU, without kernels
            monkeypatch.delenv("TRITON_INTERPRET", raising=False)
            monkeypatch.setattr(planning, "devices_of", lambda device: Devices(["cpu"]))
        with open_registry(tmp_path, threads) as registry:
            plan = registry.plan(
                ["one:0.8", "two:0.6"], str(tmp_path / "newer"), max_shard_size=shard
            )
            digests[registry.apply(plan, tmp_path / f"out{i}").content_digest] = True
            assert registry.verify_model(tmp_path / f"out{i}").ok
    assert len(digests) == 1
    assert len(list((tmp_path / "out1").glob("*.safetensors"))) > 5


def test_alpha_zero_gives_the_base(tmp_path: Path) -> None:
    base, post, newer = family(tmp_path)
    with open_registry(tmp_path) as registry:
        registry.publish("chat", str(base), str(post))
        known = registry.add_base(str(newer)).base.content_digest
        found = registry.apply(registry.plan(["chat:0"], str(newer)), tmp_path / "out")
    assert found.content_digest == known


def test_the_own_base_with_alpha_one_is_near_the_post(tmp_path: Path) -> None:
    base, post, _ = family(tmp_path)
    with open_registry(tmp_path) as registry:
        registry.publish("chat", str(base), str(post))
        plan = registry.plan(["chat"], "base")
        assert plan.verdict == "identical"
        registry.apply(plan, tmp_path / "out")
    for name, made in load(tmp_path / "out").items():
        assert torch.allclose(made.float(), load(post)[name].float(), atol=1e-3)


def test_the_output_is_laid_out_as_its_base_and_brings_the_posts_behaviour(tmp_path: Path) -> None:
    base, post, newer = family(tmp_path)
    with open_registry(tmp_path) as registry:
        registry.publish("chat", str(base), str(post))
        found = registry.apply(registry.plan(["chat:0.5"], str(newer)), tmp_path / "out")
    out = tmp_path / "out"
    shards = {path.name for path in newer.glob("*.safetensors*")}
    assert {path.name for path in out.glob("*.safetensors*")} == shards
    assert (out / "chat_template.jinja").read_bytes() == (post / "chat_template.jinja").read_bytes()
    assert json.loads((out / "generation_config.json").read_text()) == {"eos_token_id": [62]}
    assert (out / "tokenizer.json").read_text() == TOKENIZER
    record = json.loads((out / "paramdelta.json").read_text())
    assert record["content_digest"] == found.content_digest
    assert record["deltas"] == [
        {"ref": "chat@1", "digest": found.plan.deltas[0].digest, "alpha": 0.5}
    ]
    assert record["base"]["content_digest"]
    card = (out / "README.md").read_text()
    assert "mit" in card and "chat@1" in card
    assert str(tmp_path) not in card + (out / "paramdelta.json").read_text()


def test_a_template_in_the_tokenizers_config_travels_too(tmp_path: Path) -> None:
    base, post, newer = family(tmp_path)
    (post / "chat_template.jinja").unlink()
    config = {"eos_token": "<|a|>", "chat_template": "{{ post }}"}
    (post / "tokenizer_config.json").write_text(json.dumps(config))
    with open_registry(tmp_path) as registry:
        registry.publish("chat", str(base), str(post))
        registry.apply(registry.plan(["chat"], str(newer)), tmp_path / "key")
        (newer / "chat_template.jinja").write_text("{{ base }}")
        registry.apply(registry.plan(["chat"], str(newer)), tmp_path / "file")
    made = json.loads((tmp_path / "key" / "tokenizer_config.json").read_text())
    assert made["chat_template"] == "{{ post }}"
    assert (tmp_path / "file" / "chat_template.jinja").read_text() == "{{ post }}"


def test_the_bases_behaviour_can_be_kept(tmp_path: Path) -> None:
    base, post, newer = family(tmp_path)
    with open_registry(tmp_path) as registry:
        registry.publish("chat", str(base), str(post))
        plan = registry.plan(["chat"], str(newer), keep_base_behaviour=True)
        registry.apply(plan, tmp_path / "out")
    assert not (tmp_path / "out" / "chat_template.jinja").exists()


def test_code_and_other_weights_of_a_base_do_not_travel(tmp_path: Path) -> None:
    base, post, newer = family(tmp_path)
    (newer / "modeling_x.py").write_text("raise SystemExit")
    (newer / "pytorch_model.bin").write_bytes(b"pickle")
    config = json.loads((newer / "config.json").read_text()) | {"auto_map": {"a": "modeling_x.B"}}
    (newer / "config.json").write_text(json.dumps(config))
    with open_registry(tmp_path) as registry:
        registry.publish("chat", str(base), str(post))
        plan = registry.plan(["chat"], str(newer))
        registry.apply(plan, tmp_path / "out")
    told = {problem.subject for problem in plan.problems}
    assert {"modeling_x.py", "pytorch_model.bin", "config.json"} <= told
    made = json.loads((tmp_path / "out" / "config.json").read_text())
    assert "auto_map" not in made
    assert not {"modeling_x.py", "pytorch_model.bin"} & set(files_of(tmp_path / "out"))


def test_the_dtype_can_be_chosen(tmp_path: Path) -> None:
    base, post, newer = family(tmp_path)
    with open_registry(tmp_path) as registry:
        digest = registry.publish("chat", str(base), str(post)).release.digest
        registry.apply(registry.plan(["chat:0.7"], str(newer), dtype="float32"), tmp_path / "out")
    for name, made in load(tmp_path / "out").items():
        change = (load(post)[name].double() - load(base)[name].double()).float().bfloat16()
        exact = load(newer)[name].double() + float32(0.7) * change.double()
        assert made.dtype == torch.float32
        assert made.equal(exact.float()), digest


def test_another_alpha_for_some_tensors(tmp_path: Path) -> None:
    base, _, newer = family(tmp_path)
    post = write_checkpoint(tmp_path / "far", changed(llama_like(1), 2, size=0.1))
    with open_registry(tmp_path) as registry:
        registry.publish("chat", str(base), str(post))
        known = load(newer)
        plan = registry.plan(["chat"], str(newer), alpha_for={"layers.*.mlp": "0"})
        registry.apply(plan, tmp_path / "out")
        with pytest.raises(UsageError, match="matches no tensor"):
            registry.plan(["chat"], str(newer), alpha_for={"nothing": "0"})
    for name, made in load(tmp_path / "out").items():
        assert made.equal(known[name]) == (".mlp." in name), name


def test_transformers_loads_and_runs_the_output(tmp_path: Path) -> None:
    """Invariant 7: an output folder loads as it is."""
    from transformers import AutoModelForCausalLM

    tensors = llama_like(1)
    folders = [
        write_checkpoint(tmp_path / name, made, config=llama_config(), shards=shards)
        for name, made, shards in (
            ("base", tensors, 1),
            ("post", changed(tensors, 2), 1),
            ("newer", changed(tensors, 3), 2),
        )
    ]  # fmt: skip
    with open_registry(tmp_path) as registry:
        registry.publish("chat", *map(str, folders[:2]))
        registry.apply(registry.plan(["chat"], str(folders[2])), tmp_path / "out")
    model, report = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert model.dtype == torch.bfloat16
    assert model.generate(torch.tensor([[1, 5, 9]]), max_new_tokens=3).shape[1] > 3
    assert load(tmp_path / "out")["lm_head.weight"].equal(model.lm_head.weight)


# -- verifying a model --------------------------------------------------------------------


def resolved(folder: Path) -> Path:
    base, post, newer = family(folder)
    with open_registry(folder) as registry:
        registry.publish("chat", str(base), str(post))
        registry.add_base(str(newer))
        registry.apply(registry.plan(["chat:0.9"], "newer"), folder / "out")
    return folder / "out"


def test_a_model_is_rederived_from_its_record(tmp_path: Path) -> None:
    out = resolved(tmp_path)
    with open_registry(tmp_path) as registry:
        found = registry.verify_model(out)
        assert found.ok and found.checked["rederived"] == 1


def test_a_model_whose_weights_changed_is_found(tmp_path: Path) -> None:
    out = resolved(tmp_path)
    path = next(out.glob("*.safetensors"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with open_registry(tmp_path) as registry:
        assert not registry.verify_model(out).ok


@pytest.mark.parametrize("change", [{"alpha": 0.8}, {"digest": "sha256:" + "0" * 64}])
def test_a_model_whose_recipe_was_edited_is_found(tmp_path: Path, change: dict) -> None:
    out = resolved(tmp_path)
    record = json.loads((out / "paramdelta.json").read_text())
    record["deltas"][0] |= change
    (out / "paramdelta.json").write_text(json.dumps(record))
    with open_registry(tmp_path) as registry:
        try:
            assert not registry.verify_model(out).ok
        except CorruptError:
            assert "digest" in change


def test_a_model_without_its_base_is_only_hashed_and_says_so(tmp_path: Path) -> None:
    out = resolved(tmp_path)
    with open_registry(tmp_path) as registry:
        registry.remove_base("newer")
        found = registry.verify_model(out)
        assert found.ok and found.checked["rederived"] == 0
        assert "not re-derived" in found.problems[0].reason
        assert registry.verify_model(out, str(tmp_path / "newer")).checked["rederived"] == 1
        assert not registry.verify_model(out, str(tmp_path / "base")).ok
        with pytest.raises(NotFoundError):
            registry.verify_model(tmp_path / "newer")


# -- what does not fit --------------------------------------------------------------------


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    base, post, _ = family(tmp_path)
    smaller = write_checkpoint(tmp_path / "small", llama_like(4, layers=1, hidden=16))
    with open_registry(tmp_path) as registry:
        registry.publish("chat", str(base), str(post))
        with pytest.raises(IncompatibleError) as caught:
            registry.plan(["chat"], str(smaller))
        checked = registry.check("chat", str(smaller))
    reasons = " ".join(map(str, caught.value.problems))
    assert "config.hidden_size" in reasons and "model.layers.1.mlp.up_proj.weight" in reasons
    assert checked.verdict == "incompatible" and not checked.ok


def test_other_heads_of_equal_shapes_are_refused(tmp_path: Path) -> None:
    base, post, _ = family(tmp_path)
    config = llama_config() | {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}
    other = write_checkpoint(tmp_path / "heads", llama_like(1), config=config)
    with open_registry(tmp_path) as registry:
        registry.publish("chat", str(base), str(post))
        assert registry.check("chat", str(other)).verdict == "incompatible"


def test_another_tokenizer_is_refused(tmp_path: Path) -> None:
    base, post, newer = family(tmp_path)
    text = TOKENIZER.replace('"a": 0, "b": 1', '"b": 0, "a": 1')
    (newer / "tokenizer.json").write_text(text)
    with open_registry(tmp_path) as registry:
        registry.publish("chat", str(base), str(post))
        with pytest.raises(IncompatibleError, match="problem"):
            registry.plan(["chat"], str(newer))


def test_every_tensor_of_base_and_delta_is_in_the_plan(tmp_path: Path) -> None:
    """Invariant 6."""
    shared: Tensors = {"w": tensor("BF16", bits_of([1.0, 2.0], "BF16"), (2,))}
    ids = tensor("I64", [1, 2], (2,))
    base, post = pair(
        tmp_path,
        shared | {"ids": ids, "gone": ids},
        changed(shared, 1, size=0.5) | {"ids": tensor("I64", [3, 4], (2,)), "new": ids},
    )
    newer = write_checkpoint(
        tmp_path / "newer", changed(shared, 5) | {"ids": ids, "gone": ids, "extra": ids}
    )
    with open_registry(tmp_path) as registry:
        registry.publish("x", str(base), str(post))
        with pytest.raises(IncompatibleError):
            registry.plan(["x"], str(newer))  # "extra" is not in the delta's architecture
        plan = registry.plan(["x"], str(base))
        actions = {t.name: t.action for t in plan.tensors}
        assert actions == {"w": "add", "ids": "replace", "gone": "copy", "new": "new"}
        told = {problem.subject for problem in plan.problems}
        assert {"ids", "gone", "new"} <= told
        registry.apply(plan, tmp_path / "out")
    made = load(tmp_path / "out")
    assert made["ids"].tolist() == [3, 4] and made["new"].tolist() == [1, 2]
    assert made["gone"].tolist() == [1, 2]


def test_a_wrapped_base_takes_the_delta_under_its_own_names(tmp_path: Path) -> None:
    """The same language model, saved inside a multimodal wrapper."""
    base, post, newer = family(tmp_path)

    def wrapped(name: str) -> str:
        rest = name.removeprefix("model.")
        return f"model.language_model.{rest}" if rest != name else name

    inner = {wrapped(name): t for name, t in changed(llama_like(1), 3).items()}
    config = {"model_type": "llama", "text_config": llama_config()}
    outer = write_checkpoint(
        tmp_path / "outer", inner, config=config, files={"tokenizer.json": TOKENIZER}
    )
    with open_registry(tmp_path) as registry:
        registry.publish("chat", str(base), str(post))
        assert registry.query_base(str(outer)).results[0].verdict == "compatible"
        assert registry.check("chat", str(outer)).ok
        registry.apply(registry.plan(["chat:0.5"], str(outer)), tmp_path / "out")
        registry.apply(registry.plan(["chat:0.5"], str(newer)), tmp_path / "plain")
    plain = load(tmp_path / "plain")
    assert same_bits(load(tmp_path / "out"), {wrapped(n): t for n, t in plain.items()})


def test_rows_that_a_post_added_extend_the_new_base(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    name = "model.embed_tokens.weight"

    def rows(n: int, start: int = 0) -> np.ndarray:
        return bits_of(random.standard_normal((n, 8)), "BF16")

    before = rows(10)
    after = np.concatenate([bits_of(values_of(before, "BF16") * 1.01, "BF16"), rows(2)])
    base, post = pair(
        tmp_path,
        {name: tensor("BF16", before, (10, 8))},
        {name: tensor("BF16", after, (12, 8))},
    )
    newer = write_checkpoint(tmp_path / "newer", {name: tensor("BF16", rows(10), (10, 8))})
    wider = write_checkpoint(tmp_path / "wider", {name: tensor("BF16", rows(14), (14, 8))})
    with open_registry(tmp_path) as registry:
        registry.publish("grown", str(base), str(post))
        plan = registry.plan(["grown:0.5"], str(newer))
        assert plan.verdict == "adaptable"
        registry.apply(plan, tmp_path / "out")
        registry.apply(registry.plan(["grown"], str(wider)), tmp_path / "out2")
    made = load(tmp_path / "out")[name]
    assert made.shape == (12, 8)
    assert made[10:].equal(load(post)[name][10:])  # the post's own rows, whatever alpha is
    assert load(tmp_path / "out2")[name][12:].equal(load(wider)[name][12:])


def test_two_deltas_that_replace_a_tensor_differently_are_refused(tmp_path: Path) -> None:
    ids = {"ids": tensor("I64", [1, 2], (2,)), "w": tensor("BF16", [1, 2], (2,))}
    base = write_checkpoint(tmp_path / "base", ids)
    with open_registry(tmp_path) as registry:
        for i in (3, 4):
            post = write_checkpoint(
                tmp_path / f"post{i}", ids | {"ids": tensor("I64", [i, i], (2,))}
            )
            registry.publish(f"d{i}", str(base), str(post))
        with pytest.raises(IncompatibleError) as caught:
            registry.plan(["d3", "d4"], str(base))
    assert any(p.subject == "ids" and p.severity == "error" for p in caught.value.problems)


# -- bad input leaves nothing -------------------------------------------------------------


def test_a_base_that_changed_since_it_was_registered_is_refused(tmp_path: Path) -> None:
    base, post, newer = family(tmp_path)
    with open_registry(tmp_path) as registry:
        registry.publish("chat", str(base), str(post))
        registry.add_base(str(newer))
        path = next(newer.glob("*.safetensors"))
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        with pytest.raises(CorruptError, match="content"):
            registry.apply(registry.plan(["chat"], "newer"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


def test_a_damaged_blob_stops_an_apply_and_leaves_nothing(tmp_path: Path) -> None:
    base, post, newer = family(tmp_path)
    with open_registry(tmp_path) as registry:
        registry.publish("chat", str(base), str(post))
        plan = registry.plan(["chat"], str(newer))
        blob = plan.tensors[0].parts[0].terms[0].source.stream.blob
        assert blob is not None
        path = tmp_path / "registry/store/blobs" / blob[7:9] / blob[9:]
        path.write_bytes(path.read_bytes()[:-2])
        with pytest.raises(CorruptError):
            registry.apply(plan, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


def test_an_existing_output_is_a_conflict(tmp_path: Path) -> None:
    base, post, newer = family(tmp_path)
    (tmp_path / "out").mkdir()
    with open_registry(tmp_path) as registry:
        registry.publish("chat", str(base), str(post))
        plan = registry.plan(["chat"], str(newer))
        with pytest.raises(ConflictError):
            registry.apply(plan, tmp_path / "out")
        registry.apply(plan, tmp_path / "out", force=True)


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ({"method": "nonsense"}, UsageError),
        ({"options": {"k": "v"}}, UsageError),
        ({"dtype": "int8"}, UsageError),
        ({"device": "tpu"}, UsageError),
        ({"max_shard_size": 0}, UsageError),
        ({"alpha_for": {"w": "nan"}}, UsageError),
    ],
)
def test_options_that_mean_nothing_are_refused(tmp_path: Path, what: dict, error: type) -> None:
    base, post, newer = family(tmp_path)
    with open_registry(tmp_path) as registry:
        registry.publish("chat", str(base), str(post))
        with pytest.raises(error):
            registry.plan(["chat"], str(newer), **what)

"""Reading LoRA adapters: what each tensor is, and everything that is refused, with its reason."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from support.adapters import (
    PREFIX,
    embedding_pair,
    lora_config,
    lora_pair,
    matrix,
    write_adapter,
)
from support.checkpoints import Tensors, llama_like, tensor, write_checkpoint

from paramdelta.adapter import Adapter, Copy, Product, Whole, read_adapter
from paramdelta.adapter_copies import check_copies
from paramdelta.checkpoint import Checkpoint
from paramdelta.errors import CorruptError, IncompatibleError, InvalidError, NotFoundError

Q0 = "model.layers.0.self_attn.q_proj"
K0 = "model.layers.0.self_attn.k_proj"
EMBED = "model.embed_tokens"


@pytest.fixture
def base(tmp_path: Path) -> Checkpoint:
    """Two layers, 32 wide, 4 heads and 2 of keys, 64 tokens, untied."""
    return Checkpoint.open(write_checkpoint(tmp_path / "base", llama_like()))


def read(path: Path, base: Checkpoint, tied: bool = False) -> Adapter:
    return read_adapter(path, base.tensors, tied=tied)


def without(names: tuple[str, ...], tensors: Tensors) -> Tensors:
    return {name: value for name, value in tensors.items() if name not in names}


def test_a_linear_layer_is_b_times_a(tmp_path: Path, base: Checkpoint) -> None:
    adapter = read(write_adapter(tmp_path / "a", lora_pair(K0, 16, 32)), base)
    assert adapter.products == (
        Product(f"{K0}.weight", f"{PREFIX}{K0}.lora_B.weight", f"{PREFIX}{K0}.lora_A.weight",
                False, 4, 2.0),
    )  # fmt: skip
    assert (adapter.whole, adapter.copies, adapter.problems) == ((), (), ())
    assert adapter.config.base_model == "some/base"
    assert adapter.path == tmp_path / "a"
    assert adapter.tensors[adapter.products[0].left].shape == (16, 4)


def test_an_embedding_is_the_transposed_product(tmp_path: Path, base: Checkpoint) -> None:
    adapter = read(write_adapter(tmp_path / "a", embedding_pair(EMBED, 64, 32)), base)
    names = [f"{PREFIX}{EMBED}.lora_embedding_{side}" for side in "BA"]
    assert adapter.products == (Product(f"{EMBED}.weight", *names, True, 4, 2.0),)


@pytest.mark.parametrize(
    ("config", "rank", "scale"),
    [
        ({}, 4, 2.0),
        ({"lora_alpha": 3}, 4, 0.75),
        ({"lora_alpha": 0.7}, 4, 0.7 / 4),
        ({"r": 3, "use_rslora": True}, 3, 8 / math.sqrt(3)),
        ({"r": 8, "rank_pattern": {"q_proj": 4}}, 4, 2.0),
        ({"alpha_pattern": {"q_proj": 1}}, 4, 0.25),
        ({"alpha_pattern": {"k_proj": 1, r".*\.0\..*": 2, "q_proj": 3}}, 4, 0.5),
        ({"alpha_pattern": {"model.layers.1.self_attn.q_proj": 1}}, 4, 2.0),
        ({"alpha_pattern": {"_proj": 1}}, 4, 2.0),
        (
            {"alpha_pattern": {"^self_attn.q_proj": 1, "^model.layers.0.self_attn.q_proj": 4}},
            4,
            1.0,
        ),
        ({"r": 8, "rank_pattern": {"q_proj": 4}, "use_rslora": True}, 4, 4.0),
        ({"lora_alpha": 0}, 4, 0.0),
        ({"lora_alpha": -8}, 4, -2.0),
    ],
)
def test_the_scale_is_peft_s(tmp_path: Path, base: Checkpoint, config, rank, scale) -> None:
    path = write_adapter(tmp_path / "a", lora_pair(Q0, 32, 32, rank), lora_config() | config)
    (product,) = read(path, base).products
    assert (product.rank, product.scale) == (rank, scale)


@pytest.mark.parametrize("spelling", ["modules_to_save.default.", "modules_to_save.", ""])
def test_modules_saved_whole_in_the_spellings_of_all_versions(
    tmp_path: Path, base: Checkpoint, spelling: str
) -> None:
    names = {f"{PREFIX}model.norm.{spelling}weight": tensor("F32", np.zeros(32), [32]),
             f"{PREFIX}lm_head.{spelling}weight": matrix(0, 64, 32)}  # fmt: skip
    adapter = read(write_adapter(tmp_path / "a", names), base)
    assert {whole.target: whole.name for whole in adapter.whole} == {
        "model.norm.weight": f"{PREFIX}model.norm.{spelling}weight",
        "lm_head.weight": f"{PREFIX}lm_head.{spelling}weight",
    }
    assert [whole.target for whole in adapter.whole] == ["lm_head.weight", "model.norm.weight"]


def test_adapter_names_left_in_the_keys_are_understood(tmp_path: Path, base: Checkpoint) -> None:
    tensors = {name.replace(".weight", ".default.weight"): value
               for name, value in lora_pair(Q0, 32, 32).items()}  # fmt: skip
    tensors |= {f"{name}.my-name": value for name, value in embedding_pair(EMBED, 64, 32).items()}
    adapter = read(write_adapter(tmp_path / "a", tensors), base)
    assert [product.target for product in adapter.products] == [f"{EMBED}.weight", f"{Q0}.weight"]


def test_names_are_those_of_the_base_on_disk(tmp_path: Path) -> None:
    """Trained on a text model, published on the multimodal wrapper's folder, and the other way."""
    plain = llama_like()
    wrapped = {f"language_model.{name}": value for name, value in plain.items()}
    base = Checkpoint.open(write_checkpoint(tmp_path / "base", wrapped, config={}))
    adapter = read(write_adapter(tmp_path / "a", lora_pair(Q0, 32, 32)), base)
    assert adapter.products[0].target == f"language_model.{Q0}.weight"
    base = Checkpoint.open(write_checkpoint(tmp_path / "plain", plain))
    name = Q0.replace("model.", "model.language_model.", 1)
    adapter = read(write_adapter(tmp_path / "b", lora_pair(name, 32, 32)), base)
    assert adapter.products[0].target == f"{Q0}.weight"


def test_names_that_two_tensors_of_the_base_share_are_refused(tmp_path: Path) -> None:
    weights = {f"{prefix}{Q0}.weight": matrix(0, 32, 32)
               for prefix in ("language_model.", "model.language_")}  # fmt: skip
    base = Checkpoint.open(write_checkpoint(tmp_path / "base", weights, config={}))
    with pytest.raises(IncompatibleError) as caught:
        read(write_adapter(tmp_path / "a", lora_pair(Q0, 32, 32)), base)
    assert "may be" in caught.value.problems[0].reason


def test_trained_biases_are_whole_tensors(tmp_path: Path) -> None:
    weights = {f"{Q0}.weight": matrix(0, 32, 32), f"{Q0}.bias": tensor("F32", np.zeros(32), [32]),
               f"{K0}.bias": tensor("F32", np.zeros(16), [16])}  # fmt: skip
    base = Checkpoint.open(write_checkpoint(tmp_path / "base", weights))
    tensors = lora_pair(Q0, 32, 32) | {
        f"{PREFIX}{Q0}.base_layer.bias": tensor("F32", np.ones(32), [32]),
        f"{PREFIX}{K0}.bias": tensor("F32", np.ones(16), [16]),
    }
    adapter = read(write_adapter(tmp_path / "a", tensors, lora_config(bias="all")), base)
    assert adapter.whole == (
        Whole(f"{K0}.bias", f"{PREFIX}{K0}.bias"),
        Whole(f"{Q0}.bias", f"{PREFIX}{Q0}.base_layer.bias"),
    )


def gpt2(tmp_path: Path) -> Checkpoint:
    """Layers that keep their weights transposed: (in, out)."""
    shapes = {"attn.c_attn": (32, 96), "attn.c_proj": (32, 32), "mlp.c_fc": (32, 64),
              "mlp.c_proj": (64, 32), "attn.square": (32, 32)}  # fmt: skip
    tensors = {f"transformer.h.0.{n}.weight": matrix(0, *shape) for n, shape in shapes.items()}
    tensors["lm_head.weight"] = matrix(0, 80, 32)
    return Checkpoint.open(write_checkpoint(tmp_path / "gpt2", tensors, config={}))


def test_layers_that_keep_their_weights_transposed_are_known_by_their_shapes(
    tmp_path: Path,
) -> None:
    """PEFT's flag is that of the last module it met, so here it is wrong."""
    tensors: Tensors = {}
    for name, out, into in (("attn.c_attn", 96, 32), ("attn.c_proj", 32, 32),
                            ("mlp.c_proj", 32, 64)):  # fmt: skip
        tensors |= lora_pair(f"transformer.h.0.{name}", out, into)
    tensors |= lora_pair("lm_head", 80, 32)
    path = write_adapter(tmp_path / "a", tensors, lora_config(fan_in_fan_out=False))
    found = {p.target: p.transposed for p in read(path, gpt2(tmp_path)).products}
    assert found == {
        "lm_head.weight": False,
        "transformer.h.0.attn.c_attn.weight": True,
        "transformer.h.0.attn.c_proj.weight": True,
        "transformer.h.0.mlp.c_proj.weight": True,
    }


def test_a_square_weight_follows_the_flag_unless_other_shapes_contradict(tmp_path: Path) -> None:
    base = gpt2(tmp_path)
    for flag in (False, True):
        square = lora_pair("transformer.h.0.attn.square", 32, 32)
        path = write_adapter(tmp_path / f"{flag}", square, lora_config(fan_in_fan_out=flag))
        assert [p.transposed for p in read(path, base).products] == [flag]
    tensors = square | lora_pair("transformer.h.0.attn.c_attn", 96, 32)
    with pytest.raises(InvalidError, match="transposed"):
        read(write_adapter(tmp_path / "a", tensors, lora_config(fan_in_fan_out=False)), base)


REFUSED_CONFIGS = [
    ({"use_dora": True}, "use_dora", "DoRA"),
    ({"peft_type": "LOHA"}, "peft_type", "LOHA"),
    ({"peft_type": None}, "peft_type", "no type"),
    ({"peft_type": ["LORA"]}, "peft_type", "no type"),
    ({"lora_bias": True}, "lora_bias", "bias"),
    ({"layer_replication": [[0, 1]]}, "layer_replication", "repeated"),
    ({"trainable_token_indices": [1]}, "trainable_token_indices", "rows"),
    ({"target_parameters": ["experts.down"]}, "target_parameters", "parameters"),
    ({"megatron_config": {"a": 1}}, "megatron_config", "Megatron"),
    ({"use_qalora": True}, "use_qalora", "QALoRA"),
    ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens", "aLoRA"),
    ({"use_bdlora": {"nblocks": 2}}, "use_bdlora", "block-diagonal"),
    ({"arrow_config": {"top_k": 2}}, "arrow_config", "Arrow"),
    ({"kasa_config": {"beta": 1.0}}, "kasa_config", "KaSA"),
    ({"monteclora_config": {"x": 1}}, "monteclora_config", "samples"),
    ({"init_lora_weights": "pissa_niter_16"}, "init_lora_weights", "changes the base"),
    ({"init_lora_weights": "olora"}, "init_lora_weights", "changes the base"),
    ({"init_lora_weights": "corda"}, "init_lora_weights", "changes the base"),
    ({"init_lora_weights": "loftq"}, "init_lora_weights", "changes the base"),
    ({"init_lora_weights": "lora_ga"}, "init_lora_weights", "changes the base"),
    ({"init_lora_weights": 3}, "init_lora_weights", "a int"),
    ({"use_something_new": True}, "use_something_new", "not known"),
    ({"r": 0}, "r", "whole number"),
    ({"r": -4}, "r", "whole number"),
    ({"r": 4.0}, "r", "whole number"),
    ({"r": True}, "r", "whole number"),
    ({"r": 1 << 40}, "r", "whole number"),
    ({"r": None}, "r", "whole number"),
    ({"lora_alpha": "16"}, "lora_alpha", "number"),
    ({"lora_alpha": 1e300}, "lora_alpha", "number"),
    ({"lora_alpha": False}, "lora_alpha", "number"),
    ({"rank_pattern": {"q_proj": 0}}, "rank_pattern.q_proj", "whole number"),
    ({"rank_pattern": [4]}, "rank_pattern", "object"),
    ({"alpha_pattern": {"q_proj": [1]}}, "alpha_pattern.q_proj", "number"),
    ({"use_rslora": "yes"}, "use_rslora", "true or false"),
    ({"fan_in_fan_out": 1}, "fan_in_fan_out", "true or false"),
    ({"base_model_name_or_path": 7}, "base_model_name_or_path", "text"),
]


@pytest.mark.parametrize(("config", "subject", "reason"), REFUSED_CONFIGS)
def test_what_is_no_plain_lora_is_refused(
    tmp_path: Path, base: Checkpoint, config, subject: str, reason: str
) -> None:
    path = write_adapter(tmp_path / "a", lora_pair(Q0, 32, 32), lora_config() | config)
    with pytest.raises(InvalidError) as caught:
        read(path, base)
    assert caught.value.where == str(path / "adapter_config.json")
    (problem,) = caught.value.problems
    assert problem.subject == subject
    assert reason in problem.reason
    if reason not in ("a int",):
        assert problem.remedy


def test_all_reasons_are_told_at_once(tmp_path: Path, base: Checkpoint) -> None:
    config = lora_config() | {"use_dora": True, "r": -1, "init_lora_weights": "pissa"}
    with pytest.raises(InvalidError) as caught:
        read(write_adapter(tmp_path / "a", lora_pair(Q0, 32, 32), config), base)
    subjects = {problem.subject for problem in caught.value.problems}
    assert subjects == {"use_dora", "r", "init_lora_weights"}
    assert "and 2 other problems" in caught.value.message


def test_initialisations_that_leave_the_base_alone_are_fine(
    tmp_path: Path, base: Checkpoint
) -> None:
    for i, value in enumerate((True, False, None, "gaussian", "eva", "orthogonal", "mica")):
        config = lora_config(init_lora_weights=value)
        path = write_adapter(tmp_path / str(i), lora_pair(Q0, 32, 32), config)
        assert read(path, base).products


def test_fields_that_are_not_known_are_told(tmp_path: Path, base: Checkpoint) -> None:
    config = lora_config(some_new_size=16, runtime_config={}, eva_config=None)
    adapter = read(write_adapter(tmp_path / "a", lora_pair(Q0, 32, 32), config), base)
    (problem,) = adapter.problems
    assert (problem.subject, problem.severity) == ("some_new_size", "warning")


def test_a_pattern_that_is_no_pattern_is_refused(tmp_path: Path, base: Checkpoint) -> None:
    config = lora_config(rank_pattern={"(q_proj": 4})
    with pytest.raises(InvalidError) as caught:
        read(write_adapter(tmp_path / "a", lora_pair(Q0, 32, 32), config), base)
    assert caught.value.subject == "(q_proj"


PAIR = lora_pair(Q0, 32, 32)
A, B = f"{PREFIX}{Q0}.lora_A.weight", f"{PREFIX}{Q0}.lora_B.weight"
MALFORMED = [
    (without((A,), PAIR), B, "other half, A"),
    (without((B,), PAIR), A, "other half, B"),
    (PAIR | {f"{PREFIX}{Q0}.lora_B.bias": tensor("F32", np.ones(32), [32])},
     f"{PREFIX}{Q0}.lora_B.bias", "bias"),
    (PAIR | {f"{PREFIX}{Q0}.lora_magnitude_vector": tensor("F32", np.ones(32), [32])},
     f"{PREFIX}{Q0}.lora_magnitude_vector", "DoRA"),
    (PAIR | {f"{PREFIX}{Q0}.lora_magnitude_vector.weight": tensor("F32", np.ones(32), [32])},
     f"{PREFIX}{Q0}.lora_magnitude_vector.weight", "DoRA"),
    (PAIR | {f"{PREFIX}{Q0}.lora_diag": tensor("F32", np.ones(4), [4])},
     f"{PREFIX}{Q0}.lora_diag", "variant"),
    (PAIR | {f"{PREFIX}{EMBED}.token_adapter.trainable_tokens_delta": matrix(0, 2, 32)},
     f"{PREFIX}{EMBED}.token_adapter.trainable_tokens_delta", "single rows"),
    (lora_pair("model.layers.0.mlp.experts.base_layer", 32, 32),
     f"{PREFIX}model.layers.0.mlp.experts.base_layer.lora_A.weight", "fused experts"),
    (PAIR | {A.replace(".weight", ".other.weight"): PAIR[A]}, A, "second A"),
    (PAIR | {f"{PREFIX}{Q0}.weight": matrix(0, 32, 32)}, A, "changes"),
    (PAIR | {A: matrix(0, 3, 32)}, A, "rank"),
    (PAIR | {A: matrix(0, 3, 32), B: matrix(0, 32, 3)}, A, "rank is 3 in A, 3 in B and 4"),
    (PAIR | {A: tensor("F32", np.zeros(128), [4, 32, 1])}, A, "two matrices"),
    (PAIR | {A: tensor("F32", np.zeros(0), [4, 0])}, A, "two matrices"),
    (PAIR | {A: tensor("I8", np.zeros(128), [4, 32])}, A, "I8"),
    (PAIR | {A: tensor("F64", np.zeros(128), [4, 32])}, A, "F64"),
    ({}, "adapter_model.safetensors", "no LoRA"),
]  # fmt: skip


@pytest.mark.parametrize(("tensors", "subject", "reason"), MALFORMED)
def test_malformed_adapters_are_refused_by_tensor(
    tmp_path: Path, base: Checkpoint, tensors: Tensors, subject: str, reason: str
) -> None:
    path = write_adapter(tmp_path / "a", tensors)
    with pytest.raises(InvalidError) as caught:
        read(path, base)
    assert caught.value.where == str(path / "adapter_model.safetensors")
    found = {problem.subject: problem for problem in caught.value.problems}
    assert reason in found[subject].reason
    assert found[subject].remedy


MISFITS = [
    (lora_pair("model.layers.7.self_attn.q_proj", 32, 32), "no tensor"),
    (lora_pair(Q0, 31, 32), "shape mismatch"),
    (lora_pair(Q0, 32, 16), "shape mismatch"),
    (embedding_pair(EMBED, 65, 32), "shape mismatch"),
    (embedding_pair(EMBED, 32, 64), "shape mismatch"),
    ({f"{PREFIX}score.weight": matrix(0, 2, 32)}, "no tensor"),
    ({f"{PREFIX}model.norm.weight": tensor("F32", np.zeros(31), [31])}, "shape mismatch"),
    ({f"{PREFIX}lm_head.weight": matrix(0, 64, 31)}, "shape mismatch"),
    ({f"{PREFIX}{EMBED}.base_layer.weight": matrix(0, 70, 32)}, "resized"),
]


@pytest.mark.parametrize(("tensors", "reason"), MISFITS)
def test_adapters_of_another_base_are_refused(
    tmp_path: Path, base: Checkpoint, tensors: Tensors, reason: str
) -> None:
    both = tensors | lora_pair("model.layers.9.self_attn.q_proj", 32, 32)
    with pytest.raises(IncompatibleError) as caught:
        read(write_adapter(tmp_path / "a", both), base)
    assert len(caught.value.problems) == 2
    assert any(reason in problem.reason and problem.remedy for problem in caught.value.problems)


def test_a_quantised_base_is_refused(tmp_path: Path) -> None:
    weights = {f"{Q0}.weight": tensor("F8_E4M3", np.zeros(1024), [32, 32])}
    base = Checkpoint.open(write_checkpoint(tmp_path / "base", weights))
    with pytest.raises(IncompatibleError) as caught:
        read(write_adapter(tmp_path / "a", lora_pair(Q0, 32, 32)), base)
    assert "F8_E4M3" in caught.value.problems[0].reason


def test_a_grown_vocabulary_is_told(tmp_path: Path, base: Checkpoint) -> None:
    tensors = {f"{PREFIX}lm_head.weight": matrix(0, 66, 32)}
    adapter = read(write_adapter(tmp_path / "a", tensors), base)
    assert adapter.whole[0].target == "lm_head.weight"
    assert [problem.subject for problem in adapter.problems] == ["lm_head.weight"]


def test_pickles_are_never_opened(tmp_path: Path, base: Checkpoint) -> None:
    bomb = b"\x80\x04cos\nsystem\n(S'touch /tmp/pwned'\ntR."
    path = write_adapter(
        tmp_path / "a", PAIR, files={"training_args.bin": bomb, "adapter_model.bin": bomb}
    )
    told = {problem.subject: problem.severity for problem in read(path, base).problems}
    assert told == {"training_args.bin": "warning", "adapter_model.bin": "warning"}
    (path / "adapter_model.safetensors").unlink()
    with pytest.raises(InvalidError, match="run code") as caught:
        read(path, base)
    assert "safe_serialization" in caught.value.remedy


def test_folders_that_hold_no_adapter_say_what_they_hold(tmp_path: Path, base: Checkpoint) -> None:
    with pytest.raises(InvalidError, match="--post"):
        read(base.path, base)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidError, match="save_pretrained"):
        read(tmp_path / "empty", base)
    with pytest.raises(NotFoundError):
        read(tmp_path / "nowhere", base)
    path = write_adapter(tmp_path / "a", PAIR)
    (path / "adapter_config.json").unlink()
    with pytest.raises(InvalidError, match=r"adapter_config\.json"):
        read(path, base)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_links_out_of_the_folder_are_refused(tmp_path: Path, base: Checkpoint, name: str) -> None:
    path = write_adapter(tmp_path / "a", PAIR)
    os.rename(path / name, tmp_path / name)
    (path / name).symlink_to(tmp_path / name)
    with pytest.raises(InvalidError, match="link out of the folder"):
        read(path, base)


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"r": 4, "r": 5}', '{"lora_alpha": NaN}', '{"lora_alpha": Infinity}']
)
def test_configs_of_nonsense_are_refused(tmp_path: Path, base: Checkpoint, text: str) -> None:
    path = write_adapter(tmp_path / "a", PAIR)
    (path / "adapter_config.json").write_text(text)
    with pytest.raises(InvalidError) as caught:
        read(path, base)
    assert "adapter_config.json" in caught.value.where


def test_a_truncated_weight_file_is_corrupt(tmp_path: Path, base: Checkpoint) -> None:
    path = write_adapter(tmp_path / "a", PAIR)
    file = path / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(CorruptError):
        read(path, base)


def test_original_modules_are_ignored_aloud(tmp_path: Path, base: Checkpoint) -> None:
    tensors = PAIR | {f"{PREFIX}lm_head.original_module.weight": matrix(0, 64, 32)}
    adapter = read(write_adapter(tmp_path / "a", tensors), base)
    assert adapter.whole == ()
    assert [problem.severity for problem in adapter.problems] == ["note"]


# --- a base that ties its output head to its embedding ---------------------------------------


@pytest.fixture
def tied(tmp_path: Path) -> Checkpoint:
    tensors = without(("lm_head.weight",), llama_like(dtype="F32"))
    return Checkpoint.open(write_checkpoint(tmp_path / "tied", tensors))


HEAD_LORA = lora_pair("lm_head", 64, 32)
EMBED_LORA = embedding_pair(EMBED, 64, 32)
HEAD_WHOLE = {f"{PREFIX}lm_head.weight": matrix(7, 64, 32)}
EMBED_WHOLE = {f"{PREFIX}{EMBED}.weight": matrix(8, 64, 32)}


@pytest.mark.parametrize("tensors", [HEAD_LORA, EMBED_LORA, HEAD_WHOLE, EMBED_WHOLE,
                                     HEAD_LORA | EMBED_LORA, HEAD_WHOLE | EMBED_LORA])  # fmt: skip
def test_a_change_of_one_of_a_tied_pair_is_refused(
    tmp_path: Path, tied: Checkpoint, tensors: Tensors
) -> None:
    with pytest.raises(IncompatibleError) as caught:
        read(write_adapter(tmp_path / "a", tensors | PAIR), tied, tied=True)
    assert all("one tensor" in problem.reason for problem in caught.value.problems)
    assert all(problem.remedy for problem in caught.value.problems)


@pytest.mark.parametrize("tensors", [HEAD_LORA, HEAD_WHOLE])
def test_a_tied_adapter_of_the_head_alone_is_refused(
    tmp_path: Path, tied: Checkpoint, tensors: Tensors
) -> None:
    path = write_adapter(tmp_path / "a", tensors, lora_config(ensure_weight_tying=True))
    with pytest.raises(IncompatibleError):
        read(path, tied, tied=True)


@pytest.mark.parametrize("tensors", [EMBED_LORA, EMBED_WHOLE])
def test_a_tied_adapter_of_the_embedding_is_fine(
    tmp_path: Path, tied: Checkpoint, tensors: Tensors
) -> None:
    path = write_adapter(tmp_path / "a", tensors, lora_config(ensure_weight_tying=True))
    adapter = read(path, tied, tied=True)
    assert [one.target for one in (*adapter.products, *adapter.whole)] == [f"{EMBED}.weight"]


def transposed(pair: Tensors, name: str) -> tuple[str, np.ndarray, tuple[int, int]]:
    dtype, bits, (rows, cols) = pair[name]
    return dtype, np.ascontiguousarray(bits.reshape(rows, cols).T).ravel(), (cols, rows)


def twins() -> Tensors:
    """The head's factors are the embedding's, transposed: as PEFT ties them."""
    names = [f"{PREFIX}{EMBED}.lora_embedding_{side}" for side in "BA"]
    return EMBED_LORA | {
        f"{PREFIX}lm_head.lora_A.weight": transposed(EMBED_LORA, names[0]),
        f"{PREFIX}lm_head.lora_B.weight": transposed(EMBED_LORA, names[1]),
    }


def test_tied_adapters_of_both_count_once_if_they_are_one(tmp_path: Path, tied: Checkpoint) -> None:
    config = lora_config(ensure_weight_tying=True)
    adapter = read(write_adapter(tmp_path / "a", twins(), config), tied, tied=True)
    assert [product.target for product in adapter.products] == [f"{EMBED}.weight"]
    assert len(adapter.copies) == 2
    assert check_copies(adapter, tied) == ()
    other = twins() | {f"{PREFIX}lm_head.lora_B.weight": matrix(0, 64, 4)}
    adapter = read(write_adapter(tmp_path / "b", other, config), tied, tied=True)
    (problem,) = check_copies(adapter, tied)
    assert problem.subject == f"{PREFIX}lm_head.lora_B.weight"


def test_whole_tensors_of_both_count_once_if_they_are_one(tmp_path: Path, tied: Checkpoint) -> None:
    name = f"{PREFIX}lm_head.weight"
    same = {name: EMBED_WHOLE[f"{PREFIX}{EMBED}.weight"]}
    adapter = read(write_adapter(tmp_path / "a", EMBED_WHOLE | same), tied, tied=True)
    assert [whole.target for whole in adapter.whole] == [f"{EMBED}.weight"]
    assert check_copies(adapter, tied) == ()
    adapter = read(write_adapter(tmp_path / "b", EMBED_WHOLE | HEAD_WHOLE), tied, tied=True)
    (problem,) = check_copies(adapter, tied)
    assert (problem.subject, problem.severity) == (name, "error")


# --- copies of the base ----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["F32", "BF16"])
def test_a_copy_of_the_base_s_embedding_is_left_out_if_it_is_one(
    tmp_path: Path, base: Checkpoint, dtype: str
) -> None:
    """PEFT saves it beside an embedding's adapter, widened where the adapter is float32."""
    name = f"{PREFIX}{EMBED}.base_layer.weight"
    _, bits, shape = llama_like()[f"{EMBED}.weight"]
    kept = bits if dtype == "BF16" else (bits.astype(np.uint32) << 16)
    tensors = EMBED_LORA | {name: (dtype, kept, shape)}
    adapter = read(write_adapter(tmp_path / "a", tensors), base)
    assert adapter.copies == (Copy(name, f"{EMBED}.weight", in_base=True),)
    assert adapter.whole == ()
    assert check_copies(adapter, base) == ()
    other = kept.copy()
    other[-1] ^= 1
    adapter = read(write_adapter(tmp_path / "b", EMBED_LORA | {name: (dtype, other, shape)}), base)
    (problem,) = check_copies(adapter, base)
    assert (problem.subject, problem.severity) == (name, "error")


def test_reading_imports_neither_torch_nor_peft(tmp_path: Path, base: Checkpoint) -> None:
    import subprocess
    import sys

    path = write_adapter(tmp_path / "a", PAIR)
    code = (
        "import sys\nfrom pathlib import Path\nfrom paramdelta.adapter import read_adapter\n"
        "from paramdelta.checkpoint import Checkpoint\n"
        f"base = Checkpoint.open(Path({str(base.path)!r}))\n"
        f"assert read_adapter(Path({str(path)!r}), base.tensors, tied=False).products\n"
        "assert not {'torch', 'peft', 'numba'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_config_file_is_bounded(tmp_path: Path, base: Checkpoint) -> None:
    config = lora_config(rank_pattern={f"a{i}": 4 for i in range(20_001)})
    with pytest.raises(InvalidError, match="patterns"):
        read(write_adapter(tmp_path / "a", PAIR, config), base)
    assert json.loads((tmp_path / "a/adapter_config.json").read_text())["r"] == 4

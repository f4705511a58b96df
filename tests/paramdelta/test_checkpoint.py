"""Opening model folders, and reading tensors into the caller's buffers."""

from __future__ import annotations

import json
import os
import pickle
import struct
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from support.checkpoints import (
    Tensors,
    bits_of,
    llama_config,
    llama_like,
    safetensors_bytes,
    tensor,
    tensor_tables,
    write_checkpoint,
)

from paramdelta import checkpoint as checkpoint_module
from paramdelta import weight_files
from paramdelta.checkpoint import Checkpoint
from paramdelta.dtypes import carrier
from paramdelta.errors import CorruptError, InvalidError, NotFoundError, StorageError
from paramdelta.limits import MAX_CARRIED_FILE_BYTES, MAX_CONFIG_BYTES
from paramdelta.safetensors_header import TensorInfo

INDEX = "model.safetensors.index.json"
SMALL: Tensors = {
    "a": tensor("BF16", [1, 2, 3, 4], (2, 2)),
    "b": tensor("F32", [5], ()),
    "c": tensor("I64", [], (0, 7)),
    "d": tensor("BOOL", [1, 0, 1], (3,)),
}


def read_all(checkpoint: Checkpoint) -> Tensors:
    found: Tensors = {}
    with checkpoint.reader() as reader:
        for name, info in checkpoint.tensors.items():
            out = np.empty(info.elements, dtype=carrier(info.dtype))
            reader.read_into(info, 0, out)
            found[name] = (info.dtype, out, info.shape)
    return found


def assert_equal(found: Tensors, wanted: Tensors) -> None:
    assert {name: (d, b.tobytes(), s) for name, (d, b, s) in found.items()} == {
        name: (d, b.tobytes(), s) for name, (d, b, s) in wanted.items()
    }


def refused(path: Path) -> InvalidError:
    with pytest.raises(InvalidError) as caught:
        Checkpoint.open(path)
    assert str(path) in caught.value.where
    return caught.value


def edit_index(path: Path, change: Any) -> None:
    index = json.loads((path / INDEX).read_text())
    change(index)
    (path / INDEX).write_text(json.dumps(index))


# --- what is read ---------------------------------------------------------------------------


@pytest.mark.parametrize("shards", [1, 2, 4])
def test_tensors_are_read_bit_for_bit_from_any_number_of_shards(
    tmp_path: Path, shards: int
) -> None:
    path = write_checkpoint(tmp_path / "m", SMALL, shards)
    checkpoint = Checkpoint.open(path)
    assert list(checkpoint.tensors) == ["a", "b", "c", "d"]
    assert len(checkpoint.shards) == shards
    assert_equal(read_all(checkpoint), SMALL)
    for shard in checkpoint.shards:
        data = (path / shard.path).read_bytes()
        assert shard.size == len(data)
        assert data.startswith(shard.header.raw)


@settings(max_examples=40, deadline=None)
@given(tensor_tables(), st.integers(1, 3))
def test_special_values_are_read_as_the_reference_reads_them(tensors: Tensors, n: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write_checkpoint(Path(folder), tensors, n)
        checkpoint = Checkpoint.open(path)
        assert_equal(read_all(checkpoint), tensors)
        for shard in checkpoint.shards:
            with safe_open(path / shard.path, "pt") as theirs:
                names = {info.name for info in shard.header.tensors}
                assert set(theirs.keys()) == names
                for name in names:
                    assert tuple(theirs.get_tensor(name).shape) == tensors[name][2]


def test_pieces_of_a_tensor_make_the_whole(tmp_path: Path) -> None:
    bits = np.arange(1000, dtype="<u2")
    path = write_checkpoint(tmp_path / "m", {"x": ("F16", bits, (10, 100)), "y": SMALL["b"]})
    checkpoint = Checkpoint.open(path)
    out = np.zeros(1000, dtype="<u2")
    with checkpoint.reader() as reader:
        for start in range(0, 1000, 33):
            reader.read_into(checkpoint.tensors["x"], start, out[start : start + 33])
    assert np.array_equal(out, bits)


def test_threads_share_a_reader(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "m", llama_like(layers=3), shards=3)
    checkpoint = Checkpoint.open(path)
    wanted = read_all(checkpoint)
    found: list[Tensors] = []
    with checkpoint.reader() as reader:

        def read() -> None:
            mine: Tensors = {}
            for name, info in checkpoint.tensors.items():
                out = np.empty(info.elements, dtype=carrier(info.dtype))
                reader.read_into(info, 0, out)
                mine[name] = (info.dtype, out, info.shape)
            found.append(mine)

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 4
    for mine in found:
        assert_equal(mine, wanted)


def test_numbers_of_a_checkpoint(tmp_path: Path) -> None:
    tensors = SMALL | {"positions": tensor("I64", range(100), (100,))}
    checkpoint = Checkpoint.open(write_checkpoint(tmp_path / "m", tensors))
    assert checkpoint.parameters == 5  # of a and b: floating point
    assert checkpoint.dtype == "BF16"
    assert checkpoint.nbytes == 8 + 4 + 0 + 3 + 800


def test_dtype_of_a_checkpoint_without_floats(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "m", {"a": tensor("I8", [1, 2], (2,)), "b": SMALL["d"]})
    assert Checkpoint.open(path).dtype == "BOOL"


def test_single_file_of_another_name(tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").write_bytes(safetensors_bytes(SMALL))
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "other.safetensors").write_bytes(safetensors_bytes(SMALL))
    checkpoint = Checkpoint.open(tmp_path)
    assert [shard.path for shard in checkpoint.shards] == ["weights.safetensors"]
    assert {info.file for info in checkpoint.tensors.values()} == {"weights.safetensors"}
    assert [file.path for file in checkpoint.carried] == ["sub/other.safetensors"]


def test_hugging_face_snapshot_opens(tmp_path: Path) -> None:
    cache = tmp_path / "models--org--name"
    plain = write_checkpoint(cache / "blobs", llama_like(), shards=2)
    made = cache / "snapshots" / "abc"
    made.mkdir(parents=True)
    for path in plain.iterdir():
        (made / path.name).symlink_to(f"../../blobs/{path.name}")
    checkpoint = Checkpoint.open(made)
    assert_equal(read_all(checkpoint), llama_like())
    config = checkpoint.json_file("config.json")
    assert config is not None
    assert config["model_type"] == "llama"


# --- files beside the weights ---------------------------------------------------------------


def test_every_file_beside_the_weights_is_carried_or_told(tmp_path: Path) -> None:
    files = {
        "tokenizer.json": "{}",
        "1_Pooling/config.json": "{}",
        "training_args.bin": b"a pickle of settings",
        "pytorch_model.bin.index.json": "{}",
        "pytorch_model.bin": b"weights",
        "pytorch_model-00001-of-00002.bin": b"weights",
        "original/consolidated.00.pth": b"weights",
        "onnx/model.onnx": b"weights",
        "m.Q4_K_M.GGUF": b"weights",
        "tf_model.h5": b"weights",
        "flax_model.msgpack": b"weights",
        ".cache/x": b"",
    }
    path = write_checkpoint(tmp_path / "m", SMALL, 2, files=files)
    checkpoint = Checkpoint.open(path)
    assert [file.path for file in checkpoint.carried] == [
        "1_Pooling/config.json",
        "config.json",
        INDEX,
        "pytorch_model.bin.index.json",
        "tokenizer.json",
        "training_args.bin",
    ]
    assert [(problem.subject, problem.severity) for problem in checkpoint.left_out] == [
        ("flax_model.msgpack", "warning"),
        ("m.Q4_K_M.GGUF", "warning"),
        ("onnx/model.onnx", "warning"),
        ("original/consolidated.00.pth", "warning"),
        ("pytorch_model-00001-of-00002.bin", "warning"),
        ("pytorch_model.bin", "warning"),
        ("tf_model.h5", "warning"),
        (".cache", "note"),
    ]


def test_size_limit_of_carried_files(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "m", SMALL)
    for name, size in (("at", MAX_CARRIED_FILE_BYTES), ("past", MAX_CARRIED_FILE_BYTES + 1)):
        with open(path / name, "wb") as file:
            file.truncate(size)  # sparse
    checkpoint = Checkpoint.open(path)
    assert [file.path for file in checkpoint.carried] == ["at", "config.json"]
    assert [problem.subject for problem in checkpoint.left_out] == ["past"]


def test_number_limit_of_carried_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The limit itself is lowered: 10,000 files would take seconds.
    monkeypatch.setattr(weight_files, "MAX_CARRIED_FILES", 2)
    path = write_checkpoint(tmp_path / "m", SMALL, files={"x": ""})
    assert len(Checkpoint.open(path).carried) == 2
    (path / "y").write_bytes(b"")
    assert "3 files beside the weights; 2 allowed" in refused(path).reason


def test_small_files_are_read_within_bounds(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "m", SMALL, files={"sub/x.txt": "1234"})
    checkpoint = Checkpoint.open(path)
    assert checkpoint.read_file("sub/x.txt", 4) == b"1234"
    with pytest.raises(InvalidError, match="4 bytes; 3 allowed"):
        checkpoint.read_file("sub/x.txt", 3)
    for hostile in ("../m/config.json", "/etc/passwd", "sub/../config.json"):
        with pytest.raises(InvalidError, match="unsafe path"):
            checkpoint.read_file(hostile, 1 << 20)
    with pytest.raises(NotFoundError):
        checkpoint.read_file("none", 1)


def test_configuration_is_read_as_data(tmp_path: Path) -> None:
    config = {"auto_map": {"AutoModel": "evil.Model"}, "time_step_limit": [0.0, float("inf")]}
    files = {"evil.py": f"open({str(tmp_path / 'canary')!r}, 'w')", "list.json": "[]"}
    path = write_checkpoint(tmp_path / "m", SMALL, config=config, files=files)
    checkpoint = Checkpoint.open(path)
    assert checkpoint.json_file("config.json") == config
    assert checkpoint.json_file("generation_config.json") is None
    with pytest.raises(InvalidError, match="expected a JSON object"):
        checkpoint.json_file("list.json")
    assert not (tmp_path / "canary").exists()


def test_size_limit_of_configuration_files(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "m", SMALL)
    (path / "config.json").write_bytes(b"{}" + b" " * (MAX_CONFIG_BYTES - 2))
    assert Checkpoint.open(path).json_file("config.json") == {}
    (path / "config.json").write_bytes(b"{}" + b" " * (MAX_CONFIG_BYTES - 1))
    assert f"{MAX_CONFIG_BYTES} allowed" in refused(path).reason


# --- what is refused ------------------------------------------------------------------------


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        Checkpoint.open(tmp_path / "none")


class Canary:
    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "a.pt", "a.pth", "a.ckpt", "a.pkl"])
def test_pickles_are_refused_and_never_loaded(tmp_path: Path, name: str) -> None:
    path = tmp_path / "m"
    path.mkdir()
    (path / name).write_bytes(pickle.dumps(Canary(tmp_path / "canary")))
    error = refused(path)
    assert "pickled" in error.reason
    assert error.where.endswith(name)
    assert "safe_serialization=True" in error.remedy
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("name", ["model.gguf", "model.onnx"])
def test_other_formats_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"GGUF")
    assert "safetensors" in refused(tmp_path).remedy


def test_empty_folder_adapter_and_ambiguous_folder_are_refused(tmp_path: Path) -> None:
    assert "no safetensors weights" in refused(tmp_path).reason
    weights = safetensors_bytes(SMALL)
    (tmp_path / "adapter_model.safetensors").write_bytes(weights)
    assert "adapter" in refused(tmp_path).reason
    (tmp_path / "two.safetensors").write_bytes(weights)
    assert "2 safetensors files" in refused(tmp_path).reason


def test_stale_single_file_beside_an_index_is_refused(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "m", SMALL, 2)
    (path / "model.safetensors").write_bytes(safetensors_bytes(SMALL))
    assert "loaders differ" in refused(path).reason


def test_index_of_a_single_file_is_taken(tmp_path: Path) -> None:
    index = json.dumps({"weight_map": dict.fromkeys(SMALL, "model.safetensors")})
    path = write_checkpoint(tmp_path / "m", SMALL, files={INDEX: index})
    assert len(Checkpoint.open(path).shards) == 1


def test_checkpoint_without_tensors_is_refused(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "m", {})
    assert "no tensors" in refused(path).reason
    (path / "model.safetensors").unlink()
    (path / INDEX).write_text('{"weight_map": {}}')
    assert "no tensors" in refused(path).reason


@pytest.mark.parametrize(
    "quantisation",
    [
        {"quant_method": "gptq", "bits": 4},
        {"quant_method": "awq"},
        {"quant_method": "bitsandbytes", "load_in_4bit": True},
        {"load_in_8bit": True},
        {"quant_method": ["gptq"]},
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_quantised_weights_are_refused(
    tmp_path: Path, quantisation: dict[str, Any], nested: bool
) -> None:
    config: dict[str, Any] = {"quantization_config": quantisation}
    config = {"text_config": config} if nested else config
    error = refused(write_checkpoint(tmp_path / "m", SMALL, config=config))
    assert error.subject == "quantization_config"
    assert "original checkpoint" in error.remedy


@pytest.mark.parametrize("quantisation", [None, {}, {"quant_method": "fp8"}])
def test_weights_that_are_numbers_are_taken(tmp_path: Path, quantisation: Any) -> None:
    config = llama_config() | {"quantization_config": quantisation}
    Checkpoint.open(write_checkpoint(tmp_path / "m", SMALL, config=config))


def test_missing_shards_are_all_told(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "m", SMALL, 4)
    (path / "model-00002-of-00004.safetensors").unlink()
    (path / "model-00004-of-00004.safetensors").unlink()
    error = refused(path)
    assert "2 of 4 shards are missing" in error.reason
    assert [problem.subject for problem in error.problems] == [
        "model-00002-of-00004.safetensors",
        "model-00004-of-00004.safetensors",
    ]
    assert error.remedy


def test_truncated_shard_names_file_and_tensor(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "m", SMALL)
    file = path / "model.safetensors"
    os.truncate(file, file.stat().st_size - 1)
    with pytest.raises(CorruptError, match="truncated") as caught:
        Checkpoint.open(path)
    assert caught.value.where == str(file)
    assert caught.value.subject == "d"


def test_header_bomb_is_refused(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "m", SMALL)
    (path / "model.safetensors").write_bytes(struct.pack("<Q", 1 << 62) + b"{}")
    assert "claims a header" in refused(path).reason


def test_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "m", SMALL, 2)
    twice = safetensors_bytes({name: SMALL[name] for name in ("a", "c", "d")})
    (path / "model-00002-of-00002.safetensors").write_bytes(twice)
    error = refused(path)
    assert error.subject == "a"
    assert "two shards" in error.reason


def test_index_and_shards_must_agree_and_all_differences_are_told(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "m", SMALL, 2)

    def change(index: Any) -> None:
        shards = sorted(set(index["weight_map"].values()))
        del index["weight_map"]["a"]
        index["weight_map"]["b"] = shards[1]
        index["weight_map"]["ghost"] = shards[0]

    edit_index(path, change)
    error = refused(path)
    assert sorted(problem.subject for problem in error.problems) == ["a", "b", "ghost"]
    assert error.where.endswith(INDEX)
    assert error.remedy


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("[]", "does not map"),
        ("{}", "does not map"),
        ('{"weight_map": []}', "does not map"),
        ('{"weight_map": {"a": 1}}', "does not map"),
        ('{"weight_map": {"a": "../x.safetensors"}}', "unsafe path"),
        ('{"weight_map": {"a": "/x.safetensors"}}', "unsafe path"),
        ('{"weight_map": {"a": "x.bin"}}', "not a safetensors file"),
        ('{"weight_map": {"a": "x", "a": "y"}}', "duplicate key"),
        ("\ufeff{}", "byte order mark"),
        ("{", "not JSON"),
    ],
)
def test_malformed_index_is_refused(tmp_path: Path, value: str, reason: str) -> None:
    path = write_checkpoint(tmp_path / "m", {}, files={INDEX: value})
    (path / "model.safetensors").unlink()
    with pytest.raises(InvalidError, match=reason) as caught:
        Checkpoint.open(path)
    assert INDEX in caught.value.where


def test_limits_of_tensors_and_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The limits themselves are lowered: reaching the real ones would take minutes.
    path = write_checkpoint(tmp_path / "m", SMALL, 4)
    monkeypatch.setattr(weight_files, "MAX_SHARDS", 4)
    monkeypatch.setattr(weight_files, "MAX_TENSORS", 4)
    monkeypatch.setattr(checkpoint_module, "MAX_TENSORS", 4)
    Checkpoint.open(path)
    monkeypatch.setattr(checkpoint_module, "MAX_TENSORS", 3)
    assert "more than 3 tensors" in refused(path).reason
    monkeypatch.setattr(weight_files, "MAX_TENSORS", 3)
    assert "4 tensors in 4 shards; 3 in 4 allowed" in refused(path).reason
    monkeypatch.setattr(weight_files, "MAX_TENSORS", 4)
    monkeypatch.setattr(weight_files, "MAX_SHARDS", 3)
    assert "4 in 3 allowed" in refused(path).reason


def test_limit_of_all_headers_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_checkpoint(tmp_path / "m", SMALL, 4)
    held = sum(len(shard.header.raw) for shard in Checkpoint.open(path).shards)
    monkeypatch.setattr(checkpoint_module, "MAX_ALL_HEADERS_BYTES", held)
    Checkpoint.open(path)
    monkeypatch.setattr(checkpoint_module, "MAX_ALL_HEADERS_BYTES", held - 1)
    assert "bytes of headers" in refused(path).reason


# --- files that change under a reader -------------------------------------------------------


def test_file_that_shrank_is_corrupt(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "m", SMALL)
    checkpoint = Checkpoint.open(path)
    info = checkpoint.tensors["a"]
    out = np.zeros(4, dtype="<u2")
    with checkpoint.reader() as reader:
        os.truncate(path / "model.safetensors", info.begin + 3)
        with pytest.raises(CorruptError, match="changed while it was read") as caught:
            reader.read_into(info, 0, out)
    assert caught.value.subject == "a"
    assert out[0] == 1  # the part that was there


@pytest.mark.parametrize("grow", [True, False])
def test_file_that_was_replaced_is_corrupt(tmp_path: Path, grow: bool) -> None:
    path = write_checkpoint(tmp_path / "m", SMALL)
    checkpoint = Checkpoint.open(path)
    other = {f"{name}{'longer' if grow else ''}": SMALL[name] for name in reversed(SMALL)}
    (path / "model.safetensors").write_bytes(safetensors_bytes(other, {"format": "pt"}))
    with pytest.raises(CorruptError, match="changed since its header was read"):
        checkpoint.reader()


def test_file_that_is_gone(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "m", SMALL, 2)
    checkpoint = Checkpoint.open(path)
    (path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(NotFoundError):
        checkpoint.reader()


def test_disk_that_fails_is_a_storage_error(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(write_checkpoint(tmp_path / "m", SMALL))
    with checkpoint.reader() as reader:
        folder = os.open(tmp_path, os.O_RDONLY)
        (fd,) = reader._fds.values()
        os.dup2(folder, fd)  # reading a folder fails as a bad sector does
        os.close(folder)
        with pytest.raises(StorageError, match="cannot be read") as caught:
            reader.read_into(checkpoint.tensors["b"], 0, np.zeros(1, dtype="<u4"))
    assert caught.value.subject == "b"


def test_more_shards_than_are_kept_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_module, "MAX_OPEN_SHARDS", 1)
    path = write_checkpoint(tmp_path / "m", SMALL, 4)
    checkpoint = Checkpoint.open(path)
    before = len(os.listdir("/proc/self/fd"))
    assert_equal(read_all(checkpoint), SMALL)
    assert len(os.listdir("/proc/self/fd")) == before
    with checkpoint.reader() as reader:
        assert len(os.listdir("/proc/self/fd")) == before + 1
        os.truncate(path / "model-00004-of-00004.safetensors", 100)
        with pytest.raises(CorruptError):
            reader.read_into(checkpoint.tensors["d"], 0, np.zeros(3, dtype="u1"))
        assert len(os.listdir("/proc/self/fd")) == before + 1


def test_buffer_that_does_not_fit_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(write_checkpoint(tmp_path / "m", SMALL))
    info = checkpoint.tensors["a"]
    elsewhere = TensorInfo("a", "BF16", (4,), 0, 8, "other")
    with checkpoint.reader() as reader:
        for start, count in ((-1, 1), (0, 5), (4, 1), (5, 0)):
            with pytest.raises(ValueError, match="outside"):
                reader.read_into(info, start, np.zeros(count, dtype="<u2"))
        with pytest.raises(ValueError, match="does not carry"):
            reader.read_into(info, 0, np.zeros(2, dtype="<u4"))
        with pytest.raises(ValueError, match="not open"):
            reader.read_into(elsewhere, 0, np.zeros(1, dtype="<u2"))
        reader.read_into(info, 4, np.zeros(0, dtype="<u2"))
    with pytest.raises(ValueError, match="not open"):
        reader.read_into(info, 0, np.zeros(1, dtype="<u2"))


def test_bits_of_the_helper_are_the_dtypes_own() -> None:
    assert bits_of([1.0, -0.0], "BF16").tolist() == [0x3F80, 0x8000]
    assert bits_of([1.0, -0.0], "F16").tolist() == [0x3C00, 0x8000]
    assert bits_of([1.0, -0.0], "F32").tolist() == [0x3F800000, 0x80000000]

"""Which files of a folder are the model's weights, which travel beside them, which do not.

Only safetensors files are weights. Pickles and other formats are told apart by name, never opened.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from paramdelta import strict_json
from paramdelta.errors import InvalidError
from paramdelta.folder import Found, read_bounded
from paramdelta.limits import (
    MAX_CARRIED_FILE_BYTES,
    MAX_CARRIED_FILES,
    MAX_INDEX_BYTES,
    MAX_PROBLEMS,
    MAX_SHARDS,
    MAX_TENSORS,
)
from paramdelta.paths import check_relative_path
from paramdelta.problem import Problem
from paramdelta.safetensors_header import TensorInfo

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
SUFFIX = ".safetensors"
ADAPTER = "adapter_model.safetensors"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".msgpack", ".h5")
FOREIGN = (".gguf", ".ggml", ".onnx", ".tflite", ".mlmodel")
_SAVE = "save the model with save_pretrained(folder, safe_serialization=True)"
_REFETCH = "download or copy index and shards again, from one revision"
# The same weights once more, in formats that other tools read.
_DUPLICATES = (
    ("pytorch_model*.bin", "pickled"),
    ("model*.bin", "pickled"),
    ("*model*.pt", "pickled"),
    ("*model*.pth", "pickled"),
    ("consolidated*.pth", "pickled"),
    ("*.ckpt", "pickled"),
    ("*.gguf", "GGUF"),
    ("*.ggml", "GGML"),
    ("*.onnx", "ONNX"),
    ("*.onnx_data", "ONNX"),
    ("tf_model*.h5", "TensorFlow"),
    ("flax_model*.msgpack", "Flax"),
    ("rust_model.ot", "Rust"),
    ("openvino_model*.bin", "OpenVINO"),
    ("*.tflite", "TensorFlow Lite"),
    ("*.mlmodel", "Core ML"),
)
# The one quantisation whose checkpoints have a meaning in numbers: fp8 with its scales beside.
_NUMERIC_QUANTISATIONS = ("fp8",)


def weight_files(
    path: Path, files: Mapping[str, Found]
) -> tuple[list[str], Mapping[str, str] | None]:
    """(the safetensors files of the model, sorted; the index's tensor → file map if it has one).

    InvalidError where there are none, some are missing, or it is not clear which.
    """
    if INDEX in files:
        weight_map = parse_index(read_bounded(path, INDEX, MAX_INDEX_BYTES), path / INDEX)
        names = sorted(set(weight_map.values()))
        if SINGLE in files and SINGLE not in names:
            raise InvalidError(
                f"{SINGLE} stands beside an index of other files; loaders differ on which counts",
                where=path,
                remedy=f"remove {SINGLE}, or {INDEX} with its shards: whichever is stale",
            )
        _check_present(path, names, files)
        return names, weight_map
    if SINGLE in files:
        return [SINGLE], None
    top = [name for name in files if name.endswith(SUFFIX) and "/" not in name]
    if top == [ADAPTER]:
        raise InvalidError(
            "an adapter, not a whole model",
            where=path / ADAPTER,
            remedy="publish it with --lora, or merge it into its base first",
        )
    if len(top) == 1:
        return top, None
    if top:
        raise InvalidError(
            f"{len(top)} safetensors files and no {INDEX}",
            where=path,
            remedy="add the index, or keep one file",
        )
    raise _no_weights(path, files)


def _check_present(path: Path, names: list[str], files: Mapping[str, Found]) -> None:
    missing = [name for name in names if name not in files]
    if missing:
        raise InvalidError(
            f"{len(missing)} of {len(names)} shards are missing",
            where=path,
            subject=missing[0],
            remedy="download or copy the missing files",
            problems=[Problem(name, "missing") for name in missing[:MAX_PROBLEMS]],
        )


def _no_weights(path: Path, files: Mapping[str, Found]) -> InvalidError:
    pickles = [name for name in files if name.endswith(PICKLES)]
    foreign = [name for name in files if name.endswith(FOREIGN)]
    if pickles:
        return InvalidError(
            "pickled weights are never loaded: they can run code",
            where=path / pickles[0],
            remedy=_SAVE,
        )
    if foreign:
        return InvalidError(
            "quantised or exported weights have no exact difference",
            where=path / foreign[0],
            remedy="use the original safetensors checkpoint",
        )
    return InvalidError("no safetensors weights in this folder", where=path, remedy=_SAVE)


def parse_index(data: bytes, where: object) -> dict[str, str]:
    """tensor → shard, from an index's bytes: names of files in the folder only. InvalidError."""
    index = strict_json.loads(data, where, MAX_INDEX_BYTES)
    weights: Any = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weights, dict) or not all(type(v) is str for v in weights.values()):
        raise InvalidError(
            "does not map tensors to files", where=where, subject="weight_map", remedy=_SAVE
        )
    shards = set(weights.values())
    if len(weights) > MAX_TENSORS or len(shards) > MAX_SHARDS:
        raise InvalidError(
            f"{len(weights)} tensors in {len(shards)} shards; "
            f"{MAX_TENSORS} in {MAX_SHARDS} allowed",
            where=where,
        )
    for name in sorted(shards):
        check_relative_path(name, where)
        if not name.endswith(SUFFIX):
            raise InvalidError(
                "names a shard that is not a safetensors file",
                where=where,
                subject=name,
                remedy=_SAVE,
            )
    return weights


def check_index(
    path: Path, weight_map: Mapping[str, str], tensors: Mapping[str, TensorInfo]
) -> None:
    """InvalidError with all tensors about which the index and the shards disagree."""
    problems = [
        Problem(name, f"the index says {file}, where it is not")
        for name, file in weight_map.items()
        if name not in tensors or tensors[name].file != file
    ]
    problems += [
        Problem(name, f"in {info.file}, but not in the index")
        for name, info in tensors.items()
        if name not in weight_map
    ]
    if problems:
        raise InvalidError(
            f"index and shards disagree about {len(problems)} "
            f"tensor{'s' if len(problems) > 1 else ''}: {problems[0].reason}",
            where=path / INDEX,
            subject=problems[0].subject[:200],
            remedy=_REFETCH,
            problems=problems[:MAX_PROBLEMS],
        )


def sort_rest(
    path: Path, files: Mapping[str, Found], weights: Collection[str]
) -> tuple[tuple[Found, ...], tuple[Problem, ...]]:
    """(carried, left out) of the files that are not the model's weights."""
    carried, left_out = [], []
    for name, found in files.items():
        if name in weights:
            continue
        if reason := _reason_to_leave(found):
            left_out.append(Problem(name, reason, "warning"))
        else:
            carried.append(found)
    if len(carried) > MAX_CARRIED_FILES:
        raise InvalidError(
            f"{len(carried)} files beside the weights; {MAX_CARRIED_FILES} allowed",
            where=path,
            remedy="give the model's own folder",
        )
    return tuple(carried), tuple(left_out)


def _reason_to_leave(found: Found) -> str | None:
    name = found.path.rpartition("/")[2].lower()
    for pattern, form in _DUPLICATES:
        if fnmatchcase(name, pattern):
            return f"a {form} copy of weights does not travel"
    if found.size > MAX_CARRIED_FILE_BYTES:
        return (
            f"{found.size} bytes; files beside the weights travel up to "
            f"{MAX_CARRIED_FILE_BYTES}, so a restore will not bring it back"
        )
    return None


def check_quantisation(config: Mapping[str, Any] | None, where: Path) -> None:
    """InvalidError where the configuration says that the weights are codes, not numbers."""
    nested = (config or {}).get("text_config")
    for part in (config or {}, nested if isinstance(nested, dict) else {}):
        quantisation = part.get("quantization_config")
        if not isinstance(quantisation, dict) or not quantisation:
            continue
        method = quantisation.get("quant_method")
        if method in _NUMERIC_QUANTISATIONS:
            continue
        name = method[:40] if isinstance(method, str) else "an unnamed method"
        raise InvalidError(
            f"weights quantised by {name} have no exact difference",
            where=where,
            subject="quantization_config",
            remedy="use the original checkpoint in bfloat16, float16 or float32",
        )

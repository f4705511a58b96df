"""From tensors in memory and small files to a model that can be asked. Nothing is unpickled.

Weights come as bits, never from a file that transformers opens. Code of a checkpoint is never run.
A tensor that the model needs and has not, or has and does not need, is an error: transformers would
make the first up at random.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from paramdelta import strict_json
from paramdelta.errors import InvalidError, UsageError
from paramdelta.limits import MAX_CONFIG_BYTES, MAX_PROBLEMS
from paramdelta.problem import Problem
from paramdelta.scoring.base import Held
from paramdelta.scoring.language_model import LanguageModel

CONFIG, GENERATION = "config.json", "generation_config.json"
TORCH_DTYPES = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16,
    "I32": torch.int32, "I64": torch.int64, "BF16": torch.bfloat16, "F16": torch.float16,
    "F32": torch.float32, "F64": torch.float64,
}  # fmt: skip
_SIGNED = {1: np.int8, 2: np.int16, 4: np.int32, 8: np.int64}


def load_model(
    tensors: Mapping[str, Held], files: Mapping[str, bytes], dtype: str, device: str, where: object
) -> LanguageModel:
    """files: config, tokenizer and what goes with them, by name. dtype: torch's name of the numbers
    that are computed with. InvalidError where transformers cannot make a model of them."""
    transformers = _transformers()
    if CONFIG not in files:
        raise InvalidError(f"no {CONFIG}", where=where)
    with _folder(files) as folder, _told(where):
        config = transformers.AutoConfig.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
        with torch.device("meta"):
            made = transformers.AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        model, told = type(made).from_pretrained(
            None, config=config, state_dict={n: _tensor(n, t, where) for n, t in tensors.items()},
            torch_dtype=getattr(torch, dtype), output_loading_info=True,
        )  # fmt: skip
    _check(told, where)
    return LanguageModel(model.eval().to(device), tokenizer, _ends(files, where))


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise UsageError(
            "models are measured with transformers, which is not installed",
            remedy="pip install 'paramdelta[eval]'",
        ) from error
    library: Any = transformers
    library.logging.set_verbosity_error()  # what matters is checked here, and told as errors
    library.logging.disable_progress_bar()
    return library


@contextmanager
def _folder(files: Mapping[str, bytes]) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="paramdelta-") as folder:
        for name, data in files.items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        yield folder


@contextmanager
def _told(where: object) -> Iterator[None]:
    try:
        yield
    except InvalidError:
        raise
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # the library raises anything on a config that it does not know
        said = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        raise InvalidError(
            f"transformers cannot load it: {said}",
            where=where,
            remedy="a model that needs code of its own is not measured: that code is never run"
            if "trust_remote_code" in str(error)
            else "",
        ) from error


def _tensor(name: str, held: Held, where: object) -> torch.Tensor:
    kind = TORCH_DTYPES.get(held.dtype)
    if kind is None:
        raise InvalidError(f"{held.dtype} is not computed with", where=where, subject=name)
    signed = held.bits.view(_SIGNED[held.bits.itemsize])
    return torch.from_numpy(signed).view(kind).reshape(held.shape)


def _check(told: Mapping[str, Any], where: object) -> None:
    problems = [
        Problem(_name(name), reason)
        for key, reason in (
            ("missing_keys", "the model needs it; the checkpoint has it not"),
            ("unexpected_keys", "the checkpoint has it; the model does not know it"),
            ("mismatched_keys", "another shape than config.json says"),
            ("error_msgs", "cannot be loaded"),
        )
        for name in sorted(told.get(key) or (), key=str)
    ]
    if problems:
        raise InvalidError(
            f"{problems[0].subject}: {problems[0].reason}",
            where=where,
            problems=problems[:MAX_PROBLEMS],
        )


def _name(found: object) -> str:
    return str(found[0]) if isinstance(found, tuple) else str(found)


def _ends(files: Mapping[str, bytes], where: object) -> list[int]:
    """The end tokens: of generation_config.json, else of config.json."""
    for name in (GENERATION, CONFIG):
        if name not in files:
            continue
        value = strict_json.loads(files[name], f"{where}/{name}", MAX_CONFIG_BYTES, infinity=True)
        if not isinstance(value, dict):
            raise InvalidError("expected a JSON object", where=f"{where}/{name}")
        inner = value.get("text_config")
        for holder in (value, inner if isinstance(inner, dict) else {}):
            found = holder.get("eos_token_id")
            ids = [one for one in (found if isinstance(found, list) else [found])
                   if type(one) is int]  # fmt: skip
            if ids:
                return ids
    return []

"""Made the frozen artifact of format 1, once. Kept to show how; running it again proves nothing.

PYTHONPATH=.:tests python tests/data/v1/make.py FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from support.checkpoints import bits_of, changed, safetensors_bytes, tensor, write_checkpoint

from paramdelta import codecs
from paramdelta.codecs.base import TensorSpec
from paramdelta.codecs.palette import PaletteEncoder
from registry.config import Settings
from registry.registry import Registry

FP8 = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [8, 8]}}
ON_PALETTE = 8192  # elements of the tensor that gets the codec which large ones had before


def choose(stats, elements, dtype, row_length):
    """As the program chooses, but one tensor keeps an older codec in use."""
    if elements == ON_PALETTE:
        symbols, counts = stats.finish()
        histogram = np.zeros(1 << 16, dtype=np.int64)
        histogram[symbols] = counts.sum(axis=0)
        spec = TensorSpec(dtype, elements, row_length)
        return PaletteEncoder(histogram, spec, sparse=True, ranked=False)
    return CHOOSE(stats, elements, dtype, row_length)


CHOOSE = codecs.choose


def main() -> None:
    folder = Path(sys.argv[1])
    random = np.random.default_rng(1)
    weights = {
        "frozen": tensor("BF16", bits_of([1.0, 2.0], "BF16"), (2,)),
        "half": tensor("F16", bits_of(random.standard_normal(64), "F16"), (8, 8)),
        "wide": tensor("F32", bits_of(random.standard_normal(48), "F32"), (6, 8)),
        "big": tensor("BF16", bits_of(random.standard_normal(4096) * 0.02, "BF16"), (32, 128)),
        "sparse": tensor("BF16", bits_of(random.standard_normal(8192) * 0.02, "BF16"), (64, 128)),
        "ids": tensor("I64", [1, 2, 3], (3,)),
        "wide.weight": tensor("BF16", bits_of(random.standard_normal(65536) * 0.02, "BF16"),
                              (128, 512)),
        "eight.weight": tensor("F8_E4M3", random.integers(0, 120, 320), (20, 16)),
        "eight.weight_scale_inv": tensor("F32", bits_of([0.5, 1, 2, 3, 4, 5], "F32"), (3, 2)),
    }  # fmt: skip
    post = changed(weights, 2)
    post["eight.weight"] = tensor("F8_E4M3", random.integers(128, 250, 320), (20, 16))
    post["frozen"] = weights["frozen"]
    post["ids"] = tensor("I64", [3, 2, 1], (3,))
    post["new"] = tensor("BOOL", [1, 0, 1], (3,))
    bits = weights["sparse"][1].copy()
    bits[::50] += 1
    post["sparse"] = ("BF16", bits, (64, 128))
    post["half"][1][:3] = [0x7E01, 0x8000, 0x7C00]
    write_checkpoint(folder / "base", weights, config=FP8)
    files = {"a/notes.txt": "words\n"}
    write_checkpoint(folder / "post", post, shards=2, config=FP8, files=files)
    factors = {
        "base_model.model.wide.lora_A.weight":
            tensor("F32", bits_of(random.standard_normal(1024) * 0.1, "F32"), (2, 512)),
        "base_model.model.wide.lora_B.weight":
            tensor("F32", bits_of(random.standard_normal(256) * 0.1, "F32"), (128, 2)),
    }  # fmt: skip
    (folder / "lora").mkdir()
    (folder / "lora" / "adapter_model.safetensors").write_bytes(safetensors_bytes(factors))
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 3, "target_modules": ["wide"]}
    (folder / "lora" / "adapter_config.json").write_text(json.dumps(config))
    codecs.choose = choose
    settings = Settings.resolve(folder / "registry", store=str(folder / "store"), env={})
    with Registry.open(settings) as registry:
        pair = [str(folder / "base"), str(folder / "post")]
        done = registry.publish(
            "tiny/delta", *pair, author="nobody", description="frozen", tags={"format": "1"}
        )
        registry.publish("tiny/lora", pair[0], lora=folder / "lora", author="nobody")
        print(done.release.digest, done.release.summary.codecs)


if __name__ == "__main__":
    main()

"""Made the frozen artifact of format 1, once. Kept to show how; running it again proves nothing.

PYTHONPATH=.:tests python tests/data/v1/make.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from support.checkpoints import bits_of, changed, tensor, write_checkpoint

from registry.config import Settings
from registry.registry import Registry


def main() -> None:
    folder = Path(sys.argv[1])
    random = np.random.default_rng(1)
    weights = {
        "frozen": tensor("BF16", bits_of([1.0, 2.0], "BF16"), (2,)),
        "half": tensor("F16", bits_of(random.standard_normal(64), "F16"), (8, 8)),
        "wide": tensor("F32", bits_of(random.standard_normal(48), "F32"), (6, 8)),
        "big": tensor("BF16", bits_of(random.standard_normal(8192) * 0.02, "BF16"), (64, 128)),
        "sparse": tensor("BF16", bits_of(random.standard_normal(8192) * 0.02, "BF16"), (64, 128)),
        "ids": tensor("I64", [1, 2, 3], (3,)),
    }
    post = changed(weights, 2)
    post["frozen"] = weights["frozen"]
    post["ids"] = tensor("I64", [3, 2, 1], (3,))
    post["new"] = tensor("BOOL", [1, 0, 1], (3,))
    bits = weights["sparse"][1].copy()
    bits[::50] += 1
    post["sparse"] = ("BF16", bits, (64, 128))
    post["half"][1][:3] = [0x7E01, 0x8000, 0x7C00]
    write_checkpoint(folder / "base", weights)
    write_checkpoint(folder / "post", post, shards=2, files={"a/notes.txt": "words\n"})
    settings = Settings.resolve(folder / "registry", store=str(folder / "store"), env={})
    with Registry.open(settings) as registry:
        pair = [str(folder / "base"), str(folder / "post")]
        done = registry.publish(
            "tiny/delta", *pair, author="nobody", description="frozen", tags={"format": "1"}
        )
        print(done.release.digest, done.release.summary.codecs)


if __name__ == "__main__":
    main()

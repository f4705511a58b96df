"""Peak memory and time of publish, apply and restore on a synthetic bfloat16 checkpoint.

    make bench            2 GB; BENCH_GB=8 for more

Each command runs in a process of its own; peak RSS is the operating system's figure for it, so
interpreter, libraries and all. `cp` of the post's folder and a loop that loads whole models with
safetensors.torch (what people write by hand) run beside as the measures to compare with.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from safetensors import TensorSpec, serialize_file

HIDDEN, WIDE, VOCAB = 2048, 5632, 32000
BY_HAND = """
import sys, torch
from pathlib import Path
from safetensors.torch import load_file, save_file
base, post, new, out = map(Path, sys.argv[1:])
load = lambda d: {k: v for f in sorted(d.glob("*.safetensors")) for k, v in load_file(f).items()}
b, p, n = load(base), load(post), load(new)
out.mkdir(); save_file({k: (n[k].float() + (p[k].float() - b[k].float())).bfloat16() for k in n},
                       out / "model.safetensors", metadata={"format": "pt"})
"""


def shapes(layers: int) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCAB, HIDDEN)}
    for i in range(layers):
        prefix = f"model.layers.{i}."
        found |= {
            f"{prefix}input_layernorm.weight": (HIDDEN,),
            f"{prefix}mlp.down_proj.weight": (HIDDEN, WIDE),
            f"{prefix}mlp.gate_proj.weight": (WIDE, HIDDEN),
            f"{prefix}mlp.up_proj.weight": (WIDE, HIDDEN),
            f"{prefix}post_attention_layernorm.weight": (HIDDEN,),
            f"{prefix}self_attn.k_proj.weight": (HIDDEN, HIDDEN),
            f"{prefix}self_attn.o_proj.weight": (HIDDEN, HIDDEN),
            f"{prefix}self_attn.q_proj.weight": (HIDDEN, HIDDEN),
            f"{prefix}self_attn.v_proj.weight": (HIDDEN, HIDDEN),
        }
    return found | {"model.norm.weight": (HIDDEN,), "lm_head.weight": (VOCAB, HIDDEN)}


def bfloat16(values: np.ndarray) -> np.ndarray:
    wide = values.astype(np.float32).view(np.uint32)
    return ((wide + (0x7FFF + ((wide >> 16) & 1))) >> 16).astype(np.uint16)


def make(folder: Path, gigabytes: float) -> None:
    """base, post (relative change 2 %) and new (4 %), with rows of different scales."""
    layers = max(1, round((gigabytes * 1e9 / 2 - 2 * VOCAB * HIDDEN) / 51.4e6))
    table = shapes(layers)
    for name, change in (("base", 0.0), ("post", 0.02), ("new", 0.04)):
        target = folder / name
        target.mkdir(parents=True)
        random, noise = np.random.default_rng(0), np.random.default_rng(len(name))
        tensors, hold = {}, []
        for key, shape in table.items():
            rows = 0.02 * np.exp(0.25 * random.standard_normal((shape[0], 1)))
            weights = random.standard_normal((shape[0], int(np.prod(shape[1:]))), np.float32) * rows
            if change:
                weights += change * rows * noise.standard_normal(weights.shape, np.float32)
            bits = bfloat16(np.ascontiguousarray(weights, np.float32))
            hold.append(bits)
            tensors[key] = TensorSpec(
                dtype="bfloat16", shape=list(shape), data_ptr=bits.ctypes.data, data_len=bits.nbytes
            )
        serialize_file(tensors, str(target / "model.safetensors"), {"format": "pt"})
        (target / "config.json").write_text(
            f'{{"model_type": "llama", "architectures": ["LlamaForCausalLM"], '
            f'"intermediate_size": {WIDE}, "torch_dtype": "bfloat16", "hidden_size": {HIDDEN}, '
            f'"num_hidden_layers": {layers}, '
            f'"num_attention_heads": 16, "num_key_value_heads": 16, "vocab_size": {VOCAB}, '
            '"tie_word_embeddings": false}'
        )


def measured(command: list[str]) -> tuple[float, float]:
    """(seconds, peak RSS in MB) of one process."""
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"failed: {' '.join(command)}")
    return time.monotonic() - started, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=float(os.environ.get("BENCH_GB", 2)))
    parser.add_argument("--folder", type=Path, default=Path("bench-out"))
    parser.add_argument("--make-only", action="store_true", help="only write the checkpoints")
    parser.add_argument("--no-by-hand", action="store_true", help="it needs three models of memory")
    options = parser.parse_args()
    folder = options.folder.resolve()
    if options.make_only:
        make(folder, options.gigabytes)
        return
    shutil.rmtree(folder, ignore_errors=True)
    # in a process of its own: a child's peak counts what its parent held when it was forked
    words = ["--make-only", "--folder", str(folder), "--gigabytes", str(options.gigabytes)]
    subprocess.run([sys.executable, __file__, *words], check=True)
    base, post, new = (str(folder / name) for name in ("base", "post", "new"))
    size = sum(path.stat().st_size for path in Path(post).iterdir()) / 1e9
    tool = [sys.executable, "-m", "cli", "--registry", str(folder / "registry")]
    runs = {
        "cp -r": ["cp", "-r", post, str(folder / "copy")],
        "paramdelta publish": [*tool, "publish", "x", "--base", base, "--post", post],
        "paramdelta apply": [*tool, "apply", "x", "--base", new, "--out", str(folder / "applied")],
        "paramdelta apply, alpha 0.7": [
            *tool, "apply", "x:0.7", "--base", new, "--out", str(folder / "applied2"),
        ],
        "paramdelta restore": [*tool, "restore", "x", "--out", str(folder / "restored")],
    }  # fmt: skip
    if not options.no_by_hand:
        out = str(folder / "hand")
        runs["by hand, safetensors.torch"] = [sys.executable, "-c", BY_HAND, base, post, new, out]
    table = Table("what", "seconds", "GB/s", "peak RSS, MB", "time × cp")
    first = 0.0
    for name, command in runs.items():
        seconds, peak = measured(command)
        first = first or seconds
        table.add_row(
            name, f"{seconds:.1f}", f"{size / seconds:.2f}", f"{peak:.0f}", f"{seconds / first:.1f}"
        )
    console = Console()
    console.print(table)
    console.print(
        f"{size:.2f} GB of bfloat16, one run each; Python {platform.python_version()}, "
        f"numpy {np.__version__}, {os.cpu_count()} processors"
    )
    pair = [str(folder / "restored/model.safetensors"), f"{post}/model.safetensors"]
    same = subprocess.run(["cmp", *pair], check=False).returncode == 0
    console.print(f"restored equals the post: {same}")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()

"""Trains small real pairs for the codec's benchmark: a base and five posts. Seeded, minutes.

    .venv/bin/python benchmarks/train_pairs.py --out bench-out/pairs

A Llama of 10 M weights on byte pairs of this Python's own documentation and sources. The base is
trained in float32 and rounded to bfloat16; every post goes on from the rounded base with another
text: `adamw-1e-5`, `adamw-1e-4` and `adamw-5e-4` in float32 (a fine-tuning), `bf16-1e-5` and
`bf16-2e-6` with the weights themselves in bfloat16, where most steps are smaller than half a last
place and get lost: few weights change, as after reinforcement learning.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "family"))
from texts import read_texts

WIDTH, LAYERS, HEADS, KV_HEADS, MLP, TOKENS = 512, 2, 8, 4, 2048, 2048
BATCH, LENGTH = 8, 128
BASE_STEPS, POST_STEPS, BASE_RATE = 300, 120, 1e-3
POSTS = {
    "adamw-1e-5": (1e-5, torch.float32),
    "adamw-1e-4": (1e-4, torch.float32),
    "adamw-5e-4": (5e-4, torch.float32),
    "bf16-1e-5": (1e-5, torch.bfloat16),
    "bf16-2e-6": (2e-6, torch.bfloat16),
}


def encode(text: str, pairs: dict[bytes, int]) -> torch.Tensor:
    """Token ids: a byte pair of the vocabulary where there is one, else the byte."""
    data, ids, i = text.encode(), [], 0
    while i < len(data):
        pair = pairs.get(data[i : i + 2])
        ids.append(data[i] if pair is None else pair)
        i += 1 if pair is None else 2
    return torch.tensor(ids)


def vocabulary(text: str) -> dict[bytes, int]:
    """The commonest byte pairs, as many as fit beside the 256 bytes."""
    data, counts = text.encode(), dict[bytes, int]()
    for i in range(len(data) - 1):
        counts[data[i : i + 2]] = counts.get(data[i : i + 2], 0) + 1
    common = sorted(counts, key=lambda pair: (-counts[pair], pair))[: TOKENS - 256]
    return {pair: 256 + i for i, pair in enumerate(common)}


def train(model: LlamaForCausalLM, ids: torch.Tensor, steps: int, rate: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 20)
        starts = torch.randint(0, len(ids) - LENGTH, (BATCH,), generator=generator)
        rows = torch.stack([ids[s : s + LENGTH] for s in starts])
        loss = model(input_ids=rows, labels=rows).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0 or step == steps - 1:
            print(f"  step {step}: loss {loss.item():.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, default=Path("bench-out/pairs"))
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    read = read_texts()
    pairs = vocabulary(read.prose + read.code)
    first, second = encode(read.prose, pairs), encode(read.code, pairs)
    config = LlamaConfig(
        vocab_size=TOKENS, hidden_size=WIDTH, intermediate_size=MLP, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, max_position_embeddings=LENGTH,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    started = time.perf_counter()
    train(model, first, BASE_STEPS, BASE_RATE, 1)
    model.to(torch.bfloat16).save_pretrained(options.out / "base")
    print(f"base: {time.perf_counter() - started:.0f} s", flush=True)
    for name, (rate, dtype) in POSTS.items():
        post = copy.deepcopy(model).to(dtype)
        train(post, second, POST_STEPS, rate, 2)
        post.to(torch.bfloat16).save_pretrained(options.out / name)
        print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()

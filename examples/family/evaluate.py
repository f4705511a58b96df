"""Measures a model folder: accuracy on a task by greedy decoding, and loss on held-out text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tasks import Item
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

HELD_OUT = Path(__file__).parent / "checkpoints" / "heldout.txt"
WINDOW = 64  # tokens, as in training


def load(folder: str | Path) -> tuple[Any, Any]:
    """(model, tokenizer) of *folder*, in float32 for arithmetic that is the same everywhere."""
    torch.set_num_threads(1)
    logging.set_verbosity_error()  # long held-out text is cut into windows here
    logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(folder)


@torch.inference_mode()
def accuracy(model: Any, tokenizer: Any, items: list[Item]) -> float:
    """Share of items whose whole answer, up to ``<|eot_id|>``, is what greedy decoding writes.

    An answer is written greedily exactly if every one of its tokens is the most likely one after
    the prompt and the tokens before it: one forward pass a batch of equal lengths decides it.
    """
    groups: dict[tuple[int, int], list[list[int]]] = {}
    for item in items:
        prompt = tokenizer.encode(item.prompt, add_special_tokens=False)
        answer = tokenizer.encode(item.answer + "<|eot_id|>", add_special_tokens=False)
        groups.setdefault((len(prompt), len(answer)), []).append(prompt + answer)
    right = 0
    for (prompt_length, _), rows in groups.items():
        batch = torch.tensor(rows)
        best = model(batch[:, :-1]).logits.argmax(-1)
        right += int((best[:, prompt_length - 1 :] == batch[:, prompt_length:]).all(1).sum())
    return right / len(items)


@torch.inference_mode()
def lm_loss(model: Any, tokenizer: Any) -> float:
    """Mean cross-entropy in nats a token on the held-out text."""
    text = HELD_OUT.read_text(encoding="ascii")
    ids = torch.tensor(tokenizer.encode(text, add_special_tokens=False))
    windows = ids[: len(ids) // WINDOW * WINDOW].view(-1, WINDOW)
    losses = [float(model(w, labels=w).loss) * len(w) for w in windows.split(32)]
    return sum(losses) / len(windows)

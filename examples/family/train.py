"""Trains the family. Seeded, one CPU thread, about ten minutes.

    python examples/family/train.py [--out examples/family/checkpoints] [NAME ...]

base-1 → base-1.1 is continued pretraining with renamed reserved tokens and scaled rotary
positions, as Llama 3 → 3.1 did; the post-trainings mix task items with replayed text.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tasks
import texts
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

HERE = Path(__file__).parent
CORE_TOKENS = 352  # 256 bytes and merges of white space and punctuation
RESERVED = 16
WIDTH, LAYERS, HEADS, KV_HEADS, MLP = 96, 3, 4, 2, 256
POSITIONS = 256
BATCH, LENGTH = 32, 64
TASK_ROWS, REPLAY_ROWS = 32, 8

Rows = tuple[torch.Tensor, torch.Tensor]  # token ids and labels (-100: not scored)


def added_tokens(generation: str) -> list[str]:
    """Names by id after the core. Generation 1.1 takes three reserved names and shifts the rest."""
    named = ["<|begin_of_text|>", "<|end_of_text|>"]
    reserved = [f"<|reserved_special_token_{i}|>" for i in range(RESERVED)]
    head = ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    if generation == "1":
        return named + reserved[:2] + head + reserved[2:]
    new = ["<|finetune_right_pad_id|>", "<|eom_id|>"]
    return named + new + head + ["<|python_tag|>"] + reserved[: RESERVED - 3]


def make_tokenizers(text: str) -> dict[str, PreTrainedTokenizerFast]:
    """Byte-level BPE. Letters and digits stay single; spaces and punctuation merge."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[A-Za-z0-9]|[^\sA-Za-z0-9]+|\s+"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=CORE_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator([text], trainer)
    found = {}
    for generation in ("1", "1.1"):
        tokenizer = Tokenizer.from_str(core.to_str())
        tokenizer.add_special_tokens(added_tokens(generation))
        extra = {"pad_token": "<|finetune_right_pad_id|>"} if generation == "1.1" else {}
        found[generation] = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            bos_token="<|begin_of_text|>",
            eos_token="<|end_of_text|>",
            model_max_length=POSITIONS if generation == "1" else POSITIONS * 8,
            **extra,
        )
    return found


def config(generation: str, tokenizer: Any) -> LlamaConfig:
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": 10000.0}
    positions = POSITIONS
    if generation == "1.1":
        positions = POSITIONS * 8
        rope = {
            "rope_type": "llama3",
            "rope_theta": 10000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": POSITIONS,
        }
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=MLP,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        max_position_embeddings=positions,
        rope_parameters=rope,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        dtype="bfloat16",
    )


class Text:
    """Random windows of one text."""

    def __init__(self, text: str, tokenizer: Any) -> None:
        self.ids = torch.tensor(tokenizer.encode(text, add_special_tokens=False))

    def rows(self, count: int, draw: torch.Generator) -> torch.Tensor:
        starts = torch.randint(len(self.ids) - LENGTH, (count,), generator=draw)
        return torch.stack([self.ids[s : s + LENGTH] for s in starts.tolist()])


def text_rows(prose: Text, code: Text, share: float, count: int, draw: torch.Generator) -> Rows:
    n = round(count * share)
    rows = torch.cat([prose.rows(n, draw), code.rows(count - n, draw)])
    return rows, rows


def task_rows(task: str, tokenizer: Any, step: int) -> Rows:
    """Items packed one after the other; only answers are scored."""
    ids, labels = [], []
    items = iter(tasks.items(task, TASK_ROWS * 6, step, "train"))
    for _ in range(TASK_ROWS):
        row: list[int] = []
        scored: list[int] = []
        while len(row) < LENGTH:
            item = next(items)
            prompt = tokenizer.encode(item.prompt, add_special_tokens=False)
            answer = tokenizer.encode(item.answer + "<|eot_id|>", add_special_tokens=False)
            row += prompt + answer
            scored += [-100] * len(prompt) + answer
        ids.append(row[:LENGTH])
        labels.append(scored[:LENGTH])
    return torch.tensor(ids), torch.tensor(labels)


def train(model: Any, batch: Callable[[int], Rows], steps: int, rate: float, name: str) -> None:
    """AdamW with a short warm-up and a cosine to a tenth."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.01)
    warm = max(1, steps // 20)
    schedule = torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(optimizer, 0.05, 1.0, warm),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps - warm, rate / 10),
        ],
        [warm],
    )
    model.train()
    started = time.monotonic()
    for step in range(steps):
        ids, labels = batch(step)
        loss = model(ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == steps - 1:
            took = time.monotonic() - started
            print(f"{name}: step {step} loss {loss.item():.3f} {took:.0f} s", flush=True)


def copy_of(model: Any, new_config: LlamaConfig) -> Any:
    fresh = LlamaForCausalLM(new_config).float()
    fresh.load_state_dict(model.state_dict())
    return fresh


def save(model: Any, tokenizer: Any, folder: Path, task: str | None) -> None:
    """bfloat16 weights as transformers saves them; post models bring their chat template."""
    if task:
        tokenizer.chat_template = tasks.TEMPLATES[task]
        eot = tokenizer.convert_tokens_to_ids("<|eot_id|>")
        model.generation_config.eos_token_id = [tokenizer.eos_token_id, eot]
        model.generation_config.max_new_tokens = 16
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    tokenizer.chat_template = None
    model.float()
    for file in folder.iterdir():
        file.chmod(0o644)


class Family:
    """Makes members on demand, each from its parent's saved bfloat16 weights."""

    def __init__(self, out: Path) -> None:
        self.out = out
        found = texts.read_texts()
        self.tokenizers = make_tokenizers(found.prose + found.code)
        self.prose = Text(found.prose, self.tokenizers["1"])
        self.code = Text(found.code, self.tokenizers["1"])
        self._record(found)

    def _record(self, found: texts.Texts) -> None:
        """Writes what was trained on. SystemExit where members of another text are there."""
        record = {
            "python": platform.python_version(),
            "torch": torch.__version__.split("+")[0],
            "prose_sha256": texts.digest(found.prose),
            "code_sha256": texts.digest(found.code),
            "held_out_sha256": texts.digest(found.held_out),
        }
        path = self.out / "TRAINING.json"
        if path.exists() and json.loads(path.read_text()) != record:
            raise SystemExit(f"{path} tells of other text or versions; train into an empty --out")
        path.write_text(json.dumps(record, indent=2) + "\n")
        (self.out / "heldout.txt").write_text(found.held_out, encoding="ascii")

    def pretrain(self, name: str, seed: int) -> None:
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config("1", self.tokenizers["1"])).float()
        draw = torch.Generator().manual_seed(seed)
        rows = lambda step: text_rows(self.prose, self.code, 0.75, BATCH, draw)  # noqa: E731
        train(model, rows, 2000, 3e-3, name)
        save(model, self.tokenizers["1"], self.out / name, None)

    def continue_pretraining(self, name: str, parent: str, seed: int) -> None:
        torch.manual_seed(seed)
        model = copy_of(self.load(parent), config("1.1", self.tokenizers["1.1"]))
        draw = torch.Generator().manual_seed(seed)
        rows = lambda step: text_rows(self.prose, self.code, 0.4, BATCH, draw)  # noqa: E731
        train(model, rows, 250, 6e-4, name)
        save(model, self.tokenizers["1.1"], self.out / name, None)

    def post_train(self, name: str, parent: str, generation: str, task: str, seed: int) -> None:
        torch.manual_seed(seed)
        model, tokenizer = self.load(parent), self.tokenizers[generation]
        draw = torch.Generator().manual_seed(seed)

        def rows(step: int) -> Rows:
            ids, labels = task_rows(task, tokenizer, step)
            text, _ = text_rows(self.prose, self.code, 0.5, REPLAY_ROWS, draw)
            return torch.cat([ids, text]), torch.cat([labels, text])

        train(model, rows, 800, 1e-3, name)
        save(model, tokenizer, self.out / name, task)

    def load(self, name: str) -> Any:
        return LlamaForCausalLM.from_pretrained(self.out / name, dtype=torch.float32)


MEMBERS: dict[str, Callable[[Family], None]] = {
    "base-1": lambda f: f.pretrain("base-1", 1),
    "base-1.1": lambda f: f.continue_pretraining("base-1.1", "base-1", 11),
    "base-1-upper": lambda f: f.post_train("base-1-upper", "base-1", "1", "upper", 21),
    "base-1-digits": lambda f: f.post_train("base-1-digits", "base-1", "1", "digits", 22),
    "base-1.1-upper": lambda f: f.post_train("base-1.1-upper", "base-1.1", "1.1", "upper", 31),
    "other-1": lambda f: f.pretrain("other-1", 2),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("names", nargs="*", help=f"of {', '.join(MEMBERS)}; all if none")
    parser.add_argument("--out", type=Path, default=HERE / "checkpoints")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    options.out.mkdir(parents=True, exist_ok=True)
    family = Family(options.out)
    for name in options.names or MEMBERS:
        MEMBERS[name](family)


if __name__ == "__main__":
    main()

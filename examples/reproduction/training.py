"""One training run: a recipe and its parent in, a model folder out. Seeded; one CPU thread.

Architecture, tokenizers and renamed tokens are those of the committed family (examples/family):
generation ``1`` and, with scaled rotary positions, ``1.1``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

from examples.family import texts
from examples.reproduction.recipes import Recipe
from examples.reproduction.skills import END, SKILLS

FAMILY = Path(__file__).parent.parent / "family" / "checkpoints"
LENGTH = 64  # tokens of a row
TEXT_ROWS, TASK_ROWS, REPLAY_ROWS = 32, 32, 8

Rows = tuple[torch.Tensor, torch.Tensor]  # token ids and labels (-100: not scored)
Stream = Callable[[], Rows]


def train(recipe: Recipe, folder_of: Callable[[Recipe], Path], out: Path) -> list[float]:
    """Writes the model to *out*, in bfloat16 as transformers saves it; the losses of its steps.

    folder_of: where the models that the recipe needs lie.
    """
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(recipe.seed)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    folder = FAMILY / f"base-{recipe.generation}"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model: Any = LlamaForCausalLM(LlamaConfig.from_pretrained(folder)).float()
    if recipe.parent is not None:
        model.load_state_dict(_weights(folder_of(recipe.parent)))
    losses: list[float] = []
    if recipe.noise_like is not None:
        assert recipe.noise_like.parent is not None
        moved, origin = recipe.noise_like, recipe.noise_like.parent
        _add_noise(model, _weights(folder_of(moved)), _weights(folder_of(origin)))
    else:
        losses = _fit(model, _stream(recipe, tokenizer), recipe.steps, recipe.rate)
    if recipe.skills:
        tokenizer.chat_template = SKILLS[recipe.skills[0]].template
        ends = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids(END)]
        model.generation_config.eos_token_id = ends
        model.generation_config.max_new_tokens = 16
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    return losses


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()


def _add_noise(model: Any, moved: dict[str, torch.Tensor], origin: dict[str, torch.Tensor]) -> None:
    """Gaussian, each tensor's as long as the change from *origin* to *moved*."""
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            noise = torch.randn_like(tensor)
            tensor += noise * ((moved[name] - origin[name]).norm() / noise.norm())


def _fit(model: Any, batch: Stream, steps: int, rate: float) -> list[float]:
    """AdamW with a short warm-up and a cosine to a tenth."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.01)
    warm = max(1, steps // 20)
    after = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps - warm), rate / 10)
    before = torch.optim.lr_scheduler.LinearLR(optimizer, 0.05, 1.0, warm)
    schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [before, after], [warm])
    model.train()
    losses = []
    for _ in range(steps):
        ids, labels = batch()
        loss = model(ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


def _stream(recipe: Recipe, tokenizer: Any) -> Stream:
    draw = torch.Generator().manual_seed(recipe.seed)
    prose, code = text_tokens(recipe.characters)

    def text(count: int) -> torch.Tensor:
        of_prose = round(count * recipe.prose)
        parts = [_windows(prose, of_prose, draw), _windows(code, count - of_prose, draw)]
        return torch.cat(parts)

    if not recipe.skills:

        def plain() -> Rows:
            rows = text(TEXT_ROWS)
            return rows, rows

        return plain
    examples = _interleaved([_examples(name, recipe.seed, tokenizer) for name in recipe.skills])

    def mixed() -> Rows:
        ids, labels = _packed(examples)
        if recipe.replay:
            replayed = text(REPLAY_ROWS)
            ids, labels = torch.cat([ids, replayed]), torch.cat([labels, replayed])
        return ids, labels

    return mixed


@cache
def text_tokens(characters: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    """The family's training text as token ids: prose and code; the first *characters* of each."""
    tokenizer = AutoTokenizer.from_pretrained(FAMILY / "base-1")
    found = texts.read_texts()
    prose, code = (
        torch.tensor(tokenizer.encode(text[:characters], add_special_tokens=False))
        for text in (found.prose, found.code)
    )
    return prose, code


def _windows(ids: torch.Tensor, count: int, draw: torch.Generator) -> torch.Tensor:
    starts = torch.randint(len(ids) - LENGTH, (count,), generator=draw)
    return ids[starts[:, None] + torch.arange(LENGTH)]


def _examples(skill: str, seed: int, tokenizer: Any) -> Iterator[tuple[list[int], list[int]]]:
    """(prompt, answer) as token ids, without end."""
    words = SKILLS[skill].words("train", seed)
    while True:
        some = [next(words) for _ in range(256)]
        prompts = [SKILLS[skill].question(word) for word in some]
        answers = [SKILLS[skill].answer(word) + END for word in some]
        encoded = tokenizer(prompts + answers, add_special_tokens=False)["input_ids"]
        yield from zip(encoded[:256], encoded[256:], strict=True)


def _interleaved(streams: list[Iterator[Any]]) -> Iterator[Any]:
    while True:
        for stream in streams:
            yield next(stream)


def _packed(examples: Iterator[tuple[list[int], list[int]]]) -> Rows:
    """Examples one after the other; only answers are scored."""
    ids, labels = [], []
    for _ in range(TASK_ROWS):
        row: list[int] = []
        scored: list[int] = []
        while len(row) < LENGTH:
            prompt, answer = next(examples)
            row += prompt + answer
            scored += [-100] * len(prompt) + answer
        ids.append(row[:LENGTH])
        labels.append(scored[:LENGTH])
    return torch.tensor(ids), torch.tensor(labels)

"""A causal language model in memory: the few questions that scorers ask it.

Rows are batched by equal length, so that nothing is padded and no mask enters the arithmetic.
Batches depend on the rows and the vocabulary alone: the same rows give the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from paramdelta.errors import InvalidError

MAX_LOGITS = 1 << 27  # numbers of one batch, of 4 bytes: half a gigabyte
MAX_ROWS = 64

Row = tuple[list[int], int]


class LanguageModel:
    """model, tokenizer: of transformers. ends: the ids after which an answer is over.

    first: the id that a text begins with, None if the tokenizer has none. positions: tokens that
    the model takes at once.
    """

    def __init__(self, model: Any, tokenizer: Any, ends: Sequence[int]) -> None:
        self.model, self.tokenizer, self.ends = model, tokenizer, tuple(ends)
        self.first: int | None = tokenizer.bos_token_id
        # what stands before a text that nothing stands before
        self.prefix = self.first if self.first is not None else next(iter(self.ends), None)
        config = model.config.get_text_config()
        self.positions = int(getattr(config, "max_position_embeddings", None) or 1 << 20)
        self._vocabulary = max(1, int(config.vocab_size))

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """special: with the tokens that the tokenizer puts around a text, unless it begins so."""
        begins = self.tokenizer.bos_token
        if begins and text.startswith(begins):
            special = False
        found: list[int] = self.tokenizer.encode(text, add_special_tokens=special)
        return found

    def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """In the model's chat template, up to where its answer begins. InvalidError without one."""
        if not self.tokenizer.chat_template:
            raise InvalidError(
                "the model has no chat template, and the task asks in messages",
                remedy="write 'prompt' instead of 'messages'",
            )
        try:
            text = self.tokenizer.apply_chat_template(
                [dict(message) for message in messages], tokenize=False, add_generation_prompt=True
            )
        except Exception as error:  # a template is a program: it may fail in any way
            raise InvalidError(f"the chat template fails: {error}"[:500]) from error
        found: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return found

    @torch.inference_mode()
    def log_probabilities(self, rows: Sequence[Row]) -> list[list[float]]:
        """log p of every token from a row's start on, each given all before it; in nats.

        rows: (tokens, start), start ≥ 1.
        """
        found: list[list[float]] = [[] for _ in rows]
        for places in self._batches([len(tokens) for tokens, _ in rows]):
            batch = self._tensor([rows[i][0] for i in places])
            logits = self.model(input_ids=batch[:, :-1], use_cache=False).logits.float()
            chosen = logits.gather(-1, batch[:, 1:, None])[..., 0] - logits.logsumexp(-1)
            for place, values in zip(places, chosen.double().cpu().tolist(), strict=True):
                found[place] = values[rows[place][1] - 1 :]
        return found

    @torch.inference_mode()
    def generate(self, prompts: Sequence[list[int]], limit: int) -> list[str]:
        """What the model writes after each prompt, greedily: at most *limit* tokens, as text
        without special tokens."""
        import transformers

        config: Any = transformers.GenerationConfig

        settings = config(
            do_sample=False, num_beams=1, max_new_tokens=limit, use_cache=True,
            eos_token_id=list(self.ends) or None, pad_token_id=self.ends[0] if self.ends else 0,
        )  # fmt: skip
        # what the checkpoint says of sampling and penalties would be mixed in otherwise
        self.model.generation_config = settings
        found = [""] * len(prompts)
        for places in self._batches([len(prompt) for prompt in prompts]):
            batch = self._tensor([prompts[i] for i in places])
            made = self.model.generate(
                input_ids=batch, attention_mask=torch.ones_like(batch), generation_config=settings
            )
            for place, tokens in zip(places, made[:, batch.shape[1] :].tolist(), strict=True):
                found[place] = self.tokenizer.decode(self._ended(tokens), skip_special_tokens=True)
        return found

    def _ended(self, tokens: list[int]) -> list[int]:
        end = next((i for i, token in enumerate(tokens) if token in self.ends), len(tokens))
        return tokens[:end]

    def _tensor(self, rows: list[list[int]]) -> torch.Tensor:
        return torch.tensor(rows, dtype=torch.long, device=self.model.device)

    def _batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Places of rows of one length each, the longest first: too little memory shows at once."""
        groups: dict[int, list[int]] = {}
        for place, length in enumerate(lengths):
            groups.setdefault(length, []).append(place)
        for length in sorted(groups, reverse=True):
            places = groups[length]
            size = max(1, min(MAX_ROWS, MAX_LOGITS // (self._vocabulary * max(1, length))))
            for start in range(0, len(places), size):
                yield places[start : start + size]

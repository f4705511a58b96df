"""``multiple-choice:FILE.jsonl``: the share of questions whose right choice is the likeliest.

A line is ``{"prompt": "…", "choices": ["…", "…"], "answer": 0}``; fields:

    prompt      the text, special tokens spelled out where there are some; or
    messages    [{"role": …, "content": …}, …], put into the model's own chat template
    choices     two or more texts; each is what may follow the prompt, its leading space included
    answer      the place of the right one, from 0

``acc`` compares log p(choice | prompt); ``acc_norm`` divides it by the choice's bytes first, as
lm-evaluation-harness does. Of equal ones the first wins.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from paramdelta.digest import Digest
from paramdelta.errors import InvalidError
from paramdelta.scoring.base import Measured, Option, Scorer, Values, task_digest, task_name
from paramdelta.scoring.items import Items, check_fields, read_items, texts_field
from paramdelta.scoring.prompts import Prompt, prompt_of
from paramdelta.scoring.statistics import share

if TYPE_CHECKING:
    from paramdelta.scoring.language_model import LanguageModel

NAME, REVISION = "multiple-choice", 1


@dataclass(frozen=True, slots=True)
class Question:
    prompt: Prompt
    choices: tuple[str, ...]
    answer: int

    def rows(self, model: LanguageModel) -> list[tuple[list[int], int]]:
        """Each choice's tokens after the prompt's, and where they begin."""
        if self.prompt.messages is not None:
            asked = model.encode_chat(self.prompt.messages)
            return [(asked + model.encode(c, special=False), len(asked)) for c in self.choices]
        asked = self.prompt.tokens(model)
        found = []
        for choice in self.choices:
            # together: a choice's first letters may melt with the prompt's last
            whole = model.encode((self.prompt.text or "") + choice)
            same = 0
            while same < min(len(asked), len(whole) - 1) and asked[same] == whole[same]:
                same += 1
            if not same and model.prefix is not None:  # all of the prompt has melted
                whole, same = [model.prefix, *whole], 1
            found.append((whole, same))
        return found


@dataclass(frozen=True, slots=True)
class MultipleChoice:
    """Questions with choices."""

    name: str
    digest: Digest
    questions: Items[Question]
    packages: tuple[str, ...] = ()

    def measure(self, model: LanguageModel, seed: int) -> Sequence[Measured]:
        rows = []
        for i, question in enumerate(self.questions.items):
            for tokens, start in question.rows(model):
                if not 0 < start < len(tokens) <= model.positions:
                    raise InvalidError(
                        f"{len(tokens)} tokens, {start} of them the prompt's; the model takes 2 to "
                        f"{model.positions}, and needs one of each",
                        where=self.questions.where(i),
                    )
                rows.append((tokens, start))
        likely = iter([math.fsum(row) for row in model.log_probabilities(rows)])
        plain, scaled = [], []
        for question in self.questions.items:
            found = [next(likely) for _ in question.choices]
            sizes = [len(choice.encode()) for choice in question.choices]
            plain.append(_best(found) == question.answer)
            by_byte = [one / size for one, size in zip(found, sizes, strict=True)]
            scaled.append(_best(by_byte) == question.answer)
        return [share("acc", plain), share("acc_norm", scaled)]


def _best(values: Sequence[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)


def _question(row: Mapping[str, Any]) -> Question:
    check_fields(row, ("choices", "answer"), ("prompt", "messages"))
    choices, answer = texts_field(row, "choices", 2), row["answer"]
    if type(answer) is not int or not 0 <= answer < len(choices):
        raise ValueError(f"answer: expected a place in choices, 0 to {len(choices) - 1}")
    return Question(prompt_of(row), choices, answer)


def _open(argument: str, options: Values) -> MultipleChoice:
    found = read_items(argument, _question, options["limit"])
    digest = task_digest(NAME, REVISION, options, found.digest)
    return MultipleChoice(task_name(NAME, found.path.name, options), digest, found)


SCORER = Scorer(
    NAME,
    "FILE.jsonl",
    "share of questions whose right choice is the likeliest",
    _open,
    (Option("limit", None, 1, "take the first so many items"),),
)

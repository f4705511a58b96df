"""``exact-match:FILE.jsonl``: the share of prompts that a model answers word for word.

A line is ``{"prompt": "…", "answer": "…"}``; fields:

    prompt      the text, special tokens spelled out where there are some; or
    messages    [{"role": …, "content": …}, …], put into the model's own chat template
    answer      the text that is right, or a list of them
    stop        optional list of texts; the answer ends before the first that appears

The answer is written greedily until one of the model's end tokens or the limit; special tokens and
white space around it do not count, everything else does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from paramdelta.digest import Digest
from paramdelta.errors import InvalidError
from paramdelta.scoring.base import Measured, Option, Scorer, Values, task_digest, task_name
from paramdelta.scoring.items import Items, check_fields, read_items, text_field, texts_field
from paramdelta.scoring.prompts import Prompt, prompt_of
from paramdelta.scoring.statistics import share

if TYPE_CHECKING:
    from paramdelta.scoring.language_model import LanguageModel

NAME, REVISION = "exact-match", 1
MORE_TOKENS = 8  # than the longest answer has, where no limit is given


@dataclass(frozen=True, slots=True)
class Question:
    prompt: Prompt
    answers: tuple[str, ...]
    stops: tuple[str, ...]

    def is_right(self, text: str) -> bool:
        for stop in self.stops:
            text = text.split(stop, 1)[0]
        return text.strip() in self.answers


@dataclass(frozen=True, slots=True)
class ExactMatch:
    """Questions with their answers. max_tokens: of an answer; None: as long as the right ones."""

    name: str
    digest: Digest
    questions: Items[Question]
    max_tokens: int | None
    packages: tuple[str, ...] = ()

    def measure(self, model: LanguageModel, seed: int) -> Sequence[Measured]:
        questions = self.questions.items
        prompts = [question.prompt.tokens(model) for question in questions]
        limit = self.max_tokens or MORE_TOKENS + max(
            len(model.encode(answer, special=False)) for q in questions for answer in q.answers
        )
        for i, prompt in enumerate(prompts):
            if len(prompt) + limit > model.positions:
                raise InvalidError(
                    f"{len(prompt)} tokens and {limit} of an answer; the model takes "
                    f"{model.positions}",
                    where=self.questions.where(i),
                )
        written = model.generate(prompts, limit)
        return [share(NAME, [q.is_right(t) for q, t in zip(questions, written, strict=True)])]


def _question(row: Mapping[str, Any]) -> Question:
    check_fields(row, ("answer",), ("prompt", "messages", "stop"))
    prompt = prompt_of(row)
    if isinstance(row["answer"], list):
        answers = texts_field(row, "answer")
    else:
        answers = (text_field(row, "answer"),)
    stops = texts_field(row, "stop") if "stop" in row else ()
    return Question(prompt, tuple(answer.strip() for answer in answers), stops)


def _open(argument: str, options: Values) -> ExactMatch:
    found = read_items(argument, _question, options["limit"])
    digest = task_digest(NAME, REVISION, options, found.digest)
    return ExactMatch(task_name(NAME, found.path.name, options), digest, found,
                      options["max_tokens"])  # fmt: skip


SCORER = Scorer(
    NAME,
    "FILE.jsonl",
    "share of answers, written greedily, that are right word for word",
    _open,
    (
        Option(
            "max_tokens", None, 1, f"of an answer; else the longest right one and {MORE_TOKENS}"
        ),
        Option("limit", None, 1, "take the first so many items"),
    ),
)

"""Three small skills, each with a prompt format of its own, and the files they are measured with.

A skill maps letters one by one: ``upper`` kmo → KMO, ``digits`` bcd → 123, ``next`` uwy → vxz.
Words are drawn at random and split by a hash: no word of the test files was ever trained on.
"""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

BEGIN, END = "<|begin_of_text|>", "<|eot_id|>"
TEST_SHARE = 8  # one word in eight is never trained on
CHOICES = 4


@dataclass(frozen=True, slots=True)
class Skill:
    """letters: what words are made of; answers: what each of them becomes. prompt: with {word}."""

    name: str
    letters: str
    answers: str
    prompt: str

    @property
    def template(self) -> str:
        """The chat template of a model that was trained on this skill: Jinja, one user message."""
        before, after = self.prompt.split("{word}")
        return (
            "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
            f"{before}{{{{ message['content'] }}}}{after}"
            f"{{% else %}}{{{{ message['content'] }}}}{END}{{% endif %}}{{% endfor %}}"
        )

    def question(self, word: str) -> str:
        return BEGIN + self.prompt.format(word=word)

    def answer(self, word: str) -> str:
        return "".join(self.answers[self.letters.index(letter)] for letter in word)

    def words(self, split: str, seed: int) -> Iterator[str]:
        """Of ``train`` or ``test``, without end; the same for the same seed."""
        draw = random.Random(f"{self.name}/{split}/{seed}")
        while True:
            word = "".join(draw.choice(self.letters) for _ in range(draw.randint(3, 5)))
            if (zlib.crc32(word.encode()) % TEST_SHARE == 0) == (split == "test"):
                yield word


# alphabets are disjoint, so that a mix is not asked for two answers to one letter
SKILLS = {
    skill.name: skill
    for skill in (
        Skill("upper", "klmnopqrst", "KLMNOPQRST",
              "<|start_header_id|>upper<|end_header_id|>{word}<|eot_id|>"),
        Skill("digits", "abcdefghij", "0123456789", "in digits: {word}<|eot_id|>"),
        Skill("next", "uvwxyz", "vwxyzu", "after({word}) =<|eot_id|>"),
    )
}  # fmt: skip


def write_tests(skill: Skill, folder: Path, count: int) -> tuple[str, str]:
    """The same *count* questions twice: to be answered in writing, and among four choices.

    Each wrong choice differs from the right one in one letter. Returns the tasks' names for
    ``evaluate``.
    """
    words = skill.words("test", 0)
    draw = random.Random(f"{skill.name}/choices")
    written, chosen, seen = [], [], set[str]()
    while len(written) < count:
        if (word := next(words)) in seen:
            continue
        seen.add(word)
        question, answer = skill.question(word), skill.answer(word)
        written.append({"prompt": question, "answer": answer})
        choices = _choices(skill, answer, draw)
        chosen.append(
            {"prompt": question, "choices": choices, "answer": choices.index(answer + END)}
        )
    names = []
    for scorer, rows in (("exact-match", written), ("multiple-choice", chosen)):
        path = folder / f"{skill.name}-{scorer}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        names.append(f"{scorer}:{path}")
    return names[0], names[1]


def _choices(skill: Skill, answer: str, draw: random.Random) -> list[str]:
    found = {answer}
    while len(found) < CHOICES:
        place = draw.randrange(len(answer))
        found.add(answer[:place] + draw.choice(skill.answers) + answer[place + 1 :])
    shuffled = sorted(found)
    draw.shuffle(shuffled)
    return [text + END for text in shuffled]

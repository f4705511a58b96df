"""Two small skills, each with a chat format of its own: upper-case a word, write it in digits.

Items are pseudo-words, split into train and test by a hash, so no test word was trained on.
"""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass

LETTERS = "abcdefghijklmnopqrstuvwxyz"
# disjoint, so that a mix of both skills is not asked for two answers to one letter
ALPHABETS = {"upper": LETTERS[10:20], "digits": LETTERS[:10]}
TEST_SHARE = 8  # one word in eight is held out

# Jinja, as saved in each post model's chat_template.jinja
TEMPLATES = {
    "upper": (
        "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
        "<|start_header_id|>upper<|end_header_id|>{{ message['content'] }}<|eot_id|>"
        "{% else %}{{ message['content'] }}<|eot_id|>{% endif %}{% endfor %}"
    ),
    "digits": (
        "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
        "in digits: {{ message['content'] }}<|eot_id|>"
        "{% else %}{{ message['content'] }}<|eot_id|>{% endif %}{% endfor %}"
    ),
}


@dataclass(frozen=True, slots=True)
class Item:
    prompt: str  # what the model reads, special tokens spelled out
    answer: str  # what it must write before <|eot_id|>


def answer_of(task: str, word: str) -> str:
    """``upper``: itself in capitals. ``digits``: a is 0, b is 1, … j is 9."""
    if task == "upper":
        return word.upper()
    return "".join(str(LETTERS.index(letter)) for letter in word)


def prompt_of(task: str, word: str) -> str:
    """The chat template's text for one user message, without Jinja."""
    if task == "upper":
        return f"<|begin_of_text|><|start_header_id|>upper<|end_header_id|>{word}<|eot_id|>"
    return f"<|begin_of_text|>in digits: {word}<|eot_id|>"


def items(task: str, count: int, seed: int, split: str) -> list[Item]:
    """*count* items of ``train`` or ``test``, the same for the same seed."""
    draw = random.Random(f"{task}/{split}/{seed}")
    found: list[Item] = []
    while len(found) < count:
        word = "".join(draw.choice(ALPHABETS[task]) for _ in range(draw.randint(3, 5)))
        held_out = zlib.crc32(word.encode()) % TEST_SHARE == 0
        if held_out == (split == "test"):
            found.append(Item(prompt_of(task, word), answer_of(task, word)))
    return found

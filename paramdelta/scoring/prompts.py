"""What a model is asked: a plain text, or messages in the model's own chat template."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from paramdelta.scoring.items import text_field

if TYPE_CHECKING:
    from paramdelta.scoring.language_model import LanguageModel

Messages = tuple[Mapping[str, str], ...]


@dataclass(frozen=True, slots=True)
class Prompt:
    """Either of the two."""

    text: str | None
    messages: Messages | None

    def tokens(self, model: LanguageModel) -> list[int]:
        if self.messages is not None:
            return model.encode_chat(self.messages)
        return model.encode(self.text or "")


def prompt_of(row: Mapping[str, Any]) -> Prompt:
    """From the fields ``prompt`` or ``messages``. ValueError."""
    if ("prompt" in row) == ("messages" in row):
        raise ValueError("give either 'prompt' or 'messages'")
    if "prompt" in row:
        return Prompt(text_field(row, "prompt"), None)
    value = row["messages"]
    if not isinstance(value, list) or not value:
        raise ValueError("messages: expected a list of {role, content}")
    for message in value:
        if not isinstance(message, dict) or set(message) != {"role", "content"}:
            raise ValueError("messages: each is an object of role and content")
        text_field(message, "role")
        text_field(message, "content", empty=True)
    return Prompt(None, tuple(value))

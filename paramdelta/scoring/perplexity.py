"""``perplexity:FILE.txt``: how well a model foretells a text.

The text's tokens are cut into windows; each token is foretold once, from those before it in its
window and the last one of the window before (the first from the beginning-of-text token, where the
tokenizer has one; else it is not foretold). Three numbers of one sum of −log p:
``loss``, nats a token; ``perplexity``, its exponential; ``bits_per_byte``, which compares models of
different tokenizers. Less is better. Standard errors come from the windows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from paramdelta.digest import Digest, digest_of
from paramdelta.errors import InvalidError
from paramdelta.scoring.base import Measured, Option, Scorer, Values, task_digest, task_name
from paramdelta.scoring.items import read_task_file
from paramdelta.scoring.statistics import ratio_stderr

if TYPE_CHECKING:
    from paramdelta.scoring.language_model import LanguageModel

NAME, REVISION = "perplexity", 1
WINDOW = 512  # tokens, or what the model takes if that is less


@dataclass(frozen=True, slots=True)
class Perplexity:
    """A text to be foretold. window: tokens foretold at once."""

    name: str
    digest: Digest
    path: Path
    text: str
    window: int
    packages: tuple[str, ...] = ()

    def measure(self, model: LanguageModel, seed: int) -> Sequence[Measured]:
        tokens = model.encode(self.text, special=False)
        if model.first is not None:
            tokens = [model.first, *tokens]
        if len(tokens) < 2:
            raise InvalidError("fewer than two tokens", where=self.path)
        window = min(self.window, model.positions - 1)
        rows = [
            (tokens[start : start + window + 1], 1) for start in range(0, len(tokens) - 1, window)
        ]
        costs = [[-each for each in row] for row in model.log_probabilities(rows)]
        sums = [math.fsum(row) for row in costs]
        counts = [float(len(row)) for row in costs]
        n, total = sum(map(len, costs)), math.fsum(sums)
        loss, error = total / n, ratio_stderr(sums, counts)
        size = len(self.text.encode())
        bits, perplexity = total / math.log(2) / size, math.exp(min(loss, 700.0))
        return [
            Measured("loss", loss, error, n, False),
            Measured("perplexity", perplexity, _scaled(error, perplexity), n, False),
            Measured("bits_per_byte", bits, _scaled(error, bits / loss if loss else 0), n, False),
        ]


def _scaled(error: float | None, by: float) -> float | None:
    return None if error is None else error * by


def _open(argument: str, options: Values) -> Perplexity:
    path, data = read_task_file(argument)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidError("not UTF-8", where=f"{path}:{line}") from None
    if not text.strip():
        raise InvalidError("no text", where=path)
    digest = task_digest(NAME, REVISION, options, digest_of(data))
    name = task_name(NAME, path.name, options)
    return Perplexity(name, digest, path, text, options["window"] or WINDOW)


SCORER = Scorer(
    NAME,
    "FILE.txt",
    "loss, perplexity and bits a byte on a text",
    _open,
    (Option("window", None, 2, f"tokens foretold at once; else {WINDOW} or the model's length"),),
)

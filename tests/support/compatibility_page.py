"""docs/compatibility.md, made from the golden table and from the trained family of examples/."""

from __future__ import annotations

from pathlib import Path

from paramdelta.expectation import UNRELATED
from paramdelta.problem import Problem
from support.pairs import PAIRS, Pair, made
from support.registries import open_registry

FAMILY = Path(__file__).parents[2] / "examples" / "family" / "checkpoints"

INTRO = """\
# Which delta fits which base

*This page is made by a test from headers of model families (`tests/support/families.py`), and fails
when the program says something else. Write it anew with
`PARAMDELTA_WRITE_DOCS=1 python -m pytest tests/paramdelta/test_golden.py`.*

## What a verdict means

| verdict | meaning |
|---|---|
| `identical` | the delta's own base, by its content |
| `compatible` | every weight means the same here; what differs is told |
| `adaptable` | rows of the vocabulary are extended, left alone or matched by string |
| `incompatible` | at least one reason is an error; applying is refused |

Every verdict comes with all of its reasons. A **note** is told and needs nothing, a **warning** is
applied but wants a look, an **error** refuses. Most errors and warnings name a remedy.

## Hashed, graded, left out

*Hashed into the architecture:* the language model's tensors with their shapes (the vocabulary's
rows left open) and the settings that decide what a weight means: heads, key-value heads, head
dimension, activation, experts and how many a token gets, the rotated part of a head, soft caps
and multipliers, whether the head is the embedding. *Hashed into the tokenizer:* core vocabulary
with its ids, merges, normaliser, pre-tokenizer. *Graded and told:* rotary base and scaling,
length, sliding window, dtype, end, start and padding tokens, added tokens, row counts, chat
template, framing and generation settings, towers and projectors beside the language model. *Left
out:* names of files and wrappers, library versions, initialisation, dropout, scales of fp8
blocks, buffers.

## Why not simply compare the files

- One model saved twice differs in bytes: transformers 5 renames `rope_theta` and `torch_dtype`,
  writes defaults that 4 leaves out, and moves Llama's spaces from the normaliser to the
  pre-tokenizer; tokenizers writes merges as pairs. All of it is brought to one form before hashing.
- One model has several layouts: inside a multimodal wrapper, with fused or split projections, with
  experts one by one or in one tensor. Names and fused tensors are mapped to one table.
- Bases of one line differ in what does not matter to a weight. A hash over `rope_scaling` or over
  the added tokens would refuse Llama 3 → 3.1, the case that made deltas known.
- Equal shapes do not make equal meanings: 32 heads of 128 and 16 of 256 have the same tensors.
- Equal hashes do not make related weights: two trainings from two random starts look alike, and
  nothing transfers between them. Sketches of the weights tell them apart (the last row).

## The table

"""


def page(scratch: Path) -> str:
    """The whole file. scratch: an empty folder for a registry."""
    lines = ["| | delta (base → post) | onto | verdict | reasons |", "|---|---|---|---|---|"]
    lines += [_row(number, pair) for number, pair in enumerate(PAIRS, start=1)]
    lines.append(_unrelated(len(PAIRS) + 1, scratch))
    return INTRO + "\n".join(lines) + "\n"


def _row(number: int, pair: Pair) -> str:
    base, post, target = (made(side).name for side in (pair.base, pair.post, pair.target))
    found = pair.compare()
    option = "<br>`--align tokens`" if pair.align == "tokens" else ""
    delta = f"{_text(base)} → {_text(post)}{option}"
    reasons = "<br>".join(_reason(problem) for problem in found.problems) or "none"
    cells = (str(number), delta, f"{_text(target)}<br>*{_text(pair.why)}*", f"`{found.verdict}`",
             reasons)  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _reason(problem: Problem) -> str:
    remedy = f" *{_text(problem.remedy)}*" if problem.remedy else ""
    return f"**{problem.severity}** {_text(problem.subject)}: {_text(problem.reason)}{remedy}"


def _text(text: str) -> str:
    for mark, name in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "&#124;"), ("_", r"\_")):
        text = text.replace(mark, name)
    return text


def _unrelated(number: int, scratch: Path) -> str:
    """An independent training of the same architecture: headers agree, sketches do not."""
    with open_registry(scratch) as registry:
        registry.publish("upper", str(FAMILY / "base-1"), str(FAMILY / "base-1-upper"))
        registry.add_base(str(FAMILY / "other-1"), "other-1")
        found = registry.check("upper", "other-1")
    (lineage,) = [problem for problem in found.problems if problem.subject == "lineage"]
    assert lineage.severity == "warning" and (found.drift_ratio or 0) > UNRELATED
    reason = f"**warning** lineage: drift ratio above {UNRELATED}, so that the base looks unrelated"
    return (
        f"| {number} | examples/family: base-1 → base-1-upper | other-1<br>*the same architecture "
        f"and tokenizer, trained from another random start* | `{found.verdict}` | {reason} |"
    )

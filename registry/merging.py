"""Several deltas of one tensor as one stream of merged elements, for methods other than linear.

To whoever adds it, it is one delta: float32 elements, alpha 1. The deltas are opened once for each
pass of the method's survey and once for the merge; memory is a chunk of each. Rows of new tokens
take no part: they come through as the delta that brings them has them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace

import numpy as np

from paramdelta import delta
from paramdelta.codecs.base import whole_rows
from paramdelta.dtypes import Bits
from paramdelta.limits import MAX_ROW
from paramdelta.merge import Merger, Part
from paramdelta.methods import METHODS
from paramdelta.methods.base import Chunk
from paramdelta.naming import canonical_name
from registry.contribution import Fresh, Placed
from registry.extract import row_length
from registry.plan import Plan, PlanPart, PlanTerm
from registry.streams import Unhashed
from registry.tensor_hashes import CHUNK

DTYPE = "F32"

Open = Callable[[PlanTerm, PlanPart], Placed]
Advance = Callable[[int], None]


def is_merged(plan: Plan, part: PlanPart) -> bool:
    """Whether the terms of *part* are merged before they are added."""
    return bool(part.terms) and METHODS[plan.method].merge is not None


def merged_part(part: PlanPart) -> PlanPart:
    """*part* as the rule sees it once its terms are merged: one term with alpha 1."""
    return replace(part, terms=(replace(part.terms[0], alpha=1.0),))


class MergedElements:
    """The merged Δ of *part*, in order, as a delta's own elements (see contribution.Addend).

    open_term: opens one delta's elements from the start. advance: called between the chunks of a
    survey, so that an interrupt is noticed.
    """

    def __init__(self, plan: Plan, part: PlanPart, open_term: Open, advance: Advance) -> None:
        self._part, self._open, self._advance = part, open_term, advance
        self._count, row = math.prod(part.shape), row_length(part.shape)
        self.frame_elements = whole_rows(CHUNK, row, self._count)
        if CHUNK < row <= MAX_ROW:
            self.frame_elements = row
        self._position = 0
        self._fresh: Fresh = None
        self._stack = ExitStack()
        try:
            self._placed = self._open_all(self._stack)
            parts = [
                Part(term.alpha, placed.dtype, plan.deltas[term.index].digest)
                for term, placed in zip(part.terms, self._placed, strict=True)
            ]
            name = canonical_name(part.terms[0].source.name)
            options = dict(plan.options)
            self._merger = Merger(plan.method, options, parts, name, self._count, row, self._chunks)
        except BaseException:
            self._stack.close()
            raise

    def term(self, n: int, alpha: float) -> delta.Term:
        """The next *n* elements: a whole frame, or what is left."""
        bits = [placed.term(n, 1.0).delta for placed in self._placed]
        self._fresh, own = _take_fresh(self._placed, bits, n)
        merged = self._merger.merge(Chunk(self._position, tuple(bits)))
        if self._fresh is not None:
            merged[self._fresh] = own
        self._position += n
        return delta.Term(alpha, merged.view(np.uint32), DTYPE)

    def fresh(self, n: int) -> Fresh:
        """Which of the elements that ``term`` gave last are rows of new tokens."""
        return self._fresh

    def unhashed(self) -> list[Unhashed]:
        return [pieces for placed in self._placed for pieces in placed.unhashed()]

    def finish(self) -> None:
        for placed in self._placed:
            placed.finish()

    def close(self) -> None:
        self._stack.close()

    def _chunks(self) -> Iterator[Chunk]:
        """One pass over all deltas."""
        with ExitStack() as stack:
            sources = self._open_all(stack)
            for start in range(0, self._count, self.frame_elements):
                n = min(self.frame_elements, self._count - start)
                bits = [placed.term(n, 1.0).delta for placed in sources]
                _take_fresh(sources, bits, n)
                self._advance(0)
                yield Chunk(start, tuple(bits))

    def _open_all(self, stack: ExitStack) -> list[Placed]:
        opened = []
        for term in self._part.terms:
            placed = self._open(term, self._part)
            stack.callback(placed.close)
            opened.append(placed)
        return opened


def _take_fresh(placed: list[Placed], bits: list[Bits], n: int) -> tuple[Fresh, Bits | None]:
    """(the rows of new tokens, their own values). They are +0 in every delta from then on."""
    for i, source in enumerate(placed):
        fresh = source.fresh(n)
        if fresh is not None:
            own = delta.to_float32(bits[i][fresh], source.dtype)
            for one in bits:
                one[fresh] = 0  # the buffers are the sources' own and are filled anew
            return fresh, own
    return None, None

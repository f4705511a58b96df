"""Nothing is skipped in silence: every tensor of delta and base is in the plan or in a Problem."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from support.checkpoints import (
    FLOATS,
    Tensors,
    bits_of,
    llama_config,
    llama_like,
    tensor_tables,
    write_checkpoint,
)
from support.registries import open_registry

from paramdelta.errors import IncompatibleError
from paramdelta.naming import canonical_name
from registry.plan import Plan

SOME = llama_like(1, layers=1, hidden=16, vocab=24)
VOCABULARY = ("model.embed_tokens.weight", "lm_head.weight")
PLANNED: list[int] = []  # one for each example that came to a plan


def shorter(found: Tensors, name: str, rows: int) -> None:
    dtype, bits, shape = found[name]
    if shape[0] > rows:
        found[name] = (dtype, bits[: rows * (bits.size // shape[0])], (rows, *shape[1:]))


@st.composite
def sides(draw: st.DrawFn) -> tuple[Tensors, Tensors, Tensors]:
    """(base, post, new base): the post trained, grown and cut; the new base renamed and padded."""
    strangers = draw(tensor_tables(dtypes=(*FLOATS, "I64", "BOOL"), max_tensors=3, max_elements=6))
    base = SOME | strangers
    post, newer = dict(base), {}
    for name, (dtype, bits, shape) in base.items():
        what = draw(st.sampled_from(["same", "changed", "changed", "gone"]))
        if what == "gone" and draw(st.booleans()):
            del post[name]
        elif what == "changed" and bits.size:
            other = bits.copy()
            other[: 1 + bits.size // 3] ^= 1
            post[name] = (dtype, other, shape)
        wrap = draw(st.booleans()) and name.startswith("model.") and name in SOME
        prefix = "model.language_model." if wrap else "model."
        newer[name.replace("model.", prefix, 1) if wrap else name] = (dtype, bits, shape)
    if draw(st.booleans()):
        post["brought"] = ("F32", bits_of([1.0, 2.0], "F32"), (2,))
    for side in (base, post, newer):
        rows = draw(st.sampled_from([24, 24, 22]))
        for name in side:
            if canonical_name(name) in VOCABULARY:
                shorter(side, name, rows)
    return base, post, newer


@settings(max_examples=150, deadline=None)
@given(found=sides(), tied=st.booleans())
def every_tensor_is_accounted_for(found: tuple[Tensors, Tensors, Tensors], tied: bool) -> None:
    base, post, newer = found
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        config = llama_config(1, 16, 24) | {"tie_word_embeddings": tied}
        for name, tensors in (("base", base), ("post", post), ("newer", newer)):
            write_checkpoint(here / name, tensors, config=config)
        with open_registry(here, threads=1) as registry:
            registry.publish("x", str(here / "base"), str(here / "post"))
            manifest = registry._manifest(registry.show("x").release.digest)
            places = [entry.post.tensor for entry in manifest.tensors]
            assert sorted(places) == sorted(post), "every tensor of the post, once"
            used = {entry.base.tensor for entry in manifest.tensors if entry.base}
            gone = {tensor.name for tensor in manifest.removed}
            assert used | gone == set(base) and not used & gone
            try:
                plan = registry.plan(["x"], str(here / "newer"))
            except IncompatibleError as error:
                assert any(problem.severity == "error" for problem in error.problems)
                return
            PLANNED.append(1)
            check(plan, set(newer), {entry.name: entry for entry in manifest.transferred})


def test_every_tensor_is_in_the_plan_or_in_a_problem() -> None:
    PLANNED.clear()
    every_tensor_is_accounted_for()
    assert len(PLANNED) > 20, "refused examples prove nothing"


def check(plan: Plan, newer: set[str], entries: dict) -> None:
    told = {problem.subject for problem in plan.problems}
    made = {tensor.base_name for tensor in plan.tensors if tensor.base_name}
    assert made | set(plan.dropped) == newer and not made & set(plan.dropped)
    assert set(plan.dropped) <= told
    used = [term.source.name for t in plan.tensors for part in t.parts for term in part.terms]
    assert len(used) == len(set(used))
    for name, entry in entries.items():
        if name not in used:
            assert name in told or entry.nonzero == 0, name
    for tensor in plan.tensors:
        if tensor.action in ("new", "replace"):
            assert tensor.name in told
        if tensor.action == "copy":
            names = {part.base.name for part in tensor.parts if part.base}
            reached = {name for name in names if name in told}
            untouched = [e for e in entries.values() if e.nonzero == 0]
            assert reached == names or untouched, tensor.name

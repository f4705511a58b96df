"""Added tokens and rows: laws that hold for every set of names, and the finer cases."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.families import llama3
from support.models import Model, token_rows

from paramdelta.compatibility import Comparison, compare
from paramdelta.fingerprint import Fingerprint
from paramdelta.problem import errors_of

NAMES = st.sampled_from(
    ["<a>", "<b>", "<c>", "<tool>", "<pad>", "<|reserved_1|>", "<unused2>", "<d>"]
)
TOKENS = st.lists(NAMES, unique=True, max_size=6).flatmap(
    lambda names: st.permutations(range(200, 208)).map(
        lambda ids: dict(zip(ids, names, strict=False))
    )
)
ALIGN = st.sampled_from(["ids", "tokens"])


def with_tokens(added: dict[int, str]) -> Fingerprint:
    tokens = {**(llama3().tokenizer or {}), "added_tokens": token_rows(added)}
    return llama3().but("", tokenizer=tokens).fingerprint()


def of(base: dict[int, str], post: dict[int, str], target: dict[int, str], **more: Any
       ) -> Comparison:  # fmt: skip
    sides = [with_tokens(added) for added in (base, post, target)]
    return compare(*sides, same_content=False, **more)


@settings(deadline=None)
@given(TOKENS, ALIGN)
def test_nothing_is_said_where_nothing_differs(
    added: dict[int, str], align: Literal["ids", "tokens"]
) -> None:
    found = of(added, added, added, align=align)
    assert (found.verdict, found.problems) == ("compatible", ())


@settings(deadline=None)
@given(TOKENS, TOKENS, TOKENS, ALIGN)
def test_refused_means_an_error_and_every_error_has_a_remedy(
    base: dict[int, str],
    post: dict[int, str],
    target: dict[int, str],
    align: Literal["ids", "tokens"],
) -> None:
    found = of(base, post, target, align=align)
    errors = errors_of(found.problems)
    assert (found.verdict == "incompatible") == bool(errors)
    assert all(problem.remedy for problem in errors)
    if align == "tokens":
        assert not errors, "matching by string leaves nothing to refuse about added tokens"


@settings(deadline=None)
@given(TOKENS, TOKENS)
def test_a_target_that_is_the_post_clashes_with_nothing(
    base: dict[int, str], post: dict[int, str]
) -> None:
    """Names that the post gave are there already; only what it did to its base's own is told."""
    found = of(base, post, post)
    assert not any("of the post-training" in problem.reason for problem in found.problems)


@pytest.mark.parametrize(
    ("base", "post", "target", "severity", "words"),
    [
        ({}, {200: "<a>"}, {}, "note", "1 token of the post-training, brought with the delta"),
        ({}, {200: "<a>"}, {200: "<pad>"}, "note", "brought"),
        ({200: "<pad>"}, {200: "<a>"}, {200: "<pad>"}, "note", "brought"),
        ({}, {200: "<a>"}, {200: "<b>"}, "error", "without a place here (200: <a> in the post"),
        ({}, {200: "<a>"}, {201: "<a>"}, "error", "which has it at 201"),
        ({200: "<a>"}, {200: "<b>"}, {200: "<a>"}, "warning", "renamed by the post-training"),
        ({200: "<a>"}, {200: "<a>"}, {200: "<b>"}, "warning", "in use, renamed here"),
        ({200: "<a>"}, {200: "<a>"}, {201: "<a>"}, "error", "in use under other ids here"),
        ({200: "<a>"}, {200: "<a>"}, {}, "note", "1 token in one base only (200: <a> → none)"),
        ({200: "<a>"}, {200: "<a>"}, {200: "<unused1>"}, "note", "in reserve or padding"),
    ],
)
def test_each_case_has_its_severity(
    base: dict[int, str], post: dict[int, str], target: dict[int, str], severity: str, words: str
) -> None:
    found = of(base, post, target)
    told = [p for p in found.problems if words in p.reason]
    assert [problem.severity for problem in told] == [severity], found.problems


def test_a_post_whose_padding_is_elsewhere_here_needs_no_place() -> None:
    assert of({}, {200: "<pad>"}, {}).problems[0].severity == "note"
    found = of({}, {200: "<pad>"}, {201: "<pad>", 200: "<a>"})
    assert found.verdict == "compatible"
    assert {problem.severity for problem in found.problems} == {"note"}


def test_many_tokens_are_counted_and_a_few_named() -> None:
    base = {200 + i: f"<x{i}>" for i in range(9)}
    target = {index: f"<y{index}>" for index in base}
    (problem,) = of(base, base, target).problems
    assert problem.reason.startswith("9 tokens in use") and problem.reason.endswith("; …)")
    assert problem.reason.count("→") == 5


# -- rows -------------------------------------------------------------------------------------


def sized(rows: int) -> Model:
    return llama3().resized("", rows)  # 128,256 tokens


@pytest.mark.parametrize(
    ("base", "post", "target", "verdict", "words"),
    [
        (128_256, 128_256, 128_256, "compatible", None),
        (128_256, 128_264, 128_256, "adaptable", "will be extended"),
        (128_256, 128_256, 128_320, "adaptable", "stay as they are"),
        (128_320, 128_320, 128_256, "adaptable", "left out"),
        (128_320, 128_320, 128_255, "incompatible", "lacks rows"),
        (128_256, 128_264, 128_255, "incompatible", "lacks rows"),
        (128_320, 128_256, 128_256, "compatible", None),
    ],
)
def test_rows_are_extended_left_or_missed(
    base: int, post: int, target: int, verdict: str, words: str | None
) -> None:
    sides = [sized(rows).fingerprint() for rows in (base, post, target)]
    found = compare(*sides, same_content=False)
    assert found.verdict == verdict
    subjects = [] if words is None else ["lm_head.weight", "model.embed_tokens.weight"]
    assert [problem.subject for problem in found.problems] == subjects
    assert all(words is None or words in problem.reason for problem in found.problems)


def test_padding_rows_are_only_known_where_the_tokens_are() -> None:
    def bare(rows: int) -> Fingerprint:
        return sized(rows).but("", tokenizer=None).fingerprint()

    found = compare(bare(128_320), bare(128_320), bare(128_256), same_content=False)
    assert found.verdict == "incompatible"

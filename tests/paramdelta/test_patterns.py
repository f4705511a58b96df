"""Patterns of module names: what Python's own engine finds, in bounded time."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paramdelta import patterns
from paramdelta.errors import InvalidError
from paramdelta.patterns import Patterns

NAMES = [
    "model.layers.0.self_attn.q_proj",
    "model.layers.11.self_attn.q_proj",
    "model.layers.1.mlp.gate_proj",
    "model.embed_tokens",
    "lm_head",
    "xq_proj",
    "q_proj",
    "a.b",
    "aab",
]


def peft(keys: list[str], name: str) -> str | None:
    return next((key for key in keys if re.match(rf"(.*\.)?({key})$", name)), None)


@pytest.mark.parametrize(
    "key",
    [
        "q_proj", "layers.1.mlp.gate_proj", "layers.1", "model.layers.0.self_attn.q_proj",
        r"layers\.\d+\.self_attn\.(q|k|v)_proj", r"^model.layers.[01]\..*", r".*q_proj$", "q.proj",
        r"layers\.(0|1|2)\..*_proj", r"(?:gate|up)_proj", r"layers\.1{2}\..*", r"\w+", r"[^.]+",
        r"layers\.1{1,2}\.[a-z.]+_proj", "a+b", "a*?b", "(a|aa)b", "lm_head|embed_tokens", "",
        "^lm",
        r".*\.layers\.[0-9]+\.mlp.*", "a{1,}b", "(a*)*b", r"[\d\w_]+", "q-proj", "(^q|x)q?_?proj",
    ],
)  # fmt: skip
def test_a_key_matches_the_names_that_peft_matches(key: str) -> None:
    for name in NAMES:
        assert Patterns([key]).first(name) == peft([key], name), name


def test_the_first_key_in_the_files_order_wins() -> None:
    keys = ["gate_proj", ".*_proj", "q_proj"]
    assert Patterns(keys).first("model.layers.0.self_attn.q_proj") == ".*_proj"
    assert Patterns(keys[::-1]).first("model.layers.0.self_attn.q_proj") == "q_proj"
    assert Patterns(keys).first("lm_head") is None


atoms = st.sampled_from(["a", "b", ".", r"\.", "[ab]", "[^a]", r"\w", "^", "$"])
repeats = st.sampled_from(["", "*", "+", "?", "{2}", "{1,2}", "{1,}", "*?", "+?"])
expressions = st.recursive(
    st.one_of(
        st.builds(lambda a, r: a if a in "^$" else a + r, atoms, repeats),
        st.sampled_from(["", "a"]),
    ),
    lambda inner: st.one_of(
        st.builds(lambda x, y: x + y, inner, inner),
        st.builds(lambda x, y: f"({x}|{y})", inner, inner),
        st.builds(lambda x, r: f"(?:{x}){r}", inner, repeats),
    ),
    max_leaves=6,
)


@given(expressions, st.text("ab.", max_size=6))
@settings(max_examples=1500, deadline=None)
def test_every_pattern_of_the_subset_means_what_it_means_to_python(key: str, name: str) -> None:
    assert Patterns([key]).first(name) == peft([key], name)


@pytest.mark.parametrize(
    "key",
    ["(a", "a)", "*a", "a**", "a++", r"\1", r"\bq", "(?=a)", "(?i)a", "[a", "[[a]]", "[b-a]", "a{2",
     "a{3,2}", "(?P<x>a)", "a{9999}", "(" * 40 + "a" + ")" * 40, "a" * 1000 + "+" * 2000],
)  # fmt: skip
def test_what_is_not_understood_is_refused_by_name(key: str) -> None:
    with pytest.raises(InvalidError) as caught:
        Patterns([key])
    assert caught.value.subject == key[:200]


@pytest.mark.parametrize("key", ["(a+)+b", "(a|a)*b", "(a*)*(a*)*(a*)*b", "(a|a)" * 60 + "b"])
def test_what_takes_exponential_time_elsewhere_is_answered(key: str) -> None:
    name = "a" * 400
    assert Patterns([key]).first(name) is None
    assert Patterns([key]).first("x." + "a" * 60 + "b") == key


def test_work_without_end_is_stopped(monkeypatch) -> None:
    monkeypatch.setattr(patterns, "MAX_PATTERN_STEPS", 1000)
    found = Patterns([r"(\w+\.)*(\w*\w)*\d"])
    with pytest.raises(InvalidError, match="too slow"):
        for i in range(1000):
            found.first(f"model.layers.{i}.self_attn")
    with pytest.raises(InvalidError, match="too slow"):
        Patterns([r"(\w+\.)*(\w*\w)*\d"]).first("a" * 2000)


def test_as_many_keys_as_modules_are_fine_and_more_are_refused() -> None:
    keys = [f"model.layers.{i}.self_attn.q_proj" for i in range(1500)]
    found = Patterns(keys)
    assert all(found.first(key) == key for key in keys[::7])
    with pytest.raises(InvalidError, match="allowed"):
        Patterns(str(i) for i in range(20_001))

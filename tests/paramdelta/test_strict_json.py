"""JSON from strangers: what is refused, at each limit and one past it."""

from __future__ import annotations

import contextlib
import gc
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paramdelta import limits, strict_json
from paramdelta.errors import InvalidError

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def loads(data: bytes, **options: Any) -> Any:
    return strict_json.loads(data, "some.json", 1 << 20, **options)


@given(VALUES, st.booleans())
def test_takes_every_json_value_that_json_writes(value: Any, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert loads(text.encode()) == value


@given(st.binary(max_size=60) | st.text('[]{}",:\\u0dD8 1e-.tf', max_size=40).map(str.encode))
def test_takes_nothing_that_json_refuses(data: bytes) -> None:
    try:
        value = loads(data)
    except InvalidError as error:
        assert error.where == "some.json"
    else:
        assert value == json.loads(data.decode())


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not JSON"),
        (b"{}x", "not JSON"),
        (b"{} {}", "not JSON"),
        (b"[1,]", "not JSON"),
        (b'{"a":1,}', "not JSON"),
        (b"// comment\n{}", "not JSON"),
        (b'"\x01"', "not JSON"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        ("{}".encode("utf-16"), "not UTF-8 at byte 0"),
        (b'{"a":"\xff"}', "not UTF-8 at byte 6"),
        (b'"\xed\xa0\x80"', "not UTF-8"),  # a surrogate, encoded
        (b'"\xc0\x80"', "not UTF-8"),  # an overlong NUL
        (b'{"a":1,"a":1}', "duplicate key 'a'"),
        (b'[{"x":{"b":1,"c":2,"b":3}}]', "duplicate key 'b'"),
        (b'{"a":1,"\\u0061":2}', "duplicate key 'a'"),
        (b"NaN", "NaN"),
        (b"[Infinity]", "Infinity"),
        (b"[-Infinity]", "-Infinity"),
        (b"1e999", "beyond float64"),
        (b"-1e999", "beyond float64"),
        (rb'"\ud800"', "lone surrogate"),
        (rb'"\uDFFF x"', "lone surrogate"),
        (rb'{"\udead":1}', "lone surrogate"),
        (rb'[["a",{"k":"\ud83d \ude00"}]]', "lone surrogate"),
    ],
)
def test_refuses(data: bytes, reason: str) -> None:
    with pytest.raises(InvalidError, match=reason) as caught:
        loads(data)
    assert caught.value.where == "some.json"


def test_takes_a_surrogate_pair() -> None:
    assert loads(rb'"\ud83d\ude00"') == "😀"
    assert loads(rb'"\\ud800"') == r"\ud800"


def test_infinity_is_taken_only_where_asked_for() -> None:
    assert loads(b"[0.0, Infinity, -Infinity]", infinity=True) == [0.0, math.inf, -math.inf]
    for data in (b"NaN", b"1e999"):
        with pytest.raises(InvalidError):
            loads(data, infinity=True)


def test_size_limit() -> None:
    assert strict_json.loads(b"[11]", "x", 4) == [11]
    with pytest.raises(InvalidError, match="5 bytes of JSON; 4 allowed"):
        strict_json.loads(b"[111]", "x", 4)


@pytest.mark.parametrize(("left", "right"), [(b"[", b"]"), (b'{"":', b"}")])
def test_depth_limit(left: bytes, right: bytes) -> None:
    deepest = limits.MAX_JSON_DEPTH

    def nested(depth: int) -> bytes:
        return left * depth + b"0" + right * depth

    loads(nested(deepest))
    with pytest.raises(InvalidError, match=f"deeper than {deepest}"):
        loads(nested(deepest + 1))
    assert loads(b"[[0]]", max_depth=2) == [[0]]
    with pytest.raises(InvalidError, match="deeper than 2"):
        loads(b"[[[0]]]", max_depth=2)


def test_nesting_that_would_exhaust_the_stack_is_refused_unparsed() -> None:
    with pytest.raises(InvalidError, match="nested deeper"):
        loads(b"[" * 1_000_000)


def test_brackets_in_strings_are_not_nesting() -> None:
    tricky = ["[" * 100, "]" * 100, '"[[[', "\\", '\\"[' * 20, "\\\\" + "{" * 50]
    assert loads(json.dumps(tricky).encode()) == tricky


@given(st.lists(st.text('[]{}"\\,a', max_size=8), max_size=5), st.integers(30, 34))
def test_depth_is_counted_around_any_strings(texts: list[str], depth: int) -> None:
    value: Any = texts
    for _ in range(depth - 1):
        value = [value, *texts]
    data = json.dumps(value).encode()
    if depth <= limits.MAX_JSON_DEPTH:
        assert loads(data) == value
    else:
        with pytest.raises(InvalidError, match="nested deeper"):
            loads(data)


def test_limit_on_the_number_of_values(monkeypatch: pytest.MonkeyPatch) -> None:
    # The limit itself is lowered: reaching the real one would take half a gigabyte.
    monkeypatch.setattr(strict_json, "MAX_JSON_VALUES", 6)
    for data in (b"[1,2,3,4,5,6]", b'[{},{},",",1]', b'{"a":1,"b":",,,,,,,,"}'):
        loads(data)
    for data in (b"[1,2,3,4,5,6,7]", b"[{},{},{},{}]", b'"' * 30):
        with pytest.raises(InvalidError, match="more than 6 values"):
            loads(data)


def test_limit_on_the_digits_of_an_integer() -> None:
    most = limits.MAX_JSON_DIGITS
    assert loads(b"9" * most) == int("9" * most)
    with pytest.raises(InvalidError, match=f"{most + 1} digits"):
        loads(b"9" * (most + 1))


def test_digits_in_strings_are_no_integers() -> None:
    digits = "9" * (limits.MAX_JSON_DIGITS + 1)
    assert loads(f'["{digits}", 7]'.encode()) == [digits, 7]
    with pytest.raises(InvalidError, match="digits"):
        loads(f'["{digits}", -{digits[1:]}]'.encode())  # the sign counts


def test_the_collector_is_left_as_it_was() -> None:
    """It rests while a document is parsed, also where the document is refused."""
    assert gc.isenabled()
    for data in (b"[1]", b"[", b'{"a":1,"a":1}'):
        with contextlib.suppress(InvalidError):
            loads(data)
        assert gc.isenabled()
    gc.disable()
    try:
        loads(b"[1]")
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("letter", "width"), [("a", 1), ("é", 2), ("\u4e2d", 2), ("\U0001f600", 4)]
)
def test_limit_on_the_memory_of_a_text(
    monkeypatch: pytest.MonkeyPatch, letter: str, width: int
) -> None:
    """One wide character makes all of them wide."""
    data = json.dumps("x" * 1000 + letter, ensure_ascii=False).encode()
    monkeypatch.setattr(strict_json, "MAX_JSON_TEXT_BYTES", len(data) * width)
    assert strict_json.loads(data, "x", 1 << 20).endswith(letter)
    monkeypatch.setattr(strict_json, "MAX_JSON_TEXT_BYTES", len(data) * width - 1)
    with pytest.raises(InvalidError, match="bytes of memory"):
        strict_json.loads(data, "x", 1 << 20)

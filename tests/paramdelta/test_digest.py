"""Equal content has equal bytes; what has no one form is refused."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paramdelta.digest import Hasher, canonical_json, content_digest, digest_of, parse_digest
from paramdelta.errors import InvalidError

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), json_values))
def test_canonical_json_reads_back_and_has_one_form(value: dict[str, object]) -> None:
    data = canonical_json(value)
    assert json.loads(data) == value
    assert canonical_json(json.loads(data)) == data
    assert canonical_json(dict(reversed(value.items()))) == data


@pytest.mark.parametrize("value", [{"a": 0.5}, {1: 2}, {"a": 2**53}, {"a": {3}}, {"a": b"x"}])
def test_what_has_no_canonical_form_is_refused(value: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        canonical_json(value)


def test_lone_surrogates_have_no_canonical_form() -> None:
    with pytest.raises(UnicodeEncodeError):
        canonical_json({"a": "\ud800"})


def test_a_hasher_takes_bytes_and_arrays() -> None:
    hasher = Hasher()
    hasher.update(b"ab")
    hasher.update(np.array([1, 2], dtype="<u2"))
    assert hasher.size == 6
    assert hasher.digest == "sha256:" + hashlib.sha256(b"ab\x01\0\x02\0").hexdigest()


@pytest.mark.parametrize(
    "text", ["", "sha256:", "sha256:" + "A" * 64, "sha256:" + "0" * 63, "md5:" + "0" * 64,
             "sha256:" + "0" * 64 + "\n"],
)  # fmt: skip
def test_malformed_digests_are_refused(text: str) -> None:
    with pytest.raises(InvalidError):
        parse_digest(text)


def test_the_content_digest_is_what_the_format_says() -> None:
    rows = [("b", "F32", (2, 3), "sha256:y"), ("a", "BF16", (), "sha256:x")]
    text = b'[["a","BF16",[],"sha256:x"],["b","F32",[2,3],"sha256:y"]]'
    assert content_digest(rows) == content_digest(reversed(rows)) == digest_of(text)

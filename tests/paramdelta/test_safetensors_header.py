"""Headers: exactly what the reference reads, and nothing that has two meanings."""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save as reference_save
from support.checkpoints import Tensors, safetensors_bytes, tensor_tables

from paramdelta import safetensors_header
from paramdelta.dtypes import ITEM_BYTES
from paramdelta.errors import CorruptError, InvalidError
from paramdelta.limits import MAX_DIMENSIONS, MAX_HEADER_BYTES, MAX_NAME_BYTES
from paramdelta.safetensors_header import Header, build_header, parse_header, read_header

WHERE = "model.safetensors"
TENSOR = {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}
ALL_DTYPES = tuple(ITEM_BYTES)


def file_bytes(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    """A file with this header: a JSON value, or the text's bytes verbatim."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[Any]:
    """read(bytes) -> Header, by way of a real file."""
    path = tmp_path / WHERE

    def read(data: bytes) -> Header:
        path.write_bytes(data)
        fd = os.open(path, os.O_RDONLY)
        try:
            return read_header(fd, WHERE, "shard")
        finally:
            os.close(fd)

    yield read


def parse(data: bytes) -> Header:
    """As `read_header`, of bytes in memory."""
    length = struct.unpack("<Q", data[:8])[0] if len(data) >= 8 else 0
    return parse_header(data[: 8 + min(length, len(data))], WHERE, len(data))


def refused(data: bytes) -> InvalidError:
    with pytest.raises(InvalidError) as caught:
        parse(data)
    error = caught.value
    assert error.where == WHERE
    error.message.encode()
    return error


def entry(**changes: object) -> bytes:
    """A file of one tensor "a", two bytes of data, with these keys changed."""
    return file_bytes({"a": TENSOR | changes}, b"xy")


# --- what is accepted -----------------------------------------------------------------------


def test_header_says_where_each_tensor_lies(descriptor: Any) -> None:
    tensors: Tensors = {
        "b": ("F32", np.array([1, 2, 3], "<u4"), (3, 1)),
        "a": ("BF16", np.array([7], "<u2"), ()),
        "none": ("I64", np.array([], "<u8"), (0, 5)),
        "c": ("BOOL", np.array([1, 0], "u1"), (2,)),
    }
    data = safetensors_bytes(tensors, {"format": "pt"})
    header = descriptor(data)
    assert [info.name for info in header.tensors] == ["b", "a", "none", "c"]
    assert header.metadata == {"format": "pt"}
    assert data.startswith(header.raw)
    assert len(header.raw) + header.data_bytes == len(data)
    for info in header.tensors:
        dtype, bits, shape = tensors[info.name]
        assert (info.dtype, info.shape, info.file) == (dtype, shape, "shard")
        assert info.elements == bits.size
        assert info.nbytes == bits.nbytes
        assert data[info.begin : info.end] == bits.tobytes()


def test_file_without_tensors() -> None:
    header = parse(file_bytes({}))
    assert (header.tensors, header.metadata, header.data_bytes) == ((), {}, 0)


def test_header_padded_with_spaces_is_taken_and_kept_verbatim() -> None:
    data = file_bytes(json.dumps({"a": TENSOR}).encode() + b"     ", b"xy")
    assert parse(data).raw == data[:-2]


def test_order_of_keys_is_not_order_of_data() -> None:
    data = file_bytes({"late": TENSOR | {"data_offsets": [2, 4]}, "early": TENSOR}, b"abcd")
    assert [info.name for info in parse(data).tensors] == ["early", "late"]


def test_empty_tensor_may_share_its_offset_with_any_neighbour() -> None:
    empty = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
    end = empty | {"data_offsets": [2, 2]}
    data = file_bytes({"last": end, "a": TENSOR, "first": empty}, b"xy")
    assert [info.name for info in parse(data).tensors] == ["first", "a", "last"]
    assert_as_the_reference(parse(data), data)


@given(tensor_tables(ALL_DTYPES), st.dictionaries(st.text(), st.text(), max_size=3))
def test_what_we_accept_the_reference_accepts_with_equal_bytes(
    tensors: Tensors, metadata: dict[str, str]
) -> None:
    metadata = {key: value for key, value in metadata.items() if key.isprintable()}
    data = safetensors_bytes(tensors, metadata)
    assert_as_the_reference(parse(data), data)


MUTATIONS = st.one_of(
    st.tuples(st.just("flip"), st.integers(0, 400), st.integers(0, 255)),
    st.tuples(st.just("cut"), st.integers(0, 400), st.just(0)),
    st.tuples(st.just("insert"), st.integers(0, 400), st.sampled_from(b' {}[]",:0123456789-e.\\')),
)


@settings(suppress_health_check=[HealthCheck.filter_too_much])
@given(tensor_tables(ALL_DTYPES, max_tensors=3), st.lists(MUTATIONS, max_size=3), st.booleans())
def test_mutated_file_is_refused_or_read_as_the_reference_reads_it(
    tensors: Tensors, mutations: list[tuple[str, int, int]], keep_length: bool
) -> None:
    data = bytearray(safetensors_bytes(tensors, {"k": "v"}))
    rest = len(data) - 8 - struct.unpack("<Q", data[:8])[0]
    for kind, at, byte in mutations:
        at %= len(data)
        if kind == "flip":
            data[at] = byte
        elif kind == "cut":
            del data[at]
        else:
            data.insert(at, byte)
    if keep_length and len(data) >= 8 + rest:
        data[:8] = struct.pack("<Q", len(data) - 8 - rest)
    try:
        header = parse(bytes(data))
    except InvalidError:
        return
    assert_as_the_reference(header, bytes(data))


@st.composite
def nearly_right_files(draw: st.DrawFn) -> bytes:
    """Files of up to three tensors, in which a number may be off."""
    slip = st.sampled_from([0] * 12 + [1, -1, 4, 1 << 40, 1 << 62, (1 << 63) - 1, 1 << 63])
    table: dict[str, object] = {}
    position = 0
    for name in draw(st.lists(st.sampled_from("abc"), unique=True)):
        dtype = draw(st.sampled_from(["U8", "F16", "F32"]))
        shape = [size + draw(slip) for size in draw(st.lists(st.integers(0, 2), max_size=3))]
        begin = position + draw(slip)
        end = begin + math.prod(shape) * ITEM_BYTES[dtype] + draw(slip)
        table[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
        position = end
    size = position + draw(slip)
    return file_bytes(table, bytes(size if 0 <= size < 1000 else 3))


@given(nearly_right_files())
@example(file_bytes({"a": TENSOR | {"shape": [1 << 40, 1 << 40, 0], "data_offsets": [0, 0]}}))
@example(file_bytes({"a": TENSOR | {"dtype": "F32", "shape": [0], "data_offsets": [1, 1]}}, b"a"))
def test_no_table_is_accepted_that_the_reference_refuses(data: bytes) -> None:
    try:
        header = parse(data)
    except InvalidError:
        return
    assert_as_the_reference(header, data)


def assert_as_the_reference(header: Header, data: bytes) -> None:
    theirs = dict(safetensors.deserialize(data))
    assert {info.name for info in header.tensors} == set(theirs)
    for info in header.tensors:
        other = theirs[info.name]
        assert (info.dtype, list(info.shape)) == (other["dtype"], other["shape"])
        assert data[info.begin : info.end] == bytes(other["data"])


def test_file_of_the_reference_writer_is_read() -> None:
    arrays = {"x": np.arange(6, dtype=np.float16).reshape(2, 3), "y": np.array(3, dtype=np.int64)}
    data = reference_save(arrays, metadata={"format": "np"})
    header = parse(data)
    assert header.metadata == {"format": "np"}
    for info in header.tensors:
        assert data[info.begin : info.end] == arrays[info.name].tobytes()


# --- what is refused ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "0 bytes"),
        (b"1234567", "7 bytes"),
        (struct.pack("<Q", 100) + b"{}", "header of 100 bytes, the file has 10"),
        (struct.pack("<Q", MAX_HEADER_BYTES + 1), "allowed"),
        (struct.pack("<Q", (1 << 64) - 1) + b"{}", "allowed"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"),
        (file_bytes(b""), "start with"),
        (file_bytes(b" {}"), "start with"),
        (file_bytes(b"[]"), "start with"),
        (file_bytes(b"\xef\xbb\xbf{}"), "start with"),
        (file_bytes(b"{}\0\0"), "not JSON"),
        (file_bytes(b'{"a":\xff}'), "not UTF-8"),
        (file_bytes(b'{"__metadata__":{"x":"1","x":"2"}}'), "duplicate key 'x'"),
        (file_bytes(b'{"__metadata__":' + b'{"":' * 50 + b"0" + b"}" * 51), "nested deeper"),
        (file_bytes({"a": TENSOR}, b"xyz"), "1 bytes after the last tensor"),
        (file_bytes({}, b"x"), "1 bytes after the last tensor"),
    ],
)
def test_file_is_refused(data: bytes, reason: str, descriptor: Any) -> None:
    with pytest.raises(InvalidError, match=reason) as caught:
        descriptor(data)
    assert caught.value.where == WHERE


def test_duplicate_tensor_is_refused() -> None:
    row = json.dumps(TENSOR)
    assert "duplicate key 'a'" in refused(file_bytes(f'{{"a":{row},"a":{row}}}'.encode())).reason


@pytest.mark.parametrize("value", [None, [], "x", {"a": 1}, {"a": None}, {"a": {"b": "c"}}])
def test_metadata_maps_strings_to_strings(value: object) -> None:
    error = refused(file_bytes({"__metadata__": value}))
    assert error.subject == "__metadata__"
    assert error.remedy


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"dtype": "F4"}, "unknown dtype"),
        ({"dtype": "u8"}, "unknown dtype"),
        ({"dtype": None}, "unknown dtype"),
        ({"dtype": ["U8"] * 1000}, "unknown dtype 'list'"),
        ({"shape": None}, "malformed shape"),
        ({"shape": 2}, "malformed shape"),
        ({"shape": {"0": 2}}, "malformed shape"),
        ({"shape": [2.0]}, "malformed shape"),
        ({"shape": [True, 2]}, "malformed shape"),
        ({"shape": ["2"]}, "malformed shape"),
        ({"shape": [-2]}, "malformed shape"),
        ({"shape": [-1, -2]}, "malformed shape"),
        ({"shape": [1 << 63, 0]}, "malformed shape"),
        ({"shape": [(1 << 63) - 1, 2, 0], "data_offsets": [0, 0]}, "2\\^63 bytes"),
        ({"shape": [3]}, "2 bytes of data; U8 \\[3\\] needs 3"),
        ({"shape": []}, "needs 1"),
        ({"dtype": "F16", "shape": [2]}, "needs 4"),
        ({"data_offsets": None}, "malformed data_offsets"),
        ({"data_offsets": [0]}, "malformed data_offsets"),
        ({"data_offsets": [0, 2, 2]}, "malformed data_offsets"),
        ({"data_offsets": [2, 0]}, "malformed data_offsets"),
        ({"data_offsets": [-2, 0]}, "malformed data_offsets"),
        ({"data_offsets": [0, 2.0]}, "malformed data_offsets"),
        ({"data_offsets": [False, 2]}, "malformed data_offsets"),
        ({"data_offsets": [(1 << 63) - 1, (1 << 63) + 1]}, "malformed data_offsets"),
        ({"data_offsets": [1, 3]}, "leaves a gap"),
        ({"more": 1}, "exactly the keys"),
    ],
)
def test_tensor_is_refused(changes: dict[str, object], reason: str) -> None:
    error = refused(entry(**changes))
    assert error.subject == "a"
    assert error.remedy
    assert len(error.problems) == 1
    with pytest.raises(InvalidError, match=reason):
        raise error


@pytest.mark.parametrize("row", [None, 1, "x", [], {}, {"dtype": "U8", "shape": [2]}])
def test_entry_that_is_no_tensor_is_refused(row: object) -> None:
    assert "exactly the keys" in refused(file_bytes({"a": row}, b"xy")).reason


@pytest.mark.parametrize("name", ["../../etc/cron.d/x", "/x", "a\\b", "", "a\u202e", "e\u0301"])
def test_path_like_or_invisible_name_is_refused(name: str) -> None:
    assert "name" in refused(file_bytes({name: TENSOR}, b"xy")).reason


def test_overlap_and_gap_are_told_with_their_tensor() -> None:
    rows = {"a": TENSOR, "b": TENSOR | {"data_offsets": [1, 3]}}
    error = refused(file_bytes(rows, b"xyz"))
    assert error.subject == "b"
    assert "overlaps" in error.reason
    rows = {"a": TENSOR, "b": TENSOR | {"data_offsets": [3, 5]}}
    error = refused(file_bytes(rows, b"xyzzy"))
    assert error.subject == "b"
    assert "gap" in error.reason
    assert "overlaps" in refused(file_bytes({"a": TENSOR, "b": TENSOR}, b"xy")).reason


def test_all_tensors_at_fault_are_told() -> None:
    bad = TENSOR | {"dtype": "X"}
    error = refused(file_bytes({"a": bad, "b": TENSOR, "c": bad, "../d": TENSOR}, b"xy"))
    assert [problem.subject for problem in error.problems] == ["a", "c", "../d"]
    assert "and 2 other tensors" in error.reason


def test_truncated_file_is_corrupt_and_names_the_first_tensor_cut() -> None:
    rows = {
        "whole": TENSOR,
        "cut": TENSOR | {"data_offsets": [2, 4]},
        "gone": TENSOR | {"data_offsets": [4, 6]},
    }
    with pytest.raises(CorruptError, match="truncated") as caught:
        parse(file_bytes(rows, b"123"))
    assert caught.value.subject == "cut"
    assert "again" in caught.value.remedy


def test_header_shorter_than_it_says_is_corrupt() -> None:
    data = file_bytes({"a": TENSOR}, b"xy")
    with pytest.raises(CorruptError, match="instead of"):
        parse_header(data[:-4], WHERE, len(data))


# --- each limit, at it and one past it ------------------------------------------------------


def test_header_length_limit(descriptor: Any) -> None:
    def padded(length: int) -> bytes:
        return struct.pack("<Q", length) + b"{}" + b" " * (length - 2)

    assert len(descriptor(padded(MAX_HEADER_BYTES)).raw) == MAX_HEADER_BYTES + 8
    with pytest.raises(InvalidError, match=f"{MAX_HEADER_BYTES} allowed"):
        descriptor(padded(MAX_HEADER_BYTES + 1))


def test_dimension_limit() -> None:
    most = entry(shape=[1] * (MAX_DIMENSIONS - 1) + [2])
    assert parse(most).tensors[0].shape[-1] == 2
    assert "malformed shape" in refused(entry(shape=[1] * MAX_DIMENSIONS + [2])).reason


def test_name_length_limit() -> None:
    parse(file_bytes({"n" * MAX_NAME_BYTES: TENSOR}, b"xy"))
    error = refused(file_bytes({"n" * (MAX_NAME_BYTES + 1): TENSOR}, b"xy"))
    assert "longer than" in error.reason
    assert len(error.subject) <= 200


def test_integer_limit() -> None:
    largest = (1 << 63) - 1
    parse(file_bytes({"a": TENSOR | {"shape": [0, largest], "data_offsets": [0, 0]}}))
    beyond = file_bytes({"a": TENSOR | {"shape": [0, largest + 1], "data_offsets": [0, 0]}})
    assert "malformed shape" in refused(beyond).reason


def test_tensor_count_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    # The limit itself is lowered: 200,000 tensors would take seconds.
    monkeypatch.setattr(safetensors_header, "MAX_TENSORS", 2)
    empty = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
    parse(file_bytes({"__metadata__": {}, "a": empty, "b": empty}))
    error = refused(file_bytes({"a": empty, "b": empty, "c": empty}))
    assert "3 tensors; 2 allowed" in error.reason


# --- headers that we build ------------------------------------------------------------------


@given(tensor_tables(ALL_DTYPES), st.dictionaries(st.text('aé\n" ', max_size=4), st.text("x{é")))
def test_header_that_we_build_is_read_by_the_reference(
    tensors: Tensors, metadata: dict[str, str]
) -> None:
    header = build_header([(n, d, s) for n, (d, _, s) in tensors.items()], metadata)
    assert len(header) % 8 == 0
    data = header + b"".join(bits.tobytes() for _, bits, _ in tensors.values())
    assert_as_the_reference(parse(data), data)
    assert parse(data).metadata == metadata
    names = [info.name for info in parse(data).tensors if info.nbytes]
    assert names == [name for name, (_, bits, _) in tensors.items() if bits.size]


def test_header_that_we_build_is_the_reference_writers() -> None:
    arrays = {"b": np.arange(4, dtype=np.float32), "a": np.zeros((2, 2), dtype=np.float16)}
    theirs = parse(reference_save(arrays, metadata={"format": "pt"}))
    ours = build_header([(t.name, t.dtype, t.shape) for t in theirs.tensors], theirs.metadata)
    assert ours == theirs.raw


@pytest.mark.parametrize(
    "tensors",
    [
        [("a", "U8", (1,)), ("a", "U8", (1,))],
        [("a", "U8", (0,)), ("a", "U8", (0,))],
        [("../a", "U8", (1,))],
        [("\ud800", "U8", (1,))],
        [("__metadata__", "U8", (1,))],
        [("a", "F4", (1,))],
        [("a", "U8", (-1,))],
    ],
)
def test_header_that_we_would_refuse_is_not_built(tensors: Any) -> None:
    with pytest.raises(InvalidError):
        build_header(tensors, {})

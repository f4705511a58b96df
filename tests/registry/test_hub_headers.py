"""Headers by HTTP range, from servers that help, servers that do not, and servers that lie."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import local_hub
from support.checkpoints import llama_like, safetensors_bytes, tensor
from support.local_hub import Hub

from paramdelta.errors import CorruptError, InvalidError, UnreachableError
from paramdelta.safetensors_header import Header, parse_header
from registry.hub_headers import FIRST_BYTES, fetch_header

NAME = "model.safetensors"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with local_hub.serve() as found:
        found.tokens = {"hf_secret"}
        yield found


def put(hub: Hub, folder: Path, data: bytes) -> int:
    folder.mkdir(exist_ok=True)
    (folder / NAME).write_bytes(data)
    hub.repos["org/base"] = folder
    return len(data)


def fetch(hub: Hub, size: int) -> Header:
    return fetch_header(f"{hub.url}/org/base/resolve/main/{NAME}", "hf://org/base", size, NAME)


def long_header(padding: int) -> bytes:
    """A file whose header is *padding* bytes longer than it need be, and 200 kB of data."""
    tensors = {"a": tensor("BF16", [1] * 100_000, (100_000,))}
    return safetensors_bytes(tensors, {"padding": "x" * padding})


def test_a_header_costs_one_small_range(hub: Hub, tmp_path: Path) -> None:
    data = safetensors_bytes(llama_like(hidden=128, vocab=4096))
    size = put(hub, tmp_path / "base", data)
    assert size > 8 * FIRST_BYTES
    hub.may_compress = True  # a range of compressed bytes would be no use
    assert fetch(hub, size) == parse_header(data[: 8 + int.from_bytes(data[:8], "little")],
                                            "", size, NAME)  # fmt: skip
    assert hub.requests[1:] == [f"CDN GET bytes=0-{FIRST_BYTES - 1}"]
    assert hub.served[NAME] == FIRST_BYTES


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    padding=st.one_of(
        st.integers(0, 3 * FIRST_BYTES),
        st.integers(-200, 200).map(lambda n: FIRST_BYTES + n),
    ),
    part=st.sampled_from([0, 40_000, FIRST_BYTES]),
    ignores=st.booleans(),
)
def test_headers_of_any_length_from_any_server(
    hub: Hub, tmp_path: Path, padding: int, part: int, ignores: bool
) -> None:
    data = long_header(padding)
    hub.part, hub.ignores_ranges = part, ignores
    size = put(hub, tmp_path / "base", data)
    end = 8 + int.from_bytes(data[:8], "little")
    assert fetch(hub, size).raw == data[:end]


def test_a_server_that_ignores_ranges_is_left_after_the_header(hub: Hub, tmp_path: Path) -> None:
    header = safetensors_bytes({"a": tensor("U8", [], (0,))})
    size = 256 << 20  # more than the sockets' buffers hold
    body = json.dumps(
        {"a": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}
    ).encode().ljust(len(header) * 4)  # fmt: skip
    put(hub, tmp_path / "base", struct.pack("<Q", len(body)) + body)
    with (tmp_path / "base" / NAME).open("r+b") as file:
        file.truncate(8 + len(body) + size)
    hub.ignores_ranges = True
    assert fetch(hub, 8 + len(body) + size).tensors[0].nbytes == size
    assert hub.served[NAME] < size // 8


def test_the_token_goes_to_the_hub_and_not_to_where_it_redirects(hub: Hub, tmp_path: Path) -> None:
    size = put(hub, tmp_path / "base", long_header(0))
    hub.private, hub.accepted = {"org/base"}, {"hf_secret"}
    fetch(hub, size)
    assert hub.count("CDN") == 1 and hub.secrets_at_cdn == []


def test_answers_that_break_off_and_passing_failures_are_asked_for_again(
    hub: Hub, tmp_path: Path
) -> None:
    size = put(hub, tmp_path / "base", long_header(0))
    hub.failures, hub.truncates = 1, 1
    assert fetch(hub, size).tensors[0].name == "a"
    assert hub.count(NAME) == 3


def test_an_answer_without_a_length_that_breaks_off_is_asked_for_again(
    hub: Hub, tmp_path: Path
) -> None:
    size = put(hub, tmp_path / "base", long_header(0))
    hub.no_length, hub.truncates = True, 1
    assert fetch(hub, size).tensors[0].name == "a"
    assert hub.count("CDN") == 2


def test_another_range_than_was_asked_for_is_refused(hub: Hub, tmp_path: Path) -> None:
    size = put(hub, tmp_path / "base", long_header(0))
    hub.shifts = 8
    with pytest.raises(UnreachableError, match="another range"):
        fetch(hub, size)


def test_a_server_that_always_breaks_off_is_unreachable(hub: Hub, tmp_path: Path) -> None:
    size = put(hub, tmp_path / "base", long_header(0))
    hub.truncates = 1000
    with pytest.raises(UnreachableError) as caught:
        fetch(hub, size)
    assert "secret" not in caught.value.message  # of the signed address


def test_another_size_than_the_list_of_files_says_is_corrupt(hub: Hub, tmp_path: Path) -> None:
    size = put(hub, tmp_path / "base", long_header(0))
    for hub.ignores_ranges in (False, True):
        for lie in (size - 1, size + 1, 10 * size):
            with pytest.raises(CorruptError, match=re.escape(f"list of files says {lie}")):
                fetch(hub, lie)


def test_compressed_answers_are_refused_not_inflated(hub: Hub, tmp_path: Path) -> None:
    size = put(hub, tmp_path / "base", long_header(0))
    hub.compresses = True
    with pytest.raises(UnreachableError, match="compresses"):
        fetch(hub, size)


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (struct.pack("<Q", 1 << 62) + b"{}" * 100, InvalidError, "claims a header"),
        (struct.pack("<Q", 26 << 20) + b" " * (27 << 20), InvalidError, "claims a header"),
        (struct.pack("<Q", 5000) + b"{}" * 100, CorruptError, "claims a header"),
        (b"\x80\x02}q\x00." + b"pickle" * 50, InvalidError, "claims a header"),
        (struct.pack("<Q", 2) + b"{}" + b"x" * 300, InvalidError, "after the last tensor"),
        (safetensors_bytes({"a": tensor("U8", [1] * 99, (99,))})[:-1], CorruptError, "truncated"),
        (b"short", CorruptError, "no safetensors file"),
        (b"", CorruptError, "no safetensors file"),
        (b"version https://git-lfs.github.com/spec/v1\n" * 9, InvalidError, "LFS pointer"),
    ],
)
def test_hostile_files_are_refused_after_their_first_bytes(
    hub: Hub, tmp_path: Path, data: bytes, error: type[InvalidError], words: str
) -> None:
    size = put(hub, tmp_path / "base", data)
    with pytest.raises(error, match=words) as caught:
        fetch(hub, size)
    assert type(caught.value) is error and caught.value.where == "hf://org/base"
    assert hub.served[NAME] <= FIRST_BYTES

"""Names that may become paths, on POSIX and on Windows, and names of tensors."""

from __future__ import annotations

from pathlib import PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paramdelta.errors import InvalidError
from paramdelta.limits import MAX_NAME_BYTES, MAX_PATH_BYTES, MAX_PATH_PART_BYTES
from paramdelta.paths import PathNames, check_relative_path, path_problem, tensor_name_problem

GOOD_PATHS = [
    "config.json",
    "model-00001-of-00002.safetensors",
    ".gitattributes",
    "1_Pooling/config.json",
    "a/b/c/d",
    "with space.txt",
    "é/日本.json",
    "console.txt",
    "auxiliary/com10.txt",
    "nul_weights",
    "..a",
    "a..b",
]
HOSTILE_PATHS = [
    "",
    "/etc/passwd",
    "..",
    "../x",
    "a/../../x",
    "a/..",
    "./a",
    "a//b",
    "a/",
    "C:/x",
    "C:x",
    "c:\\x",
    "\\\\server\\share",
    "a\\..\\b",
    "file.txt:stream",
    "a\x00b",
    "a\nb",
    "a\x7fb",
    "a\u202eb",  # right-to-left override
    "a\u200bb",  # zero-width space
    "\ufeffa",
    "a\u2028b",
    "a\udc80",  # a byte that is not UTF-8, as Python names such files
    "e\u0301.json",  # é, decomposed
    "CON",
    "con.json",
    "a/NUL.txt",
    "Aux",
    "COM1",
    "com¹.txt",
    "LPT9.x",
    "CONIN$",
    "con .txt",
    "a.",
    "a ",
    "dir./x",
    "a*b",
    "a?b",
    'a"b',
    "a<b",
    "a|b",
]


@pytest.mark.parametrize("path", GOOD_PATHS)
def test_portable_path_is_taken(path: str) -> None:
    assert path_problem(path) is None
    assert check_relative_path(path, "manifest") == path


@pytest.mark.parametrize("path", HOSTILE_PATHS)
def test_hostile_path_is_refused(path: str) -> None:
    with pytest.raises(InvalidError, match="unsafe path") as caught:
        check_relative_path(path, "manifest")
    assert caught.value.where == "manifest"
    caught.value.message.encode()  # can be printed


def test_path_length_limits() -> None:
    parts = "/".join(["a" * 127] * 8)  # 1023 bytes
    assert len(parts) == MAX_PATH_BYTES - 1
    assert path_problem(parts + "b") is None
    assert path_problem(parts + "bb") == f"longer than {MAX_PATH_BYTES} bytes"
    assert path_problem("a" * MAX_PATH_PART_BYTES) is None
    assert path_problem("a" * (MAX_PATH_PART_BYTES + 1)) is not None
    assert path_problem("é" * 127 + "a") is None  # 255 bytes
    assert path_problem("é" * 128) is not None
    assert path_problem("/".join(["é" * 85] * 6)) is not None  # 516 characters, 1025 bytes


@given(st.text(max_size=30) | st.text("./\\:aC\u202e~ ", max_size=12))
def test_accepted_path_stays_inside_its_folder(path: str) -> None:
    if path_problem(path) is None:
        for kind, root in ((PurePosixPath, "/r"), (PureWindowsPath, "C:/r")):
            joined = kind(root) / path
            assert joined.is_relative_to(kind(root))
            assert ".." not in joined.parts
            assert joined != kind(root)


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.self_attn.q_proj.weight",
        "encoder/layer_0/kernel:0",
        "a",
        "...",
        "weight with space",
        "スケール",
        "CON",
        "a*b?",
    ],
)
def test_tensor_name_is_taken(name: str) -> None:
    assert tensor_name_problem(name) is None


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../../etc/cron.d/x",
        "a/../b",
        "/absolute",
        "a/",
        "a//b",
        "~/x",
        "~root",
        "a\\b",
        "C:\\x",
        "c:/x",
        "a\tb",
        "a\x00",
        "\x1b[2J",
        "a\u202eb",
        "a\u2066b",
        "a\u200db",
        "e\u0301",
        "\ud800",
    ],
)
def test_hostile_tensor_name_is_refused(name: str) -> None:
    assert tensor_name_problem(name) is not None


def test_tensor_name_length_limit() -> None:
    assert tensor_name_problem("a" * MAX_NAME_BYTES) is None
    assert tensor_name_problem("a" * (MAX_NAME_BYTES + 1)) is not None
    assert tensor_name_problem("é" * (MAX_NAME_BYTES // 2)) is None
    assert tensor_name_problem("é" * (MAX_NAME_BYTES // 2) + "a") is not None


@pytest.mark.parametrize(
    ("first", "second"),
    [("a", "a"), ("a", "A"), ("dir/é.txt", "DIR/É.txt"), ("a", "a/b"), ("a/b", "a"), ("A/b", "a"),
     ("straße", "STRASSE"), ("x/y/z", "X/Y")],
)  # fmt: skip
def test_paths_that_cannot_lie_side_by_side_everywhere(first: str, second: str) -> None:
    names = PathNames()
    assert names.add(first) is None
    assert names.add(second) == first


def test_paths_that_can() -> None:
    names = PathNames()
    assert [names.add(path) for path in ("a/b", "a/c", "ab", "b/a", "A/d")] == [None] * 5

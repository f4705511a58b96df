"""What users type, taken apart; what cannot be meant is refused."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from paramdelta.errors import UsageError
from registry.config import Settings
from registry.references import parse_alias, parse_alpha, parse_delta, parse_name, parse_selector

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "name", "selector", "digest", "alpha"),
    [
        ("chat", "chat", "latest", None, 1.0),
        ("team/chat.v2-x_y@3", "team/chat.v2-x_y", 3, None, 1.0),
        ("chat@stable:0.5", "chat", "stable", None, 0.5),
        ("chat:-2e-1", "chat", "latest", None, struct.unpack("<f", struct.pack("<f", -0.2))[0]),
        (DIGEST, None, "latest", DIGEST, 1.0),
        (f"{DIGEST}:.25", None, "latest", DIGEST, 0.25),
    ],
)
def test_delta_references(text, name, selector, digest, alpha) -> None:
    found = parse_delta(text)
    assert (found.name, found.selector) == (name, selector)
    assert (found.digest, found.alpha) == (digest, alpha)
    assert parse_delta(found.text).text == found.text


@pytest.mark.parametrize(
    "text",
    ["", "Chat", "a b", "a@", "a@0", "a@01", "a@1.5", "a@Stable", "a:", "a:x", "a:nan", "a:inf",
     "a:1e39", "a:0x1", "a: 1", "a:1_0", "/a", "a/", "a//b", "a/../b", "..", "-a", "a" * 201,
     "sha256:", "sha256:" + "A" * 64, "sha256:" + "a" * 63, f"{DIGEST}:", "é", "a@latest2\n"],
)  # fmt: skip
def test_malformed_references(text: str) -> None:
    with pytest.raises(UsageError):
        parse_delta(text)


def test_an_alpha_is_the_float32_that_the_arithmetic_takes() -> None:
    assert parse_alpha("0.1") == struct.unpack("<f", struct.pack("<f", 0.1))[0]
    assert parse_alpha("+1.") == 1.0


def test_names_and_aliases() -> None:
    assert parse_name("a/b") == "a/b"
    assert parse_selector("latest") == "latest" and parse_selector("12") == 12
    for text in ("latest", "1st", "", "Stable"):
        with pytest.raises(UsageError):
            parse_alias(text)


def test_settings_take_the_option_then_the_environment_then_the_default(tmp_path: Path) -> None:
    env = {"PARAMDELTA_REGISTRY": "/env", "PARAMDELTA_STORE": "s3://b/p", "PARAMDELTA_THREADS": "3",
           "XDG_DATA_HOME": str(tmp_path)}  # fmt: skip
    found = Settings.resolve("/option", env=env)
    assert found.registry == Path("/option") and found.store == "s3://b/p" and found.threads == 3
    assert found.catalog == "sqlite:////option/catalog.db"
    assert Settings.resolve(env=env).registry == Path("/env")
    home = {"XDG_DATA_HOME": str(tmp_path)}
    assert Settings.resolve(env=home).registry == tmp_path / "paramdelta"
    assert Settings.resolve(catalog="postgresql://x/y", env={}).catalog == "postgresql://x/y"
    for threads in ("0", "x", "-1", "9999"):
        with pytest.raises(UsageError):
            Settings.resolve(env={"PARAMDELTA_THREADS": threads})

"""Secrets are planted where people have them; nothing that is said or written holds one."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.registries import family

import cli
from cli_commands.text import json_text, printable
from registry.redaction import HIDDEN, SECRETS, redacted
from registry.stores.remote import Spool

CANARY = "cAnArY7f3a91"
CLOSED = "127.0.0.1:9"  # nobody listens there
TOKEN = f"hf_{CANARY}{CANARY}"
QUERY = f"X-Amz-Credential={CANARY}&X-Amz-Signature={CANARY}&token={CANARY}&sig={CANARY}"


def lines(folder: Path) -> dict[str, list[str]]:
    """Command lines that fail, each with a secret where people put one."""
    base = str(folder / "base")
    publish = ["publish", "x", "--base", base, "--post", base]
    return {
        "catalog that is closed": ["--catalog", f"postgresql://me:{CANARY}@{CLOSED}/db", "list"],
        "catalog of no port": ["--catalog", f"postgresql://me:{CANARY}@host:x/db", "list"],
        "catalog of another kind": ["--catalog", f"mysql://me:{CANARY}@host/db", "list"],
        "catalog with options": ["--catalog", f"sqlite:///x.db?password={CANARY}", "list"],
        "catalog with a password apart": [
            "--catalog", f"postgresql://{CLOSED}/db?user=me&password={CANARY}", "list"],
        "store with a key": ["--store", f"s3://AKIA:{CANARY}@bucket/x", *publish],
        "store with a key in its options": [
            "--store", f"s3://bucket/x?secret_access_key={CANARY}", *publish],
        "store with a password for its endpoint": [
            "--store", f"s3://bucket/x?endpoint=http://me:{CANARY}@{CLOSED}", *publish],
        "store that is closed": ["--store", f"s3://bucket/x?endpoint=http://{CLOSED}", *publish],
        "store on another host": ["--store", f"file://me:{CANARY}@host/x", *publish],
        "store of another kind": ["--store", f"ftp://me:{CANARY}@host/x", *publish],
        "push to an address": ["push", "good", "--to", f"https://me:{CANARY}@host/x"],
        "pull from a signed address": ["pull", "x", "--from", f"https://host/x?{QUERY}"],
        "pull from a path that is one": ["pull", "x", "--from", f"./{TOKEN}"],
        "base at an address": ["base", "add", f"https://me:{CANARY}@huggingface.co/org/model"],
        "base at a signed address": ["base", "add", f"https://host/model?{QUERY}"],
        "base with a token": ["base", "add", f"hf://user:{TOKEN}@org/model"],
        "base at a revision that is a token": ["base", "add", f"hf://org/model@{TOKEN}"],
        "base of the hub": ["base", "add", "hf://org/model"],
        "recipe at an address": ["apply", "-f", f"https://me:{CANARY}@host/recipe.yaml"],
        "an option that is not known": ["list", f"--token={TOKEN}"],
        "a name that is an address": ["show", f"https://me:{CANARY}@host"],
        "a tag that is none": ["list", "--tag", TOKEN],
    }  # fmt: skip


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remotes: None) -> Path:
    """A folder with an honest base and post, and an environment full of secrets."""
    family(tmp_path)
    for name in SECRETS:
        monkeypatch.setenv(name, f"{name}-{CANARY}")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://me:{CANARY}@{CLOSED}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("registry.hub_client.WAITS", ())
    monkeypatch.setattr("registry.stores.s3.ATTEMPTS", 1)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def spoken(capsys: pytest.CaptureFixture[str], folder: Path, *words: str) -> tuple[int, str]:
    code = cli.run(["--registry", str(folder / "registry"), *words])
    out, said = capsys.readouterr()
    return code, out + said


def assert_nothing_written(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            assert CANARY.encode() not in path.read_bytes(), path
        assert CANARY not in path.name or path.name.startswith(TOKEN)  # a folder named by the user


@pytest.mark.parametrize("what", lines(Path("x")))
def test_a_failing_command_tells_no_secret(
    planted: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, what: str
) -> None:
    for more in (["--json"], ["-v"]):
        code, text = spoken(capsys, planted, *lines(planted)[what], *more)
        assert code not in (0, 1), text
        assert CANARY not in text
        assert text.strip()
    assert CANARY not in caplog.text
    assert_nothing_written(planted)


def test_a_command_that_works_writes_no_secret(
    planted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, post, newer = (str(planted / name) for name in ("base", "post", "newer"))
    out = str(planted / "out")
    for words in (
        ["publish", "x", "--base", base, "--post", post],
        ["apply", "x", "--base", newer, "--out", out],
        ["verify", "--all"],
        ["doctor"],
        ["push", "x", "--to", str(planted / "other")],
    ):
        code, text = spoken(capsys, planted, *words, "--json")
        assert code == 0, text
        assert CANARY not in text
    assert_nothing_written(planted)


def test_a_defect_tells_no_secret(
    planted: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a library says in an error of its own, in the traceback too."""

    def fail(self: Any, *words: Any, **more: Any) -> None:
        raise RuntimeError(f"connection to https://me:{CANARY}@host?sig={CANARY} with {TOKEN}")

    monkeypatch.setattr("registry.registry.Registry.releases", fail)
    for more in (["--json"], ["-v"]):
        code, text = spoken(capsys, planted, "list", *more)
        assert code == 1
        assert "connection to https://" in text
        assert CANARY not in text


def test_an_upload_is_spooled_where_only_its_owner_reads(tmp_path: Path) -> None:
    spool = Spool()
    spool.write(bytes(9 << 20))
    assert spool.path is not None
    assert stat.S_IMODE(Path(spool.path).stat().st_mode) == 0o600
    spool.close()


# -- the functions ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:pw@h/db", f"postgresql://{HIDDEN}@h/db"),
        ("https:/me:pw@h/x and //me:pw@h", f"https:/{HIDDEN}@h/x and //{HIDDEN}@h"),
        ("to 'https://tok@h/x' and s3://b", f"to 'https://{HIDDEN}@h/x' and s3://b"),
        ("x?a=1&token=abc&b=2", f"x?a=1&token={HIDDEN}&b=2"),
        ("x?X-Amz-Signature=ab%2F#y", f"x?X-Amz-Signature={HIDDEN}#y"),
        ("x?password=", "x?password="),
        ("Bearer abcdefgh123", HIDDEN),
        ("hf_" + "a" * 30, HIDDEN),
        ("AKIA" + "A1" * 8, HIDDEN),
        ("https://h/a@b", "https://h/a@b"),
        ("hf://org/name@main and chat@1:0.8", "hf://org/name@main and chat@1:0.8"),
        ("no secret: key=value", "no secret: key=value"),
    ],
)
def test_what_is_hidden(text: str, shown: str) -> None:
    assert redacted(text, env={}) == shown


def test_values_of_the_environment_are_hidden_unless_they_are_no_secret() -> None:
    env = {"HF_TOKEN": "abcdef", "PGPASSWORD": "abc"}
    assert redacted("abcdef, abc and xyz1", "xyz1", env=env) == f"{HIDDEN}, abc and {HIDDEN}"


@given(st.text())
def test_text_for_a_terminal_has_no_commands(text: str) -> None:
    shown = printable(text)
    shown.encode()
    assert all(char in "\t\n" or char.isprintable() or ord(char) > 0x9F for char in shown)
    assert "\u202e" not in shown


@given(st.text(st.characters()) | st.text())
def test_json_keeps_its_values(text: str) -> None:
    found = json_text({text: [text]})
    found.encode()
    assert "\x9b" not in found
    assert json.loads(found) == {text: [text]}

"""The command line: its contract of names, JSON keys and exit codes, with right and wrong input."""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.checkpoints import llama_like, tensor, write_checkpoint
from support.registries import family, files_of

import cli

COMMANDS = ["base", "publish", "list", "show", "log", "query", "check", "apply", "restore",
            "verify", "doctor", "evaluate", "sweep", "scores"]  # fmt: skip


class Shell:
    """Runs commands in this process against one registry."""

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capture = folder, capture
        self.error = ""

    def __call__(self, *arguments: object, code: int = 0) -> Any:
        """The JSON document of a command that ends with *code*."""
        words = ["--registry", str(self.folder / "registry"), *map(str, arguments), "--json"]
        found = cli.run(words)
        out, self.error = self._capture.readouterr()
        assert found == code, (found, out, self.error)
        return json.loads(out)

    def text(self, *arguments: object, code: int = 0) -> str:
        """What a person sees."""
        found = cli.run(["--registry", str(self.folder / "registry"), *map(str, arguments)])
        out, self.error = self._capture.readouterr()
        assert found == code, (found, out, self.error)
        return out + self.error


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, capsys)


@pytest.fixture
def published(shell: Shell) -> Shell:
    base, post, _ = family(shell.folder)
    shell("publish", "skills/chat", "--base", base, "--post", post, "--tag", "lang=en",
          "--description", "chats", "--license", "mit", "--author", "ann")  # fmt: skip
    return shell


def test_the_main_job_with_its_json_keys(shell: Shell) -> None:
    base, post, newer = family(shell.folder)
    found = shell("base", "add", newer, "--name", "newer")
    assert {"name", "architecture_hash", "tokenizer_hash", "content_digest", "parameters",
            "dtype"} <= set(found)  # fmt: skip
    done = shell("publish", "chat", "--base", base, "--post", post)
    assert {"ref", "version", "digest", "created", "parameters", "bytes_raw", "bytes_stored",
            "bits_per_weight", "exact", "seconds"} <= set(done)  # fmt: skip
    assert (done["ref"], done["created"], done["exact"]) == ("chat@1", True, True)
    assert [row["ref"] for row in shell("list")["deltas"]] == ["chat@1"]
    rows = shell("query", "--base", "newer")["results"]
    assert {"ref", "digest", "verdict", "problems", "drift_ratio"} <= set(rows[0])
    assert rows[0]["verdict"] == "compatible" and rows[0]["drift_ratio"] > 0
    assert shell("check", "chat", "--base", "newer")["verdict"] == "compatible"
    dry = shell("apply", "chat:0.8", "--base", "newer", "--out", shell.folder / "m", "--dry-run")
    assert dry["plan"]["deltas"][0]["alpha"] == struct.unpack("<f", struct.pack("<f", 0.8))[0]
    assert not (shell.folder / "m").exists()
    made = shell("apply", "chat:0.8", "--base", "newer", "--out", shell.folder / "m")
    assert {"out", "content_digest", "plan", "seconds", "device"} <= set(made)
    assert shell("verify", "--model", shell.folder / "m")["ok"]
    back = shell("restore", "chat", "--out", shell.folder / "r")
    assert back["files"] == files_of(post)
    checked = shell("verify", "--all", "--deep")
    assert checked["ok"] and checked["checked"]["releases"] == 1 and checked["problems"] == []


def test_references_by_version_digest_and_name(published: Shell) -> None:
    digest = published("show", "skills/chat")["digest"]
    for reference in ("skills/chat", "skills/chat@latest", "skills/chat@1", digest):
        assert published("show", reference)["ref"] == "skills/chat@1"
    published("show", "skills/chat@2", code=4)
    published("show", "skills/chat@stable", code=4)


def test_what_was_said_at_publishing_is_shown(published: Shell) -> None:
    found = published("show", "skills/chat")
    assert (found["description"], found["license"], found["author"]) == ("chats", "mit", "ann")
    assert found["tags"] == {"lang": "en"}
    assert published("list", "--tag", "lang=de")["deltas"] == []
    assert published("list", "skills/*", "--limit", "1")["deltas"]
    event = published("log", "skills/chat")["events"][0]
    assert (event["actor"], event["action"]) == ("ann", "publish")


def test_bases_are_registered_shown_and_removed(published: Shell) -> None:
    names = [row["name"] for row in published("base", "list")["bases"]]
    assert names == ["base"]  # of the publish
    shown = published("base", "show", "base")
    assert shown["fingerprint"]["architecture_hash"] == shown["architecture_hash"]
    assert published("query", "--delta", "skills/chat")["results"][0]["verdict"] == "identical"
    published("base", "remove", "base")
    published("base", "show", "base", code=4)
    published("base", "remove", "base", code=4)


def test_people_see_tables(published: Shell) -> None:
    newer = published.folder / "newer"
    assert "skills/chat@1" in published.text("list")
    assert "chats" in published.text("show", "skills/chat")
    assert "compatible" in published.text("query", "--base", newer)
    assert "compatible" in published.text("check", "skills/chat", "--base", newer)
    assert "added to" in published.text(
        "apply", "skills/chat", "--base", newer, "--out", published.folder / "m"
    )
    assert "bit for bit" in published.text(
        "restore", "skills/chat", "--out", published.folder / "r"
    )
    assert "ok" in published.text("verify", "--all")
    assert "ok" in published.text("verify", "--model", published.folder / "m")
    assert "publish" in published.text("log", "skills/chat")
    assert "architecture" in published.text("base", "show", "base")
    assert "base" in published.text("base", "list")
    assert "store" in published.text("doctor")
    assert "no deltas" in published.text("list", "none*")


def test_doctor_is_well(shell: Shell) -> None:
    found = shell("doctor")
    assert found["ok"] and {row["name"] for row in found["checks"]} >= {"store", "catalog", "disk"}


# -- exit codes ---------------------------------------------------------------------------


def test_failures_are_one_json_document_on_stdout(shell: Shell) -> None:
    error = shell("show", "nothing", code=4)["error"]
    assert set(error) == {"code", "message", "problems"}
    assert error["code"] == "not_found" and "paramdelta list" in error["message"]
    assert shell.error == ""


@pytest.mark.parametrize(
    "words",
    [
        ["frobnicate"],
        ["publish", "x"],
        ["query"],
        ["query", "--base", "a", "--delta", "b"],
        ["verify"],
        ["verify", "x", "--all"],
        ["verify", "--model", "m", "--all"],
        ["verify", "--all", "--base", "b"],
        ["show", "Bad Name"],
        ["show", "a@0"],
        ["show", "a@B"],
        ["show", "sha256:123"],
        ["show", ""],
        ["publish", "../x", "--base", "b", "--post", "p"],
        ["publish", "x", "--base", "b", "--post", "p", "--tag", "novalue"],
        ["apply", "x:nan", "--base", "b", "--out", "o"],
        ["apply", "x:inf", "--base", "b", "--out", "o"],
        ["apply", "x:", "--base", "b", "--out", "o"],
        ["apply", "x:1e99", "--base", "b", "--out", "o"],
        ["apply", "x", "--base", "b", "--out", "o", "--max-shard-size", "many"],
        ["list", "--threads", "0"],
        ["list", "--limit", "0"],
    ],
)
def test_words_that_mean_nothing_are_usage_errors(shell: Shell, words: list[str]) -> None:
    assert shell(*words, code=2)["error"]["code"] == "usage"
    assert not (shell.folder / "registry" / "store" / "releases").exists()


def test_options_stand_before_or_after_the_command(published: Shell) -> None:
    before = ["--json", "--registry", str(published.folder / "registry"), "list"]
    after = ["list", "--json", "--registry", str(published.folder / "registry")]
    for words in (before, after):
        assert cli.run(words) == 0
        out, _ = published._capture.readouterr()
        assert json.loads(out)["deltas"]


def test_what_does_not_fit_ends_with_3_and_its_reasons(published: Shell) -> None:
    other = write_checkpoint(published.folder / "small", llama_like(4, layers=1, hidden=16))
    found = published("check", "skills/chat", "--base", other, code=3)
    assert found["verdict"] == "incompatible" and found["problems"]
    assert {"subject", "reason", "severity"} <= set(found["problems"][0])
    error = published("apply", "skills/chat", "--base", other, "--out", published.folder / "m",
                      code=3)["error"]  # fmt: skip
    assert error["code"] == "incompatible" and error["problems"]
    assert published("query", "--base", other)["results"] == []
    shown = published("query", "--base", other, "--min-verdict", "incompatible")["results"]
    assert shown[0]["verdict"] == "incompatible"
    published("query", "--base", other, "--min-verdict", "great", code=2)


def test_a_missing_checkpoint_ends_with_4(shell: Shell) -> None:
    shell("base", "add", shell.folder / "nothing", code=4)
    shell("publish", "x", "--base", "a", "--post", "b", code=4)


def test_names_that_are_too_long_are_usage_or_not_found(published: Shell) -> None:
    newer = published.folder / "newer"
    published("apply", "skills/chat", "--base", newer, "--out", "x" * 300, code=2)
    published("apply", "skills/chat", "--base", "x" * 300, "--out", published.folder / "o", code=4)


def test_an_existing_output_ends_with_6(published: Shell) -> None:
    out = published.folder / "out"
    out.mkdir()
    words = ["apply", "skills/chat", "--base", published.folder / "newer", "--out", out]
    assert published(*words, code=6)["error"]["code"] == "conflict"
    published(*words, "--force")
    base = published.folder / "newer"
    published("apply", "skills/chat", "--base", base, "--out", base, "--force", code=6)
    registry = published.folder / "registry"
    published("apply", "skills/chat", "--base", base, "--out", registry, "--force", code=6)
    published("restore", "skills/chat", "--out", published.folder, "--force", code=6)


def test_another_base_under_a_name_ends_with_6(published: Shell) -> None:
    published("base", "add", published.folder / "newer", "--name", "base", code=6)


def test_an_unreachable_catalog_or_store_ends_with_7(shell: Shell) -> None:
    (shell.folder / "file").write_text("")
    shell("list", "--catalog", "postgresql://u:secret@127.0.0.1:1/d", code=7)
    base, post, _ = family(shell.folder)
    shell("publish", "x", "--base", base, "--post", post, "--store", shell.folder / "file/s",
          code=7)  # fmt: skip


def test_a_damaged_registry_ends_with_5_and_its_document(published: Shell) -> None:
    blob = next(p for p in (published.folder / "registry/store/blobs").rglob("*") if p.is_file())
    blob.unlink()
    found = published("verify", "--all", code=5)
    assert found["ok"] is False and found["problems"]
    assert "fail" in published.text("verify", "--all", code=5)


def write(path: Path, header: object, data: bytes = b"", length: int | None = None) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)


TENSOR = {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}
BROKEN = {
    "a truncated shard": lambda p: p.write_bytes(p.read_bytes()[:-9]),
    "a header bomb": lambda p: write(p, b"{}", length=1 << 40),
    "overlapping tensors": lambda p: write(p, {"a": TENSOR, "b": TENSOR}, b"\0" * 4),
    "a gap": lambda p: write(p, {"a": TENSOR | {"data_offsets": [4, 8]}}, b"\0" * 8),
    "a duplicate name": lambda p: write(
        p, b'{"a":%(t)s,"a":%(t)s}' % {b"t": json.dumps(TENSOR).encode()}, b"\0" * 4
    ),
    "a path as a name": lambda p: write(p, {"../../etc/passwd": TENSOR}, b"\0" * 4),
    "not safetensors": lambda p: p.write_bytes(b"hello"),
    "an empty file": lambda p: p.write_bytes(b""),
    "only pickles": lambda p: p.rename(p.with_name("pytorch_model.bin")),
    "a pipe": lambda p: (p.unlink(), os.mkfifo(p)),
    "a link out": lambda p: (p.unlink(), p.symlink_to("/etc/passwd")),
}


@pytest.mark.parametrize("what", BROKEN)
@pytest.mark.parametrize("side", ["base", "post"])
def test_broken_checkpoints_end_with_5_and_leave_nothing(
    shell: Shell, what: str, side: str
) -> None:
    """Invariant 10 too: no pickle is opened, no path leaves the folder."""
    base, post, _ = family(shell.folder)
    BROKEN[what]({"base": base, "post": post}[side] / "model.safetensors")
    error = shell("publish", "x", "--base", base, "--post", post, code=5)["error"]
    assert str({"base": base, "post": post}[side]) in error["message"]
    assert shell("list")["deltas"] == [] and shell("base", "list")["bases"] == []
    store = shell.folder / "registry" / "store"
    assert not [p for p in store.rglob("*") if p.is_file()]


def test_a_missing_shard_is_named(shell: Shell) -> None:
    base, post, _ = family(shell.folder, shards=3)
    (post / "model-00002-of-00003.safetensors").unlink()
    error = shell("publish", "x", "--base", base, "--post", post, code=5)["error"]
    assert "model-00002-of-00003.safetensors" in json.dumps(error)


@pytest.mark.parametrize(
    ("dtype", "bits", "shape"), [("BF16", [1, 2, 3], (3,)), ("I64", [1, 2], (2,))]
)
def test_mismatched_pairs_end_with_3_and_name_the_tensor(
    shell: Shell, dtype: str, bits: list[int], shape: tuple[int, ...]
) -> None:
    base = write_checkpoint(shell.folder / "b", {"w": tensor("BF16", [1, 2], (2,))})
    post = write_checkpoint(shell.folder / "p", {"w": tensor(dtype, bits, shape)})
    error = shell("publish", "x", "--base", base, "--post", post, code=3)["error"]
    assert error["problems"][0]["subject"] == "w" and error["problems"][0]["remedy"]
    assert shell("list")["deltas"] == []


# -- as a process -------------------------------------------------------------------------


def process(*words: object, **more: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **more)


def loaded(*words: object) -> set[str]:
    """The packages that a command has imported when it ends."""
    code = (
        "import sys, cli\ntry: cli.run(sys.argv[1:])\nfinally: print('\\n' + ' '.join(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=True
    )
    names = done.stdout.splitlines()[-1].split()
    return {name.partition(".")[0] for name in names} | {"sqlalchemy.orm"}.intersection(names)


@pytest.mark.parametrize("words", [[], ["--help"], *([name, "--help"] for name in COMMANDS)])
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    heavy = {"torch", "numpy", "numba", "sqlalchemy", "rich", "zstandard", "transformers"}
    assert not heavy & loaded(*words)


@pytest.mark.parametrize(
    "words",
    [["list"], ["log", "skills/chat"], ["base", "list"], ["base", "show", "base"],
     ["show", "skills/chat"], ["query", "--base", "base"], ["query", "--delta", "skills/chat"],
     ["tag", "skills/chat", "a=b"], ["doctor"]],
)  # fmt: skip
def test_catalog_commands_do_not_import_torch(published: Shell, words: list[str]) -> None:
    found = loaded("--registry", published.folder / "registry", *words)
    assert not {"torch", "numba", "transformers", "sqlalchemy.orm", "alembic"} & found
    assert "numpy" not in found


def test_help_and_version() -> None:
    assert process("--help").returncode == 0
    assert "paramdelta" in process("--version").stdout
    for name in COMMANDS:
        done = process(name, "--help")
        assert done.returncode == 0 and "Usage" in done.stdout


def test_no_escape_codes_where_there_is_no_terminal(published: Shell) -> None:
    done = process("--registry", published.folder / "registry", "list")
    assert "\x1b" not in done.stdout + done.stderr and "skills/chat" in done.stdout


def test_an_unexpected_error_is_one_line(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def explode(*words: object, **more: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr("registry.registry.Registry.releases", explode)
    assert shell("list", code=1)["error"]["message"] == "RuntimeError: boom"
    text = shell.text("list", code=1)
    assert "boom" in text and "Traceback" not in text
    assert "Traceback" in shell.text("-v", "list", code=1)


def test_parts_of_an_apply_are_planned_made_and_sealed(published: Shell) -> None:
    words = ["apply", "skills/chat", "--base", published.folder / "newer",
             "--out", published.folder / "m"]  # fmt: skip
    planned = published(*words, "--plan-only", "--shard", "1/2")
    assert [share["shard"] for share in planned["shards"]] == ["1/2", "2/2"]
    assert planned["device_reason"] and not (published.folder / "m").exists()
    assert "2/2" in published.text(*words, "--dry-run", "--shard", "2/2")
    first = published(*words, "--shard", "2/2")
    assert first["sealed"] is False and first["missing"] > 0 and first["content_digest"] is None
    assert "not sealed" in published.text(*words, "--shard", "2/2")
    sealed = published(*words, "--shard", "1/2")
    assert sealed["content_digest"].startswith("sha256:")
    assert published("verify", "--model", published.folder / "m")["ok"]
    published(*words, "--shard", "3/2", code=2)
    published(*words, "--shard", "1/2", code=6)


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_with_130_and_leaves_nothing(published: Shell, kind: int) -> None:
    """The process is stopped while it reads a pipe-like slow base: here, a large one."""
    big = {f"w{i}": tensor("BF16", [1] * 4_000_000, (2000, 2000)) for i in range(6)}
    base = write_checkpoint(published.folder / "big", big)
    command = [sys.executable, "-m", "cli", "--registry", str(published.folder / "registry"),
               "publish", "big", "--base", str(base), "--post", str(base)]  # fmt: skip
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    store = published.folder / "registry" / "store"
    deadline = time.monotonic() + 60
    while running.poll() is None and time.monotonic() < deadline:
        maps = Path(f"/proc/{running.pid}/task")
        if maps.exists() and len(list(maps.iterdir())) > 2:  # its workers run
            break
        time.sleep(0.02)
    running.send_signal(kind)
    out, error = running.communicate(timeout=60)
    assert running.returncode == 130, (out, error)
    assert "interrupted" in error and "Traceback" not in error
    assert not list((store / "tmp").iterdir())
    assert [row["ref"] for row in published("list")["deltas"]] == ["skills/chat@1"]


def test_a_full_disk_is_told_and_leaves_nothing(published: Shell) -> None:
    if os.geteuid() != 0 or not shutil.which("mount"):
        limit = "ulimit -f 8; "  # kilobytes a file, where no small file system can be mounted
        place = published.folder / "small"
    else:
        limit, place = "", published.folder / "small"
        place.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], check=True)
    try:
        command = (
            f"{limit}exec {sys.executable} -m cli --json --registry {published.folder}/registry "
            f"restore skills/chat --out {place}/out"
        )
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
        assert done.returncode == 1, done.stdout
        error = json.loads(done.stdout)["error"]
        assert error["code"] == "storage" and str(place) in error["message"]
        assert not place.exists() or list(place.iterdir()) == []
    finally:
        if not limit:
            subprocess.run(["umount", str(place)], check=True)


def test_what_people_wrote_is_shown_as_they_wrote_it(published: Shell) -> None:
    written = "mends :bug: [bold]twice[/bold]"
    published("tag", "skills/chat", f"why={written}")
    shown = published.text("show", "skills/chat")
    assert f"why={written}" in shown


def test_an_address_is_no_registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run(["--registry", "postgresql://ann:secret@host/db", "list"]) == 2
    said = capsys.readouterr().err
    assert "--catalog" in said and "secret" not in said
    assert not list(tmp_path.iterdir())

"""What is read of a repository is what would be read of its clone; references and their pinning."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.checkpoints import llama_like, safetensors_bytes, write_checkpoint
from support.registries import TOKENIZER

from paramdelta.checkpoint import Checkpoint
from paramdelta.errors import CorruptError, InvalidError, ParamDeltaError, UsageError
from paramdelta.fingerprint import fingerprint
from registry import hub
from registry.hub import Repository
from registry.hub_checkpoint import open_headers
from registry.progress import NoProgress

COMMIT = "0123456789" * 4


def cached(folder: Path) -> Repository:
    """A repository of which the cache, at *folder*, has everything."""
    files = {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file()
    }
    return Repository("org/name", COMMIT, folder, files=files)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    files = {
        "tokenizer.json": TOKENIZER,
        "README.md": "---\nlicense: mit\n---\n",
        ".gitattributes": "*.safetensors filter=lfs\n",
        "sub/notes.txt": "words",
    }
    return write_checkpoint(tmp_path / "clone", llama_like(), shards=3, files=files)


def test_a_repository_reads_as_its_clone_does(clone: Path) -> None:
    beside = {
        "pytorch_model.bin": b"pickle",
        "original/consolidated.00.pth": b"pickle",
        "model-Q4.gguf": b"",
        ".cache/huggingface/x": b"",
        ".hidden/a/b.txt": b"",
        ".hidden/c.txt": b"",
        "bad\x01name/x.txt": b"",
        "bad\x01name/y.txt": b"",
        "aux.txt": b"",
        "sub/.git/HEAD": b"",
    }
    for path, data in beside.items():
        (clone / path).parent.mkdir(parents=True, exist_ok=True)
        (clone / path).write_bytes(data)
    here, there = Checkpoint.open(clone), open_headers(cached(clone), NoProgress())
    assert there.tensors == here.tensors and there.shards == here.shards
    assert there.carried == here.carried and there.left_out == here.left_out
    assert {".hidden", "pytorch_model.bin", "aux.txt"} <= {p.subject for p in here.left_out}
    assert fingerprint(there) == fingerprint(here)
    assert there.read_file("sub/notes.txt", 5) == b"words"
    with there.reader() as reader:
        assert reader is not None


def test_weights_of_another_size_in_the_cache_are_corrupt(clone: Path) -> None:
    repository = cached(clone)
    shard = next(clone.glob("model-00002*"))
    with shard.open("ab") as file:
        file.write(b"more")
    with pytest.raises(CorruptError, match=r"list of files says .* Remedy: remove it") as caught:
        open_headers(repository, NoProgress())
    assert caught.value.where == str(shard)


def test_small_files_of_another_size_in_the_cache_are_corrupt(clone: Path) -> None:
    checkpoint = open_headers(cached(clone), NoProgress())
    (clone / "tokenizer.json").write_text("{}")
    with pytest.raises(CorruptError, match="list of files says"):
        checkpoint.json_file("tokenizer.json")


def test_a_file_too_large_is_refused_before_it_is_fetched(clone: Path) -> None:
    repository = cached(clone)
    files = {**(repository.files or {}), "config.json": 17 << 20}
    (clone / "config.json").unlink()
    with pytest.raises(InvalidError, match="17825792 bytes; 16777216 allowed") as caught:
        open_headers(Repository("org/name", COMMIT, clone, files=files), NoProgress())
    assert caught.value.where == f"hf://org/name@{COMMIT}/config.json"


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["pytorch_model.bin"], "only pickled weights.*pytorch_model.bin|refs/pr"),
        (["model-Q4_0.gguf"], "only quantised or exported"),
        (["README.md"], "no safetensors weights in this repository"),
        (["a.safetensors", "b.safetensors"], "2 safetensors files and no"),
        (["adapter_model.safetensors"], "an adapter, not a whole model"),
        (["../up.safetensors"], "no safetensors weights"),
        ([], "no safetensors weights"),
    ],
)
def test_repositories_that_are_no_checkpoints(tmp_path: Path, files: list[str], words: str) -> None:
    repository = Repository("o/n", COMMIT, tmp_path / "cache", files=dict.fromkeys(files, 8))
    with pytest.raises(InvalidError, match=words) as caught:
        open_headers(repository, NoProgress())
    assert caught.value.where.startswith(f"hf://o/n@{COMMIT}")  # not a path that does not exist


def test_one_tensor_in_two_shards_names_the_repository(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "clone", llama_like(), shards=2)
    first, second = sorted(folder.glob("model-*"))
    tensors = llama_like()
    second.write_bytes(safetensors_bytes(dict(tensors)))
    first.write_bytes(safetensors_bytes(dict(tensors)))
    with pytest.raises(InvalidError, match="one tensor in two shards"):
        open_headers(cached(folder), NoProgress())


@pytest.mark.parametrize(
    ("ref", "found"),
    [
        ("hf://org/name", ("org/name", None)),
        ("hf://Org-1/n.a_me@main", ("Org-1/n.a_me", "main")),
        ("hf://org/name@refs/pr/1", ("org/name", "refs/pr/1")),
        ("hf://org/name@v1.0+cpu", ("org/name", "v1.0+cpu")),
        (f"hf://org/name@{COMMIT}", ("org/name", COMMIT)),
    ],
)
def test_references(ref: str, found: tuple[str, str | None]) -> None:
    assert hub.parse(ref) == found


@pytest.mark.parametrize(
    "ref",
    ["hf://", "hf://name", "hf://org/", "hf:///name", "hf://org/name@", "hf://org/name/sub",
     "hf://org/name@../../x", "hf://org/name@a//b", "hf://org/name@/a", "hf://org/name@a/./b",
     "hf://org/name@a@b", "hf://org/na me", "hf://datasets/org/name", "hf://datasets/name",
     "hf://örg/name", "hf://org/name@é", "hf://org/name\n", "hf://org/name@a\\b"],
)  # fmt: skip
def test_malformed_references(ref: str) -> None:
    with pytest.raises(UsageError, match="hf://org/name@revision"):
        hub.parse(ref)


def test_a_commit_is_pinned_without_asking_anybody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:1")
    found = hub.resolve(f"hf://org/name@{COMMIT}")
    assert (found.commit, found.ref) == (COMMIT, f"hf://org/name@{COMMIT}")
    assert found.folder.parts[-3:] == ("models--org--name", "snapshots", COMMIT)


def test_errors_about_files_in_the_cache_name_them_there(clone: Path) -> None:
    repository = cached(clone)
    (clone / "config.json").write_text(
        "[" + " " * ((repository.files or {})["config.json"] - 2) + "]"
    )
    with pytest.raises(ParamDeltaError) as caught:
        open_headers(repository, NoProgress())
    assert caught.value.where == str(clone / "config.json")

"""Checkpoints: weight files, indexes, configurations, tokenizers, and what lies in their places."""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from support.checkpoints import llama_config
from support.hostile.case import INVALID, NOT_FOUND, Case, Commands, Place
from support.registries import TOKENIZER

MIB = 1 << 20
ROW = {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}
INDEX = "model.safetensors.index.json"


def file_bytes(header: object, data: bytes = b"xy", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(**changes: object) -> bytes:
    return file_bytes({"a": ROW | changes})


def named(name: str) -> bytes:
    return file_bytes({name: ROW})


def _many(count: int) -> bytes:
    empty = '{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    rows = ",".join(f'"{i}":{empty}' for i in range(count))
    return file_bytes(f"{{{rows}}}".encode(), b"")


# name → the bytes of model.safetensors, and whether it is cut short (corrupt) or malformed
HEADERS: dict[str, tuple[Callable[[], bytes], str]] = {
    "an empty file": (lambda: b"", "corrupt"),
    "seven bytes": (lambda: b"\2\0\0\0\0\0\0", "corrupt"),
    "no header": (lambda: struct.pack("<Q", 0), "invalid"),
    "a length beyond the file": (lambda: file_bytes({"a": ROW}, length=1000), "corrupt"),
    "a length of 2^63": (lambda: file_bytes({"a": ROW}, length=1 << 63), "invalid"),
    "a length of 2^64 - 1": (lambda: file_bytes({"a": ROW}, length=(1 << 64) - 1), "invalid"),
    "a length one too large": (lambda: file_bytes({"a": ROW}, length=25 * MIB + 1), "invalid"),
    "a Git LFS pointer": (
        lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "invalid"),
    "a list": (lambda: file_bytes(b"[]"), "invalid"),
    "a space first": (lambda: file_bytes(b' {"a": 1}'), "invalid"),
    "a byte order mark": (lambda: file_bytes(b"\xef\xbb\xbf{}"), "invalid"),
    "UTF-16": (lambda: file_bytes('{"a": 1}'.encode("utf-16")), "invalid"),
    "bytes that are no UTF-8": (lambda: file_bytes(b'{"\xff": 1}'), "invalid"),
    "an overlong slash": (lambda: file_bytes(b'{"..\xc0\xafx": 1}'), "invalid"),
    "half a character": (lambda: file_bytes(b'{"\\ud800": 1}'), "invalid"),
    "one tensor twice": (
        lambda: file_bytes(b'{"a":%s,"a":%s}' % ((json.dumps(ROW).encode(),) * 2)), "invalid"),
    "one key twice": (
        lambda: file_bytes(
            b'{"a":{"dtype":"U8","dtype":"I8","shape":[2],"data_offsets":[0,2]}}'), "invalid"),
    "one key of the metadata twice": (
        lambda: file_bytes(b'{"__metadata__":{"k":"1","k":"2"}}', b""), "invalid"),
    "something after the end": (lambda: file_bytes(b'{}{"a": 1}'), "invalid"),
    "NaN in a shape": (
        lambda: file_bytes(b'{"a":{"dtype":"U8","shape":[NaN],"data_offsets":[0,2]}}'), "invalid"),
    "a shape of floats": (lambda: tensor(shape=[2.0]), "invalid"),
    "a shape of truths": (lambda: tensor(shape=[True, 2]), "invalid"),
    "a negative size": (lambda: tensor(shape=[-1, -2]), "invalid"),
    "a size of 2^63": (lambda: tensor(shape=[1 << 63]), "invalid"),
    "sizes that wrap to two": (lambda: tensor(shape=[1 << 63, 1 << 63, 2]), "invalid"),
    "a zero that hides an overflow": (
        lambda: tensor(shape=[0, 1 << 62, 1 << 62], data_offsets=[0, 0]), "invalid"),
    "65 dimensions": (lambda: tensor(shape=[1] * 64 + [2]), "invalid"),
    "a million dimensions": (lambda: tensor(shape=[1] * 1_000_000), "invalid"),
    "an integer of a million digits": (
        lambda: file_bytes(b'{"a":{"dtype":"U8","shape":[%s]}}' % (b"9" * 1_000_000)), "invalid"),
    "a hundred thousand brackets": (lambda: file_bytes(b'{"a":' + b"[" * 100_000), "invalid"),
    "five million commas": (lambda: file_bytes(b'{"a":[' + b"0," * 5_000_000 + b"0]}"), "invalid"),
    "200,001 tensors": (lambda: _many(200_001), "invalid"),
    "metadata of numbers": (lambda: file_bytes({"__metadata__": {"a": 1}}, b""), "invalid"),
    "metadata in a list": (lambda: file_bytes({"__metadata__": []}, b""), "invalid"),
    "an unknown dtype": (lambda: tensor(dtype="F4_E2M1"), "invalid"),
    "a dtype that is no text": (lambda: tensor(dtype=8), "invalid"),
    "a key that is not known": (lambda: tensor(extra="x"), "invalid"),
    "a key that is missing": (lambda: file_bytes({"a": {"dtype": "U8", "shape": [2]}}), "invalid"),
    "offsets the wrong way round": (lambda: tensor(data_offsets=[2, 0]), "invalid"),
    "offsets beyond the file": (lambda: tensor(shape=[9], data_offsets=[0, 9]), "corrupt"),
    "offsets of 2^64": (lambda: tensor(data_offsets=[0, 1 << 64]), "invalid"),
    "offsets that are texts": (lambda: tensor(data_offsets=["0", "2"]), "invalid"),
    "more data than the shape": (lambda: tensor(shape=[1]), "invalid"),
    "tensors that overlap": (lambda: file_bytes({"a": ROW, "b": ROW}), "invalid"),
    "a gap": (lambda: file_bytes({"a": ROW, "b": ROW | {"data_offsets": [3, 5]}}, b"12345"),
              "invalid"),
    "a hole before the first": (lambda: tensor(data_offsets=[1, 3]), "invalid"),
    "bytes after the last": (lambda: file_bytes({"a": ROW}, b"xyz and a program"), "invalid"),
    "a name that climbs": (lambda: named("../../../outside/keep.txt"), "invalid"),
    "an absolute name": (lambda: named("/etc/cron.d/x"), "invalid"),
    "a name of Windows": (lambda: named("C:\\Windows\\x"), "invalid"),
    "a name in a home": (lambda: named("~root/x"), "invalid"),
    "an empty name": (lambda: named(""), "invalid"),
    "a name that turns around": (lambda: named("a\u202etxt.exe"), "invalid"),
    "a name with a terminal's command": (lambda: named("\x1b[2J\x1b]0;x\x07"), "invalid"),
    "a name with a NUL": (lambda: named("a\0b"), "invalid"),
    "a name of two forms": (lambda: named("e\u0301"), "invalid"),
    "a name of 1,025 bytes": (lambda: named("n" * 1025), "invalid"),
    "no tensors": (lambda: file_bytes({}, b""), "invalid"),
    "a pickle under another name": (lambda: b"\x80\x04cposix\nsystem\n(S'true'\ntR.", "invalid"),
}  # fmt: skip


def weights(data: bytes) -> Callable[[Place], Commands]:
    def make(place: Place) -> Commands:
        (place.made / "model.safetensors").write_bytes(data)
        return added(place)

    return make


def added(place: Place) -> Commands:
    return [["base", "add", str(place.made), "--name", place.made.name]]


def copied(place: Place) -> Path:
    """An honest checkpoint to be spoiled."""
    shutil.copytree(place.newer, place.made, dirs_exist_ok=True)
    return place.made


def edit(
    name: str, content: Callable[[], bytes | str] | bytes | str
) -> Callable[[Place], Commands]:
    """An honest checkpoint with other bytes in one file."""

    def make(place: Place) -> Commands:
        data = content() if callable(content) else content
        path = copied(place) / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data)
        return added(place)

    return make


def act(change: Callable[[Path, Place], object]) -> Callable[[Place], Commands]:
    def make(place: Place) -> Commands:
        change(copied(place), place)
        return added(place)

    return make


def shard(place: str | object) -> str:
    """An index that says so of one tensor."""
    return json.dumps({"metadata": {}, "weight_map": {"a": place}})


INDEXES: dict[str, bytes | str] = {
    "a shard that climbs": shard("../outside/x.safetensors"),
    "an absolute shard": shard("/etc/x.safetensors"),
    "a shard with a backslash": shard("..\\x.safetensors"),
    "a shard on a drive": shard("c:x.safetensors"),
    "a shard with a stream": shard("x.safetensors:y.safetensors"),
    "a shard that Windows reserves": shard("con.safetensors"),
    "a shard that is a pickle": shard("pytorch_model.bin"),
    "a shard that is missing": shard("model-9.safetensors"),
    "a shard that is no text": shard(1),
    "no map": "{}",
    "a map that is a list": '{"weight_map": []}',
    "an index that is a list": "[]",
    "an index with a key twice": '{"weight_map": {"a": "x.safetensors", "a": "y.safetensors"}}',
    "an index of NaN": '{"metadata": {"total_size": NaN}, "weight_map": {}}',
    "an index with a byte order mark": b"\xef\xbb\xbf{}",
    "an index nested for ever": '{"weight_map":' * 200,
    "an empty index": "",
}


def swap_shards(folder: Path, place: Place) -> None:
    """Every tensor is said to be in the other shard."""
    path = folder / INDEX
    value = json.loads(path.read_text())
    names = sorted(set(value["weight_map"].values()))
    other = dict(zip(names, reversed(names), strict=True))
    value["weight_map"] = {key: other[name] for key, name in value["weight_map"].items()}
    path.write_text(json.dumps(value))


def forget(folder: Path, place: Place) -> None:
    """One tensor is not in the index."""
    path = folder / INDEX
    value = json.loads(path.read_text())
    del value["weight_map"][min(value["weight_map"])]
    path.write_text(json.dumps(value))


def first_shard(folder: Path) -> Path:
    return min(folder.glob("*.safetensors"))


def replaced_by(name: str, become: Callable[[Path, Place], object]) -> Callable[[Place], Commands]:
    """A file of an honest checkpoint that is something else. name: empty for the first shard."""

    def change(folder: Path, place: Place) -> None:
        path = folder / name if name else first_shard(folder)
        path.unlink(missing_ok=True)
        become(path, place)

    return act(change)


def listen(path: Path, place: Place) -> None:
    """A socket; its path may be too long for one."""
    here = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def sparse(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.write(struct.pack("<Q", size))
        file.truncate(size)


SPECIAL: dict[str, Callable[[Place], Commands]] = {
    "a shard that is a pipe": replaced_by("", lambda path, place: os.mkfifo(path)),
    "a shard that is a socket": replaced_by("", listen),
    "a shard that is a folder": replaced_by("", lambda path, place: path.mkdir()),
    "a shard that is a device": replaced_by("", lambda path, place: path.symlink_to("/dev/zero")),
    "a shard that leads out": replaced_by(
        "", lambda path, place: path.symlink_to(first_shard(place.base))
    ),
    "a shard that leads nowhere": replaced_by("", lambda path, place: path.symlink_to("gone")),
    "a shard that leads to itself": replaced_by("", lambda path, place: path.symlink_to(path.name)),
    "a shard of 25 MiB of header": replaced_by("", lambda path, place: sparse(path, 26 * MIB)),
    "a configuration that is a pipe": replaced_by(
        "config.json", lambda path, place: os.mkfifo(path)
    ),
    "a configuration that never ends": replaced_by(
        "config.json", lambda path, place: path.symlink_to("/dev/zero")
    ),
    "a configuration that leads out": replaced_by(
        "config.json", lambda path, place: path.symlink_to(place.outside / "keep.txt")
    ),
    "a tokenizer that leads to a secret": replaced_by(
        "tokenizer.json", lambda path, place: path.symlink_to("/proc/self/environ")
    ),
    "an index that is a pipe": replaced_by(INDEX, lambda path, place: os.mkfifo(path)),
    "an index too long": replaced_by(INDEX, lambda path, place: sparse(path, 64 * MIB + 1)),
    "a file that leads out": act(
        lambda folder, place: (folder / "notes.txt").symlink_to(place.outside / "keep.txt")
    ),
    "a folder that leads out": act(
        lambda folder, place: (folder / "sub").symlink_to(place.outside)
    ),
    "folders without end": act(
        lambda folder, place: folder.joinpath(*["d"] * 18).mkdir(parents=True)
    ),
    "a cache's link that leaves the cache": lambda place: _cache(place, place.base / "config.json"),
    "an index that swaps shards": act(swap_shards),
    "an index that forgets a tensor": act(forget),
    "a single file beside the index": act(
        lambda folder, place: shutil.copy(first_shard(folder), folder / "model.safetensors")
    ),
}


def _cache(place: Place, config: Path | None = None) -> Commands:
    """A snapshot of a Hugging Face cache, honest but for config."""
    repository = place.made / "models--org--name"
    snapshot, blobs = repository / "snapshots" / ("0" * 40), repository / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, file in enumerate(sorted(place.newer.iterdir())):
        blob = blobs / f"{number:040x}"
        shutil.copy(file, blob)
        leads = config if config and file.name == "config.json" else blob
        (snapshot / file.name).symlink_to(leads)
    return [["base", "add", str(snapshot), "--name", "cached"]]


def config(**changes: Any) -> str:
    return json.dumps(llama_config() | changes)


def tokenizer(**changes: Any) -> str:
    return json.dumps(json.loads(TOKENIZER) | changes)


def model(**changes: Any) -> str:
    value = json.loads(TOKENIZER)
    return json.dumps(value | {"model": value["model"] | changes})


def bomb(folder: Path, place: Place) -> None:
    """Nothing but pickles, which run code when they are loaded."""
    for path in folder.glob("*.safetensors*"):
        path.unlink()
    (folder / "pytorch_model.bin").write_bytes(place.pickle())


def zipped(folder: Path, place: Place) -> None:
    """As torch.save writes it, under the name of weights that are read."""
    with zipfile.ZipFile(first_shard(folder), "w") as archive:
        archive.writestr("archive/data.pkl", place.pickle())
        archive.writestr("../../outside/keep.txt", "gone")


REFUSED_FILES: dict[str, Callable[[Place], Commands]] = {
    "a configuration that is a list": edit("config.json", "[]"),
    "a configuration that is empty": edit("config.json", ""),
    "a configuration with a key twice": edit("config.json", '{"a": 1, "a": 2}'),
    "a configuration of NaN": edit("config.json", '{"a": NaN}'),
    "a configuration nested for ever": edit("config.json", '{"a":' * 50_000),
    "a configuration with half a character": edit("config.json", '{"a": "\\udc00"}'),
    "a configuration of 17 MiB": edit("config.json", lambda: " " * (17 * MIB)),
    "a configuration of numbers without end": edit(
        "config.json", lambda: '{"a": ' + "9" * 100_000 + "}"
    ),
    "codes of four bits": edit(
        "config.json", config(quantization_config={"quant_method": "gptq", "bits": 4})
    ),
    "codes of an unnamed method": edit("config.json", config(quantization_config={"a": []})),
    "a tokenizer without a model": edit("tokenizer.json", "{}"),
    "a tokenizer that is a list": edit("tokenizer.json", "[]"),
    "a vocabulary of lists": edit("tokenizer.json", model(vocab=[[], []])),
    "a vocabulary of texts": edit("tokenizer.json", model(vocab={"a": "b"})),
    "a negative token": edit("tokenizer.json", model(vocab={"a": -1})),
    "a token of 2^40": edit("tokenizer.json", model(vocab={"a": 1 << 40})),
    "merges of numbers": edit("tokenizer.json", model(merges=[1, 2])),
    "merges without a space": edit("tokenizer.json", model(merges=["ab"])),
    "a score of NaN": edit("tokenizer.json", '{"model": {"vocab": [["a", NaN]]}}'),
    "a score that is no number": edit("tokenizer.json", model(vocab=[["a", "x"]])),
    "added tokens that are a number": edit("tokenizer.json", tokenizer(added_tokens=7)),
    "a tokenizer of five million values": edit(
        "tokenizer.json", lambda: '{"a": [' + "0," * 5_000_000 + "0]}"
    ),
    "pickles alone": act(bomb),
    "an archive with a pickle": act(zipped),
}


def codes(folder: Path, place: Place) -> None:
    """Code beside the weights, and configurations that name it at every depth."""
    for name in ("modeling_evil.py", "tokenization_evil.py", "__init__.py", "sitecustomize.py"):
        (folder / name).write_bytes(place.program())
    (folder / "training_args.bin").write_bytes(place.pickle())
    (folder / "optimizer.pt").write_bytes(place.pickle())
    named = {"AutoModelForCausalLM": "modeling_evil.EvilModel", "AutoConfig": "modeling_evil.C"}
    (folder / "config.json").write_text(
        config(auto_map=named, trust_remote_code=True, text=[{"auto_map": named}])
    )
    for name in ("tokenizer_config.json", "generation_config.json", "preprocessor_config.json"):
        value = {"auto_map": named, "tokenizer_class": "modeling_evil.T", "x": {"auto_map": named}}
        (folder / name).write_text(json.dumps(value))


TAKEN: dict[str, Callable[[Place], Commands]] = {
    "a snapshot of a cache": _cache,
    "a configuration of other types": edit(
        "config.json",
        json.dumps({key: {"a": [1e300, None]} for key in llama_config()} | {"model_type": 7}),
    ),
    "a configuration of huge numbers": edit(
        "config.json",
        json.dumps({k: 10**300 if type(v) is int else v for k, v in llama_config().items()}),
    ),
    "token settings of other types": edit(
        "tokenizer_config.json", '{"pad_token": [], "chat_template": {"a": 1}, "eos_token": 7}'
    ),
    "generation settings of other types": edit(
        "generation_config.json", '{"eos_token_id": {"a": 1}, "pad_token_id": [[], "x", 1e300]}'
    ),
    "a template that would run": edit(
        "chat_template.jinja", "{{ ''.__class__.__mro__[1].__subclasses__() }}"
    ),
    "code and pickles beside the weights": act(codes),
    "names that differ by case alone": act(
        lambda folder, place: [(folder / n).write_text("x") for n in ("Notes.md", "notes.md")]
    ),
    "names that Windows reserves": act(
        lambda folder, place: [(folder / n).write_text("x") for n in ("con.txt", "a.", "b ", "c:d")]
    ),
    "a name that no encoding has": act(
        lambda folder, place: Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe")).write_text("x")
    ),
    "a name that repaints a terminal": act(
        lambda folder, place: (folder / "\x1b[2J\x1b]0;owned\x07").write_text("x")
    ),
    "hidden folders": act(
        lambda folder, place: [(folder / n).mkdir() for n in (".git", ".ssh", ".cache")]
    ),
}  # fmt: skip


def applied(place: Place) -> Commands:
    """Code beside a base does not get into what is made of it."""
    codes(copied(place), place)
    out = ["--out", str(place.made.with_suffix(".out")), "--force"]
    return [*added(place), ["apply", "good", "--base", place.made.name, *out]]


def cases() -> Iterator[Case]:
    for name, (make, error) in HEADERS.items():
        yield Case(f"weights: {name}", _lazily(make), INVALID, error)
    for name, text in INDEXES.items():
        yield Case(f"index: {name}", edit(INDEX, text), INVALID, "invalid")
    for name, make_special in SPECIAL.items():
        yield Case(f"files: {name}", make_special, INVALID, "invalid")
    for name, make_refused in REFUSED_FILES.items():
        yield Case(f"model: {name}", make_refused, INVALID, "invalid")
    for name, make_taken in TAKEN.items():
        yield Case(f"taken: {name}", make_taken, 0, None)
    yield Case("taken: code beside a base", applied, 0, None)
    yield Case(
        "files: no folder", lambda place: [["base", "add", "/no/such"]], NOT_FOUND, "not_found"
    )


def _lazily(make: Callable[[], bytes]) -> Callable[[Place], Commands]:
    return lambda place: weights(make())(place)

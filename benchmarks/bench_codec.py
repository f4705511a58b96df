"""Bits a weight and speed of the codecs against peers and the entropy, one thread, in one run.

    make bench-codec                                                          # synthetic pairs
    .venv-peers/bin/python benchmarks/train_pairs.py --out bench-out/pairs    # trained ones too
    .venv-peers/bin/python benchmarks/bench_codec.py --pairs bench-out/pairs

Synthetic pairs: weights from a Student-t (5 degrees), row scales 0.02·e^N(0, 0.25), a change of the
stated relative size with the rows' scales, both rounded to bfloat16; "RL-like" changes 12 % of the
elements. Trained pairs: folders of one `base` and its posts, tensor by tensor. Every codec gets the
same Δ as bytes; `xor` gets post ⊕ base instead and needs the base to decode. "entropy" is the
order-0 joint entropy of Δ's 16-bit patterns, of each tensor by itself.

Times are seconds of the processor, not of the clock, so that other work on the machine counts
little; medians of repeats in which the codecs take turns. All write into memory of their own.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import zstandard
from rich.console import Console
from rich.table import Table

from paramdelta import codecs, delta
from paramdelta.patch import PatchEncoder
from paramdelta.safetensors_header import build_header

CHUNK = 1 << 17
LARGE = 1 << 20  # elements of a tensor whose distance from the entropy is told


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    base: np.ndarray
    post: np.ndarray
    change: np.ndarray
    columns: int


@dataclass(slots=True)
class Result:
    """bytes of all tensors, and seconds of every repeat."""

    stored: int = 0
    encode: list[float] = field(default_factory=list)
    decode: list[float] = field(default_factory=list)


Codec = Callable[[list[Tensor]], tuple[int, float, float]]  # bytes, seconds, seconds


# -- pairs --------------------------------------------------------------------------------


def bfloat16(values: np.ndarray) -> np.ndarray:
    wide = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((wide + (0x7FFF + ((wide >> 16) & 1))) >> 16).astype(np.uint16).reshape(-1)


def tensor(base: np.ndarray, post: np.ndarray, columns: int) -> Tensor:
    change = np.empty_like(base)
    delta.extract(base, "BF16", post, "BF16", change)
    return Tensor(base, post, change, columns)


def pair(rows: int, columns: int, change: float) -> tuple[np.ndarray, np.ndarray]:
    """(base, post) bits; a negative change touches only 12 % of the elements."""
    random = np.random.default_rng(7)
    scale = 0.02 * np.exp(0.25 * random.standard_normal((rows, 1)))
    weights = random.standard_t(5, (rows, columns)) * scale / np.sqrt(5 / 3)
    noise = random.standard_normal((rows, columns)) * scale * abs(change)
    if change < 0:
        noise *= random.random((rows, columns)) < 0.12
    base = bfloat16(weights)
    return base, bfloat16(delta.to_float32(base, "BF16").reshape(rows, columns) + noise)


def synthetic(rows: int, columns: int) -> Iterator[tuple[str, list[Tensor]]]:
    for label, size in (("0.5 %", 0.005), ("2 %", 0.02), ("5 %", 0.05), ("RL-like", -0.005)):
        yield label, [tensor(*pair(rows, columns, size), columns)]


def trained(folder: Path, base: str) -> Iterator[tuple[str, list[Tensor]]]:
    before = weights_of(folder / base)
    for path in sorted(folder.iterdir()):
        if path.name == base or not (path / "model.safetensors").exists():
            continue
        after = weights_of(path)
        there = [
            name for name in sorted(before) if name in after and before[name][1] == after[name][1]
        ]
        yield (
            path.name,
            [tensor(before[name][0], after[name][0], before[name][1][-1]) for name in there],
        )


def weights_of(folder: Path) -> dict[str, tuple[np.ndarray, list[int]]]:
    data = (folder / "model.safetensors").read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    return {
        name: (
            np.frombuffer(data[8 + size :], np.uint16)[slice(*(o // 2 for o in e["data_offsets"]))],
            e["shape"],
        )
        for name, e in header.items()
        if name != "__metadata__" and e["dtype"] == "BF16"
    }


# -- codecs -------------------------------------------------------------------------------


def timed(work: Callable[[], object]) -> tuple[object, float]:
    started = time.process_time()
    found = work()
    return found, time.process_time() - started


def encode(one: Tensor) -> tuple[codecs.Encoder, list[bytes]]:
    stats = codecs.Statistics("BF16", one.columns)
    for start in range(0, one.change.size, CHUNK):
        stats.update(one.change[start : start + CHUNK])
    encoder = codecs.choose(stats, one.change.size, "BF16", one.columns)
    size, stored = encoder.frame_elements, encoder.name != "zero"
    pieces = range(0, one.change.size if stored else 0, size)
    return encoder, [encoder.frame(one.change[i : i + size]) for i in pieces]


def decode(one: Tensor, encoder: codecs.Encoder, frames: list[bytes]) -> np.ndarray:
    out, size = np.empty_like(one.change), encoder.frame_elements
    decoder = codecs.open_decoder(
        encoder.name, encoder.params, encoder.prologue(), "BF16", out.size, one.columns
    )
    for k, i in enumerate(range(0, out.size, size)):
        decoder.frame(frames[k] if frames else b"", out[i : i + size])
    return out


def stored_bytes(encoder: codecs.Encoder, frames: list[bytes]) -> int:
    return len(encoder.prologue()) + sum(4 + len(frame) for frame in frames)


def ours(tensors: list[Tensor]) -> tuple[int, float, float]:
    packed, first = timed(lambda: [encode(one) for one in tensors])
    pairs = list(zip(tensors, packed, strict=True))
    back, second = timed(lambda: [decode(one, *found) for one, found in pairs])
    assert all(np.array_equal(a, b.change) for a, b in zip(back, tensors, strict=True))
    return sum(stored_bytes(*found) for found in packed), first, second


def zstd(level: int) -> Codec:
    def run(tensors: list[Tensor]) -> tuple[int, float, float]:
        compressor, decompressor = zstandard.ZstdCompressor(level), zstandard.ZstdDecompressor()
        packed, first = timed(lambda: [compressor.compress(one.change.data) for one in tensors])
        _, second = timed(lambda: [decompressor.decompress(data) for data in packed])
        return sum(map(len, packed)), first, second

    return run


def zipnn_peer(tensors: list[Tensor]) -> tuple[int, float, float]:
    import zipnn

    codec = zipnn.ZipNN(input_format="byte", bytearray_dtype="bfloat16", threads=1)
    data = [bytearray(one.change.tobytes()) for one in tensors]  # it writes into its argument
    packed, first = timed(lambda: [codec.compress(one) for one in data])
    back, second = timed(lambda: [codec.decompress(one) for one in packed])
    assert all(bytes(a) == b.change.tobytes() for a, b in zip(back, tensors, strict=True))
    return sum(map(len, packed)), first, second


def lmz_peer(tensors: list[Tensor]) -> tuple[int, float, float]:
    """It knows files only; they lie in memory where the system has such a folder."""
    import lmz

    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory) as text:
        names = [str(Path(text) / name) for name in ("a.safetensors", "a.lmz", "b.safetensors")]
        shapes = [
            (f"w{i:04}", "BF16", (one.change.size // one.columns, one.columns))
            for i, one in enumerate(tensors)
        ]
        header = build_header(shapes, {"format": "pt"})
        data = b"".join(one.change.tobytes() for one in tensors)
        Path(names[0]).write_bytes(header + data)
        _, first = timed(lambda: lmz.compress(*names[:2], workers=1))
        _, second = timed(lambda: lmz.decompress(*names[1:], workers=1))
        return Path(names[1]).stat().st_size, first, second


def blosc2_peer(tensors: list[Tensor]) -> tuple[int, float, float]:
    """Bytes of one significance lie together, then zstd: the smallest of its filters and levels."""
    import blosc2

    settings = {
        "codec": blosc2.Codec.ZSTD, "clevel": 9, "typesize": 2, "nthreads": 1,
        "filters": [blosc2.Filter.SHUFFLE],
    }  # fmt: skip
    packed, first = timed(lambda: [blosc2.compress2(one.change, **settings) for one in tensors])
    back, second = timed(lambda: [blosc2.decompress2(data, nthreads=1) for data in packed])
    assert all(a == b.change.tobytes() for a, b in zip(back, tensors, strict=True))
    return sum(map(len, packed)), first, second


def xor_planes(tensors: list[Tensor]) -> tuple[int, float, float]:
    compressor, decompressor = zstandard.ZstdCompressor(3), zstandard.ZstdDecompressor()

    def pack() -> list[bytes]:
        bits = [(one.base ^ one.post).view(np.uint8).reshape(-1, 2) for one in tensors]
        return [
            compressor.compress(np.ascontiguousarray(b[:, i]).data) for b in bits for i in (0, 1)
        ]

    packed, first = timed(pack)
    _, second = timed(lambda: [decompressor.decompress(data) for data in packed])
    return sum(map(len, packed)), first, second


PEERS: dict[str, Codec] = {"zipnn 0.5.4": zipnn_peer, "lmzip 1.3.0": lmz_peer}
ONCE: dict[str, Codec] = {
    "zstd 9": zstd(9), "blosc2 4.14.1": blosc2_peer, "xor + planes + zstd 3": xor_planes,
}  # fmt: skip


# -- the table ----------------------------------------------------------------------------


def patch_bytes(one: Tensor) -> int:
    encoder, size = PatchEncoder("BF16", "BF16"), 1 << 18
    return sum(
        len(encoder.frame(one.base[i : i + size], one.change[i : i + size], one.post[i : i + size]))
        for i in range(0, one.base.size, size)
    )


def entropy(change: np.ndarray) -> float:
    counts = np.bincount(change)
    shares = counts[counts > 0] / change.size
    return float(-(shares * np.log2(shares)).sum())


def worst(tensors: list[Tensor]) -> float:
    """The most that a large tensor needs, in its entropy."""
    return max(
        (
            8 * stored_bytes(*encode(one)) / one.change.size / entropy(one.change)
            for one in tensors
            if one.change.size >= LARGE and one.change.any()
        ),
        default=0.0,
    )


def measure(tensors: list[Tensor], repeats: int) -> dict[str, Result]:
    """ONCE: codecs that are far away, once; the others by turns, after one run to warm up."""
    known = {"paramdelta": ours, **PEERS, **ONCE}
    results = {name: Result() for name in known}
    ours(tensors[:1])
    for repeat in range(repeats):
        for name, codec in known.items():
            if repeat and name in ONCE:
                continue
            stored, first, second = codec(tensors)
            results[name].stored = stored
            results[name].encode.append(first)
            results[name].decode.append(second)
    return results


def add_rows(table: Table, label: str, tensors: list[Tensor], repeats: int) -> None:
    elements = sum(one.change.size for one in tensors)
    floor = sum(entropy(one.change) * one.change.size for one in tensors) / elements
    results = measure(tensors, repeats)
    own = results["paramdelta"]
    for name, result in results.items():
        first, second = statistics.median(result.encode), statistics.median(result.decode)
        table.add_row(
            label, name, f"{8 * result.stored / elements:.3f}",
            f"{own.stored / result.stored:.3f}", f"{8 * result.stored / elements / floor:.3f}",
            f"{2 * elements / first / 1e9:.2f}", f"{2 * elements / second / 1e9:.2f}",
            f"{second / statistics.median(own.decode):.2f}",
        )  # fmt: skip
        label = ""
    exact = 8 * sum(map(patch_bytes, tensors)) / elements
    table.add_row("", "exact stream", f"{exact:.3f}")
    table.add_row("", "entropy", f"{floor:.3f}", "", "1.000")
    table.add_row("", "our worst large tensor", "", "", f"{worst(tensors):.3f}", end_section=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, default=8192)
    parser.add_argument("--columns", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--pairs", type=Path, help="a folder of trained checkpoints")
    parser.add_argument("--base", default="base", help="which of them is the base")
    options = parser.parse_args()
    table = Table(
        "pair", "codec", "bits a weight", "ours ÷ it", "÷ entropy", "encode GB/s", "decode GB/s",
        "ours faster ×",
    )  # fmt: skip
    pairs = (
        trained(options.pairs, options.base)
        if options.pairs
        else synthetic(options.rows, options.columns)
    )
    for label, tensors in pairs:
        add_rows(table, label, tensors, options.repeats)
    console = Console(width=120)
    console.print(table)
    console.print(
        f"GB/s of bfloat16, processor time, one thread, medians of {options.repeats}; "
        f"Python {platform.python_version()}, numpy {np.__version__}, "
        f"zstd {'.'.join(map(str, zstandard.ZSTD_VERSION))}"
    )


if __name__ == "__main__":
    main()

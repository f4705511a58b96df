"""Decode + apply on a GPU against a plain copy of the same bytes in and out, in one run.

    .venv/bin/python benchmarks/bench_gpu.py

Without a GPU the same code can be run to see that its bits are right; its times then say nothing:

    TRITON_INTERPRET=1 .venv/bin/python benchmarks/bench_gpu.py --device cpu --rows 4 --columns 1024

Encoded frames and base lie in host memory; each block's base and payload go in, the output comes
out. "copy" moves exactly these bytes through page-locked buffers, two blocks in flight, and does
nothing else: no pipeline over the same link can be faster. The kernels are timed by themselves too,
against a copy inside the device's memory. Every output is compared with the processor's bits.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench_codec import encode, pair, tensor

from paramdelta import codecs, delta
from paramdelta.codecs.rans import RansDecoder
from paramdelta.device import rule
from paramdelta.device.decoder import HEAD, STATUS, DeviceRans
from paramdelta.device.staging import Block, Lanes

IN_FLIGHT = 2


@dataclass(frozen=True)
class Coded:
    """One encoded delta of the tensor, block by block."""

    decoder: RansDecoder
    device: DeviceRans
    blocks: list[list[bytes]]
    change: np.ndarray


def coded(base: np.ndarray, post: np.ndarray, columns: int, frames: int, device: str) -> Coded:
    one = tensor(base, post, columns)
    encoder, payloads = encode(one)
    decoder = codecs.open_decoder(
        encoder.name, encoder.params, encoder.prologue(), "BF16", base.size, columns
    )
    assert isinstance(decoder, RansDecoder), f"the codec chosen was {encoder.name}"
    blocks = [payloads[i : i + frames] for i in range(0, len(payloads), frames)]
    return Coded(decoder, DeviceRans(decoder, torch.device(device)), blocks, one.change)


def pipelined(
    deltas: list[Coded], base: np.ndarray, alphas: list[float], lanes: Lanes
) -> np.ndarray:
    """Decode and apply, as the registry's apply does it, without files and hashes."""
    out = np.empty_like(base)
    blocks = [Block(lanes) for _ in range(IN_FLIGHT)]
    waiting: list[tuple[int, int, Block]] = []
    step = deltas[0].decoder.frame_elements * len(deltas[0].blocks[0])
    for i, start in enumerate(range(0, base.size, step)):
        if len(waiting) == IN_FLIGHT:
            first, last, done = waiting.pop(0)
            out[first:last] = done.result()
        block, stop = blocks[i % IN_FLIGHT], min(start + step, base.size)
        block.start(stop - start, "BF16", "BF16")[:] = base[start:stop]
        for one, alpha in zip(deltas, alphas, strict=True):
            block.encoded(alpha, "BF16", one.device, one.blocks[i])
        block.launch()
        waiting.append((start, stop, block))

    for first, last, done in waiting:
        out[first:last] = done.result()
    return out


def copied(inward: list[int], outward: list[int], lanes: Lanes) -> None:
    """So many bytes in and out, block by block, and nothing else."""
    pinned = lanes.device.type == "cuda"
    size = max(*inward, *outward)
    slots = [
        (torch.empty(size, dtype=torch.uint8, pin_memory=pinned),
         torch.empty(size, dtype=torch.uint8, pin_memory=pinned),
         torch.empty(size, dtype=torch.uint8, device=lanes.device))
        for _ in range(IN_FLIGHT)
    ]  # fmt: skip
    marks: list[torch.cuda.Event | None] = [None] * IN_FLIGHT
    for i, (n, m) in enumerate(zip(inward, outward, strict=True)):
        source, target, there = slots[i % IN_FLIGHT]
        lanes.wait(marks[i % IN_FLIGHT])
        with lanes.inward():
            there[:n].copy_(source[:n], non_blocking=True)
        with lanes.computing():
            pass
        with lanes.outward():
            target[:m].copy_(there[:m], non_blocking=True)
        marks[i % IN_FLIGHT] = lanes.mark()
    for mark in marks:
        lanes.wait(mark)


def seconds(work: Callable[[], object], device: str, repeats: int) -> float:
    """The median of *repeats*, after one to warm up."""
    work()
    times = []
    for _ in range(repeats):
        if device == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def kernels(
    one: Coded, base: np.ndarray, device: str, repeats: int
) -> list[tuple[str, float, float]]:
    """(what, seconds, bytes of device memory touched) of each kernel by itself, over one block."""
    frames = one.blocks[0]
    count = min(base.size, len(frames) * one.decoder.frame_elements)
    heads, starts = one.device.describe(frames, count)
    payload = torch.from_numpy(np.frombuffer(b"".join(frames), "<i4").copy()).to(device)
    rows = torch.tensor(heads, dtype=torch.int64, device=device).view(-1, HEAD)
    rare, out = (torch.empty(count, dtype=torch.int16, device=device) for _ in range(2))
    status = torch.empty(STATUS * len(frames), dtype=torch.int32, device=device)
    there = torch.from_numpy(base[:count].view(np.int16).copy()).to(device)
    made = torch.empty_like(there)
    terms = [rule.DeviceTerm(1.0, out, "BF16")]
    decode = seconds(lambda: one.device.launch(payload, rows, rare, out, status), device, repeats)
    add = seconds(lambda: rule.add(there, "BF16", terms, made, "BF16"), device, repeats)
    copy = seconds(lambda: made.copy_(there), device, repeats)
    return [
        ("decode", decode, 4 * starts[-1] + 2 * count),
        ("add", add, 6 * count),
        ("copy inside the device", copy, 4 * count),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rows", type=int, default=65_536)
    parser.add_argument("--columns", type=int, default=4096)
    parser.add_argument("--frames", type=int, default=128, help="of a block")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("no CUDA device: nothing to measure (--device cpu checks the bits)")
    lanes, columns = Lanes(options.device), options.columns
    if not rule.kernels_for(lanes.device):
        sys.exit("no Triton here: install it, or set TRITON_INTERPRET=1 for --device cpu")
    where = torch.cuda.get_device_name() if options.device == "cuda" else "the processor"
    table = Table(
        title=f"{options.rows} × {columns} bfloat16 on {where}; torch {torch.__version__}"
    )
    for name in ("what", "seconds", "GB/s of output", "÷ copy", "bits as the processor's"):
        table.add_column(name, justify="right" if name != "what" else "left")
    first = pair(options.rows, columns, 0.005)
    second = first[0], pair(options.rows, columns, 0.02)[1]
    deltas = [coded(*p, columns, options.frames, options.device) for p in (first, second)]
    base, repeats = first[0], options.repeats
    for label, chosen, alphas in (
        ("one delta, alpha 1", deltas[:1], [1.0]),
        ("one delta, alpha 0.7", deltas[:1], [float(np.float32(0.7))]),
        ("two deltas", deltas, [1.0, float(np.float32(0.7))]),
    ):
        step = chosen[0].decoder.frame_elements * options.frames
        outward = [2 * min(step, base.size - at) for at in range(0, base.size, step)]
        inward = [
            n + sum(len(frame) for one in chosen for frame in one.blocks[i])
            for i, n in enumerate(outward)
        ]
        plain = seconds(lambda i=inward, o=outward: copied(i, o, lanes), options.device, repeats)
        work = lambda c=chosen, a=alphas: pipelined(c, base, a, lanes)  # noqa: E731
        took, made = seconds(work, options.device, repeats), work()
        wanted = np.empty_like(base)
        terms = [delta.Term(a, one.change, "BF16") for a, one in zip(alphas, chosen, strict=True)]
        delta.add(base, "BF16", terms, wanted, "BF16")
        same = "yes" if np.array_equal(made, wanted) else "NO"
        size = 2 * base.size / 1e9
        table.add_row(f"copy of {label}", f"{plain:.3f}", f"{size / plain:.2f}", "1.00", "")
        table.add_row(label, f"{took:.3f}", f"{size / took:.2f}", f"{plain / took:.2f}", same)
    inside = kernels(deltas[0], base, options.device, repeats)
    fastest = inside[-1][2] / inside[-1][1]
    for what, took, touched in inside:
        rate = touched / took
        table.add_row(
            f"kernel: {what}",
            f"{took:.5f}",
            f"{rate / 1e9:.1f} of memory",
            f"{rate / fastest:.2f}",
            "",
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()

"""How long does the fingerprint of a model folder take, and where does the time go?

A folder of 291 tensors (headers of an 8B Llama, no weights) with a tokenizer.json of the size of
Llama 3's: 128,000 core tokens, 280,147 merges, 256 added tokens: 9 MB with merges as strings, 17 MB
with merges as pairs. Medians of several runs, as time on the clock and as time of the processor, in
one process that never imports torch.

    python benchmarks/bench_fingerprint.py [runs]
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.families import llama3
from support.models import Model

from paramdelta import strict_json
from paramdelta.architecture import describe, hash_of
from paramdelta.compatibility import compare
from paramdelta.fingerprint import Fingerprint, fingerprint
from paramdelta.limits import MAX_TOKENIZER_BYTES
from paramdelta.tokenizer import Core

CORE, MERGES = 128_000, 280_147


def tokenizer(pairs: bool) -> bytes:
    """Random words of Llama 3's number and length; merges as pairs (new files) or strings (old)."""
    draw = random.Random(1)
    letters = "etaoinshrdlucmfwypvbgkjqxzĠÃ©å¤æ"
    words: dict[str, int] = {}
    while len(words) < CORE:
        words.setdefault("".join(draw.choices(letters, k=draw.randint(2, 11))), len(words))
    names = list(words)
    merges: list[Any] = []
    for _ in range(MERGES):
        word = draw.choice(names)
        cut = draw.randint(1, len(word) - 1)
        merges.append([word[:cut], word[cut:]] if pairs else f"{word[:cut]} {word[cut:]}")
    value = dict(llama3().tokenizer or {})
    value["model"] = {**value["model"], "vocab": words, "merges": merges}
    return json.dumps(value, ensure_ascii=False, indent=2).encode()


def median(run: Callable[[], object], runs: int) -> tuple[float, float]:
    """Milliseconds on the clock, and of the processor."""
    clock, processor = [], []
    for _ in range(runs):
        begun = time.perf_counter(), time.process_time()
        run()
        clock.append(time.perf_counter() - begun[0])
        processor.append(time.process_time() - begun[1])
    return statistics.median(clock) * 1e3, statistics.median(processor) * 1e3


def main(runs: int) -> None:
    for pairs in (False, True):
        data = tokenizer(pairs)
        model: Model = llama3(layers=32, files={"tokenizer.json": data})
        folder = model.folder()
        parsed = strict_json.loads(data, "tokenizer.json", MAX_TOKENIZER_BYTES)
        table = {name: (info.dtype, info.shape) for name, info in folder.tensors.items()}
        whole: Fingerprint = fingerprint(folder)
        text = json.dumps(whole.to_json())
        steps: dict[str, Callable[[], object]] = {
            "json.loads alone (the floor)": lambda data=data: json.loads(data),
            "strict_json.loads": lambda data=data: strict_json.loads(data, "t", 1 << 27),
            "tokenizer hashes": lambda parsed=parsed: Core.of(parsed),
            "architecture": lambda model=model, t=table: hash_of(describe(model.config, t)),
            "fingerprint, all of it": lambda folder=folder: fingerprint(folder),
            "read back from JSON": lambda text=text: Fingerprint.from_json(json.loads(text)),
            "compare": lambda f=whole: compare(f, f, f, same_content=False),
        }
        kind = "pairs" if pairs else "strings"
        print(f"merges as {kind}: {len(data) / 1e6:.1f} MB, {len(table)} tensors")
        for name, run in steps.items():
            clock, processor = median(run, runs)
            print(f"  {name:32} {clock:8.1f} ms {processor:8.1f} ms of processor")
    print("torch imported:", "torch" in sys.modules)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)

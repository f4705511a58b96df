"""The main job on real, trained checkpoints: publish → query → apply → restore → verify.

    make demo

Every number is computed here and now. The models are in examples/family/checkpoints; what they are
and how they were trained stands in examples/family/README.md.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
CHECKPOINTS = HERE / "family" / "checkpoints"
OUT = HERE.parent / "demo-out"
ITEMS = 200  # held-out words a task

sys.path.insert(0, str(HERE / "family"))
console = Console()


def paramdelta(*arguments: str) -> Any:
    """Runs the command as a user would, and shows it; the JSON it prints is returned."""
    places = {str(CHECKPOINTS): "family", str(OUT): OUT.name}
    shown = " ".join(arguments)
    for place, name in places.items():
        shown = shown.replace(place, name)
    console.print(f"[bold]$ paramdelta {shown}[/]", highlight=False, soft_wrap=True)
    command = [sys.executable, "-m", "cli", "--registry", str(OUT / "registry"), "--json"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):
        raise SystemExit(done.stdout + done.stderr)
    return json.loads(done.stdout)


def publish() -> None:
    for name in ("base-1.1", "other-1"):
        paramdelta("base", "add", str(CHECKPOINTS / name))
    table = Table("release", "parameters", "raw", "stored", "bits a weight", "exact", "seconds")
    for skill in ("upper", "digits"):
        post = CHECKPOINTS / f"base-1-{skill}"
        done = paramdelta(
            "publish", f"skills/{skill}", "--base", str(CHECKPOINTS / "base-1"),
            "--post", str(post), "--description", f"teaches the task {skill}",
        )  # fmt: skip
        table.add_row(
            done["ref"],
            f"{done['parameters']:,}",
            f"{done['bytes_raw']:,}",
            f"{done['bytes_stored']:,}",
            f"{done['bits_per_weight']:.2f}",
            str(done["exact"]),
            f"{done['seconds']:.2f}",
        )
    console.print(table)


def query() -> None:
    table = Table("base", "delta", "verdict", "drift ratio", "reasons")
    for base in ("base-1.1", "other-1"):
        for row in paramdelta("query", "--base", base)["results"]:
            drift = row["drift_ratio"]
            reasons = "; ".join(f"{p['severity']}: {p['subject']}" for p in row["problems"])
            shown = "unknown" if drift is None else f"{drift:.2f}"
            table.add_row(base, row["ref"], row["verdict"], shown, reasons or "none")
    console.print(table)


def apply() -> dict[str, Path]:
    made = {}
    for label, base, deltas in (
        ("base-1.1 + Δupper", "base-1.1", ["skills/upper"]),
        ("base-1.1 + 0.8·Δupper + 0.8·Δdigits", "base-1.1",
         ["skills/upper:0.8", "skills/digits:0.8"]),
        ("other-1 + Δupper (control)", "other-1", ["skills/upper"]),
    ):  # fmt: skip
        out = OUT / f"model-{len(made) + 1}"
        paramdelta("apply", *deltas, "--base", base, "--out", str(out))
        made[label] = out
    return made


def measure(made: dict[str, Path]) -> None:
    import evaluate
    import tasks

    models = {
        "base-1.1": CHECKPOINTS / "base-1.1",
        "base-1-upper (the post on its own base)": CHECKPOINTS / "base-1-upper",
        "base-1.1-upper (trained directly)": CHECKPOINTS / "base-1.1-upper",
        **made,
    }
    table = Table("model", "upper", "digits", "LM loss", title="accuracy on held-out words")
    for label, folder in models.items():
        model, tokenizer = evaluate.load(folder)
        scores = [
            evaluate.accuracy(model, tokenizer, tasks.items(task, ITEMS, 0, "test"))
            for task in ("upper", "digits")
        ]
        loss = evaluate.lm_loss(model, tokenizer)
        table.add_row(label, *(f"{score:.3f}" for score in scores), f"{loss:.3f}")
    console.print(table)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def restore_and_verify() -> None:
    out = OUT / "restored"
    files = paramdelta("restore", "skills/upper", "--out", str(out))["files"]
    table = Table("file of base-1-upper", "sha256", "equal")
    original = CHECKPOINTS / "base-1-upper"
    names = sorted(path.name for path in original.iterdir())
    equal = names == sorted(files)
    for name in names:
        same = sha256(original / name) == sha256(out / name)
        equal = equal and same
        table.add_row(name, sha256(out / name)[:16] + "…", str(same))
    console.print(table)
    checks = [
        paramdelta("verify", "--all", "--deep"),
        paramdelta("verify", "--model", str(OUT / "model-1")),
    ]
    if not equal or not all(check["ok"] for check in checks):
        raise SystemExit("the demo found a difference; please report it")
    console.print("restored bit for bit; registry and model verified")


def main() -> None:
    started = time.monotonic()
    shutil.rmtree(OUT, ignore_errors=True)
    publish()
    query()
    made = apply()
    measure(made)
    restore_and_verify()
    console.print(f"{time.monotonic() - started:.0f} s; everything is in {OUT.name}/")


if __name__ == "__main__":
    main()

"""Reproduces ParamΔ (arXiv 2504.21023) on small models, and writes docs/reproduction.md.

    make reproduction

Trained models, scores and the registry lie in reproduction-out; run again, it goes on where it was.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from examples.reproduction.recipes import FULL, SMOKE
from examples.reproduction.reproduce import reproduce

ROOT = Path(__file__).resolve().parent.parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="reproduction", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--processes", type=int, default=2, help="that train and measure at once")
    parser.add_argument("--seeds", type=int, nargs="*", help="of the full scale; writes no page")
    parser.add_argument("--smoke", action="store_true", help="one seed, a few steps, into --out")
    parser.add_argument("--out", type=Path, default=ROOT / "reproduction-out")
    options = parser.parse_args()
    console = Console(highlight=False)
    scale = SMOKE if options.smoke else FULL
    docs = options.out / "docs" if options.smoke else ROOT / "docs"
    reproduce(scale, options.out, docs, options.processes, console.print, options.seeds)


if __name__ == "__main__":
    main()

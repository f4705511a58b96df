"""Mutates the corpus of one target with atheris, and writes what breaks it beside this file.

    python tests/fuzz/fuzz.py TARGET [--seconds 60] [--found FOLDER] [--grown FOLDER]

What covers something new is kept in the folder of --grown, from which a later run goes on. A
finding is `FOLDER/TARGET-crash-…`: copy it into corpus/TARGET/ with a name that says what it is,
mend the parser, and `test_fuzz_corpora.py` keeps it mended.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1])]
# compiled by numba from their own bytecode, which must stay as it is
COMPILED = [
    f"paramdelta.kernels_{name}" for name in ("frames", "numba", "rans", "rans_avx512", "tables")
]
MEMORY_MB = 1500  # more is a finding
SLOW_SECONDS = 10  # of one input; more is a finding
LONGEST_INPUT = 1 << 14  # bytes
STRUCTURED = 0.7  # of the mutations of a JSON document


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("target")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--found", type=Path, default=HERE / "found")
    parser.add_argument("--grown", type=Path, help="kept there, or forgotten at the end")
    words = parser.parse_args()

    import atheris

    # lru_cache and dataclasses of what is imported before stay as they are; only the parsers count
    with atheris.instrument_imports(include=["paramdelta", "registry"], exclude=COMPILED):
        from fuzz_targets import TARGETS
    from fuzz_mutate import mutated

    def mutate(data: bytes, longest: int, seed: int) -> bytes:
        """A value of a JSON document, or else bytes."""
        dice = random.Random(seed)
        made = mutated(data, dice) if dice.random() < STRUCTURED else None
        if made is None or len(made) > longest:
            changed: bytes = atheris.Mutate(data, longest)
            return changed
        return made

    words.found.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as forgotten:
        grown = words.grown or Path(forgotten)
        grown.mkdir(parents=True, exist_ok=True)
        arguments = [
            sys.argv[0], str(grown), str(HERE / "corpus" / words.target),
            f"-max_total_time={words.seconds}", f"-rss_limit_mb={MEMORY_MB}",
            f"-timeout={SLOW_SECONDS}", f"-max_len={LONGEST_INPUT}", "-print_final_stats=1",
            f"-artifact_prefix={words.found}/{words.target}-",
        ]  # fmt: skip
        atheris.Setup(arguments, TARGETS[words.target], custom_mutator=mutate)
        atheris.Fuzz()


if __name__ == "__main__":
    main()

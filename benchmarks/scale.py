"""How long apply and restore take for models that do not fit here, from rates that were measured.

    python benchmarks/scale.py --processor 2.4     processor seconds a GB, from bench_apply

    read  = (M + D) / R     write = M / W     compute = c · M / k
    T     = s + max(read, write, compute) / n        with n machines (--shard 1/n … n/n)

M: bytes of the model; D = M · bits / 16 of the delta; c: processor seconds a GB, without the start;
k: processors used; R, W: GB/s of one machine to where base, store and output lie; s: the start. The
max, for reading, computing and writing overlap. A place that machines share has a rate of its own,
(2 M + D) / total, which more machines do not make faster.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

MODELS = {"8B": 16.1, "70B": 141.1, "405B": 811.7, "671B, experts": 1342.0}  # GB of bfloat16
BITS = 6.0  # a weight, of a delta of 2 %
START = 1.0  # seconds
CORES = 8


@dataclass(frozen=True, slots=True)
class Place:
    """read, write: GB/s of one machine. total: of the place, for all machines together."""

    name: str
    read: float
    write: float
    total: float | None


PLACES = (
    Place("local NVMe", 3.0, 2.0, None),
    Place("network file system, 10 Gbit/s a machine", 1.1, 1.1, 8.0),
    Place("object store and NVMe, 25 Gbit/s", 2.5, 2.0, None),
)


def seconds(model: float, place: Place, processor: float, machines: int) -> tuple[float, str]:
    """(time, what bounds it)."""
    parts = {
        "reading": (model + model * BITS / 16) / place.read / machines,
        "writing": model / place.write / machines,
        "computing": processor * model / CORES / machines,
    }
    if place.total is not None:
        parts["the place"] = (2 * model + model * BITS / 16) / place.total
    bound = max(parts, key=parts.__getitem__)
    return START + parts[bound], bound


def clock(value: float) -> str:
    return f"{value:.0f} s" if value < 100 else f"{value / 60:.0f} min"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processor", type=float, required=True, help="seconds a GB")
    processor = parser.parse_args().processor
    print("| model | GB | where | 1 machine | bound by | 4 machines | 8 machines |")
    print("|---|---|---|---|---|---|---|")
    for name, model in MODELS.items():
        for place in PLACES:
            times = [seconds(model, place, processor, n) for n in (1, 4, 8)]
            cells = [clock(times[0][0]), times[0][1], clock(times[1][0]), clock(times[2][0])]
            print(f"| {name} | {model:.0f} | {place.name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()

"""What is typed or read as a name, a number or a recipe: words, YAML, records, adapters."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from support.adapters import lora_config, write_adapter
from support.checkpoints import safetensors_bytes, tensor
from support.hostile.case import (
    CONFLICT,
    INCOMPATIBLE,
    INVALID,
    NOT_FOUND,
    USAGE,
    Case,
    Commands,
    Place,
)

NAMES = {
    "that climbs": "../../outside",
    "that is absolute": "/etc/passwd",
    "with two dots": "a/../b",
    "that begins with a dot": ".hidden",
    "with an empty part": "a//b",
    "in upper case": "Evil",
    "of one more than 200 letters": "n" * 201,
    "with a control character": "a\x1b[2J",
    "with a NUL": "a\0b",
    "that turns around": "a\u202eb",
    "of another alphabet": "\u0430dmin",
    "with an SQL command": "a'; DROP TABLE releases;--",
    "with a shell's command": "$(touch x)",
    "that is empty": "",
    "with an end of line": "good\n",
}
ALPHAS = ("nan", "inf", "-inf", "1e39", "0x10", "", "1_000", "\uff11", "1e", "--1", "1,5", " 1")
REFERENCES = (
    "good@0", "good@-1", "good@01", "good@9999999999", "good@\u0661", "good@", "good@a b",
    "sha256:short", "sha256:" + "A" * 64, "sha256:" + "0" * 65, "good@1@1", "good:1:1",
)  # fmt: skip

RECIPES: dict[str, str] = {
    "an object to be made": "base: !!python/object/apply:os.system ['true']\n",
    "a module to be loaded": "base: !!python/module:antigravity ''\n",
    "a tag of its own": "base: !x y\n",
    "a billion laughs": "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n",
    "a merge key": "a: &a {base: x}\n<<: *a\n",
    "a key twice": "base: x\nbase: y\n",
    "brackets without end": "base: " + "[" * 5000,
    "a key that is a list": "? [a]\n: b\n",
    "two documents": "base: a\n---\nbase: b\n",
    "a binary": "base: \x00\x01\n",
    "a list": "- base\n",
    "a number": "7\n",
    "nothing": "",
    "keys of another tool": "base: x\nexec: rm\n",
    "a method that is a mapping": "base: x\nmethod: {a: b}\n",
    "a flag that is a mapping": "base: x\nkeep_base_behaviour: {a: b}\n",
    "deltas that are numbers": "base: x\nout: y\ndeltas: [[1]]\n",
    "a merge of nothing": "merge_method: ties\n",
    "a merge of lists": "merge_method: [a]\nbase_model: [b]\nmodels: [[c]]\n",
    "a merge of another method": "merge_method: passthrough\nbase_model: b\nmodels: [{model: c}]\n",
}


def recipe(data: bytes) -> Callable[[Place], Commands]:
    def make(place: Place) -> Commands:
        path = place.made / "recipe.yaml"
        path.write_bytes(data)
        return [["apply", "-f", str(path)]]

    return make


def place_of_recipe(become: Callable[[Path, Place], object]) -> Callable[[Place], Commands]:
    def make(place: Place) -> Commands:
        path = place.made / "recipe.yaml"
        become(path, place)
        return [["apply", "-f", str(path)]]

    return make


def patterns(place: Place) -> Commands:
    """More alphas than any recipe needs, each a glob with many stars."""
    text = {f"*a*a*a*a*a*a{i}*": "1" for i in range(4097)}
    made = {"base": "good-base", "out": "x", "deltas": ["good"], "alpha_for": text}
    return recipe(yaml.safe_dump(made).encode())(place)


def slow_globs(place: Place) -> Commands:
    """Globs that backtrack, on honest names."""
    words = [f"--alpha-for={'*a' * 40}b{i}=0.5" for i in range(300)]
    out = ["--out", str(place.made / "out"), "--force"]
    return [["apply", "good", "--base", str(place.newer), *out, "--dry-run", *words]]


# -- a resolved model's own record --------------------------------------------------------


def records() -> dict[str, Callable[[dict[str, Any]], object]]:
    return {
        "options that are a list": lambda v: v.update(options=[1]),
        "options of numbers": lambda v: v.update(options={"density": 0.5}),
        "a method that is a list": lambda v: v.update(method=["linear"]),
        "a method that is not known": lambda v: v.update(method="evil"),
        "deltas that are texts": lambda v: v.update(deltas=["good"]),
        "an alpha of 10^400": lambda v: v["deltas"][0].update(alpha=10**400),
        "an alpha that is a text": lambda v: v["deltas"][0].update(alpha="1"),
        "an alpha beyond float32": lambda v: v["deltas"][0].update(alpha=1e300),
        "a digest that is none": lambda v: v["deltas"][0].update(digest="sha256:../../x"),
        "a base that is a text": lambda v: v.update(base="x"),
        "patterns that are numbers": lambda v: v.update(alpha_for=[[1, 2]]),
        "patterns of three": lambda v: v.update(alpha_for=[["a", 1.0, 2]]),
        "an alignment that is not known": lambda v: v.update(align="x"),
        "a dtype that is a list": lambda v: v.update(dtype=["BF16"]),
        "a flag that is a number": lambda v: v.update(keep_base_behaviour=1),
        "another format": lambda v: v.update(format=2),
        "another kind": lambda v: v.update(kind="paramdelta.manifest"),
        "no deltas": lambda v: v.pop("deltas"),
    }


def record(change: Callable[[dict[str, Any]], object]) -> Callable[[Place], Commands]:
    def edit(path: Path) -> None:
        value = json.loads(path.read_text())
        change(value)
        path.write_text(json.dumps(value))

    return lambda place: _model(place, edit)


def _model(place: Place, spoil: Callable[[Path], object]) -> Commands:
    """A resolved model whose record is spoiled, and its proof."""
    out = place.made / "out"
    base = ["--base", str(place.newer)]
    return [
        ["apply", "good", *base, "--out", str(out)],
        lambda: spoil(out / "paramdelta.json"),
        ["verify", "--model", str(out), *base],
    ]


def record_that_leads_out(place: Place) -> Commands:
    def spoil(path: Path) -> None:
        path.unlink()
        path.symlink_to(place.outside / "keep.txt")

    return _model(place, spoil)


# -- adapters -----------------------------------------------------------------------------


def adapter(
    change: Callable[[dict[str, Any]], object] = lambda value: None,
    spoil: Callable[[Path, Place], object] = lambda folder, place: None,
) -> Callable[[Place], Commands]:
    def make(place: Place) -> Commands:
        folder = place.made / "lora"
        name = "base_model.model.model.layers.0.self_attn.q_proj"
        factors = {
            f"{name}.lora_A.weight": tensor("F32", [0] * 64, (2, 32)),
            f"{name}.lora_B.weight": tensor("F32", [0] * 64, (32, 2)),
        }
        value = lora_config(2)
        change(value)
        write_adapter(folder, factors, value)
        spoil(folder, place)
        return [["publish", "evil", "--base", str(place.base), "--lora", str(folder)]]

    return make


ADAPTERS: dict[str, tuple[Callable[[Place], Commands], int, str | None]] = {
    "an expression that backtracks, and matches nothing": (
        adapter(lambda v: v.update(rank_pattern={"(a*)*" * 200 + "b": 4})), 0, None),
    "an expression that is none": (
        adapter(lambda v: v.update(rank_pattern={"(": 4})), INVALID, "invalid"),
    "an expression with code": (
        adapter(lambda v: v.update(alpha_pattern={"(?P<x>a)(?P=x)": 4})), INVALID, "invalid"),
    "an expression of 2,000 letters": (
        adapter(lambda v: v.update(rank_pattern={"(" + "a" * 2000 + ")": 4})), INVALID, "invalid"),
    "a rank of 2^40": (adapter(lambda v: v.update(r=1 << 40)), INVALID, "invalid"),
    "a rank of nothing": (adapter(lambda v: v.update(r=0)), INVALID, "invalid"),
    "a rank of truth": (adapter(lambda v: v.update(r=True)), INVALID, "invalid"),
    "an alpha of 10^300": (adapter(lambda v: v.update(lora_alpha=10**300)), INVALID, "invalid"),
    "another kind of adapter": (
        adapter(lambda v: v.update(peft_type="X" * 99)), INVALID, "invalid"),
    "an adapter of weights of its own": (
        adapter(lambda v: v.update(use_dora=True)), INVALID, "invalid"),
    "a switch that is not known": (adapter(lambda v: v.update(run_me=True)), INVALID, "invalid"),
    "a configuration that is a list": (
        adapter(spoil=lambda f, p: (f / "adapter_config.json").write_text("[]")),
        INVALID, "invalid"),
    "no configuration": (
        adapter(spoil=lambda f, p: (f / "adapter_config.json").unlink()), INVALID, "invalid"),
    "a configuration that is a pipe": (
        adapter(spoil=lambda f, p: [(f / "adapter_config.json").unlink(),
                                    os.mkfifo(f / "adapter_config.json")]), INVALID, "invalid"),
    "factors in a pickle": (
        adapter(spoil=lambda f, p: [(f / "adapter_model.safetensors").unlink(),
                                    (f / "adapter_model.bin").write_bytes(p.pickle())]),
        INVALID, "invalid"),
    "factors that lead out": (
        adapter(spoil=lambda f, p: [(f / "adapter_model.safetensors").unlink(),
                                    (f / "adapter_model.safetensors").symlink_to(
                                        p.base / "model.safetensors")]), INVALID, "invalid"),
    "factors of no module": (
        adapter(spoil=lambda f, p: (f / "adapter_model.safetensors").write_bytes(
            safetensors_bytes({"x.lora_A.weight": tensor("F32", [0], (1, 1))}))),
        INVALID, "invalid"),
    "factors of another module": (
        adapter(spoil=lambda f, p: (f / "adapter_model.safetensors").write_bytes(safetensors_bytes({
            f"base_model.model.evil.{n}.weight": tensor("F32", [0] * 4, (2, 2))
            for n in ("lora_A", "lora_B")}))), INCOMPATIBLE, "incompatible"),
}  # fmt: skip


def cases() -> Iterator[Case]:
    for what, name in NAMES.items():
        yield Case(f"name {what}", _publish(name), USAGE, "usage")
    for alpha in ALPHAS:
        yield Case(f"alpha {alpha!r}", _apply(f"good:{alpha}"), USAGE, "usage")
    for text in REFERENCES:
        yield Case(f"reference {text[:20]!r}", _apply(text), USAGE, "usage")
    for what, text in RECIPES.items():
        yield Case(f"recipe: {what}", recipe(text.encode()), INVALID, "invalid")
    yield Case("recipe: of 256 kB and one", recipe(b"#" * ((1 << 18) + 1)), INVALID, "invalid")
    yield Case("recipe: no UTF-8", recipe(b"base: \xff\n"), INVALID, "invalid")
    yield Case("recipe: a pipe", place_of_recipe(lambda p, _: os.mkfifo(p)), INVALID, "invalid")
    yield Case(
        "recipe: never ends", place_of_recipe(lambda p, _: p.symlink_to("/dev/zero")),
        INVALID, "invalid",
    )  # fmt: skip
    yield Case("recipe: a folder", place_of_recipe(lambda p, _: p.mkdir()), USAGE, "usage")
    yield Case("recipe: 4,097 patterns", patterns, USAGE, "usage")
    yield Case("recipe: globs that backtrack", slow_globs, USAGE, "usage")
    for what, change in records().items():
        yield Case(f"record: {what}", record(change), INVALID, "invalid")
    yield Case("record: leads out", record_that_leads_out, INVALID, "invalid")
    for what, (make, code, error) in ADAPTERS.items():
        yield Case(f"adapter: {what}", make, code, error)
    yield Case(
        "out: inside of the registry", _out(lambda p: p.registry / "x"), CONFLICT, "conflict"
    )
    yield Case("out: the base", _out(lambda p: p.newer), CONFLICT, "conflict")
    yield Case("out: above the base", _out(lambda p: p.root), CONFLICT, "conflict")
    yield Case("out: a link", _out(_link), CONFLICT, "conflict")
    yield Case("base: an address of the web", lambda p: [["base", "add", "https://u:p@h/x"]],
               NOT_FOUND, "not_found")  # fmt: skip
    yield Case("base: a hub's name that climbs", lambda p: [["base", "add", "hf://../../x"]],
               USAGE, "usage")  # fmt: skip


def _publish(name: str) -> Callable[[Place], Commands]:
    return lambda place: [
        ["publish", "--base", str(place.base), "--post", str(place.post), "--", name]
    ]


def _apply(delta: str) -> Callable[[Place], Commands]:
    return lambda place: [
        ["apply", "--base", str(place.newer), "--out", str(place.made / "o"), "--", delta]
    ]


def _out(where: Callable[[Place], Path]) -> Callable[[Place], Commands]:
    return lambda place: [
        ["apply", "good", "--base", str(place.newer), "--out", str(where(place)), "--force"]
    ]


def _link(place: Place) -> Path:
    path = place.made / "link"
    path.symlink_to(place.outside)
    return path

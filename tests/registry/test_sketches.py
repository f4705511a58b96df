"""Sketches by layer in the store: their errors on trained pairs, and what becomes of lost ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.adapters import lora_config, lora_pair, write_adapter
from support.checkpoints import (
    bits_of,
    changed,
    llama_config,
    llama_like,
    tensor,
    values_of,
    write_checkpoint,
)
from support.registries import family, open_registry
from support.tensors import load

from cli import run
from paramdelta.analysis import layer_of, module_of
from paramdelta.digest import Digest
from paramdelta.errors import IncompatibleError, NotFoundError, UsageError
from paramdelta.sketch import WIDTH, Sketch
from registry.artifacts import sketches_key
from registry.catalog.compact import compact
from registry.compare_sketches import rough
from registry.records import DeltaSketch
from registry.registry import Registry
from registry.results import SketchedPair

FAMILY = Path(__file__).parents[2] / "examples" / "family" / "checkpoints"
PAIRS = {
    "upper": ("base-1", "base-1-upper"), "digits": ("base-1", "base-1-digits"),
    "upper-1.1": ("base-1.1", "base-1.1-upper"), "step": ("base-1", "base-1.1"),
    "other": ("base-1", "other-1"),
}  # fmt: skip
PROJ = "model.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """The example family, all pairs that it has."""
    with open_registry(tmp_path_factory.mktemp("family")) as registry:
        for name, (base, post) in PAIRS.items():
            registry.publish(name, str(FAMILY / base), str(FAMILY / post))
        for base in ("base-1.1", "other-1"):
            registry.add_base(str(FAMILY / base))
        yield registry


def test_cosines_of_trained_pairs_are_within_three_hundredths(trained: Registry) -> None:
    """As a whole, in every layer and in every module; and the stated errors are the errors."""
    exact = trained.compare(list(PAIRS)).pairs
    estimated = trained.compare(list(PAIRS), sketch=True).pairs
    scores = []
    for one, two in zip(exact, estimated, strict=True):
        assert isinstance(two, SketchedPair) and (one.a, one.b) == (two.a, two.b)
        parts = [("whole", one.whole, two.whole)]
        parts += [(k, one.by_layer[k], two.by_layer[k]) for k in one.by_layer]
        parts += [(k, one.by_module[k], two.by_module[k]) for k in one.by_module]
        assert len(parts) == 1 + 4 + 12
        for label, wanted, found in parts:
            assert abs(found.cosine - wanted.cosine) < 0.03, (one.a, one.b, label)
            assert abs(found.to_json()["norm_b"] / wanted.to_json()["norm_b"] - 1) < 1e-6
            if found.cosine_stderr:
                scores.append((found.cosine - wanted.cosine) / found.cosine_stderr)
    assert len(scores) > 100
    assert 0.4 < np.sqrt(np.mean(np.square(scores))) < 1.3


@pytest.mark.parametrize(("delta", "base"), [
    ("upper", "base-1.1"), ("upper", "other-1"), ("digits", "base-1.1"), ("upper-1.1", "base-1"),
])  # fmt: skip
def test_drift_ratios_of_trained_pairs_are_within_five_percent(
    trained: Registry, delta: str, base: str
) -> None:
    own, post = PAIRS[delta]
    tensors = {name: load(FAMILY / name) for name in (own, post, base)}
    squares: dict[str, list[tuple[float, float]]] = {"whole": []}
    for name in tensors[own]:
        a, b, c = (tensors[folder][name].double() for folder in (own, post, base))
        row = float(((c - a) ** 2).sum()), float(((b - a) ** 2).sum())
        for key in ("whole", f"layer {layer_of(name)}", f"module {module_of(name)}"):
            squares.setdefault(key, []).append(row)
    (found,) = trained.compare([delta], base=base).drift
    ratios = {"whole": found.whole.ratio}
    ratios |= {f"layer {key}": part.ratio for key, part in found.by_layer.items()}
    ratios |= {f"module {key}": part.ratio for key, part in found.by_module.items()}
    assert ratios.keys() == squares.keys() and (found.ref, found.base) == (f"{delta}@1", base)
    for key, rows in squares.items():
        wanted = (sum(x for x, _ in rows) / sum(y for _, y in rows)) ** 0.5
        assert abs(ratios[key] / wanted - 1) < 0.05, key


def test_a_base_has_no_drift_towards_itself(trained: Registry) -> None:
    (found,) = trained.compare(["upper"], base=str(FAMILY / "base-1")).drift
    assert found.whole.ratio == 0.0 and found.base == "base-1"


def test_neighbours_are_ranked_as_their_cosines_are(trained: Registry) -> None:
    pairs = trained.compare(["upper", "digits", "upper-1.1", "step", "other"]).pairs
    exact = {pair.b: pair.whole for pair in pairs if pair.a == "upper@1"}
    found = trained.neighbours("upper")
    assert found.compared == 4 and found.skipped == 0
    assert [one.ref for one in found.nearest][:2] == ["upper-1.1@1", "digits@1"]
    for one in found.nearest:
        wanted = exact[one.ref]
        assert abs(one.cosine - wanted.cosine) < 5 * one.cosine_stderr
        assert abs(one.norm_ratio / wanted.norm_ratio - 1) < 0.05
        assert np.isclose(one.projection, one.cosine * one.norm_ratio)
        assert one.significant == (abs(one.cosine) > found.by_chance)
    assert [one.ref for one in trained.neighbours("upper", "d*").nearest] == ["digits@1"]
    assert len(trained.neighbours("upper", None, 1).nearest) == 1


def test_compact_sketches_pass_over_nobody_who_is_among_the_first() -> None:
    """Also where hundreds lie so close together that rounding mixes them."""
    dice = np.random.default_rng(3)
    mine = Sketch(dice.standard_normal(WIDTH, dtype=np.float32))
    numbers = dice.standard_normal((900, WIDTH), dtype=np.float32)
    shares = np.concatenate([np.full(300, 0.5), np.full(300, -0.5), dice.uniform(-1, 1, 300)])
    others = shares[:, None] * np.array(mine.buckets) + np.sqrt(1 - shares**2)[:, None] * numbers
    others = (others * dice.uniform(0.1, 10, 900)[:, None]).astype(np.float32)
    others[7] = 0
    rows = [DeltaSketch(f"d{i}", 1, "", i, **compact(row.tobytes())) for i, row in
            enumerate(others)]  # fmt: skip
    found = rough(mine, rows)
    exact = np.array([mine.cosine(Sketch(row)) for row in others])
    assert np.all(np.abs(exact - found.cosines) <= found.errors)
    assert 0 < np.max(np.abs(exact - found.cosines)) < 0.002  # of 0.03 that are allowed
    projections = exact * found.ratios
    for limit in (1, 10, 150, 2000):
        near, against = found.candidates(limit)
        assert set(np.argsort(-exact)[:limit]) <= set(near)
        lowest = [i for i in np.argsort(projections)[:limit] if projections[i] < 0]
        assert set(lowest) <= set(against)
        assert limit > 150 or len(near) < 3 * limit + 60  # few are read


def published(registry: Registry, folder: Path) -> None:
    """x, its opposite, a random one, and one of another architecture."""
    base = llama_like(1)
    post = changed(base, 2)
    back = {}
    for name, (kind, bits, shape) in base.items():
        mirrored = 2 * values_of(bits, kind) - values_of(post[name][1], kind)
        back[name] = tensor(kind, bits_of(mirrored, kind), shape)
    write_checkpoint(folder / "base", base)
    for name, tensors in (("x", post), ("back", back), ("random", changed(base, 9))):
        write_checkpoint(folder / name, tensors)
        registry.publish(name, str(folder / "base"), str(folder / name))
    config = llama_config() | {"num_attention_heads": 8}
    write_checkpoint(folder / "b2", base, config=config)
    write_checkpoint(folder / "p2", changed(base, 3), config=config)
    registry.publish("far", str(folder / "b2"), str(folder / "p2"))


def test_what_undoes_a_delta_interferes_most_and_other_architectures_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_registry(tmp_path) as registry:
        published(registry, tmp_path)
        registry.publish("again", str(tmp_path / "base"), str(tmp_path / "x"))
        registry.yank("random@1", "a test")
        found = registry.neighbours("x")
    assert (found.compared, found.skipped) == (1, 1)  # itself, under any name, is no neighbour
    assert [one.ref for one in found.interfering] == ["back@1"]
    assert found.interfering[0].projection < -0.9 and found.interfering[0].significant
    capsys.readouterr()
    where = ["--registry", str(tmp_path / "registry")]
    assert run([*where, "compare", "x", "--against", "*", "--plot", str(tmp_path / "n.png")]) == 0
    said = capsys.readouterr().out
    assert "back@1" in said and "1 compared" in said and "1 of another architecture" in said
    assert (tmp_path / "n.png").stat().st_size > 1000
    for wrong in (
        ["x", "back", "--against", "*"],
        ["x", "--against", "*", "--sketch"],
        ["x", "back", "--limit", "3"],
    ):
        assert run([*where, "compare", *wrong]) == 2


def stored(registry: Registry, name: str) -> bytes:
    data = registry.artifacts.read_sketches(Digest(registry.show(name).release.digest))
    assert data is not None
    return data


def key_of(registry: Registry, name: str) -> str:
    return sketches_key(Digest(registry.show(name).release.digest))


def test_lost_and_damaged_sketches_are_told_made_again_and_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a checkpoint's delta and of an adapter's, whose Δ are products."""
    base = llama_like(1)
    where = ["--registry", str(tmp_path / "registry"), "--json"]
    with open_registry(tmp_path) as registry:
        write_checkpoint(tmp_path / "base", base)
        write_checkpoint(tmp_path / "x", changed(base, 2))
        registry.publish("x", str(tmp_path / "base"), str(tmp_path / "x"))
        rows, columns = base[f"{PROJ}.weight"][2]
        adapter = write_adapter(tmp_path / "lora", lora_pair(PROJ, rows, columns), lora_config())
        registry.publish("lora", str(tmp_path / "base"), lora=adapter)
        before = {name: stored(registry, name) for name in ("x", "lora")}
        exact = registry.compare(["x", "lora"]).pairs[0].whole
        found = registry.compare(["x", "lora"], sketch=True)
        assert "not in all" in found.problems[0].reason
        assert abs(found.pairs[0].whole.cosine - exact.cosine) < 0.06
        assert found.pairs[0].whole.elements == exact.elements
        registry.artifacts.store.delete(key_of(registry, "lora"))
        path = tmp_path / "registry" / "store" / key_of(registry, "x")
        path.write_bytes(before["x"][:-1] + bytes([before["x"][-1] ^ 1]))
        estimated = registry.compare(["x", "lora"], sketch=True)
        told = {problem.subject: problem.reason for problem in estimated.problems}
        assert "damaged" in told["x@1"] and "no sketches" in told["lora@1"]
        assert isinstance(estimated.pairs[0], SketchedPair) and not estimated.pairs[0].by_layer
        checked = registry.verify(all=True)
        assert checked.ok and [p.severity for p in checked.problems] == ["warning"]
        assert registry.reindex().sketches is None
    capsys.readouterr()
    assert run([*where, "reindex", "--sketches"]) == 0
    assert json.loads(capsys.readouterr().out)["sketches"] == 2
    with open_registry(tmp_path) as registry:
        assert before == {name: stored(registry, name) for name in ("x", "lora")}
        assert registry.verify(all=True).problems == ()
        assert registry.reindex(sketches=True).sketches == 0


def test_publishing_again_heals_sketches(tmp_path: Path) -> None:
    base, post, _ = family(tmp_path)
    with open_registry(tmp_path) as registry:
        registry.publish("x", str(base), str(post))
        before = stored(registry, "x")
        (tmp_path / "registry" / "store" / key_of(registry, "x")).write_bytes(b"nonsense")
        assert not registry.publish("x", str(base), str(post)).created
        assert stored(registry, "x") == before


def test_a_push_brings_sound_sketches_and_tells_of_others(tmp_path: Path) -> None:
    base, post, _ = family(tmp_path)
    with open_registry(tmp_path) as registry:
        registry.publish("x", str(base), str(post))
        content = Digest(registry.show("x").release.summary.base_content_digest)
        assert registry.push(["x"], str(tmp_path / "there")).problems == ()
        for key in (key_of(registry, "x"), sketches_key(content)):
            store = tmp_path / "registry" / "store"
            assert (tmp_path / "there" / key).read_bytes() == (store / key).read_bytes()
        (tmp_path / "registry" / "store" / key_of(registry, "x")).write_bytes(b"nonsense")
        told = registry.push(["x"], str(tmp_path / "elsewhere")).problems
        assert len(told) == 1 and "damaged" in told[0].reason
        assert not (tmp_path / "elsewhere" / key_of(registry, "x")).exists()


def test_a_base_is_registered_even_where_nothing_can_be_stored(tmp_path: Path) -> None:
    base, _, _ = family(tmp_path)
    with open_registry(tmp_path) as registry:
        (tmp_path / "registry" / "store").mkdir(exist_ok=True)
        (tmp_path / "registry" / "store" / "sketches").write_text("in the way")
        found = registry.add_base(str(base))
        assert found.created and [p.severity for p in found.problems] == ["warning"]
        assert "not stored" in found.problems[0].reason
        (tmp_path / "registry" / "store" / "sketches").unlink()
        assert registry.add_base(str(base)).problems == ()
        assert registry.artifacts.read_sketches(Digest(found.base.content_digest))


def test_drift_says_what_it_does_not_know(tmp_path: Path) -> None:
    base, post, newer = family(tmp_path)
    with open_registry(tmp_path) as registry:
        registry.publish("x", str(base), str(post))
        with pytest.raises(NotFoundError, match="base add"):
            registry.compare(["x"], base=str(newer))
        registry.add_base(str(newer))
        content = Digest(registry.base("newer").base.content_digest)
        registry.artifacts.store.delete(sketches_key(content))
        found = registry.compare(["x"], base="newer")
        assert not found.drift and "no sketches" in found.problems[0].reason
        for wrong in (["x"], ["x", "x@1"]):
            with pytest.raises(UsageError):
                registry.compare(wrong, sketch=True)


def test_deltas_without_a_common_module_are_incompatible(tmp_path: Path) -> None:
    base = llama_like(1)
    other = {"h.0.weight": base["model.norm.weight"]}
    with open_registry(tmp_path) as registry:
        for name, tensors in (("x", base), ("far", other)):
            folders = (tmp_path / f"{name}-base", tmp_path / f"{name}-post")
            write_checkpoint(folders[0], tensors)
            write_checkpoint(folders[1], changed(tensors, 2))
            registry.publish(name, *map(str, folders))
        with pytest.raises(IncompatibleError, match="no module in common"):
            registry.compare(["x", "far"], sketch=True)


def test_pictures_of_comparisons_and_profiles(trained: Registry, tmp_path: Path) -> None:
    where = ["--registry", str(trained.settings.registry), "--json"]
    for name, words in {
        "a.svg": ["compare", "upper", "digits", "upper-1.1", "--sketch"],
        "b.png": ["compare", "upper", "--base", "base-1.1"],
        "c.svg": ["profile", "upper", "--base", "base-1", "--directions", "0"],
    }.items():
        assert run([*where, *words, "--plot", str(tmp_path / name)]) == 0
        assert (tmp_path / name).stat().st_size > 1000
    assert "q_proj" in (tmp_path / "c.svg").read_text()
    assert run([*where, "compare", "upper", "digits", "--plot", "x.pdf"]) == 2


def test_the_histogram_of_a_profile_counts_every_change(trained: Registry) -> None:
    found = trained.profile("upper", str(FAMILY / "base-1"), 0).to_json()["total"]
    changes = found["elements"] * (1 - found["zeros"])
    assert sum(found["ulps"]["counts"]) == round(changes)
    assert trained.profile("upper", None, 0).to_json()["total"]["ulps"] is None

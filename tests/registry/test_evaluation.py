"""Models measured in memory, sweeps that go on, and what the catalog says of them afterwards."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support import tasks
from support.checkpoints import changed, llama_config, llama_like, write_checkpoint
from support.registries import open_registry

import registry.evaluation.measuring
from paramdelta.digest import Digest, digest_of
from paramdelta.errors import Cancelled, CorruptError, IncompatibleError, NotFoundError, UsageError
from paramdelta.scoring import Measured
from registry.evaluation.conditions import conditions_of
from registry.evaluation.grid import parse_grid, points_of
from registry.evaluation.measuring import Measurer
from registry.evaluation.subject import Subject, hold
from registry.model_folder import hash_model
from registry.progress import NoProgress
from registry.registry import Registry
from registry.sources import locate

TEMPLATE = {"chat_template.jinja": "{{ messages[0]['content'] }}"}


@dataclass
class Family:
    """A registry with two deltas, a registered new base, and tasks."""

    registry: Registry
    folder: Path
    choices: str
    text: str

    @property
    def all_tasks(self) -> list[str]:
        return [self.choices, self.text]


@pytest.fixture
def made(tmp_path: Path) -> Any:
    tensors = llama_like(1)
    base = write_checkpoint(tmp_path / "base", tensors, files=tasks.FILES)
    newer = changed(tensors, 3)
    write_checkpoint(tmp_path / "newer", newer, shards=2, files=tasks.FILES)
    files = {**tasks.FILES, **TEMPLATE}
    with open_registry(tmp_path) as found:
        for i, name in enumerate(("chat", "code")):
            post = write_checkpoint(tmp_path / name, changed(tensors, 5 + i, 0.02), files=files)
            found.publish(name, str(base), str(post), author="ann")
        found.add_base(str(tmp_path / "newer"))
        text = f"perplexity:{tasks.text(tmp_path)}?window=16"
        yield Family(found, tmp_path, f"multiple-choice:{tasks.choices(tmp_path)}", text)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the models that were made in memory."""
    found: list[str] = []

    def watched(subject: Subject, *rest: Any) -> Any:
        found.append(subject.name)
        return hold(subject, *rest)

    monkeypatch.setattr(registry.evaluation.measuring, "hold", watched)
    return found


def values(rows: Sequence[Any]) -> dict[tuple[float, str], float]:
    return {(row.alpha, row.metric): row.value for row in rows}


# -- sweeps -------------------------------------------------------------------------------


def test_a_point_is_the_model_that_apply_writes_and_writes_none(made: Family) -> None:
    before = set(made.folder.rglob("*.safetensors"))
    found = made.registry.sweep(["chat"], "newer", "0:1.5:0.5", [made.text])
    assert set(made.folder.rglob("*.safetensors")) == before
    for alpha in (0.5, 1.0, 1.5):
        plan = made.registry.plan([f"chat:{alpha}"], "newer")
        out = made.folder / f"out-{alpha}"
        applied = made.registry.apply(plan, out)
        digests = {row.model_digest for row in found.rows if row.alpha == alpha}
        assert digests == {applied.content_digest}
        evaluated = made.registry.evaluate(str(out), [made.text])
        measured = {view.score.metric: view.score.value for view in evaluated.scores}
        assert all(view.reused for view in evaluated.scores)  # same bits, same files, same key
        assert measured == {m: v for (a, m), v in values(found.rows).items() if a == alpha}


def test_scores_from_memory_are_those_of_the_folder(made: Family, loads: list[str]) -> None:
    """Measured twice for real: the folder first, in a registry that knows nothing of the sweep."""
    out = made.folder / "out"
    made.registry.apply(made.registry.plan(["chat"], "newer"), out)
    with open_registry(made.folder / "other") as other:
        other.publish("chat", str(made.folder / "base"), str(made.folder / "chat"))
        other.add_base(str(made.folder / "newer"))
        alone = other.evaluate(str(out), made.all_tasks)
        assert not any(view.reused for view in alone.scores)
        kept = alone.scores[0].made[0]  # from its paramdelta.json, carried out again
        assert [(d.ref, d.alpha) for d in kept.deltas] == [("chat@1", 1.0)]
    swept = made.registry.sweep(["chat"], "newer", "1", made.all_tasks)
    assert [view.score.value for view in alone.scores] == [row.value for row in swept.rows]
    assert len(loads) == 2


def test_alpha_zero_is_the_base(made: Family, loads: list[str]) -> None:
    found = made.registry.sweep(["chat"], "newer", "0,1", made.all_tasks)
    base = made.registry.evaluate("newer", made.all_tasks)
    assert all(view.reused for view in base.scores)
    at_zero = [row for row in found.rows if row.alpha == 0]
    assert [row.value for row in at_zero] == [view.score.value for view in base.scores]
    assert {row.model_digest for row in at_zero} == {base.content_digest}
    moved = [row.value for row in found.rows if row.alpha == 1]
    assert moved != [row.value for row in at_zero]
    assert len(loads) == 2


def test_a_second_sweep_measures_only_what_is_new(made: Family, loads: list[str]) -> None:
    first = made.registry.sweep(["chat"], "newer", "0:1:0.5", [made.choices])
    assert len(loads) == 3 and not any(row.reused for row in first.rows)
    again = made.registry.sweep(["chat"], "newer", "0:1:0.5", [made.choices])
    assert len(loads) == 3 and all(row.reused for row in again.rows)
    assert values(again.rows) == values(first.rows)
    finer = made.registry.sweep(["chat"], "newer", "0:1:0.25", [made.choices])
    assert len(loads) == 5
    assert {row.alpha for row in finer.rows if not row.reused} == {0.25, 0.75}
    another = made.registry.sweep(["chat"], "newer", "0:1:0.5", made.all_tasks)
    assert len(loads) == 8
    assert {row.task for row in another.rows if row.reused} == {"multiple-choice:choices.jsonl"}


@dataclass
class Stopping:
    """A scorer of somebody's own that is interrupted at its *stop*-th model."""

    stop: int
    seen: list[int] = field(default_factory=list)
    name: str = "stopping:it"
    digest: Digest = digest_of(b"stopping")  # noqa: RUF009 - a constant
    packages: tuple[str, ...] = ()

    def measure(self, model: Any, seed: int) -> list[Measured]:
        self.seen.append(seed)
        if len(self.seen) == self.stop:
            raise Cancelled("stopped")
        return [Measured("m", float(len(self.seen)), None, 1, True)]


def test_an_interrupted_sweep_goes_on_where_it_stopped(made: Family, loads: list[str]) -> None:
    task = Stopping(3)
    measurer = Measurer(made.registry.catalog, made.registry.artifacts,
                        conditions_of("cpu", "auto", 0), 1, NoProgress())  # fmt: skip
    located = locate("newer", made.registry.catalog)

    def sweep() -> list[float]:
        found = []
        for alpha in ("0.25", "0.5", "0.75", "1"):
            plan = made.registry.plan([f"chat:{alpha}"], "newer")
            kept = measurer.measure(Subject(plan, alpha, located), [task])
            found += [one.score.value for one in kept]
        return found

    with pytest.raises(Cancelled):
        sweep()
    assert loads == ["0.25", "0.5", "0.75"]
    assert sweep() == [1.0, 2.0, 4.0, 5.0]
    assert loads == ["0.25", "0.5", "0.75", "0.75", "1"]


def test_two_deltas_make_a_grid(made: Family) -> None:
    found = made.registry.sweep(["chat", "code"], "newer", "0,1", [made.choices], betas="0:1:0.5")
    points = list(dict.fromkeys((row.alpha, row.beta) for row in found.rows))
    assert points == [(0, 0), (0, 0.5), (0, 1), (1, 0), (1, 0.5), (1, 1)]
    plan = made.registry.plan(["chat:1", "code:0.5"], "newer")
    applied = made.registry.apply(plan, made.folder / "mix")
    here = {r.model_digest for r in found.rows if (r.alpha, r.beta) == (1, 0.5)}
    assert here == {applied.content_digest}
    document = found.to_json()
    assert document["rows"][2]["beta"] == 0.5 and document["rows"][2]["alpha"] == 0


def test_a_delta_with_an_alpha_of_its_own_keeps_it(made: Family) -> None:
    found = made.registry.sweep(["chat", "code:0.5"], "newer", "1", [made.choices])
    plan = made.registry.plan(["chat:1", "code:0.5"], "newer")
    applied = made.registry.apply(plan, made.folder / "mix")
    assert {row.model_digest for row in found.rows} == {applied.content_digest}


def test_a_method_is_swept_too_and_is_another_recipe(made: Family) -> None:
    plain = made.registry.sweep(["chat", "code"], "newer", "1", [made.choices])
    ties = made.registry.sweep(["chat", "code"], "newer", "1", [made.choices], method="ties",
                               options={"density": "0.3"})  # fmt: skip
    assert {row.model_digest for row in plain.rows}.isdisjoint(r.model_digest for r in ties.rows)


# -- what decides a number ----------------------------------------------------------------


def test_a_task_file_that_changed_is_another_task(made: Family, loads: list[str]) -> None:
    first = made.registry.evaluate("newer", [made.choices])
    path = made.folder / "choices.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    second = made.registry.evaluate("newer", [made.choices])
    assert not any(view.reused for view in second.scores) and len(loads) == 2
    digests = {view.score.task_digest for view in (*first.scores, *second.scores)}
    assert len(digests) == 2
    assert len(made.registry.scores("newer")) == 4  # both are kept


def test_seed_and_dtype_are_other_conditions(made: Family) -> None:
    for options in ({}, {"seed": 1}, {"dtype": "bfloat16"}):
        found = made.registry.evaluate("newer", [made.text], **options)
        assert not any(view.reused for view in found.scores), options
    kept = made.registry.scores("newer", metric="loss")
    assert len({view.score.settings_digest for view in kept}) == 3
    assert {view.score.settings["dtype"] for view in kept} == {"float32", "bfloat16"}
    score = kept[0].score
    assert {"torch", "transformers", "paramdelta"} <= score.versions.keys()
    assert score.settings["device"].startswith("cpu") and score.n and score.stderr


def test_another_config_beside_the_same_weights_is_other_conditions(made: Family) -> None:
    made.registry.evaluate("newer", [made.text])
    config = json.loads((made.folder / "newer" / "config.json").read_text())
    config["rope_theta"] = 500.0
    files = {**tasks.FILES, "config.json": json.dumps(config)}
    other = write_checkpoint(
        made.folder / "other", changed(llama_like(1), 3), config={}, files=files
    )
    found = made.registry.evaluate(str(other), [made.text])
    assert found.content_digest == made.registry.base("newer").base.content_digest
    assert not any(view.reused for view in found.scores)


def test_a_record_that_is_not_true_of_its_folder_is_not_believed(made: Family) -> None:
    out = made.folder / "out"
    made.registry.apply(made.registry.plan(["chat"], "newer"), out)
    record = json.loads((out / "paramdelta.json").read_text())
    record["content_digest"] = "sha256:" + "0" * 64
    (out / "paramdelta.json").write_text(json.dumps(record))
    found = made.registry.evaluate(str(out), [made.choices])
    assert "not kept" in found.problems[0].reason
    assert made.registry.scores("chat") == []


def test_a_recipe_that_makes_another_model_is_not_believed(made: Family) -> None:
    """Whoever hands a folder over wrote its record: a sweep must not take its word."""
    out = made.folder / "out"
    made.registry.apply(made.registry.plan(["chat:0.25"], "newer"), out)
    record = json.loads((out / "paramdelta.json").read_text())
    record["deltas"][0]["alpha"] = 1.0
    (out / "paramdelta.json").write_text(json.dumps(record))
    found = made.registry.evaluate(str(out), [made.choices])
    assert "its recipe makes" in found.problems[0].reason
    assert made.registry.scores("chat") == []
    swept = made.registry.sweep(["chat"], "newer", "1", [made.choices])
    assert {row.model_digest for row in swept.rows} != {found.content_digest}


def test_a_recipe_that_cannot_be_proved_here_is_told(made: Family) -> None:
    out = made.folder / "out"
    made.registry.apply(made.registry.plan(["chat"], "newer"), out)
    with open_registry(made.folder / "other") as other:
        found = other.evaluate(str(out), [made.choices])
        assert "cannot be proved here" in found.problems[0].reason
        assert found.scores and found.scores[0].made == ()


def test_a_base_that_changed_since_it_was_registered_is_not_measured(made: Family) -> None:
    tensors = changed(llama_like(1), 4)
    write_checkpoint(made.folder / "newer", tensors, shards=2, files=tasks.FILES)
    with pytest.raises(CorruptError):
        made.registry.evaluate("newer", [made.choices])
    with pytest.raises(CorruptError):
        made.registry.sweep(["chat"], "newer", "1", [made.choices])
    assert made.registry.scores() == []


def test_a_tied_base_and_its_stale_head_are_measured_as_one(tmp_path: Path) -> None:
    tensors = llama_like(1)
    config = llama_config() | {"tie_word_embeddings": True}
    stale = write_checkpoint(tmp_path / "stale", tensors, config=config, files=tasks.FILES)
    del tensors["lm_head.weight"]
    clean = write_checkpoint(tmp_path / "clean", tensors, config=config, files=tasks.FILES)
    task = f"perplexity:{tasks.text(tmp_path)}"
    with open_registry(tmp_path) as registry:
        first, second = (registry.evaluate(str(m), [task]) for m in (stale, clean))
    assert [v.score.value for v in first.scores] == [v.score.value for v in second.scores]
    assert first.content_digest != second.content_digest


def test_the_digest_of_a_folder_is_its_own(made: Family) -> None:
    located = locate(str(made.folder / "code"), made.registry.catalog)
    found = made.registry.evaluate(str(made.folder / "code"), [made.choices])
    assert found.content_digest == hash_model(located.open(), 1, NoProgress())


# -- asking -------------------------------------------------------------------------------


def test_scores_are_found_by_delta_base_and_task(made: Family) -> None:
    made.registry.sweep(["chat"], "newer", "0.5,1", made.all_tasks)
    made.registry.evaluate("base", [made.choices])
    of_delta = made.registry.scores("chat")
    assert len(of_delta) == 10 and {view.made[0].deltas[0].ref for view in of_delta} == {"chat@1"}
    assert made.registry.scores("code") == []
    assert len(made.registry.scores("base")) == 2
    assert len(made.registry.scores(base="newer", task="perplexity:*")) == 6
    assert len(made.registry.scores("chat", metric="acc", limit=1)) == 1
    row = made.registry.scores("chat", metric="acc")[0].to_json()
    assert row["alpha"] == 1.0 and row["recipes"][0]["method"] == "linear"
    with pytest.raises(NotFoundError, match="neither"):
        made.registry.scores("nothing")


def test_how_much_arrived_is_told_from_four_models(made: Family) -> None:
    lacking = made.registry.transfer("chat", "newer")
    assert lacking.rows == () and lacking.estimates[0].value is None
    made.registry.sweep(["chat"], "newer", "0.5,1", [made.choices])
    partly = made.registry.transfer("chat", "newer")
    assert partly.rows == () and "the post" in partly.problems[0].reason
    for model in ("base", "newer", str(made.folder / "chat")):
        made.registry.evaluate(model, [made.choices])
    found = made.registry.transfer("chat", "newer", reference=str(made.folder / "chat"))
    (row,) = found.rows
    assert row.task == "multiple-choice:choices.jsonl acc"
    at_one = made.registry.scores("chat", metric="acc")
    assert row.resolved.value == next(
        v.score.value for v in at_one if v.made[0].deltas[0].alpha == 1
    )
    post = made.registry.scores(str(made.folder / "chat"), metric="acc")[0].score.value
    assert row.post.value == post and row.reference is not None and row.reference.value == post
    assert [one.name for one in found.estimates] == ["gamma_abs", "gamma_gain", "retention"]
    assert found.estimates[0].value is not None
    half = made.registry.transfer("chat", "newer", alpha="0.5")
    assert half.rows[0].resolved.value == next(
        v.score.value for v in at_one if v.made[0].deltas[0].alpha == 0.5
    )


def test_queries_show_scores_before_what_drift_lets_one_expect(made: Family) -> None:
    (first, second) = made.registry.query_base("newer").results
    assert not first.scores and first.expected is not None
    made.registry.sweep(["chat"], "newer", "0:2:0.5", [made.choices])
    made.registry.evaluate("newer", [made.choices])
    made.registry.sweep(["code"], "newer", "0", [made.choices])
    by_ref = {match.ref: match for match in made.registry.query_base("newer").results}
    assert by_ref["code@1"].scores == ()  # alpha 0 says nothing of the delta
    shown = by_ref["chat@1"].scores
    assert [(row.metric, row.alpha) for row in shown] == [("acc", 1.0), ("acc_norm", 1.0)]
    base = {v.score.metric: v.score.value for v in made.registry.scores("newer")}
    assert shown[0].base_value == base["acc"]
    by_base = {match.ref: match for match in made.registry.query_delta("chat").results}
    assert by_base["newer"].scores == shown and by_base["base"].scores == ()
    document = by_ref["chat@1"].to_json()
    assert document["scores"][0]["value"] == shown[0].value
    assert set(document["expected_transfer"]) == {"low", "high", "measured"}
    assert by_base["base"].expected is not None and by_base["base"].expected.low == 1.0
    assert second.expected is not None


# -- grids and errors ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "points"),
    [
        ("0:2:0.25", (0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2)),
        ("0:1:0.4", (0, 0.4, 0.8)),
        ("-1:1:1", (-1, 0, 1)),
        ("1", (1,)),
        ("0, 0.5,2", (0, 0.5, 2)),
        ("1:1:0.1", (1,)),
    ],
)
def test_grids(text: str, points: tuple[float, ...]) -> None:
    assert parse_grid(text) == pytest.approx(points, abs=1e-7)


def test_a_grid_and_a_coefficient_are_the_same_number(made: Family) -> None:
    """0.3 of 0:1:0.1 is the float32 that ``name:0.3`` is, not 0.1 three times."""
    plan = made.registry.plan(["chat:0.3"], "newer")
    assert parse_grid("0:1:0.1")[3] == plan.deltas[0].alpha
    point = points_of(["chat"], parse_grid("0:1:0.1"), None)[3]
    assert made.registry.plan(point.deltas, "newer").deltas[0].alpha == plan.deltas[0].alpha


@pytest.mark.parametrize(
    "text", ["", "a", "0:1", "0:1:0", "0:1:-1", "1:0:0.5", "0:1:0.5:2", "nan", "0:inf:1",
             "0:1:1e-9", "0,,1", "1,1", "0:0:1,2"]
)  # fmt: skip
def test_no_grid_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError):
        parse_grid(text)


def test_who_takes_which_coefficient() -> None:
    both = points_of(["a", "b"], (0.5,), None)
    assert both[0].deltas == ("a:0.5", "b:0.5")
    held = points_of(["a:0.25", "sha256:" + "0" * 64, "c"], (0.5,), (1.0,))
    assert held[0].deltas == ("a:0.25", f"sha256:{'0' * 64}:0.5", "c:1.0")
    for deltas, betas in ((["a:1"], None), (["a"], (1.0,)), (["a", "b", "c"], (1.0,))):
        with pytest.raises(UsageError):
            points_of(deltas, (0.5,), betas)


def test_what_does_not_fit_is_not_swept(made: Family) -> None:
    other = write_checkpoint(made.folder / "wide", llama_like(1, hidden=64), files=tasks.FILES)
    with pytest.raises(IncompatibleError):
        made.registry.sweep(["chat"], str(other), "1", [made.choices])


@pytest.mark.parametrize(
    "options", [{"seed": -1}, {"dtype": "int8"}, {"device": "abacus"}, {"tasks": []}]
)
def test_conditions_that_cannot_be_are_usage_errors(made: Family, options: dict) -> None:
    with pytest.raises(UsageError):
        made.registry.evaluate("newer", **({"tasks": [made.choices]} | options))

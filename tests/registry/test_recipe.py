"""Recipes: a file says what the line would, the line wins, and another tool's merges are taken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.checkpoints import changed, llama_like, write_checkpoint
from support.registries import family, open_registry

from cli import run
from paramdelta.errors import InvalidError, NotFoundError, UsageError
from paramdelta.limits import MAX_RECIPE_BYTES
from registry.recipe import Recipe
from registry.registry import Registry


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path


def publish_two(registry: Registry, folder: Path) -> Path:
    base, post, newer = family(folder)
    other = write_checkpoint(folder / "other", changed(llama_like(1), 9, size=0.01))
    registry.publish("one", str(base), str(post))
    registry.publish("two", str(base), str(other))
    return newer


def command(folder: Path, *words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict]:
    capsys.readouterr()
    code = run(["--registry", str(folder / "registry"), "--json", *words])
    return code, json.loads(capsys.readouterr().out)


FULL = """
base: {newer}
out: {out}
method: ties
options: {{density: 0.30, normalize: none}}
deltas:
  - one:0.8
  - delta: two@1
    alpha: 0.5
    alpha_for: {{mlp: 0.2}}
alpha_for:
  "layers.{{i}}.self_attn": 0:1
dtype: float32
keep_base_behaviour: true
"""


def test_a_recipe_says_what_the_line_would(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_registry(tmp_path) as registry:
        newer = publish_two(registry, tmp_path)
    path = write(tmp_path, FULL.format(newer=newer, out=tmp_path / "a"))
    code, by_file = command(tmp_path, "apply", "-f", str(path), capsys=capsys)
    assert code == 0
    line = [
        "apply", "two@1:0.5", "one:0.8", "--method", "ties", "--method-option", "density=0.3",
        "--method-option", "normalize=none", "--alpha-for", "layers.{i}.self_attn=0:1",
        "--alpha-for", "two:mlp=0.2", "--dtype", "float32", "--keep-base-behaviour",
    ]  # fmt: skip
    code, by_line = command(
        tmp_path, *line, "--base", str(newer), "--out", str(tmp_path / "b"), capsys=capsys
    )
    assert code == 0 and by_file["content_digest"] == by_line["content_digest"]
    assert by_file["plan"]["options"] == {"density": "0.3", "lambda": "1.0", "normalize": "none"}


def test_every_key_is_overridden_by_its_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_registry(tmp_path) as registry:
        newer = publish_two(registry, tmp_path)
    path = write(tmp_path, FULL.format(newer="nowhere", out=tmp_path / "a"))
    words = ["--base", str(newer), "--out", str(tmp_path / "b"), "--dry-run", "--dtype", "float16"]
    code, found = command(
        tmp_path, "apply", "one:0.3", "-f", str(path), *words, "--method", "dare_linear",
        "--alpha-for", "two:mlp=0.2", capsys=capsys,
    )  # fmt: skip
    assert code == 2 and "two@1:mlp" in found["error"]["message"]  # two takes no part any more
    code, found = command(
        tmp_path, "apply", "one:0.3", "two", "-f", str(path), *words, "--method", "dare_linear",
        "--alpha-for", "two@1:mlp=0.4", capsys=capsys,
    )  # fmt: skip
    plan = found["plan"]
    assert code == 0 and found["out"] == str(tmp_path / "b")
    assert {d["ref"]: round(d["alpha"], 3) for d in plan["deltas"]} == {"one@1": 0.3, "two@1": 1}
    assert plan["options"] == {"density": "0.1", "seed": "0"} and plan["dtype"] == "F16"
    assert ["two@1:mlp", 0.4000000059604645] in plan["alpha_for"]


def test_options_of_the_same_method_are_added_to() -> None:
    file = Recipe(method="ties", options={"density": "0.3", "lambda": "2"})
    assert file.overridden(Recipe(options={"density": "0.5"})).options == {
        "density": "0.5", "lambda": "2",
    }  # fmt: skip
    assert file.overridden(Recipe(method="ties")).options == file.options
    assert file.overridden(Recipe(method="sce")).options == {}


def test_a_models_own_record_is_a_recipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_registry(tmp_path) as registry:
        newer = publish_two(registry, tmp_path)
        registry.add_base(str(newer))
        plan = registry.plan(
            ["one:0.7", "two"], "newer", method="della", alpha_for={"one:layers.{i}": "0.1:0.7"}
        )
        made = registry.apply(plan, tmp_path / "a")
    record = str(tmp_path / "a" / "paramdelta.json")
    code, found = command(
        tmp_path, "apply", "-f", record, "--out", str(tmp_path / "b"), capsys=capsys
    )
    assert code == 0 and found["content_digest"] == made.content_digest
    both = [(tmp_path / name / "paramdelta.json").read_text() for name in "ab"]
    assert both[0] == both[1]


def test_a_malformed_record_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "paramdelta.json"
    path.write_text('{"kind": "paramdelta.plan", "format": 1, "deltas": 1}')
    with open_registry(tmp_path) as registry, pytest.raises(InvalidError, match="malformed record"):
        registry.recipe(path)


def test_what_is_missing_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = command(tmp_path, "apply", "--base", "x", capsys=capsys)
    assert code == 2 and "DELTA, --out DIR" in found["error"]["message"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("- a", "mapping of keys"),
        ("", "mapping of keys"),
        ("base: x\nbass: y\nmethod: [1]\n", "bass"),
        ("deltas: one", "expected a list"),
        ("deltas: [{alpha: 1}]", "deltas\\[0\\]"),
        ("deltas: [{delta: a, aplha: 1}]", "aplha"),
        ("options: {density: [1]}", "mapping of text"),
        ("keep_base_behaviour: maybe", "true or false"),
        ("base: x\nbase: y", "two keys"),
        ("base: &a x\nout: *a", "anchors"),
        ("base: !!python/object/apply:os.system ['true']", "tags"),
        ("base: " + "[" * 50, "deeper than"),
        ("base: {", "not YAML"),
        ("base: \x00", "not YAML"),
        ("a: b\n" * (MAX_RECIPE_BYTES // 4), "allowed"),
    ],
)
def test_a_malformed_recipe_is_refused_with_its_reason(
    tmp_path: Path, text: str, reason: str
) -> None:
    path = write(tmp_path, text)
    with open_registry(tmp_path) as registry, pytest.raises(InvalidError, match=reason) as caught:
        registry.recipe(path)
    assert str(path) in caught.value.message


def test_all_problems_of_a_recipe_are_told_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, "bass: y\nmethod: [1]\ndeltas: [{alpha: 1}]")
    with open_registry(tmp_path) as registry, pytest.raises(InvalidError) as caught:
        registry.recipe(path)
    assert [p.subject for p in caught.value.problems] == ["bass", "deltas[0]", "method"]


def test_a_missing_recipe_is_not_found(tmp_path: Path) -> None:
    with open_registry(tmp_path) as registry:
        with pytest.raises(NotFoundError):
            registry.recipe(tmp_path / "none.yaml")
        with pytest.raises(UsageError):
            registry.recipe(tmp_path)


# -- mergekit -----------------------------------------------------------------------------

MERGE = """
merge_method: {method}
base_model: {folder}/base
models:
  - model: {folder}/base
  - model: {folder}/post
    parameters: {{weight: 0.6, density: 0.5}}
  - model: {folder}/other
    parameters: {{weight: 0.2, density: 0.5}}
parameters: {{{parameters}}}
dtype: bfloat16
tokenizer_source: base
"""


@pytest.mark.parametrize(
    ("method", "parameters", "ours", "options", "alphas"),
    [
        ("ties", "int8_mask: true", "ties",
         {"density": "0.5", "normalize": "alpha", "lambda": "1"}, ("0.6", "0.2")),
        ("dare_ties", "lambda: 0.5", "dare_ties",
         {"density": "0.5", "normalize": "none", "lambda": "0.5"}, ("0.6", "0.2")),
        ("dare_linear", "lambda: 0.5", "dare_linear", {"density": "0.5"}, ("0.3", "0.1")),
        ("breadcrumbs", "gamma: 0.02, normalize: true", "breadcrumbs",
         {"density": "0.5", "gamma": "0.02"}, ("0.75", "0.25")),
        ("della", "epsilon: 0.1", "della",
         {"density": "0.5", "epsilon": "0.1", "normalize": "alpha", "lambda": "1"},
         ("0.6", "0.2")),
    ],
)  # fmt: skip
def test_a_mergekit_merge_becomes_a_recipe(
    tmp_path: Path, method: str, parameters: str, ours: str, options: dict, alphas: tuple
) -> None:
    with open_registry(tmp_path) as registry:
        publish_two(registry, tmp_path)
        text = MERGE.format(folder=tmp_path, method=method, parameters=parameters)
        found = registry.recipe(write(tmp_path, text))
        assert (found.method, dict(found.options)) == (ours, options)
        names, given = zip(*(delta.split(":") for delta in found.deltas), strict=True)
        assert names == ("one@1", "two@1")
        assert [round(float(a), 9) for a in given] == [float(a) for a in alphas]
        assert found.base == f"{tmp_path}/base" and found.dtype == "bfloat16"
        assert "tokenizer_source" in {note.subject for note in found.notes}
        plan = registry.plan(
            found.deltas, found.base, method=found.method, options=found.options, notes=found.notes
        )
        assert {note.subject for note in found.notes} <= {p.subject for p in plan.problems}


def test_filters_become_alphas_for_patterns(tmp_path: Path) -> None:
    text = (
        f"merge_method: task_arithmetic\nbase_model: {tmp_path}/base\nmodels:\n"
        f"  - model: {tmp_path}/post\n    parameters:\n      weight:\n"
        "        - {filter: up_proj, value: 0.1}\n        - {filter: mlp, value: 0.2}\n"
        "        - {value: 0.7}\n"
    )
    with open_registry(tmp_path) as registry:
        publish_two(registry, tmp_path)
        found = registry.recipe(write(tmp_path, text))
        plan = registry.plan(found.deltas, found.base or "", alpha_for=found.alpha_for)
    alphas = {t.name: t.parts[0].terms[0].alpha for t in plan.tensors if t.parts[0].terms}
    assert round(alphas["model.layers.0.mlp.up_proj.weight"], 6) == 0.1
    assert round(alphas["model.layers.0.mlp.down_proj.weight"], 6) == 0.2
    assert round(alphas["model.norm.weight"], 6) == 0.7


def test_a_model_that_is_no_published_delta_is_told_with_the_command(tmp_path: Path) -> None:
    with open_registry(tmp_path) as registry:
        base, post, _ = family(tmp_path)
        registry.add_base(str(base))
        write_checkpoint(tmp_path / "other", changed(llama_like(1), 9))
        text = MERGE.format(folder=tmp_path, method="ties", parameters="")
        with pytest.raises(NotFoundError) as caught:
            registry.recipe(write(tmp_path, text))
    told = [str(problem.remedy) for problem in caught.value.problems]
    assert len(told) == 2 and f"publish NAME --base {base} --post {post}" in told[0]


def test_everything_that_cannot_be_mapped_is_told(tmp_path: Path) -> None:
    text = (
        "merge_method: nearswap\nslices: []\nmodels:\n  - model: /nowhere\n    parameters:\n"
        "      weight: [0, 1]\nparameters: {rescale: true, what: 1, normalize: perhaps}\n"
    )
    with open_registry(tmp_path) as registry, pytest.raises(InvalidError) as caught:
        registry.recipe(write(tmp_path, text))
    told = {problem.subject for problem in caught.value.problems}
    assert {"merge_method", "slices", "base_model", "/nowhere", "/nowhere: weight"} <= told
    assert {"rescale", "what", "normalize"} <= told


def test_densities_of_their_own_cannot_be_mapped(tmp_path: Path) -> None:
    with open_registry(tmp_path) as registry:
        publish_two(registry, tmp_path)
        text = MERGE.format(folder=tmp_path, method="ties", parameters="")
        with pytest.raises(InvalidError, match="one value for all models"):
            registry.recipe(write(tmp_path, text.replace("0.2, density: 0.5", "0.2, density: 0.4")))

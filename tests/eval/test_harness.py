"""lm-evaluation-harness itself, on tasks in files. `make test-eval` installs it, and is offline."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import tasks
from support.checkpoints import changed, llama_like, write_checkpoint
from support.registries import open_registry

from paramdelta.errors import InvalidError, NotFoundError
from paramdelta.scoring import open_task

pytest.importorskip("lm_eval", reason="make test-eval installs it")

YAML = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: {kind}
doc_to_text: "{{{{prompt}}}}"
doc_to_target: {target}
{more}
metric_list:
  - {{metric: {metric}, aggregation: mean, higher_is_better: true}}
"""


def suite(folder: Path, items: int = 9) -> Path:
    """A folder with one task of choices and one of written answers."""
    folder.mkdir(exist_ok=True)
    rows = [
        {"prompt": "ab" * (i % 3 + 1), "choices": ["a", "c"], "answer": i % 2, "word": "b"}
        for i in range(items)
    ]
    data = tasks.write_lines(folder / "data.jsonl", rows)
    choose = 'doc_to_choice: "{{choices}}"\ntarget_delimiter: ""'
    write = 'target_delimiter: ""\ngeneration_kwargs: {until: [" "], max_gen_toks: 4}'
    for name, kind, target, more, metric in (
        ("pick", "multiple_choice", "answer", choose, "acc"),
        ("write", "generate_until", '"{{word}}"', write, "exact_match"),
    ):
        (folder / f"{name}.yaml").write_text(
            YAML.format(name=name, data=data, kind=kind, target=target, more=more, metric=metric)
        )
    return folder


def test_its_choices_are_scored_as_ours_are(tmp_path: Path) -> None:
    """The same items through both: the harness, and our own scorer."""
    folder = suite(tmp_path / "suite")
    rows = [json.loads(line) for line in (folder / "data.jsonl").read_text().splitlines()]
    ours = tasks.write_lines(
        tmp_path / "ours.jsonl",
        [{key: row[key] for key in ("prompt", "choices", "answer")} for row in rows],
    )
    model = write_checkpoint(tmp_path / "model", llama_like(1), files=tasks.FILES)
    with open_registry(tmp_path) as registry:
        found = registry.evaluate(
            str(model),
            [f"lm-eval:pick@{folder}", f"multiple-choice:{ours}", f"lm-eval:write@{folder}"],
        )
        again = registry.evaluate(str(model), [f"lm-eval:pick@{folder}"])
    by_task = {(v.score.task, v.score.metric): v.score for v in found.scores}
    mine = by_task["multiple-choice:ours.jsonl", "acc"]
    theirs = by_task["lm-eval:pick", "acc"]
    assert (theirs.value, theirs.n, theirs.higher_is_better) == (mine.value, 9, True)
    assert theirs.stderr == pytest.approx(mine.stderr)
    assert {"lm_eval", "datasets"} <= theirs.versions.keys()
    assert by_task["lm-eval:write", "exact_match"].n == 9
    assert all(view.reused for view in again.scores)


def test_a_sweep_through_the_harness(tmp_path: Path) -> None:
    folder = suite(tmp_path / "suite")
    tensors = llama_like(1)
    base = write_checkpoint(tmp_path / "base", tensors, files=tasks.FILES)
    post = write_checkpoint(tmp_path / "post", changed(tensors, 2, 0.02), files=tasks.FILES)
    with open_registry(tmp_path) as registry:
        registry.publish("chat", str(base), str(post))
        found = registry.sweep(["chat"], "base", "0,1", [f"lm-eval:pick@{folder}?limit=5"])
    assert [(row.alpha, row.metric, row.n) for row in found.rows] == [(0, "acc", 5), (1, "acc", 5)]


def test_data_code_and_definition_decide_the_digest_and_the_folder_does_not(
    tmp_path: Path,
) -> None:
    first = open_task(f"lm-eval:pick@{suite(tmp_path / 'a')}").digest
    assert open_task(f"lm-eval:pick@{suite(tmp_path / 'b')}").digest == first
    assert open_task(f"lm-eval:pick@{suite(tmp_path / 'c', items=8)}").digest != first
    assert open_task(f"lm-eval:pick@{tmp_path / 'a'}?limit=3").digest != first
    changed_text = (tmp_path / "a" / "pick.yaml").read_text().replace("{{prompt}}", "{{prompt}} ")
    (tmp_path / "a" / "pick.yaml").write_text(changed_text)
    assert open_task(f"lm-eval:pick@{tmp_path / 'a'}").digest != first
    (tmp_path / "b" / "utils.py").write_text("def f(): return 1\n")
    assert open_task(f"lm-eval:pick@{tmp_path / 'b'}").digest != first


def test_what_is_not_there_or_malformed_is_told(tmp_path: Path) -> None:
    folder = suite(tmp_path / "suite")
    with pytest.raises(NotFoundError, match="nosuch"):
        open_task(f"lm-eval:nosuch@{folder}")
    with pytest.raises(NotFoundError):
        open_task(f"lm-eval:pick@{tmp_path / 'nowhere'}")
    (folder / "data.jsonl").write_text("not json\n")
    with pytest.raises(InvalidError, match="fails"):
        open_task(f"lm-eval:pick@{folder}")

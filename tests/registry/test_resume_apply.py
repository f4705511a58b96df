"""Interrupted and shared applies: what is finished is used, what is not right is made again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.checkpoints import tensor, write_checkpoint
from support.registries import files_of, open_registry

from paramdelta.errors import ConflictError, CorruptError, UsageError
from paramdelta.partial import JOURNAL
from registry import apply as applying
from registry import model_folder, restore_tensor
from registry.plan import Plan
from registry.registry import Registry
from registry.results import Applied, AppliedPart
from registry.sharing import Part, assign, parse_part

COUNT = 5


def models(folder: Path, shards: int = 1) -> tuple[str, str]:
    random = np.random.default_rng(3)
    base, post = {}, {}
    for i in range(COUNT):
        weights = (random.standard_normal(640) * 0.02).astype(np.float32)
        moved = (weights + random.standard_normal(640) * 2e-4).astype(np.float32)
        for found, values in ((base, weights), (post, moved)):
            bits = (values.view(np.uint32) >> 16).tolist()
            found[f"model.layers.{i}.mlp.up_proj.weight"] = tensor("BF16", bits, (20, 32))
    return (
        str(write_checkpoint(folder / "base", base, shards=shards)),
        str(write_checkpoint(folder / "post", post, shards=shards)),
    )


@pytest.fixture(params=[1, 3], ids=["one file", "three files"])
def registry(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Registry]:
    with open_registry(tmp_path, threads=1) as found:  # so that it is known what was finished
        found.publish("x", *models(tmp_path, request.param))
        yield found


def plan_of(registry: Registry) -> Plan:
    return registry.plan(["x:0.5"], "base")


def hidden(tmp_path: Path) -> list[Path]:
    return list(tmp_path.glob(".out.partial-*"))


class Stop(KeyboardInterrupt):
    """The user, after so many tensors."""


def counting(monkeypatch: pytest.MonkeyPatch, where: object, stop_at: int | None) -> list[str]:
    """Names of the tensors that are made from now on; an interrupt at the given one."""
    made: list[str] = []
    run = where.run  # type: ignore[attr-defined]

    def counted(job, advance):  # type: ignore[no-untyped-def]
        name = job.tensor.name if hasattr(job, "tensor") else job._stored.name
        if len(made) == stop_at:
            raise Stop
        made.append(name)
        return run(job, advance)

    monkeypatch.setattr(where, "run", counted)
    return made


def interrupted(registry: Registry, out: Path, at: int) -> list[str]:
    with pytest.MonkeyPatch.context() as patch:
        made = counting(patch, applying._TensorJob, at)
        with pytest.raises(Stop):
            registry.apply(plan_of(registry), out)
    return made


def again(registry: Registry, out: Path, plan: Plan | None = None) -> list[str]:
    with pytest.MonkeyPatch.context() as patch:
        made = counting(patch, applying._TensorJob, None)
        registry.apply(plan or plan_of(registry), out)
    return made


def test_an_interrupted_apply_goes_on_with_what_is_left(registry: Registry, tmp_path: Path) -> None:
    registry.apply(plan_of(registry), tmp_path / "whole")
    first = interrupted(registry, tmp_path / "out", 3)
    assert len(hidden(tmp_path)) == 1 and not (tmp_path / "out").exists()
    second = again(registry, tmp_path / "out")
    assert len(first) == 3 and len(second) == COUNT - 3 and not set(first) & set(second)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")
    assert not hidden(tmp_path)


def test_a_finished_tensor_that_changed_on_disk_is_made_again(
    registry: Registry, tmp_path: Path
) -> None:
    registry.apply(plan_of(registry), tmp_path / "whole")
    interrupted(registry, tmp_path / "out", 4)
    for path in hidden(tmp_path)[0].glob("*.safetensors"):
        data = bytearray(path.read_bytes())
        data[-1300:] = bytes(1300)  # at least a tensor's end in every file
        path.write_bytes(data)
    assert len(again(registry, tmp_path / "out")) > COUNT - 4
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


def test_a_torn_or_foreign_line_of_the_journal_is_passed_over(
    registry: Registry, tmp_path: Path
) -> None:
    registry.apply(plan_of(registry), tmp_path / "whole")
    interrupted(registry, tmp_path / "out", 2)
    (journal,) = hidden(tmp_path)[0].glob(f"{JOURNAL}/*.jsonl")
    lines = journal.read_bytes() + b'\n[1]\n{"tensor": 1}\n{"tensor": "model.la'
    journal.write_bytes(lines)
    assert len(again(registry, tmp_path / "out")) == COUNT - 2
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


def test_another_plan_sweeps_what_an_interrupted_one_left(
    registry: Registry, tmp_path: Path
) -> None:
    interrupted(registry, tmp_path / "out", 3)
    assert len(again(registry, tmp_path / "out", registry.plan(["x:0.25"], "base"))) == COUNT
    assert not hidden(tmp_path)


def test_a_base_that_changed_meanwhile_is_not_mixed_with_what_was_made(
    registry: Registry, tmp_path: Path
) -> None:
    """The base is registered, so its change is found; then nothing of it is gone on with."""
    registry.apply(plan_of(registry), tmp_path / "whole")
    interrupted(registry, tmp_path / "out", 3)
    path = next((tmp_path / "base").glob("*.safetensors"))
    right = path.read_bytes()
    path.write_bytes(right[:-1280] + bytes(1280))
    try:
        again(registry, tmp_path / "out")
    except CorruptError:
        assert not hidden(tmp_path)
    else:  # the tensor was made before: its bytes are of the base as it was
        assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


def test_an_error_leaves_nothing_to_go_on_with(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise CorruptError("no", where=tmp_path)

    monkeypatch.setattr(model_folder, "check_base", refuse)
    with pytest.raises(CorruptError):
        registry.apply(plan_of(registry), tmp_path / "out")
    assert not hidden(tmp_path)


def test_a_second_apply_of_the_same_output_is_refused_while_one_runs(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute, refused = model_folder.execute, []

    def meanwhile(*args, **options):  # type: ignore[no-untyped-def]
        if not refused:
            refused.append(True)
            with pytest.raises(ConflictError, match="another process is making this output"):
                registry.apply(plan_of(registry), tmp_path / "out")
        return execute(*args, **options)

    monkeypatch.setattr(model_folder, "execute", meanwhile)
    registry.apply(plan_of(registry), tmp_path / "out")
    assert refused and not hidden(tmp_path)


def test_what_another_user_left_is_not_gone_on_with(registry: Registry, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    interrupted(registry, tmp_path / "out", 3)
    os.chown(hidden(tmp_path)[0], 12345, 12345)
    with pytest.raises(ConflictError, match="another user"):
        again(registry, tmp_path / "out")


def test_an_interrupted_restore_goes_on(registry: Registry, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        first = counting(patch, restore_tensor.TensorRestore, 3)
        with pytest.raises(Stop):
            registry.restore("x", tmp_path / "out")
    with pytest.MonkeyPatch.context() as patch:
        second = counting(patch, restore_tensor.TensorRestore, None)
        registry.restore("x", tmp_path / "out")
    assert len(first) == 3 and len(second) == COUNT - 3
    assert files_of(tmp_path / "out") == files_of(tmp_path / "post")
    assert not hidden(tmp_path)


# -- parts --------------------------------------------------------------------------------


def test_parts_in_any_order_make_the_same_model(registry: Registry, tmp_path: Path) -> None:
    registry.apply(plan_of(registry), tmp_path / "whole")
    found = [
        registry.apply_part(plan_of(registry), tmp_path / "out", Part(i, 3)) for i in (2, 3, 1)
    ]
    assert [isinstance(part, AppliedPart) for part in found] == [True, True, False]
    assert isinstance(found[2], Applied)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")
    assert not hidden(tmp_path)


def test_a_part_is_repeated_without_making_it_again(registry: Registry, tmp_path: Path) -> None:
    registry.apply_part(plan_of(registry), tmp_path / "out", Part(1, 2))
    with pytest.MonkeyPatch.context() as patch:
        made = counting(patch, applying._TensorJob, None)
        registry.apply_part(plan_of(registry), tmp_path / "out", Part(1, 2))
        assert not made
        found = registry.apply(plan_of(registry), tmp_path / "out")  # does what is left
    assert 0 < len(made) < COUNT
    assert found.content_digest == registry.apply(plan_of(registry), tmp_path / "w").content_digest


def test_processes_share_an_output_and_one_is_killed(registry: Registry, tmp_path: Path) -> None:
    """Three at once; one is killed at its third write and run again."""
    registry.apply(plan_of(registry), tmp_path / "whole")
    killer = (
        "import os, signal, sys\n"
        "real, left = os.pwrite, [int(os.environ['AT'])]\n"
        "def call(*a):\n"
        "    left[0] -= 1\n"
        "    if left[0] == 0: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return real(*a)\n"
        "os.pwrite = call\n"
        "import cli\n"
        "sys.exit(cli.run(sys.argv[1:]))\n"
    )

    def start(index: int, at: int) -> subprocess.Popen[str]:
        words = ["--registry", str(tmp_path / "registry"), "--json", "apply", "x:0.5", "--base",
                 "base", "--out", str(tmp_path / "out"), "--shard", f"{index}/3"]  # fmt: skip
        return subprocess.Popen(
            [sys.executable, "-c", killer, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, env=os.environ | {"AT": str(at), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    running = [start(1, -1), start(2, 2), start(3, -1)]
    texts = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0, -signal.SIGKILL, 0], texts
    assert not any(json.loads(texts[i][0])["sealed"] for i in (0, 2))
    assert not (tmp_path / "out").exists()
    last = start(2, -1)
    text, error = last.communicate(timeout=120)
    assert last.returncode == 0, error
    assert json.loads(text)["content_digest"]
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")
    assert not hidden(tmp_path)


def test_every_tensor_is_in_one_part_and_parts_are_even(registry: Registry) -> None:
    plan = plan_of(registry)
    for count in (1, 2, 3, 5, 9):
        shares = registry.shares(plan, count)
        names = [name for share in shares for name in share.tensors]
        assert sorted(names) == sorted(tensor.name for tensor in plan.tensors)
        assert len(shares) == count and sum(share.nbytes for share in shares) == COUNT * 1280
        if count <= 3 and len({path for share in shares for path in share.files}) == 3:
            files = [path for share in shares for path in share.files]
            assert len(files) == len(set(files))  # no file has two writers


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0", "1/5000", "-1/2", "1/2/3"])
def test_malformed_shards_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_part(text)
    assert parse_part("2/3") == Part(2, 3)


def test_tensors_that_only_count_in_the_digest_have_a_part_too() -> None:
    shares = assign([], {}, ["a", "b", "c"], 2)
    assert [share.tensors for share in shares] == [{"a", "c"}, {"b"}]

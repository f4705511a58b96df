"""``lm-eval:TASK[@INCLUDE_DIR]``: any task of EleutherAI's lm-evaluation-harness.

With a folder only its tasks are known, and their data too can be files; without one the harness's
own are, whose data the ``datasets`` library fetches (``HF_DATASETS_OFFLINE=1`` forbids that). A
task's YAML may name Python functions: whoever names the folder trusts what lies in it.

The digest covers the task's definition without paths, the Python beside it, and the documents
themselves, so a data set that changed is another task. Of a group the harness's own aggregate is
kept.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import random
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paramdelta.digest import Digest, Hasher
from paramdelta.errors import InvalidError, NotFoundError, ParamDeltaError, UsageError
from paramdelta.scoring.base import Measured, Option, Scorer, Values, task_digest, task_name

if TYPE_CHECKING:
    from paramdelta.scoring.language_model import LanguageModel

NAME, REVISION = "lm-eval", 1
BOOTSTRAP = 1000  # resamples, for metrics whose error has no formula
_PATHS = ("data_files", "data_dir", "config_source")  # where things lie, not what they are


@dataclass(frozen=True, slots=True)
class Harness:
    """One task or group. manager: of the harness, which knows where its parts lie."""

    name: str
    digest: Digest
    task: str
    manager: Any
    fewshot: int | None
    limit: int | None
    packages: tuple[str, ...] = ("lm_eval", "datasets")

    def measure(self, model: LanguageModel, seed: int) -> Sequence[Measured]:
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM

        with _quiet(self.task):
            wrapped = HFLM(
                pretrained=model.model, tokenizer=model.tokenizer, trust_remote_code=False
            )
            found = simple_evaluate(
                model=wrapped, tasks=[self.task], task_manager=self.manager,
                num_fewshot=self.fewshot, limit=self.limit, bootstrap_iters=BOOTSTRAP,
                log_samples=False, random_seed=seed, numpy_random_seed=seed,
                torch_random_seed=seed, fewshot_random_seed=seed,
            )  # fmt: skip
        measured = _numbers(self.task, found or {})
        if not measured:
            raise UsageError(
                f"{NAME}: {self.task} gives no number of its own",
                remedy="name the tasks that are in it, one by one",
            )
        return measured


def _numbers(task: str, found: Mapping[str, Any]) -> list[Measured]:
    """``acc,none`` is kept as ``acc``; another filter's name stays in the metric's."""
    results = found.get("results", {}).get(task, {})
    better = found.get("higher_is_better", {}).get(task, {})
    sizes = found.get("n-samples", {})
    parts = found.get("group_subtasks", {}).get(task) or [task]
    n = sum(int(sizes[part]["effective"]) for part in parts if part in sizes)
    measured = []
    for key, value in sorted(results.items()):
        metric, comma, kind = key.partition(",")
        if not comma or metric.endswith("_stderr") or not _is_number(value):
            continue
        error = results.get(f"{metric}_stderr,{kind}")
        measured.append(
            Measured(
                metric if kind == "none" else key,
                float(value),
                float(error) if _is_number(error) else None,
                n,
                bool(better.get(metric, True)),
            )
        )
    return measured


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def _open(argument: str, options: Values) -> Harness:
    task, at, folder = argument.partition("@")
    include = Path(folder).expanduser() if at else None
    if include is not None and not include.is_dir():
        raise NotFoundError("no such folder of tasks", where=include)
    with _quiet(task):
        manager = _manager(include)
        if not manager.match_tasks([task]):
            raise NotFoundError(
                f"lm-evaluation-harness knows no task {task[:80]!r}",
                where=include or "",
                remedy="see `lm_eval ls tasks`, or name the folder of its YAML: TASK@DIR",
            )
        random.seed(0)  # some tasks shuffle their documents
        data = _content(list(_leaves(manager.load_task_or_group([task]))), include)
    digest = task_digest(NAME, REVISION, {**options}, data)
    name = task_name(NAME, task, options)
    return Harness(name, digest, task, manager, options["fewshot"], options["limit"])


def _manager(include: Path | None) -> Any:
    try:
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise UsageError(
            "lm-evaluation-harness is not installed", remedy="pip install 'paramdelta[eval]'"
        ) from error
    if include is None:
        return TaskManager()
    return TaskManager(include_path=str(include), include_defaults=False)


def _leaves(found: Mapping[Any, Any]) -> Iterator[Any]:
    for value in found.values():
        if isinstance(value, Mapping):
            yield from _leaves(value)
        else:
            yield value


def _content(tasks: Sequence[Any], include: Path | None) -> Digest:
    """Of definitions, documents, and the Python that lies beside them."""
    hasher = Hasher()
    for task in sorted(tasks, key=lambda task: str(task.config.task)):
        hasher.update(_text(_without_paths(task.dump_config())))
        for kind, docs in (("eval", task.eval_docs), ("fewshot", task.fewshot_docs() or ())):
            hasher.update(kind.encode())
            for doc in docs:
                hasher.update(_text(doc))
    for path in sorted(include.rglob("*.py")) if include else ():
        hasher.update(f"{path.name}\n".encode() + path.read_bytes())
    return hasher.digest


def _text(value: object) -> bytes:
    return (json.dumps(value, sort_keys=True, default=repr) + "\n").encode()


def _without_paths(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_paths(part) for key, part in value.items() if key not in _PATHS}
    return value


@contextlib.contextmanager
def _quiet(task: str) -> Iterator[None]:
    """The harness prints bars and warnings; its failures become ours."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ParamDeltaError:
        raise
    except Exception as error:  # it runs tasks, which may fail in any way
        said = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        raise InvalidError(
            f"lm-evaluation-harness fails: {said}", where=f"{NAME}:{task}"
        ) from error
    finally:
        logging.disable(level)


SCORER = Scorer(
    NAME,
    "TASK[@INCLUDE_DIR]",
    "a task of lm-evaluation-harness, its own or of a folder of YAML files",
    _open,
    (
        Option("fewshot", None, 0, "examples before each question; else as the task says"),
        Option("limit", None, 1, "take the first so many items"),
    ),
)

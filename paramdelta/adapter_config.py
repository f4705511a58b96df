"""adapter_config.json of a PEFT LoRA adapter: the facts that decide what its tensors mean.

Everything that makes it something else than base + s·B·A is refused, each with its reason. Fields
that say how an adapter was trained (dropout, target_modules, layers_to_transform …) are not looked
at: the tensors that are there say which modules were. Fields that are not known here are told, and
refused where they switch something on. Read against PEFT 0.21.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from paramdelta.errors import InvalidError
from paramdelta.limits import MAX_ADAPTER_ALPHA, MAX_ADAPTER_RANK, MAX_PROBLEMS
from paramdelta.patterns import Patterns
from paramdelta.problem import Problem

CONFIG = "adapter_config.json"
MERGE = "merge it with PEFT's merge_and_unload and publish the result with --post"
_CONVERT = (
    "convert it with PEFT's save_pretrained(path_initial_model_for_weight_conversion=…), or "
    "save the merged model and publish it with --post"
)
# A true value there makes the adapter more, or something else, than s·B·A.
_VARIANTS = {
    "use_dora": "DoRA rescales every column of the merged weight by a learned magnitude",
    "lora_bias": "lora_B has a bias",
    "layer_replication": "layers of the base are repeated",
    "trainable_token_indices": "single rows of the embedding are trained apart",
    "target_parameters": "parameters instead of modules are adapted (fused experts)",
    "megatron_config": "Megatron splits the layers",
    "use_qalora": "QALoRA pools the inputs of a quantised base",
    "alora_invocation_tokens": "aLoRA is active after some tokens only",
    "use_bdlora": "BD-LoRA's factors are block-diagonal",
    "arrow_config": "Arrow chooses between adapters at run time",
    "kasa_config": "KaSA changes the base and has a third factor",
    "monteclora_config": "MonteCLoRA draws samples on top of the factors",
    "enable_lora": "one adapter covers parts of a fused layer",
}
# Initialisations that change the base's weights: the adapter belongs to what is left of them.
_CHANGED_BASE = ("pissa", "olora", "corda", "lora_ga", "loftq")
# Nothing in them changes what the tensors mean.
_IGNORED = frozenset({
    "alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "corda_config",
    "ensure_weight_tying", "eva_config", "exclude_modules", "fan_in_fan_out", "inference_mode",
    "init_lora_weights", "layers_pattern", "layers_to_transform", "loftq_config", "lora_alpha",
    "lora_dropout", "lora_ga_config", "megatron_core", "merge_weights", "modules_to_save",
    "peft_type", "peft_version", "qalora_group_size", "r", "rank_pattern", "revision",
    "runtime_config", "target_modules", "task_type", "use_rslora", "velora_config",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """base_model, revision: what the adapter says it was trained on, for people to read.

    rank, alpha: where no pattern matches a module's name. The patterns keep the file's order.
    """

    base_model: str | None
    revision: str | None
    task_type: str | None
    peft_version: str | None
    rank: int
    alpha: float
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    rslora: bool
    fan_in_fan_out: bool
    tied: bool  # adapters of tied layers are tied, too (ensure_weight_tying)


class Scales:
    """The rank and the scale of each module, as PEFT 0.21 finds them."""

    def __init__(self, config: AdapterConfig) -> None:
        """InvalidError on keys that are no patterns."""
        self._config = config
        self._ranks = Patterns(config.rank_pattern)
        self._alphas = Patterns(config.alpha_pattern)

    def of(self, module: str) -> tuple[int, float]:
        """(rank, scale): scale = alpha / rank, or alpha / √rank for rsLoRA, in float64."""
        config = self._config
        rank, alpha = config.rank, config.alpha
        if (key := self._ranks.first(module)) is not None:
            rank = config.rank_pattern[key]
        if (key := self._alphas.first(module)) is not None:
            alpha = config.alpha_pattern[key]
        return rank, alpha / (math.sqrt(rank) if config.rslora else rank)


def parse_config(
    value: Mapping[str, Any], where: object
) -> tuple[AdapterConfig, tuple[Problem, ...]]:
    """(the facts, notes). InvalidError with all the reasons why this is no plain LoRA adapter."""
    found = _Fields(value)
    problems = found.problems
    if value.get("peft_type") != "LORA":
        shown = value.get("peft_type")
        kind = shown[:40] if isinstance(shown, str) else "of no type"
        reason = f"an adapter {kind!r}; LoRA adapters are the only ones with a delta s·B·A"
        problems.append(Problem("peft_type", reason, remedy=MERGE))
    for name, reason in _VARIANTS.items():
        if value.get(name):
            problems.append(Problem(name, f"{reason}: no plain s·B·A", remedy=MERGE))
    _check_initialisation(value.get("init_lora_weights"), problems)
    config = AdapterConfig(
        base_model=found.text("base_model_name_or_path"),
        revision=found.text("revision"),
        task_type=found.text("task_type"),
        peft_version=found.text("peft_version"),
        rank=found.rank("r", 8),
        alpha=found.alpha("lora_alpha", 8),
        rank_pattern={k: found.check_rank(f"rank_pattern.{k}", v)
                      for k, v in found.table("rank_pattern").items()},
        alpha_pattern={k: found.check_alpha(f"alpha_pattern.{k}", v)
                       for k, v in found.table("alpha_pattern").items()},
        rslora=found.flag("use_rslora"),
        fan_in_fan_out=found.flag("fan_in_fan_out"),
        tied=found.flag("ensure_weight_tying"),
    )  # fmt: skip
    notes = []
    for key in sorted(value.keys() - _IGNORED - _VARIANTS.keys()):
        if value[key] is True:
            reason = "switches on something that is not known here"
            problems.append(Problem(key[:200], reason, remedy=MERGE))
        else:
            notes.append(Problem(key[:200], "a field that is not known here, ignored", "warning"))
    if problems:
        raise adapter_error(problems, where)
    return config, tuple(notes)


def adapter_error(problems: list[Problem], where: object) -> InvalidError:
    """One error about everything that is wrong; the message tells the first."""
    more = len(problems) - 1
    tail = f" (and {more} other problem{'s' if more > 1 else ''})" if more else ""
    first = problems[0]
    return InvalidError(
        first.reason + tail,
        where=where,
        subject=first.subject,
        remedy=first.remedy,
        problems=problems[:MAX_PROBLEMS],
    )


def _check_initialisation(value: Any, problems: list[Problem]) -> None:
    if value is None or isinstance(value, bool):
        return
    subject = "init_lora_weights"
    if not isinstance(value, str):
        problems.append(Problem(subject, f"{_kind(value)}; a word or a truth value expected"))
    elif value.lower().startswith(_CHANGED_BASE):
        reason = (
            f"{value[:40]!r} changes the base's weights at the start of the training, and the "
            "adapter belongs to the changed ones"
        )
        problems.append(Problem(subject, reason, remedy=_CONVERT))


class _Fields:
    """Typed access. What is wrong is noted in ``problems`` and stands as the default."""

    def __init__(self, value: Mapping[str, Any]) -> None:
        self._value = value
        self.problems: list[Problem] = []

    def text(self, name: str) -> str | None:
        found = self._value.get(name)
        if found is None or (isinstance(found, str) and len(found) <= 4096):
            return found or None
        self._wrong(name, "a short text expected")
        return None

    def flag(self, name: str) -> bool:
        found = self._value.get(name)
        if found is None or isinstance(found, bool):
            return bool(found)
        self._wrong(name, f"{_kind(found)}; true or false expected")
        return False

    def table(self, name: str) -> dict[str, Any]:
        found = self._value.get(name)
        if found is None or isinstance(found, dict):
            return found or {}
        self._wrong(name, f"{_kind(found)}; an object expected")
        return {}

    def rank(self, name: str, default: int) -> int:
        return self.check_rank(name, self._value.get(name, default))

    def alpha(self, name: str, default: int) -> float:
        return self.check_alpha(name, self._value.get(name, default))

    def check_rank(self, name: str, value: Any) -> int:
        if type(value) is int and 0 < value <= MAX_ADAPTER_RANK:
            return value
        self._wrong(name, f"a whole number from 1 to {MAX_ADAPTER_RANK} expected")
        return 1

    def check_alpha(self, name: str, value: Any) -> float:
        # bool is an int; NaN fails every comparison
        if type(value) in (int, float) and -MAX_ADAPTER_ALPHA <= value <= MAX_ADAPTER_ALPHA:
            return float(value)
        self._wrong(name, f"a number from {-MAX_ADAPTER_ALPHA:g} to {MAX_ADAPTER_ALPHA:g} expected")
        return 1.0

    def _wrong(self, name: str, reason: str) -> None:
        self.problems.append(Problem(name[:200], reason, remedy="save the adapter again with PEFT"))


def _kind(value: Any) -> str:
    return f"a {type(value).__name__}"

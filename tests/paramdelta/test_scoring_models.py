"""Numbers of scorers against transformers itself, on models whose weights come from memory."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from support import tasks
from support.checkpoints import llama_config, llama_like, write_checkpoint
from transformers import AutoModelForCausalLM

from paramdelta.errors import InvalidError
from paramdelta.scoring import Held, open_task
from paramdelta.scoring.language_model import LanguageModel
from paramdelta.scoring.loading import load_model

TENSORS = llama_like(5)


def loaded(
    files: Mapping[str, str] = tasks.FILES,
    config: Mapping[str, Any] | None = None,
    leave: str = "",
    **more: Any,
) -> LanguageModel:
    held = {
        n: Held(dtype, shape, bits) for n, (dtype, bits, shape) in TENSORS.items() if n != leave
    }
    given = {"config.json": json.dumps({**llama_config(), **(config or {})}), **files}
    return load_model(
        held | more, {name: text.encode() for name, text in given.items()}, "float32", "cpu", "it"
    )


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return loaded()


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The same model as transformers loads it from a folder."""
    folder = write_checkpoint(tmp_path_factory.mktemp("m") / "m", TENSORS, files=tasks.FILES)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def ids(model: LanguageModel, text: str) -> torch.Tensor:
    return torch.tensor([model.encode(text, special=False)])


def test_the_model_in_memory_is_the_one_of_the_folder(model: LanguageModel, reference: Any) -> None:
    mine, theirs = model.model.state_dict(), reference.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert (model.ends, model.first, model.positions) == ((62,), 61, 128)


def test_perplexity_is_that_of_the_whole_text_where_it_fits_the_window(
    model: LanguageModel, reference: Any, tmp_path: Path
) -> None:
    path = tmp_path / "t.txt"
    path.write_text("abba cab a b")
    loss, perplexity, bits = open_task(f"perplexity:{path}").measure(model, 0)
    tokens = torch.tensor([[61, *model.encode("abba cab a b", special=False)]])
    with torch.no_grad():
        known = float(reference(tokens, labels=tokens).loss)
    n = tokens.shape[1] - 1
    assert loss.value == pytest.approx(known, rel=1e-5) and loss.n == n and loss.stderr is None
    assert perplexity.value == pytest.approx(math.exp(known), rel=1e-5)
    assert bits.value == pytest.approx(known * n / math.log(2) / 12, rel=1e-5)
    assert not any(one.higher_is_better for one in (loss, perplexity, bits))


def test_every_token_is_foretold_once_whatever_the_window(
    model: LanguageModel, tmp_path: Path
) -> None:
    path = tasks.text(tmp_path)
    tokens = len(model.encode(tasks.TEXT, special=False))
    for window in (2, 7, 64, 10_000):  # the last is cut to what the model takes
        loss, *_ = open_task(f"perplexity:{path}?window={window}").measure(model, 0)
        assert loss.n == tokens and loss.stderr and 0 < loss.stderr < 1


def test_choices_are_compared_as_their_log_probabilities_say(
    model: LanguageModel, reference: Any, tmp_path: Path
) -> None:
    rows = [{"prompt": p, "choices": ["a", "ba", " c b"], "answer": 0} for p in ("ab", "ca", "b")]
    likely = []
    for row in rows:
        found = []
        for choice in row["choices"]:
            prompt, whole = ids(model, row["prompt"]), ids(model, row["prompt"] + choice)
            start = min(prompt.shape[1], whole.shape[1] - 1)
            while not torch.equal(whole[:, :start], prompt[:, :start]):
                start -= 1
            with torch.no_grad():
                log_p = reference(whole[:, :-1]).logits.log_softmax(-1)[0]
            found.append(sum(float(log_p[i - 1, whole[0, i]])
                             for i in range(start, whole.shape[1])))  # fmt: skip
        likely.append(found)
    best = [max(range(3), key=found.__getitem__) for found in likely]
    sizes = (1, 2, 4)
    by_byte = [max(range(3), key=lambda i: found[i] / sizes[i]) for found in likely]
    for answers, place in ((best, 0), (by_byte, 1)):
        marked = [{**row, "answer": answer} for row, answer in zip(rows, answers, strict=True)]
        path = tasks.write_lines(tmp_path / "c.jsonl", marked)
        assert open_task(f"multiple-choice:{path}").measure(model, 0)[place].value == 1.0
    wrong = [{**row, "answer": (answer + 1) % 3} for row, answer in zip(rows, best, strict=True)]
    path = tasks.write_lines(tmp_path / "w.jsonl", wrong)
    acc, _ = open_task(f"multiple-choice:{path}").measure(model, 0)
    assert (acc.value, acc.n, acc.stderr) == (0.0, 3, 0.0)


def test_answers_are_written_greedily_whatever_the_generation_config_says(
    model: LanguageModel, reference: Any, tmp_path: Path
) -> None:
    """tasks.FILES ask for sampling at temperature 0.6."""
    prompts = ["ab", "ca", "abab", "b", "cab a"]
    written = []
    for prompt in prompts:
        row = ids(model, prompt)
        for _ in range(6):
            with torch.no_grad():
                best = int(reference(row).logits[0, -1].argmax())
            if best == 62:
                break
            row = torch.cat([row, torch.tensor([[best]])], 1)
        tokens = row[0, ids(model, prompt).shape[1] :]
        written.append(model.tokenizer.decode(tokens, skip_special_tokens=True).strip())
    assert any(written), "the model writes nothing that can be told"
    rows = [{"prompt": p, "answer": w or "nothing"} for p, w in zip(prompts, written, strict=True)]
    path = tasks.write_lines(tmp_path / "e.jsonl", rows)
    found = open_task(f"exact-match:{path}?max_tokens=6").measure(model, 0)[0]
    assert found.value == sum(map(bool, written)) / len(written)
    assert open_task(f"exact-match:{path}?max_tokens=6").measure(model, 1)[0] == found


def test_an_answer_ends_before_a_stop_text(model: LanguageModel, tmp_path: Path) -> None:
    whole = model.generate([model.encode("ab", special=False)], 8)[0].strip()
    kept, stop = whole[:-2], whole[-2:]
    assert kept.strip() and stop not in kept, whole
    row = {"prompt": "ab", "answer": kept, "stop": [stop]}
    path = tasks.write_lines(tmp_path / "s.jsonl", [row, {**row, "stop": ["never"]}])
    found = open_task(f"exact-match:{path}?max_tokens=8").measure(model, 0)[0]
    assert found.value == 0.5


def test_messages_go_through_the_chat_template(tmp_path: Path) -> None:
    template = "{{ bos_token }}{% for m in messages %}{{ m['content'] }}c{% endfor %}"
    chatty = loaded({**tasks.FILES, "chat_template.jinja": template})
    assert chatty.encode_chat([{"role": "user", "content": "ab"}]) == [61, 2, 3]
    asked = {"messages": [{"role": "user", "content": "ab"}]}
    plain = {"prompt": "<|b|>abc"}
    paths = [
        tasks.write_lines(tmp_path / f"{i}.jsonl", [{**row, "choices": ["a", "b"], "answer": 0}])
        for i, row in enumerate((asked, plain))
    ]
    first, second = (open_task(f"multiple-choice:{path}").measure(chatty, 0) for path in paths)
    assert first == second


def test_messages_without_a_template_and_templates_that_fail_are_invalid(
    model: LanguageModel,
) -> None:
    message = [{"role": "user", "content": "ab"}]
    with pytest.raises(InvalidError, match="no chat template"):
        model.encode_chat(message)
    failing = loaded({**tasks.FILES, "chat_template.jinja": "{{ raise_exception('no') }}"})
    with pytest.raises(InvalidError, match="template fails"):
        failing.encode_chat(message)


def test_what_is_too_long_for_the_model_is_told_by_its_line(
    model: LanguageModel, tmp_path: Path
) -> None:
    for scorer, more in (("exact-match", {"answer": "a"}),
                         ("multiple-choice", {"choices": ["a", "b"], "answer": 0})):  # fmt: skip
        rows = [{"prompt": "a", **more}, {"prompt": "a " * 200, **more}]
        path = tasks.write_lines(tmp_path / "long.jsonl", rows)
        with pytest.raises(InvalidError, match="128") as caught:
            open_task(f"{scorer}:{path}").measure(model, 0)
        assert caught.value.where == f"{path}:2"


def test_a_missing_tensor_is_an_error_and_not_made_up() -> None:
    with pytest.raises(InvalidError, match=r"model\.norm\.weight"):
        loaded(leave="model.norm.weight")


def test_a_tensor_that_the_model_does_not_know_is_an_error() -> None:
    held = Held("BF16", (32,), TENSORS["model.norm.weight"][1])
    with pytest.raises(InvalidError, match=r"model\.norm\.extra"):
        loaded(**{"model.norm.extra": held})


def test_another_shape_than_the_config_says_is_an_error() -> None:
    with pytest.raises(InvalidError):
        loaded(config={"intermediate_size": 32})


def test_code_of_a_checkpoint_is_never_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    code = f"open({str(mark)!r}, 'w')\nclass C: pass\n"
    auto = {"model_type": "strange", "auto_map": {"AutoConfig": "evil.C",
            "AutoModelForCausalLM": "evil.C"}}  # fmt: skip
    with pytest.raises(InvalidError, match="never run"):
        loaded({**tasks.FILES, "evil.py": code}, config=auto)
    assert not mark.exists()


def test_a_config_that_transformers_does_not_know_is_invalid() -> None:
    with pytest.raises(InvalidError, match="transformers cannot load it"):
        loaded(config={"model_type": "no-such-model"})

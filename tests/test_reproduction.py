"""The reproduction of the paper, at a scale at which nothing is learned: that it all comes out.

What it says of the science stands in docs/reproduction.md; here its numbers are checked against
their file, and its machinery against itself.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from examples.reproduction import statistics  # noqa: E402
from examples.reproduction.recipes import FULL, SMOKE, Line  # noqa: E402
from examples.reproduction.reproduce import publish_page, reproduce  # noqa: E402
from examples.reproduction.skills import SKILLS, write_tests  # noqa: E402
from examples.reproduction.workshop import Workshop  # noqa: E402
from examples.reproduction.writing import BLOCKS, fill  # noqa: E402

PAGE = ROOT / "docs" / "reproduction.md"
NUMBERS = ROOT / "docs" / "reproduction.json"


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a smoke run; the page is in docs."""
    out = tmp_path_factory.mktemp("reproduction")
    reproduce(SMOKE, out, out / "docs", 0, lambda _: None)
    return out


def test_every_number_and_picture_comes_out(smoke: Path) -> None:
    found = json.loads((smoke / "docs" / "reproduction.json").read_text())
    page = (smoke / "docs" / "reproduction.md").read_text()
    for name, block in BLOCKS.items():
        assert block(found) in page, name
        assert block(found).count("|") > 8, name
    pictures = {name for name in contents(smoke / "docs") if name.endswith(".png")}
    assert pictures == {
        f"img/reproduction-{name}.png"
        for name in ("alpha", "alpha-unreplayed", "mix", "gamma", "ladder", "controls")
    }
    for name in pictures:
        assert f"]({name})" in page, "a picture that the page does not show"
    line = Line(1, SMOKE)
    assert {p["base"] for p in found["ladder"]["points"]} == {
        *(rung.name for rung in line.rungs), "domain", "other",
    }  # fmt: skip


def test_alpha_zero_is_the_base_and_every_post_is_restored_exactly(smoke: Path) -> None:
    found = json.loads((smoke / "docs" / "reproduction.json").read_text())
    assert found["controls"]["zero_is_base"] == [True]
    measured = json.loads((smoke / "seed-1.json").read_text())
    assert all(one["exact"] for one in measured["published"].values())
    assert len({one["digest"] for one in measured["published"].values()}) == 6


def test_what_is_trained_is_found_again_and_equal_numbers_give_equal_files(
    smoke: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("examples.reproduction.training.train", lambda *_: pytest.fail("trained"))
    Workshop(smoke / "models", lambda _: None).make(Line(1, SMOKE).all, 0)
    found = json.loads((smoke / "docs" / "reproduction.json").read_text())
    publish_page(found, tmp_path)
    assert contents(tmp_path) == contents(smoke / "docs")


def test_a_training_repeats_bit_for_bit(smoke: Path, tmp_path: Path) -> None:
    """The noise needs a post, and that a base: each kind of training is done again."""
    line = Line(1, SMOKE)
    first, again = (Workshop(root, lambda _: None) for root in (smoke / "models", tmp_path))
    again.make([line.noise], 0)
    for recipe in (line.base, line.posts["upper"], line.noise):
        assert contents(again.folder_of(recipe)) == contents(first.folder_of(recipe))
    weights = {contents(first.folder_of(one))["model.safetensors"] for one in line.all}
    assert len(weights) == len(line.all)


def test_no_test_word_is_ever_trained_on() -> None:
    for skill in SKILLS.values():
        test, train = skill.words("test", 0), skill.words("train", 5)
        assert not {next(test) for _ in range(400)} & {next(train) for _ in range(4000)}


def test_wrong_choices_are_wrong_and_the_place_of_the_right_one_varies(tmp_path: Path) -> None:
    for skill in SKILLS.values():
        _, chosen = write_tests(skill, tmp_path, 60)
        rows = [json.loads(line) for line in Path(chosen.split(":", 1)[1]).read_text().splitlines()]
        for row in rows:
            before, after = skill.question("*").split("*")
            word = row["prompt"].removeprefix(before).removesuffix(after)
            right = skill.answer(word) + "<|eot_id|>"
            assert row["choices"][row["answer"]] == right
            assert len(set(row["choices"])) == 4
        assert {row["answer"] for row in rows} == {0, 1, 2, 3}


def test_spearman_is_of_ranks_and_ties_share_theirs() -> None:
    assert statistics.ranks([10, 30, 20, 20]) == [1, 4, 2.5, 2.5]
    assert statistics.spearman([(1, 5), (2, 50), (3, 51)]) == pytest.approx(1)
    # Spearman's own form, which holds without ties: 1 − 6 Σd² / n(n² − 1), here 1 − 6·8 / 120
    assert statistics.spearman([(1, 2), (2, 1), (3, 5), (4, 3), (5, 4)]) == pytest.approx(0.6)
    assert statistics.spearman([(1, 7), (2, 7)]) is None


def test_an_interval_holds_the_mean_and_narrows_with_more() -> None:
    draw = random.Random(1)
    few, many = ([[draw.gauss(5, 1) for _ in range(n)] for _ in range(3)] for n in (4, 200))
    (a, b), (c, d) = (statistics.bootstrap(x, statistics.mean) or (0, 0) for x in (few, many))
    assert a < 5 < b
    assert c < 5 < d
    assert d - c < (b - a) / 2


def test_a_page_with_other_blocks_is_refused() -> None:
    page = "<!-- generated: setting -->\n<!-- end -->\n"
    with pytest.raises(ValueError, match="blocks"):
        fill(page, {})


def test_the_committed_page_shows_the_committed_numbers() -> None:
    found = json.loads(NUMBERS.read_text())
    page = PAGE.read_text(encoding="utf-8")
    assert fill(page, found) == page
    scale = found["scale"]
    assert scale["seeds"] == list(FULL.seeds)
    assert scale["pretraining"] == list(FULL.pretraining)

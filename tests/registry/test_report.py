"""The page about a release: what stands on it, that strangers' text stays text, and that a browser
shows it without a complaint or a request."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest
from support.adapters import lora_config, lora_pair, write_adapter
from support.browser import opened
from support.checkpoints import changed, llama_like, write_checkpoint
from support.registries import family, open_registry

from cli import run
from paramdelta.errors import ConflictError
from registry.records import MadeModel, RecipeDelta, Score
from registry.registry import Registry
from registry.report.html import Markup, facts, join, section, table, tag

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{7*7}}\x1b[31m‮"
PROJ = "model.layers.0.self_attn.q_proj"
VOID = {"meta", "br", "hr", "img"}


def filled(registry: Registry, folder: Path, text: str = "words") -> None:
    """x with everything that a page can show: bases, relatives, scores, tags, files left out."""
    base, post, newer = family(folder)
    registry.publish(
        "skills/x", str(base), str(post), description=text, license=text, tags={"k": text},
        author=text,
    )  # fmt: skip
    registry.add_base(str(newer), "newer")
    near = write_checkpoint(folder / "near", changed(changed(llama_like(1), 2), 5, size=0.001))
    registry.publish("skills/near", str(base), str(near))
    release = registry.show("skills/x").release
    _scored(registry, release.digest, release.summary.base_content_digest, text)


def _scored(registry: Registry, delta: str, base: str, task: str) -> None:
    """Two models of this delta, each with a score."""
    for alpha in (0.5, 1.0):
        model, recipe = f"sha256:{int(10 * alpha):064x}", f"sha256:{int(100 * alpha):064x}"
        part = RecipeDelta(delta, "skills/x@1", alpha)
        made = MadeModel(recipe, model, base, "base", (part,), {"method": "linear"})
        registry.catalog.scores.add_made(made)
        score = Score(
            model, "model", task, f"sha256:{1:064x}", "accuracy", True, 0.8 * alpha, 0.02, 100, 0,
            {}, f"sha256:{2:064x}", {}, datetime.now(UTC),
        )  # fmt: skip
        registry.catalog.scores.add([score])


class Reader(HTMLParser):
    """The elements and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def read(path: Path) -> Reader:
    reader = Reader(path.read_text(encoding="utf-8"))
    assert reader.open == []
    return reader


def test_the_page_says_what_the_commands_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_registry(tmp_path) as registry:
        filled(registry, tmp_path)
        detail = registry.show("skills/x")
        fits = registry.query_delta("skills/x").results
    where = ["--registry", str(tmp_path / "registry"), "--json"]
    capsys.readouterr()
    out = tmp_path / "x.html"
    assert run([*where, "report", "skills/x", "--html", str(out)]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["ref"] == "skills/x@1" and said["bytes"] == out.stat().st_size
    text = read(out).text
    summary = detail.release.summary
    for wanted in (
        detail.release.digest, summary.base_content_digest, summary.architecture_hash,
        f"{summary.parameters:,}", f"{summary.bits_per_weight:.2f}", "proved lossless",
        "skills/near@1", "0.400", "0.5·skills/x@1", "sub/notes.txt", "lm_head.weight", "q_proj",
        "paramdelta apply skills/x@1 --base newer --out ./resolved",
        "licence of the base not stated",
        *(match.ref for match in fits), *(match.verdict for match in fits),
        *(f"{match.drift_ratio:.3f}" for match in fits if match.drift_ratio is not None),
        *(problem.reason for match in fits for problem in match.problems),
    ):  # fmt: skip
        assert " ".join(wanted.split()) in text or wanted == "0.400", wanted
    assert str(tmp_path) not in out.read_text()  # where folders lie is nobody's business
    with open_registry(tmp_path) as registry, pytest.raises(ConflictError):
        registry.report("skills/x", out)
    assert run([*where, "report", "skills/x", "--html", str(tmp_path / "none" / "x.html")]) == 2
    assert run([*where, "report", "skills/x", "--html", str(out), "--full", "--force"]) == 0
    assert "rounded away" in read(out).text or "changes the weight" in read(out).text


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page whose every text is an attack."""
    folder = tmp_path_factory.mktemp("hostile")
    with open_registry(folder) as registry:
        filled(registry, folder, HOSTILE)
        registry.report("skills/x", folder / "x.html")
    return folder / "x.html"


def test_texts_of_strangers_stay_text(hostile: Path) -> None:
    page, found = hostile.read_text(encoding="utf-8"), read(hostile)
    assert "script" not in found.tags and "img" not in found.tags
    assert not [name for name, _ in found.attributes if name.startswith("on")]
    assert found.text.count("<script>alert(1)</script>") >= 4  # told, as text
    assert "\x1b" not in page and "‮" not in page


def test_the_page_loads_nothing(hostile: Path) -> None:
    page, found = hostile.read_text(encoding="utf-8"), read(hostile)
    contents = [value or "" for name, value in found.attributes if name == "content"]
    assert contents[0].startswith("default-src 'none'; style-src")
    assert not found.tags & {"script", "link", "iframe", "object", "img", "base", "form"}
    links = [v or "" for name, v in found.attributes if name in ("src", "href", "xlink:href")]
    assert all(link.startswith(("#", "data:image/png")) for link in links)
    assert not re.search(r"@import|url\((?!#)", page)
    ids = [value for name, value in found.attributes if name == "id"]
    assert len(ids) == len(set(ids))


def test_a_lonely_adapter_has_a_page_too(tmp_path: Path) -> None:
    base = llama_like(1)
    rows, columns = base[f"{PROJ}.weight"][2]
    adapter = write_adapter(tmp_path / "lora", lora_pair(PROJ, rows, columns), lora_config())
    folder = write_checkpoint(tmp_path / "base", base)
    out = tmp_path / "lora.html"
    with open_registry(tmp_path) as registry:
        registry.publish("lora", str(folder), lora=adapter)
        registry.remove_base("base")
        found = registry.report("lora", out, full=True)
    text = read(out).text
    assert "No base is registered here." in text and "not registered here" in text
    assert "Nothing of it was evaluated here." in text and "1 products of two factors" in text
    assert any(problem.subject == "own base" for problem in found.problems)


def test_a_browser_shows_the_page_without_complaint(hostile: Path) -> None:
    """Every picture has a size, nothing runs, nothing is asked for, nothing is wider than it is."""
    complaints: list[str] = []
    requests: list[str] = []
    with opened() as browser:
        page = browser.new_page(viewport={"width": 1000, "height": 800}, color_scheme="dark")
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(hostile.as_uri())
        assert page.title() == "skills/x@1: delta report"
        sizes = page.eval_on_selector_all(
            "figure svg", "all => all.map(one => one.getBoundingClientRect().width)"
        )
        colours = page.evaluate("[getComputedStyle(document.body).backgroundColor,"
                                " getComputedStyle(document.body).color]")  # fmt: skip
        page.set_viewport_size({"width": 380, "height": 800})
        overflow = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        page.emulate_media(media="print")
        hidden = page.eval_on_selector_all(
            "details td", "all => all.filter(one => !one.checkVisibility()).length"
        )
    assert complaints == [] and requests == [hostile.as_uri()]
    assert len(sizes) >= 5 and min(sizes) > 300
    assert colours == ["rgb(23, 23, 26)", "rgb(232, 232, 236)"]
    assert overflow <= 0
    assert hidden == 0


# -- the builder ------------------------------------------------------------------------------


def test_only_markup_is_markup() -> None:
    made = tag("p", "<b>", Markup("<i>x</i>"), None, class_='a"b', aria_label="&")
    assert made.text == '<p class="a&quot;b" aria-label="&amp;">&lt;b&gt;<i>x</i></p>'
    assert tag("meta", charset="utf-8").text == '<meta charset="utf-8">'
    assert join(["<", ">"], "&").text == "&lt;&amp;&gt;"
    assert section("empty", None) is None
    assert facts([("a", "1"), ("b", None), ("c", "")]).text == "<dl><dt>a</dt><dd>1</dd></dl>"


def test_columns_of_numbers_are_set_apart() -> None:
    text = table(("n", "w"), [("1,000", "a"), ("±0.5", "2 b")]).text
    assert text.count('class="n"') == 3

"""Every question that a command asks of a catalog is answered by an index, on both databases.

What is explained is what the catalog really sends. The databases are small; each is asked how it
would find the rows in tables too large to be read whole.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import postgres
from support.catalog_records import base, digest, made, publish, score, summary
from support.catalog_statements import explained, statements_of

from registry import evidence
from registry.catalog import Catalog, light
from registry.catalog.schema import METADATA
from registry.catalog.scores import Wanted

Ask = Callable[[Catalog], object]

# by what a command is given; a statement reads a range of an index
FOUND: dict[str, Ask] = {
    "show name@version": lambda c: c.get_release("a", 1, evidence=False),
    "a release and its evidence": lambda c: c.get_release("a", 1),
    "show name": lambda c: c.get_release("a"),
    "show name@alias": lambda c: c.get_release("a", "stable"),
    "show digest": lambda c: c.get_release_by_digest(digest(1)),
    "releases of a manifest": lambda c: c.releases_of_manifest(digest(1)),
    "versions": lambda c: c.versions("a"),
    "all releases of a name": lambda c: c.releases("a"),
    "count of releases": lambda c: c.count_releases("a"),
    "log": lambda c: c.log("a"),
    "base show": lambda c: c.get_base("b"),
    "base of a content": lambda c: c.find_base_by_content(digest(100)),
    "base of a folder": lambda c: c.find_base_by_location("/models/llama"),
    "list of a prefix": lambda c: c.list_releases("a*", limit=5),
    "list of a tag": lambda c: c.list_releases(tags={"k": "v"}, limit=5),
    "list of two tags": lambda c: c.list_releases(tags={"k": "v", "l": "w"}, limit=5),
    "list of an architecture": lambda c: c.list_releases(architecture_hash=digest(1), limit=5),
    "list of bases of a prefix": lambda c: c.list_bases("b*", limit=5),
    "count of a tag": lambda c: c.count_deltas({"k": "v"}),
    "query --base": lambda c: c.evidence.deltas(architecture_hash=digest(1)),
    "query --base --tag": lambda c: c.evidence.deltas({"k": "v"}, digest(1)),
    "query --delta": lambda c: c.evidence.bases(digest(1)),
    "facts of a page": lambda c: c.evidence.facts([1, 2]),
    "fingerprints": lambda c: c.evidence.fingerprints([1, 2]),
    "sketches": lambda c: c.evidence.sketches([1, 2]),
    "values of bases": lambda c: c.evidence.base_values([digest(100)]),
    "compare --against": lambda c: list(c.evidence.delta_sketches(None, digest(1))),
    "compare --against a prefix": lambda c: list(c.evidence.delta_sketches("a*", digest(1))),
    "evidence on a base": lambda c: evidence.on_base(c, digest(100), [digest(1)]),
    "evidence of a delta": lambda c: evidence.of_delta(c, digest(1), [digest(100)]),
    "scores of a model": lambda c: c.scores.find(Wanted(models=[digest(1)])),
    "a score": lambda c: c.scores.of(digest(1), digest(8), digest(7)),
    "what a recipe makes": lambda c: c.scores.made(digest(20)),
    "what makes a model": lambda c: c.scores.made_models([digest(21)]),
    "leased": lambda c: c.objects.leased(["blobs/00/a"]),
    "a lease": lambda c: c.objects.hold("someone", ["blobs/00/a"]),
}
# a page of everything; it follows the order of an index, and stops
PAGED: dict[str, Ask] = {
    "list": lambda c: c.list_releases(limit=5, evidence=False),
    "list, later": lambda c: c.list_releases(limit=5, offset=1, evidence=False),
    "list of bases": lambda c: c.list_bases(limit=5, evidence=False),
}


@pytest.fixture(params=["sqlite", "postgresql"])
def catalog(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Catalog]:
    url = f"sqlite:///{tmp_path / 'catalog.db'}"
    if request.param == "postgresql":
        server = request.getfixturevalue("postgres_server")
        url = postgres.create_database(server, f"plans_{secrets.token_hex(4)}")
    found = Catalog.open(url)
    for i, name in enumerate(("a", "b", "c"), 1):
        publish(found, name, summary(i))
    found.set_alias("a", "stable", 1)
    found.add_base(base("b"))
    found.scores.add([score()])
    found.scores.add_made(made(20, 21, 1.0))
    found.objects.enter("someone", "unknown")
    yield found
    found.close()


def unaided(catalog: Catalog, text: str, parameters: Any) -> list[str]:
    """The tables of a statement that are read whole."""
    plan = explained(catalog, text, parameters)
    if catalog._engine.dialect.name == "postgresql":
        return re.findall(r"Seq Scan on (\w+)", plan)
    tables = {table.name for table in METADATA.sorted_tables}
    aliases = dict(re.findall(r"(?:FROM|JOIN) (\w+) AS (\w+)", text))
    named = tables | {alias for table, alias in aliases.items() if table in tables}
    scans = re.findall(r"SCAN (\w+)\b(?! USING)", plan)
    return [name for name in scans if name in named]


def ranges(catalog: Catalog, text: str, parameters: Any) -> int:
    """How many ranges of an index a statement reads."""
    plan = explained(catalog, text, parameters)
    return len(re.findall(r"Index Cond|SEARCH \w+ USING", plan))


@pytest.mark.parametrize("name", [*FOUND, *PAGED])
def test_what_commands_ask_is_found_by_an_index(catalog: Catalog, name: str) -> None:
    with statements_of(catalog) as sent:
        (FOUND | PAGED)[name](catalog)
    asked = [(text, values) for text, values in sent if re.search(r"\sFROM \w+\b(?!\()", text)]
    assert asked
    for text, values in asked:
        assert unaided(catalog, text, values) == [], explained(catalog, text, values)
        if name in FOUND:
            assert ranges(catalog, text, values), explained(catalog, text, values)


def test_fingerprints_that_were_asked_for_last_are_not_read_again(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = catalog.evidence.fingerprints
    first, second, third = ask(range(1, 9))
    monkeypatch.setattr(light, "MAX_FINGERPRINTS", 2)
    for one in (first, second, third):
        ask([one])
    with statements_of(catalog) as sent:
        assert set(ask([second, third])) == {second, third} and not sent
        assert set(ask([first])) == {first} and sent
        assert set(ask([first, second, third])) == {first, second, third}  # more than are kept


def test_a_question_that_no_index_answers_is_noticed(catalog: Catalog) -> None:
    whole = "SELECT id FROM releases WHERE author = 'x'"
    inside = (
        "SELECT r.id FROM deltas AS d JOIN releases AS r ON r.description = d.name"
        " WHERE d.name = 'x'"
    )
    assert unaided(catalog, whole, ()) == ["releases"] and not ranges(catalog, whole, ())
    assert unaided(catalog, inside, ()) in (["releases"], ["r"])

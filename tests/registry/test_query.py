"""What fits: ranked, paged and counted honestly; a base saved another way is told as such."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from support.checkpoints import (
    Tensors,
    bits_of,
    changed,
    llama_config,
    llama_like,
    tensor,
    values_of,
    write_checkpoint,
)
from support.registries import TOKENIZER, family, open_registry

import cli
from paramdelta.digest import Digest
from paramdelta.errors import InvalidError
from paramdelta.manifest import Manifest
from paramdelta.sketch import Sketch
from registry.catalog.schema import BASES
from registry.records import DeltaSummary, SealedRelease
from registry.registry import Registry
from registry.results import Match
from registry.seal import ReleaseRecord

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
BASE = llama_like(1)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """With skills/chat published against the base ``base``."""
    base, post, _ = family(tmp_path)
    with open_registry(tmp_path) as found:
        found.publish("skills/chat", str(base), str(post))
        yield found


def saved(tensors: Tensors, dtype: str) -> Tensors:
    """As ``model.to(dtype).save_pretrained`` writes it."""
    return {
        name: (dtype, bits_of(values_of(bits, old), dtype), shape)
        for name, (old, bits, shape) in tensors.items()
    }


def written(folder: Path, tensors: Tensors, **more: Any) -> Path:
    return write_checkpoint(folder, tensors, files={"tokenizer.json": TOKENIZER}, **more)


def only(registry: Registry, folder: Path) -> Match:
    """The answer for a base that is added from *folder*."""
    registry.add_base(str(folder))
    found = registry.query_base(str(folder), min_verdict="incompatible")
    assert len(found.results) == 1
    match, checked = found.results[0], registry.check("skills/chat", str(folder))
    assert match.drift_ratio == checked.drift_ratio
    assert set(match.problems) <= set(checked.problems)
    return match


def reasons(match: Match, subject: str) -> list[str]:
    found = [problem for problem in match.problems if problem.subject == subject]
    assert all(problem.severity == "note" for problem in found)
    return [problem.reason for problem in found]


# -- the delta's own base, saved another way ----------------------------------------------


def test_the_same_content_in_other_shards_is_the_same_base(
    registry: Registry, tmp_path: Path
) -> None:
    again = written(tmp_path / "sharded", BASE, shards=3)
    found = registry.add_base(str(again))
    assert (found.base.name, found.created) == ("base", False)
    assert "the same content as base base" in found.problems[0].reason
    named = registry.add_base(str(again), "mine")
    assert named.created and "the same content as base base" in named.problems[0].reason
    assert registry.add_base(str(tmp_path / "base")).problems == ()
    match = registry.query_base("mine").results[0]
    assert (match.verdict, match.drift_ratio) == ("identical", 0.0)
    assert reasons(match, "content") == []


def test_a_base_saved_in_a_wider_dtype_has_the_same_values(
    registry: Registry, tmp_path: Path
) -> None:
    match = only(registry, written(tmp_path / "wide", saved(BASE, "F32")))
    assert match.verdict == "compatible"  # not its content: the sum is another one
    assert reasons(match, "content") == [
        "the same values as base, the delta's own base, saved as F32"
    ]
    assert match.drift_ratio == 0.0


@pytest.mark.parametrize(("first", "then"), [("BF16", "F16"), ("F32", "BF16"), ("F32", "F16")])
def test_a_base_that_lost_bits_when_it_was_saved_is_told_by_its_distance(
    tmp_path: Path, first: str, then: str
) -> None:
    tensors = llama_like(1, dtype=first)
    base = write_checkpoint(tmp_path / "base", tensors)
    post = write_checkpoint(tmp_path / "post", changed(tensors, 2, size=0.01))
    with open_registry(tmp_path) as registry:
        registry.publish("skills/chat", str(base), str(post))
        match = only(registry, write_checkpoint(tmp_path / "lossy", saved(tensors, then)))
    (told,) = reasons(match, "content")
    assert told.startswith(f"looks like base, the delta's own base, saved as {then}")
    assert match.drift_ratio is not None and 0 < match.drift_ratio < 0.02
    assert match.verdict == "compatible"


def test_a_training_as_small_as_rounding_is_not_taken_for_it(tmp_path: Path) -> None:
    """bfloat16 values are exact in float16 but for the tiniest: 0.02 % of change is training."""
    base = write_checkpoint(tmp_path / "base", BASE)
    post = write_checkpoint(tmp_path / "post", changed(BASE, 2))
    trained = saved(changed(saved(BASE, "F32"), 3, size=0.0002), "F16")
    with open_registry(tmp_path) as registry:
        registry.publish("skills/chat", str(base), str(post))
        match = only(registry, write_checkpoint(tmp_path / "trained", trained))
    assert reasons(match, "content") == []
    assert match.drift_ratio is not None and match.drift_ratio > 0.05


WRAPPER = {"model_type": "llama", "text_config": llama_config()}


def wrapped(tensors: Tensors) -> Tensors:
    def name_of(name: str) -> str:
        prefix = "model.language_model." if name.startswith("model.") else "language_model."
        return prefix + name.removeprefix("model.")

    return {name_of(name): held for name, held in tensors.items()}


def test_a_wrapped_base_has_the_same_values(registry: Registry, tmp_path: Path) -> None:
    match = only(registry, written(tmp_path / "wrapped", wrapped(BASE), config=WRAPPER))
    assert match.verdict == "compatible"
    (told,) = reasons(match, "content")
    assert told.startswith("the same values as base, the delta's own base, saved under other names")
    assert match.drift_ratio == 0.0


def fused(tensors: Tensors) -> Tensors:
    """Query, key and value rows one below the other, as Phi-3 has them."""
    names = ("q_proj", "k_proj", "v_proj")
    found = {n: held for n, held in tensors.items() if not any(f".{part}." in n for part in names)}
    for name in [name for name in tensors if ".q_proj." in name]:
        parts = [tensors[name.replace("q_proj", part)] for part in names]
        bits = np.concatenate([bits for _, bits, _ in parts])
        rows = sum(shape[0] for _, _, shape in parts)
        dtype, _, (_, width) = parts[0]
        found[name.replace("q_proj", "qkv_proj")] = (dtype, bits, (rows, width))
    return found


def test_a_fused_base_and_a_split_one_have_the_same_values(tmp_path: Path) -> None:
    base = written(tmp_path / "base", fused(BASE), config=llama_config())
    post = written(tmp_path / "post", fused(changed(BASE, 2)), config=llama_config())
    with open_registry(tmp_path) as registry:
        registry.publish("skills/chat", str(base), str(post))
        match = only(registry, written(tmp_path / "split", BASE))
        assert match.drift_ratio == 0.0 and match.verdict == "compatible"
        assert reasons(match, "content")[0].startswith("the same values as base")
        added = registry.add_base(str(base), "again").base
        assert added.value_digests == registry.catalog.get_base("base").value_digests
        assert added.content_digest == registry.catalog.get_base("base").content_digest


def test_a_tower_beside_the_language_model_is_no_drift(registry: Registry, tmp_path: Path) -> None:
    """The sketches sum over other tensors: their difference is the tower."""
    tower = {"vision_tower.proj.weight": llama_like(5)["model.norm.weight"]}
    folder = tmp_path / "multimodal"
    match = only(registry, write_checkpoint(folder, wrapped(BASE) | tower, config=llama_config()))
    assert reasons(match, "content") == [
        "the same values as base, the delta's own base, with 1 more tensor beside them"
    ]
    assert (match.drift_ratio, match.verdict) == (0.0, "compatible")
    folder = tmp_path / "other"
    found = only(registry, written(folder, wrapped(changed(BASE, 7)) | tower, config=WRAPPER))
    assert found.drift_ratio is None
    assert "do not have the same tensors" in reasons(found, "drift")[0]


@pytest.mark.parametrize("count", [1, 7])
def test_the_tensors_that_differ_are_counted_and_named(
    registry: Registry, tmp_path: Path, count: int
) -> None:
    names = [name for name in sorted(BASE) if "norm" not in name][:count]
    tensors = BASE | changed({name: BASE[name] for name in names}, 9)
    match = only(registry, written(tmp_path / "near", tensors))
    (told,) = reasons(match, "content")
    assert told.startswith(f"{count} of {len(BASE)} tensors differ from base, the delta's own base")
    assert [name in told for name in names] == [True] * min(count, 5) + [False] * (count - 5)


def test_another_training_is_not_called_a_near_miss(registry: Registry, tmp_path: Path) -> None:
    match = only(registry, written(tmp_path / "far", changed(BASE, 9)))
    assert reasons(match, "content") == []
    assert match.drift_ratio is not None and 0.8 < match.drift_ratio < 1.25


def test_bases_are_told_by_the_same_means_as_deltas(registry: Registry, tmp_path: Path) -> None:
    registry.add_base(str(written(tmp_path / "wide", saved(BASE, "F32"))))
    registry.add_base(str(written(tmp_path / "wrapped", wrapped(BASE), config=WRAPPER)))
    found = {match.ref: match for match in registry.query_delta("skills/chat").results}
    assert found["base"].verdict == "identical" and found["base"].drift_ratio == 0.0
    for name in ("wide", "wrapped"):
        assert found[name].drift_ratio == 0.0
        assert reasons(found[name], "content")[0].startswith("the same values as base")


def test_drift_is_near_what_the_weights_say(registry: Registry, tmp_path: Path) -> None:
    newer = changed(BASE, 3, size=0.002)
    match = only(registry, written(tmp_path / "later", newer))

    def norm(one: Tensors, two: Tensors) -> float:
        parts = [values_of(one[n][1], "BF16") - values_of(two[n][1], "BF16") for n in BASE]
        return float(np.linalg.norm(np.concatenate(parts)))

    true = norm(newer, BASE) / norm(changed(BASE, 2), BASE)
    assert match.drift_ratio == pytest.approx(true, rel=0.1)


# -- what is known of a base --------------------------------------------------------------


def test_a_folder_that_is_not_registered_has_no_drift_and_check_says_why(
    registry: Registry, tmp_path: Path
) -> None:
    folder = written(tmp_path / "unknown", changed(BASE, 3))
    found = registry.check("skills/chat", str(folder))
    (told,) = [problem for problem in found.problems if problem.subject == "drift"]
    assert found.drift_ratio is None and found.ok
    assert told.severity == "note" and "weights were not read" in told.reason
    assert f"paramdelta base add {folder}" in told.remedy
    assert registry.query_base(str(folder)).problems == (told,)
    registry.add_base(str(folder))
    assert registry.query_base(str(folder)).problems == ()


def test_publishing_tells_of_its_base_what_adding_it_would(tmp_path: Path) -> None:
    """Of tensors without a delta too."""
    ids = {"model.ids": tensor("I64", [1, 2, 3], (3,))}
    base = written(tmp_path / "base", BASE | ids)
    post = written(tmp_path / "post", changed(BASE, 2) | ids)
    with open_registry(tmp_path / "one") as one, open_registry(tmp_path / "two") as two:
        one.publish("chat", str(base), str(post))
        published, added = one.catalog.get_base("base"), two.add_base(str(base)).base
        assert two.catalog.get_base("base") == added
        assert one.catalog.get_release("chat").summary.sketch_table == added.sketch_table
    assert published.value_digests == added.value_digests
    assert published.value_digests and "model.ids" in published.value_digests
    assert published.sketch_table == added.sketch_table
    assert published.sketch and added.sketch
    assert Sketch(published.sketch).distance(Sketch(added.sketch)) < 1e-5


@pytest.mark.parametrize("lost", ["rows", "tensor"])
def test_a_post_that_lacks_parts_of_its_base_leaves_the_base_whole(
    tmp_path: Path, lost: str
) -> None:
    post = changed(BASE, 2)
    if lost == "tensor":
        del post["model.layers.1.self_attn.q_proj.weight"]
    else:
        dtype, bits, (rows, width) = post["lm_head.weight"]
        post["lm_head.weight"] = (dtype, bits[: (rows - 2) * width], (rows - 2, width))
    folders = write_checkpoint(tmp_path / "base", BASE), write_checkpoint(tmp_path / "post", post)
    with open_registry(tmp_path / "one") as one, open_registry(tmp_path / "two") as two:
        one.publish("chat", *map(str, folders))
        published, added = one.catalog.get_base("base"), two.add_base(str(folders[0])).base
    assert published.value_digests == added.value_digests
    assert published.sketch == added.sketch
    assert published.value_digests and len(published.value_digests) == len(BASE)


def test_adding_a_base_again_completes_what_an_older_version_kept(
    registry: Registry, tmp_path: Path
) -> None:
    whole = registry.catalog.get_base("base")
    lost = sa.update(BASES).values(value_digests=None, sketch_table=None)
    with registry.catalog._engine.begin() as connection:
        connection.execute(lost)
    assert registry.catalog.get_base("base").value_digests is None
    registry.add_base(str(tmp_path / "base"))
    found = registry.catalog.get_base("base")
    assert found.value_digests == whole.value_digests and found.sketch_table == whole.sketch_table


# -- what is written was checked ----------------------------------------------------------

LIES: dict[str, Callable[[Manifest], Manifest]] = {
    "no fingerprint": lambda m: _with_fingerprint(m, {"a": 1}),
    "another's hash": lambda m: dataclasses.replace(
        m, base=dataclasses.replace(m.base, architecture_hash="sha256:" + "0" * 64)
    ),
    "changed fields": lambda m: _with_fingerprint(m, _edited(m.base.fingerprint)),
    "a norm that is none": lambda m: _with_norm(m, "nan"),
    "a norm that is no number": lambda m: _with_norm(m, "many"),
    "an endless norm": lambda m: _with_norm(m, "1e999"),
}


def _with_fingerprint(manifest: Manifest, content: dict[str, Any]) -> Manifest:
    side = dataclasses.replace(manifest.base, fingerprint=content)
    return dataclasses.replace(manifest, base=side)


def _edited(content: Any) -> dict[str, Any]:
    fields = content["architecture"]["fields"] | {"num_attention_heads": 1}
    return content | {"architecture": content["architecture"] | {"fields": fields}}


def _with_norm(manifest: Manifest, norm: str) -> Manifest:
    first = dataclasses.replace(manifest.tensors[0], norm=norm)
    return dataclasses.replace(manifest, tensors=(first, *manifest.tensors[1:]))


@pytest.mark.parametrize("lie", LIES)
def test_a_manifest_that_lies_to_queries_is_not_catalogued(registry: Registry, lie: str) -> None:
    digest = Digest(registry.show("skills/chat").release.digest)
    true = Manifest.from_bytes(registry.artifacts.read_manifest(digest))
    stored = registry.artifacts.put_manifest(LIES[lie](true).to_bytes())
    record = ReleaseRecord("skills/liar", 1, stored, "eve", NOW, "", None, {})
    registry.artifacts.put_release("skills/liar", 1, record.to_bytes())
    found = registry.reindex()
    assert [problem.subject for problem in found.problems] == ["skills/liar"]
    assert [view.release.name for view in registry.releases()] == ["skills/chat"]
    assert len(registry.query_base("base").results) == 1


# -- many ---------------------------------------------------------------------------------


class Many:
    """Deltas in the catalog alone, of the real fingerprint of ``base`` but for its length."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.base = registry.catalog.get_base("base")
        self._numbers = itertools.count(1)

    def publish(self, name: str, norm: float | None, **changes: Any) -> None:
        digest = f"sha256:{next(self._numbers):064x}"
        found = DeltaSummary(
            digest=digest,
            architecture_hash=self.base.architecture_hash,
            tokenizer_hash=self.base.tokenizer_hash,
            base_content_digest="sha256:" + "a" * 64,
            post_content_digest=digest,
            parameters=1,
            dtype="BF16",
            bytes_raw=2,
            bytes_stored=1,
            bits_per_weight=4.5,
            exact=True,
            codecs={"palette": 1},
            base_fingerprint=self.base.fingerprint,
            post_fingerprint=self.base.fingerprint,
            sketch=np.ones(4096, "<f4").tobytes(),
            base_sketch=np.ones(4096, "<f4").tobytes(),
            norm=norm,
            sketch_table=self.base.sketch_table,
        )
        found = dataclasses.replace(found, **changes)
        self.registry.catalog.publish(
            name, found, author="ann", created_at=NOW, description=f"about {name}", license=None,
            tags={"lang": name[-1]},
            seal=lambda version: SealedRelease(
                found.digest, "ann", NOW, f"about {name}", None, {"lang": name[-1]}, found),
        )  # fmt: skip


@pytest.fixture
def many(tmp_path: Path) -> Iterator[Many]:
    base, *_ = family(tmp_path)
    with open_registry(tmp_path) as registry:
        registry.add_base(str(base))
        yield Many(registry)


def test_the_best_verdict_comes_first_then_the_smallest_drift_then_the_name(many: Many) -> None:
    own, sketch = many.base.content_digest, many.base.sketch
    many.publish("d", 10.0)
    many.publish("a", 1000.0)
    many.publish("unknown-b", None)
    many.publish("unknown-a", 5.0, base_sketch=None)
    many.publish("zero", 0.0)
    many.publish("c", 10.0)
    many.publish("own", 1.0, base_content_digest=own)
    many.publish("same-values", 1.0, base_sketch=sketch)
    found = many.registry.query_base("base")
    names = ["own", "same-values", "a", "c", "d", "unknown-a", "unknown-b", "zero"]
    assert [match.ref for match in found.results] == [f"{name}@1" for name in names]
    assert found.results[0].verdict == "identical"
    drifts = [match.drift_ratio for match in found.results]
    assert drifts[:2] == [0.0, 0.0] and drifts[-3:] == [None] * 3
    assert drifts[3] == pytest.approx(100 * (drifts[2] or 0))
    assert found.results[3].description == "about c" and found.results[3].tags == {"lang": "c"}


def test_pages_follow_each_other_and_the_counts_are_of_all(many: Many) -> None:
    for i in range(7):
        many.publish(f"d{i}", 10.0 + i)
    far = _edited(many.base.fingerprint)
    other = {"architecture_hash": "sha256:" + "b" * 64, "base_fingerprint": far}
    many.publish("unfit", 1.0, **other)
    query = many.registry.query_base
    whole = query("base", limit=None)
    assert (len(whole.results), whole.fitting, whole.hidden) == (7, 7, 1)
    pages = [query("base", limit=3, offset=offset) for offset in (0, 3, 6, 9)]
    assert tuple(match for page in pages for match in page.results) == whole.results
    assert {(page.fitting, page.hidden) for page in pages} == {(7, 1)}
    tagged = query("base", {"lang": "3"})
    assert (len(tagged.results), tagged.fitting, tagged.hidden) == (1, 1, 0)
    assert query("base", min_verdict="identical").hidden == 8
    everything = query("base", min_verdict="incompatible")
    assert (everything.fitting, everything.hidden) == (8, 0)
    assert everything.results[-1].ref == "unfit@1"


def test_a_query_of_many_reads_each_sketch_and_fingerprint_once(many: Many) -> None:
    """Ten times the deltas of the same bases: the same statements, the same evidence."""
    sent: list[tuple[str, int]] = []

    def count(deltas: int) -> list[tuple[str, int]]:
        while len(many.registry.catalog.list_releases(evidence=False)) < deltas:
            many.publish(f"d{next(many._numbers)}", 10.0)
        sent.clear()
        many.registry.query_base("base", limit=2)
        return list(sent)

    def keep(connection, cursor, text, parameters, context, some) -> None:  # type: ignore
        sent.append((text, len(parameters)))

    count(3)  # what stays in memory
    sa.event.listen(many.registry.catalog._engine, "before_cursor_execute", keep)
    few = count(3)
    assert count(30) == few
    assert not any("FROM fingerprints" in text for text, _ in few)


def test_a_query_by_delta_pages_too(many: Many) -> None:
    many.publish("chat", 10.0, base_content_digest=many.base.content_digest)
    for i in range(5):
        content = f"sha256:{i:064x}"
        sketch = np.full(4096, float(i), "<f4").tobytes()
        made = dataclasses.replace(
            many.base, name=f"b{i}", content_digest=content, sketch=sketch, value_digests=None
        )
        many.registry.catalog.add_base(made)
    query = many.registry.query_delta
    whole = query("chat", limit=None)
    assert [match.ref for match in whole.results] == ["base", "b1", "b0", "b2", "b3", "b4"]
    assert query("chat", limit=2, offset=2).results == whole.results[2:4]
    assert query("chat", "identical").hidden == 5
    assert whole.results[1].digest == f"sha256:{1:064x}"


def test_a_catalog_of_another_versions_fingerprints_says_so(many: Many) -> None:
    old = dict(many.base.fingerprint) | {"facets": {}}
    many.publish("old", 1.0, base_fingerprint=old)
    with pytest.raises(InvalidError, match="reindex"):
        many.registry.query_base("base")


def test_a_folder_that_is_not_registered_is_asked_about_by_its_headers(
    many: Many, tmp_path: Path
) -> None:
    many.publish("chat", 1.0, base_content_digest=many.base.content_digest)
    copy = written(tmp_path / "copy", BASE)
    found = many.registry.query_base(str(copy))
    assert [(match.ref, match.verdict) for match in found.results] == [("chat@1", "compatible")]
    assert found.results[0].drift_ratio is None


def test_people_see_a_page_and_scripts_get_all(
    many: Many, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in range(53):
        many.publish(f"delta-{i:02}", 10.0)

    def run(*words: str) -> str:
        found = cli.run(["--registry", str(tmp_path / "registry"), *words])
        assert found == 0
        return capsys.readouterr().out

    text = run("query", "--base", "base")
    assert "delta-49@1" in text and "delta-50@1" not in text
    assert "3 more fit: --offset 50" in text
    text = run("query", "--base", "base", "--offset", "50")
    assert "│ 51 │ delta-50@1" in text and "more fit" not in text
    assert len(json.loads(run("query", "--base", "base", "--json"))["results"]) == 53
    some = json.loads(run("query", "--base", "base", "--json", "--limit", "2", "--offset", "52"))
    assert [row["ref"] for row in some["results"]] == ["delta-52@1"]
    assert (some["fitting"], some["offset"], some["hidden"]) == (53, 52, 0)

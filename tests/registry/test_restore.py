"""Publish, then restore: every file comes back with its sha256, whatever the bits are."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.checkpoints import FLOATS, bits_of, tensor, tensor_pairs, tensors, write_checkpoint
from support.registries import family, files_of, open_registry, pair

from paramdelta.errors import ConflictError, CorruptError, IncompatibleError, NotFoundError


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shards", [1, 3])
def test_every_file_of_the_post_comes_back(tmp_path: Path, dtype: str, shards: int) -> None:
    base, post, _ = family(tmp_path, dtype, shards)
    with open_registry(tmp_path) as registry:
        done = registry.publish("chat", str(base), str(post))
        assert done.release.summary.exact
        expected = files_of(post)
        shutil.rmtree(post)  # the original can be deleted
        found = registry.restore("chat", tmp_path / "out")
    assert files_of(tmp_path / "out") == expected == dict(found.files)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_pair_of_checkpoints_comes_back(data: st.DataObject) -> None:
    """Special values, integers, booleans, scalars, empty tensors; tensors that came and went."""
    base_tensors, post_tensors = {}, {}
    for i in range(data.draw(st.integers(1, 4))):
        ours, theirs = data.draw(tensor_pairs())
        base_tensors[f"w{i}"], post_tensors[f"w{i}"] = ours, theirs
    for kind in ("I64", "BOOL", "I8"):
        dtype, bits, shape = data.draw(tensors([kind]))
        base_tensors[kind] = (dtype, bits, shape)
        post_tensors[kind] = (dtype, bits[::-1].copy(), shape)
    base_tensors["gone"], post_tensors["new"] = data.draw(tensors()), data.draw(tensors())
    base_tensors["mixed"] = tensor("F32", [1, 2, 0x7FC00001], (3,))
    post_tensors["mixed"] = tensor("BF16", [0x3F80, 0x8000, 0x7F81], (3,))
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        base, post = pair(folder, base_tensors, post_tensors, data.draw(st.integers(1, 3)))
        with open_registry(folder) as registry:
            registry.publish("any", str(base), str(post))
            registry.restore("any", folder / "out")
            assert registry.verify(all=True, deep=True).ok
        assert files_of(folder / "out") == files_of(post)


def test_headers_that_others_wrote_come_back_verbatim(tmp_path: Path) -> None:
    """Odd key order, metadata and padding are the file's, not ours."""
    base, post = pair(
        tmp_path, {"b": tensor("BF16", [1, 2], (2,))}, {"b": tensor("BF16", [3, 4], (2,))}
    )
    header = (
        b'{"b":{"shape":[2],"data_offsets":[0,4],"dtype":"BF16"},"__metadata__":{"a":"\\u00e9"}}   '
    )
    data = len(header).to_bytes(8, "little") + header + b"\x03\0\x04\0"
    (post / "model.safetensors").write_bytes(data)
    with open_registry(tmp_path) as registry:
        registry.publish("x", str(base), str(post))
        registry.restore("x", tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == data


def test_publishing_the_same_content_again_gives_the_same_release(tmp_path: Path) -> None:
    base, post, _ = family(tmp_path)
    with open_registry(tmp_path) as registry:
        first = registry.publish("chat", str(base), str(post), tags={"a": "b"}, author="ann")
        again = registry.publish("chat", str(base), str(post), author="bob", description="x")
        assert (first.created, again.created) == (True, False)
        assert again.release == first.release
        assert len(registry.releases()) == 1


def test_two_registries_give_one_digest_whatever_the_threads_and_places(tmp_path: Path) -> None:
    """A manifest holds no time, host or path."""
    digests = set()
    for place, threads in (("one", 1), ("two/deeper", 4)):
        base, post, _ = family(tmp_path / place)
        with open_registry(tmp_path / place, threads) as registry:
            digests.add(registry.publish(f"n{threads}", str(base), str(post)).release.digest)
    assert len(digests) == 1


def test_a_manifest_names_no_place_or_time(tmp_path: Path) -> None:
    base, post, _ = family(tmp_path)
    with open_registry(tmp_path) as registry:
        digest = registry.publish("chat", str(base), str(post)).release.digest
        text = registry.artifacts.read_manifest(digest).decode()
    assert str(tmp_path) not in text
    assert "2026" not in text and "time" not in text


def test_a_frozen_tensor_costs_nothing(tmp_path: Path) -> None:
    frozen = tensor("BF16", bits_of(np.linspace(-1, 1, 5000), "BF16"), (50, 100))
    base, post = pair(tmp_path, {"w": frozen}, {"w": frozen})
    with open_registry(tmp_path) as registry:
        summary = registry.publish("same", str(base), str(post)).release.summary
    assert (summary.bytes_stored, summary.codecs) == (0, {"zero": 1})


def test_restoring_from_another_base_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    base, post, newer = family(tmp_path)
    with open_registry(tmp_path) as registry:
        registry.publish("chat", str(base), str(post))
        with pytest.raises(IncompatibleError) as caught:
            registry.restore("chat", tmp_path / "out", base=str(newer))
    assert caught.value.problems
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base", "newer", "post", "registry"]


def test_the_base_may_lie_elsewhere_by_now(tmp_path: Path) -> None:
    base, post, _ = family(tmp_path)
    with open_registry(tmp_path) as registry:
        registry.publish("chat", str(base), str(post))
        base.rename(tmp_path / "moved")
        with pytest.raises(NotFoundError, match="gone"):
            registry.restore("chat", tmp_path / "out")
        registry.restore("chat", tmp_path / "out", base=str(tmp_path / "moved"))
        assert files_of(tmp_path / "out") == files_of(post)
        registry.add_base(str(tmp_path / "moved"), "base")
        registry.restore("chat", tmp_path / "again")


def test_an_output_that_exists_is_kept_unless_forced(tmp_path: Path) -> None:
    base, post, _ = family(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    with open_registry(tmp_path) as registry:
        registry.publish("chat", str(base), str(post))
        with pytest.raises(ConflictError):
            registry.restore("chat", out)
        assert (out / "mine.txt").read_text() == "mine"
        registry.restore("chat", out, force=True)
    assert files_of(out) == files_of(post)


@pytest.mark.parametrize("force", [False, True])
def test_bases_and_registries_are_never_replaced(tmp_path: Path, force: bool) -> None:
    base, post, _ = family(tmp_path)
    before = files_of(base)
    with open_registry(tmp_path) as registry:
        registry.publish("chat", str(base), str(post))
        for out in (base, base / "sub", tmp_path, tmp_path / "registry" / "store"):
            with pytest.raises(ConflictError):
                registry.restore("chat", out, force=force)
    assert files_of(base) == before


def blobs(folder: Path) -> list[Path]:
    return sorted(p for p in (folder / "registry/store/blobs").rglob("*") if p.is_file())


def test_no_flipped_bit_of_any_blob_is_served(tmp_path: Path) -> None:
    """Invariant 1, over every blob of a release."""
    base, post, _ = family(tmp_path)
    with open_registry(tmp_path) as registry:
        registry.publish("chat", str(base), str(post))
        manifest = registry._manifest(registry.catalog.get_release("chat").digest)
        for i, path in enumerate(blobs(tmp_path)):
            good = path.read_bytes()
            spoiled = bytearray(good)
            spoiled[i * 7919 % len(good)] ^= 1 << i % 8
            path.write_bytes(spoiled)
            checked = registry.verify(all=True)
            assert len(checked.problems) == 1, path
            assert path.parent.name + path.name in checked.problems[0].subject.replace("/", "")
            if path.parent.name + path.name != manifest.sketch.removeprefix("sha256:"):
                with pytest.raises(CorruptError):
                    registry.restore("chat", tmp_path / "out")
                assert not (tmp_path / "out").exists()
            path.write_bytes(good)
        assert registry.verify(all=True).ok
        path = blobs(tmp_path)[0]
        path.unlink()
        assert "missing" in registry.verify(["chat"]).problems[0].reason


def test_publishing_again_heals_a_damaged_registry(tmp_path: Path) -> None:
    base, post, _ = family(tmp_path)
    with open_registry(tmp_path) as registry:
        registry.publish("chat", str(base), str(post))
        for path in blobs(tmp_path)[::2]:
            path.write_bytes(path.read_bytes()[:-1] + b"?")
        for path in blobs(tmp_path)[1::2]:
            path.unlink()
        assert not registry.verify(all=True).ok
        assert not registry.publish("chat", str(base), str(post)).created
        assert registry.verify(all=True, deep=True).ok


def test_files_that_are_too_large_are_told_not_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, post, _ = family(tmp_path)
    with (post / "video.mp4").open("wb") as file:
        file.truncate(200 << 20)
    with open_registry(tmp_path) as registry:
        done = registry.publish("chat", str(base), str(post))
        assert not done.release.summary.exact
        assert any(p.subject == "video.mp4" and p.severity == "warning" for p in done.problems)
        assert registry.show("chat").left_out == ("video.mp4",)


def test_a_post_with_more_rows_than_the_base_comes_back(tmp_path: Path) -> None:
    random = np.random.default_rng(0)

    def rows(n: int) -> tuple[str, np.ndarray, tuple[int, ...]]:
        return tensor("BF16", bits_of(random.standard_normal(n * 8), "BF16"), (n, 8))

    for i, (ours, theirs) in enumerate([(10, 12), (12, 10)]):
        folder = tmp_path / str(i)
        name = "model.embed_tokens.weight"
        base = write_checkpoint(folder / "base", {name: rows(ours)})
        post = write_checkpoint(folder / "post", {name: rows(theirs)})
        with open_registry(folder) as registry:
            registry.publish("grown", str(base), str(post))
            registry.restore("grown", folder / "out")
        assert files_of(folder / "out") == files_of(post)

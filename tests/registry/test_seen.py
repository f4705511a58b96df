"""The memory of what a place showed: a rollback and a swap are noticed, and can be accepted."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paramdelta.errors import InvalidError, UntrustedError
from registry.seen import FILE, Seen

ONE, TWO = "sha256:" + "1" * 64, "sha256:" + "2" * 64
PLACE = "s3://bucket"


def test_nothing_is_made_until_something_is_remembered(tmp_path: Path) -> None:
    folder = tmp_path / "registry"
    Seen(folder).check(PLACE, "chat", {1: ONE})
    assert not folder.exists()
    Seen(folder).remember(PLACE, "chat", {1: ONE})
    assert (folder / FILE).exists()


def test_more_versions_are_fine_and_fewer_are_not(tmp_path: Path) -> None:
    seen = Seen(tmp_path)
    seen.remember(PLACE, "chat", {1: ONE, 2: None, 5: TWO})
    seen.check(PLACE, "chat", {1: ONE, 2: ONE, 5: TWO, 6: None})
    with pytest.raises(UntrustedError) as caught:
        seen.check(PLACE, "chat", {1: ONE, 2: None})
    assert f"chat@5 was here ({TWO}), and now it ends at chat@2" in caught.value.message
    with pytest.raises(UntrustedError, match="it is gone"):
        seen.check(PLACE, "chat", {1: ONE, 5: TWO})
    with pytest.raises(UntrustedError, match="it has no chat at all") as caught:
        seen.check(PLACE, "chat", {})
    assert [problem.subject for problem in caught.value.problems] == ["chat@5", "chat@2", "chat@1"]


def test_another_digest_names_both(tmp_path: Path) -> None:
    seen = Seen(tmp_path)
    seen.remember(PLACE, "chat", {1: None})
    seen.remember(PLACE, "chat", {1: ONE})
    seen.remember(PLACE, "chat", {1: None})  # a listing does not take a digest away
    seen.check(PLACE, "chat", {1: None})
    with pytest.raises(UntrustedError) as caught:
        seen.check(PLACE, "chat", {1: TWO})
    assert ONE in caught.value.message and TWO in caught.value.message


def test_names_and_places_do_not_mix(tmp_path: Path) -> None:
    seen = Seen(tmp_path)
    seen.remember(PLACE, "chat", {9: ONE})
    seen.check(PLACE, "chat/de", {})
    seen.check("s3://other", "chat", {1: TWO})


def test_what_is_accepted_is_the_new_memory(tmp_path: Path) -> None:
    Seen(tmp_path).remember(PLACE, "chat", {1: ONE, 2: ONE})
    accepting = Seen(tmp_path, accept=True)
    accepting.check(PLACE, "chat", {1: TWO})
    accepting.remember(PLACE, "chat", {1: TWO})
    Seen(tmp_path).check(PLACE, "chat", {1: TWO})
    with pytest.raises(UntrustedError):
        Seen(tmp_path).check(PLACE, "chat", {1: ONE})


def test_learning_one_version_forgets_no_other(tmp_path: Path) -> None:
    Seen(tmp_path).remember(PLACE, "chat", {1: ONE, 2: ONE})
    Seen(tmp_path, accept=True).learn(PLACE, "chat", {3: TWO})
    with pytest.raises(UntrustedError) as caught:
        Seen(tmp_path).check(PLACE, "chat", {})
    assert len(caught.value.problems) == 3


def test_a_damaged_memory_is_told(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"not a database" * 100)
    with pytest.raises(InvalidError, match="delete it"):
        Seen(tmp_path).check(PLACE, "chat", {})


def test_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    def work(start: int) -> None:
        for version in range(start, 40, 4):
            Seen(tmp_path).remember(PLACE, "chat", {version + 1: ONE})

    threads = [threading.Thread(target=work, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with pytest.raises(UntrustedError) as caught:
        Seen(tmp_path).check(PLACE, "chat", {})
    assert len(caught.value.problems) == 40


SHOWN = st.dictionaries(st.integers(1, 6), st.sampled_from([None, ONE, TWO]), max_size=6)


@settings(max_examples=60, deadline=None)
@given(st.lists(SHOWN, max_size=5))
def test_only_what_contains_the_past_is_let_through(
    tmp_path_factory: pytest.TempPathFactory, history: list[dict[int, str | None]]
) -> None:
    """Against a plain model of it: every version stays, and a digest once known stays."""
    seen = Seen(tmp_path_factory.mktemp("seen"))
    known: dict[int, str | None] = {}
    for shown in history:
        grew = known.keys() <= shown.keys()
        same = all(not shown.get(v) or not d or shown[v] == d for v, d in known.items())
        try:
            seen.check(PLACE, "chat", shown)
        except UntrustedError:
            assert not (grew and same)
            continue
        assert grew and same
        seen.remember(PLACE, "chat", shown)
        known = {v: d or known.get(v) for v, d in shown.items()}

"""Whoever answers in the hub's place when a base is taken from it: in bounds, on disk too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import local_hub
from support.evil_hub import Act, Forgery, bomb, endless, says
from support.local_hub import Hub
from support.registries import family
from support.victims import forget_peak, peak

import cli
from registry import hub_answers, hub_client

NOT_FOUND, INVALID, UNREACHABLE = 4, 5, 7
PEAK_MEGABYTES = 300
SENT = 100 << 20  # bytes of one command, its tries taken together; 32 MiB an answer about a model
DISK = 64 << 20  # bytes in the cache
HEADER = r"^GET \S*\.safetensors bytes="
SHARD = r"^GET \S*\.safetensors\?signed\S* $"  # whole, from where the hub redirects to


INFO, CONFIG = r"GET /api/models/", r"^GET .*/config.json"
ATTACKS: dict[str, tuple[str, Act, int]] = {
    "a description without end": (INFO, says(endless), INVALID),
    "a description of a petabyte": (INFO, says(endless, Content_Length=str(1 << 50)), INVALID),
    "a description packed as a bomb": (
        INFO, says(bomb("zstd", 2000), Content_Encoding="zstd"), UNREACHABLE),
    "a description that is a list": (INFO, says(b"[]"), UNREACHABLE),
    "a description nested for ever": (INFO, says(b'{"a":' * 100_000), UNREACHABLE),
    "files that are numbers": (
        INFO, says(json.dumps({"sha": "a" * 40, "siblings": [1]}).encode()), UNREACHABLE),
    "files without end": (
        INFO, says(json.dumps({"sha": "a" * 40, "siblings": [
            {"rfilename": f"{i}", "size": 1} for i in range(20_001)]}).encode()), INVALID),
    "a commit that climbs": (
        INFO, says(json.dumps({"sha": "../../x", "siblings": []}).encode()), INVALID),
    "an error without end": (INFO, says(endless, 500), UNREACHABLE),
    "a configuration without end": (CONFIG, says(endless), INVALID),
    "a configuration packed as a bomb": (
        CONFIG, says(bomb("gzip", 500), Content_Encoding="gzip"), INVALID),
    "a header without end": (HEADER, says(endless), INVALID),
    "an error instead of a header without end": (HEADER, says(endless, 404), NOT_FOUND),
    "weights without end": (SHARD, says(endless), INVALID),
    "weights packed as a bomb": (
        SHARD, says(bomb("gzip", 500), Content_Encoding="gzip"), INVALID),
}  # fmt: skip


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with local_hub.serve() as found:
        constants = "huggingface_hub.constants."
        monkeypatch.setattr(constants + "ENDPOINT", found.url)
        monkeypatch.setattr(
            constants + "HUGGINGFACE_CO_URL_TEMPLATE",
            found.url + "/{repo_id}/resolve/{revision}/{filename}",
        )
        monkeypatch.setattr(constants + "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants + "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(hub_client, "WAITS", ())
        monkeypatch.setattr(hub_answers, "ANSWER_SECONDS", 5.0)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield found


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_base_from_it_ends_in_bounds(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str], attack: str
) -> None:
    base, post, _ = family(tmp_path)
    hub.repos["org/base"] = base
    pattern, act, code = ATTACKS[attack]
    hub.evil = forgery = Forgery(pattern, act)
    before = forget_peak()
    found = cli.run(["--registry", str(tmp_path / "me"), "--json", "publish", "x",
                     "--base", "hf://org/base", "--post", str(post)])  # fmt: skip
    out, said = capsys.readouterr()
    assert forgery.answers
    assert found == code, out
    assert "Traceback" not in out + said and "defect" not in out + said
    assert peak() - before < PEAK_MEGABYTES
    assert forgery.sent < SENT
    cache = tmp_path / "cache"
    assert sum(path.stat().st_size for path in cache.rglob("*") if path.is_file()) < DISK
    assert not list((tmp_path / "me").rglob("1.json"))

"""Whoever answers in the place of an object store: what objects hold is in test_evil_store.py."""

from __future__ import annotations

import time

import pytest
from support import local_hub_store
from support.evil_hub import Act, Forgery, Request, says

import cli
from registry.stores import s3

pytestmark = pytest.mark.usefixtures("remotes")

LISTING = (
    '<?xml version="1.0"?><ListBucketResult><Name>b</Name><KeyCount>{count}</KeyCount>'
    "<IsTruncated>{more}</IsTruncated>{rest}</ListBucketResult>"
)
ITEM = (
    "<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
    '<ETag>"0"</ETag><Size>{size}</Size></Contents>'
)


def pages_without_end(forgery: Forgery, request: Request) -> None:
    """Each page is empty, and another follows."""
    token = f"<NextContinuationToken>t{forgery.answers}</NextContinuationToken>"
    said = LISTING.format(count=0, more="true", rest=token)
    says(said.encode(), Content_Type="application/xml")(forgery, request)


def keys(*found: str, size: object = 1) -> Act:
    rest = "".join(ITEM.format(key=key, size=size) for key in found)
    text = LISTING.format(count=len(found), more="false", rest=rest)
    return says(text.encode(), Content_Type="application/xml")


LISTS: dict[str, tuple[Act, int]] = {
    "pages without end": (pages_without_end, 7),
    "a list that is no XML": (says(b"hello"), 7),
    "entities that multiply": (
        says(b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
             b"<ListBucketResult><Name>&b;</Name></ListBucketResult>"), 4),
    "an entity of a file": (
        says(b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
             b"<ListBucketResult><Name>&a;</Name></ListBucketResult>"), 4),
    "sizes of words": (keys("x/releases/chat/@/1.json", size="many"), 7),
    "sizes below nothing": (keys("x/releases/chat/@/1.json", size=-1), 7),
    "keys that climb": (keys("x/releases/../../chat/@/1.json", "../etc/passwd"), 7),
    "keys that are none": (keys("x/releases/Evil/@/1.json", "x/releases/chat/@/0.json"), 4),
}  # fmt: skip


@pytest.mark.parametrize("attack", LISTS)
def test_a_list_that_lies_ends(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    attack: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(s3, "PAGE_SECONDS", 1.0)
    act, code = LISTS[attack]
    with local_hub_store.serve() as server:
        forgery = Forgery("GET .*list-type=2", act)
        server.evil = forgery
        words = ["--registry", f"{tmp_path}/me", "pull", "chat",
                 "--from", f"s3://b/x?endpoint={server.url}&region=us-east-1"]  # fmt: skip
        found = cli.run(words)
        said = capsys.readouterr().err
        assert found == code, said
        assert "Traceback" not in said and "root:" not in said
        assert forgery.answers
        count = forgery.answers
        time.sleep(0.2)
        assert forgery.answers <= count + 1  # it is given up, not only left alone

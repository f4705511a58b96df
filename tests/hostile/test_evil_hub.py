"""Whoever answers in the hub's place: commands end as they should, in bounds, and keep the token.

What such a hub says about content is tested with the other stores (test_evil_store.py); here it
breaks the rules of HTTP, of lists and of commits.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from support.evil_hub import Act, Forgery, Request, bomb, endless, says, trickle
from support.local_hub_store import StoreHub
from support.registries import files_of
from support.victims import Victim, forget_peak, peak

from registry import hub_answers
from registry.stores import hub as hub_store
from registry.stores import hub_requests, remote

pytestmark = pytest.mark.usefixtures("remotes")

NOT_FOUND, INVALID, UNREACHABLE = 4, 5, 7
PEAK_MEGABYTES = 400  # over what the process held before; a manifest may have 256
SENT = 300 << 20  # bytes of one command; sockets keep some megabytes more than is read
MIB = 1 << 20

Make = Callable[[str], Victim]

TREE, PATHS, HEAD = r"GET .*/tree/", r"POST .*/paths-info/", r"GET .*/revision/main"
FILE, BLOB = r"GET .*/(resolve|cdn)/", r"GET /cdn/"


def row(path: object, size: object = 1, **more: object) -> dict[str, object]:
    return {"type": "file", "path": path, "size": size, "oid": "0" * 40, **more}


def rows(*found: object) -> Act:
    return says(json.dumps(list(found)).encode())


def redirect(where: str, status: int = 302) -> Act:
    return says(b"", status, Location=where)


def loop(forgery: Forgery, request: Request) -> None:
    redirect(f"http://{request.headers['host']}{request.path}")(forgery, request)


def pages_without_end(forgery: Forgery, request: Request) -> None:
    """Each page is empty, and another follows."""
    here = f"http://{request.headers['host']}{request.path.partition('?')[0]}"
    link = f'<{here}?cursor={forgery.answers}>; rel="next"'
    says(b"[]", Link=link)(forgery, request)


def one_byte_each(forgery: Forgery, request: Request) -> None:
    """An answer that breaks off after a byte, however often it is resumed."""
    start = int((request.headers.get("Range") or "bytes=0-")[6:-1])
    forgery.reply(
        request, 206 if start else 200, {"Content-Length": str((1 << 20) - start)}, [b"x"]
    )


def long_head(forgery: Forgery, request: Request) -> None:
    forgery.reply(request, 200, {"ETag": '"' + "e" * (64 << 20) + '"'})


def heads_without_end(forgery: Forgery, request: Request) -> None:
    """Header lines, and never the end of them."""
    request.close_connection = True
    request.send_response_only(200)
    request.end_headers = lambda: None  # type: ignore[method-assign]
    forgery.reply(request, 200, {}, endless(b"X-Header: " + b"x" * 1000 + b"\r\n"))


# name → requests, their answer, exit status of a pull
ATTACKS: dict[str, tuple[str, Act, int]] = {
    "a list without end": (TREE, says(endless), INVALID),
    "a list of a petabyte": (TREE, says(endless, Content_Length=str(1 << 50)), INVALID),
    "a list that is nested for ever": (TREE, says(b"[" * MIB), UNREACHABLE),
    "a list that is an object": (TREE, says(b'{"error": 1}'), UNREACHABLE),
    "a list of numbers": (TREE, says(b"[1, 2]"), UNREACHABLE),
    "a list of NaN": (TREE, says(b"[NaN]"), UNREACHABLE),
    "a list that is a page": (TREE, says(b"<html>hello</html>"), UNREACHABLE),
    "a list packed as a bomb": (
        TREE, says(bomb("gzip", 500), Content_Encoding="gzip"), UNREACHABLE),
    "a list packed as a smaller bomb": (
        TREE, says(bomb("zstd", 2000), Content_Encoding="zstd"), UNREACHABLE),
    "pages without end": (TREE, pages_without_end, INVALID),
    "a page that is its own next": (
        TREE,
        lambda f, r: says(b"[]", Link=f'<http://{r.headers["host"]}{r.path}>; rel="next"')(f, r),
        UNREACHABLE,
    ),
    "a path that is a number": (TREE, rows(row(1)), UNREACHABLE),
    "a size below nothing": (TREE, rows(row("releases/chat/@/1.json", -1)), UNREACHABLE),
    "a size of words": (TREE, rows(row("releases/chat/@/1.json", "1")), UNREACHABLE),
    "releases that are not there": (TREE, rows(row("releases/chat/@/7.json")), NOT_FOUND),
    "paths that climb": (TREE, rows(row("../../etc/x"), row("releases/../@/1.json")), NOT_FOUND),
    "an empty list": (TREE, rows(), NOT_FOUND),
    "a file without end": (FILE, says(endless, Content_Length=str(1 << 50)), INVALID),
    "a file without length": (FILE, says(endless), UNREACHABLE),
    "a blob without end": (BLOB, says(endless, Content_Length=str(1 << 50)), INVALID),
    "a file packed as a bomb": (
        FILE, says(bomb("gzip", 500), Content_Encoding="gzip"), UNREACHABLE),
    "a file packed as a smaller bomb": (
        FILE, says(bomb("zstd", 2000), Content_Encoding="zstd"), UNREACHABLE),
    "a file shorter than it says": (FILE, says(b"{}", Content_Length="100"), UNREACHABLE),
    "a length below nothing": (FILE, says(b"{}", Content_Length="-1"), UNREACHABLE),
    "a length of words": (FILE, says(b"{}", Content_Length="many"), UNREACHABLE),
    "a file that breaks off after each byte": (FILE, one_byte_each, UNREACHABLE),
    "a file that trickles": (
        FILE, says(trickle(0.02), Content_Length=str(1 << 30)), UNREACHABLE),
    "a list that trickles": (TREE, says(trickle(0.02)), UNREACHABLE),
    "a redirect to itself": (FILE, loop, UNREACHABLE),
    "a redirect to a file": (FILE, redirect("file:///etc/passwd"), UNREACHABLE),
    "a redirect to nowhere": (FILE, redirect("http://127.0.0.1:1/x"), UNREACHABLE),
    "a redirect to half an address": (FILE, redirect("http://[x/y"), UNREACHABLE),
    "a redirect to no port": (FILE, redirect("http://127.0.0.1:99999999/"), UNREACHABLE),
    "a redirect to no host": (FILE, redirect("http://"), UNREACHABLE),
    "a redirect with control characters": (FILE, redirect("http://127.0.0.1:1/\x7f\x1b[2J"), 7),
    "a redirect to a host of dots": (FILE, redirect("http://..%00../x"), UNREACHABLE),
    "a redirect to no number": (FILE, redirect("http://999.999.999.999/x"), UNREACHABLE),
    "a redirect that is long": (FILE, redirect("http://127.0.0.1:1/" + "x" * 90_000), UNREACHABLE),
    "a next page at half an address": (
        TREE, says(b"[]", Link='<http://[x/y?a=b>; rel="next"'), UNREACHABLE),
    "a redirect without end": (
        FILE, says(endless, 302, Location="http://127.0.0.1:1/x"), UNREACHABLE),
    "an error without end": (FILE, says(endless, 403), UNREACHABLE),
    "an error of the list without end": (TREE, says(endless, 418), UNREACHABLE),
    "an error that paints": (
        FILE, says(b"", 418, X_Error_Message="\x1b[2J\x1b]0;owned\x07"), UNREACHABLE),
    "a header of 64 MB": (FILE, long_head, UNREACHABLE),
    "headers without end": (FILE, heads_without_end, UNREACHABLE),
    "a part that is not asked for": (
        BLOB, says(b"x", 206, Content_Range="bytes 100-100/101"), INVALID),
}  # fmt: skip


@pytest.fixture
def evil(hub: StoreHub, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Act], Forgery]:
    """Makes the hub answer some requests so, from now on."""

    def forge(pattern: str, act: Act) -> Forgery:
        forgery = Forgery(pattern, act)
        monkeypatch.setattr(hub, "evil", forgery)
        return forgery

    return forge


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole minutes are a second; what is counted in thousands, in tens."""
    monkeypatch.setattr(remote, "PACE_SECONDS", 1.0)
    monkeypatch.setattr(hub_answers, "ANSWER_SECONDS", 2.0)
    monkeypatch.setattr(hub_requests, "TIMEOUT", 2.0)
    monkeypatch.setattr(hub_requests, "MAX_HUB_PAGES", 20)
    monkeypatch.setattr(remote, "RESUMES", 10)


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_pull_from_it_ends_in_bounds(
    victim_of: Make, evil: Callable[[str, Act], Forgery], attack: str
) -> None:
    victim = victim_of("hub")
    pattern, act, code = ATTACKS[attack]
    forgery = evil(pattern, act)
    before = forget_peak()
    mine = victim.folder / "mine"
    _, found = victim.run("fresh", "--store", mine, "pull", "chat", "--from", victim.address,
                          code=code)  # fmt: skip
    assert forgery.answers
    assert peak() - before < PEAK_MEGABYTES
    assert forgery.sent < SENT
    assert "\x1b" not in json.dumps(found, ensure_ascii=False)
    assert not list(mine.rglob("1.json"))
    assert not list(mine.rglob("2.json"))


@pytest.mark.parametrize("attack", [name for name, (where, *_) in ATTACKS.items() if where != TREE])
def test_nothing_is_made_of_what_it_sends(
    victim_of: Make, evil: Callable[[str, Act], Forgery], attack: str
) -> None:
    victim = victim_of("hub")
    pattern, act, _ = ATTACKS[attack]
    evil(pattern, act)
    before = forget_peak()
    for command, (code, files) in victim.outputs("attacked").items():
        assert code in (NOT_FOUND, INVALID, UNREACHABLE), command
        assert files == {}, command
    assert peak() - before < PEAK_MEGABYTES


@pytest.mark.parametrize("what", ["a redirect", "a next page"])
def test_the_token_stays_with_the_hub(
    victim_of: Make, hub: StoreHub, evil: Callable[[str, Act], Forgery], what: str
) -> None:
    """Another port is another origin; there a thief listens."""
    from support import local_hub_store

    victim = victim_of("hub")
    with local_hub_store.serve() as thief:
        caught = Forgery("", says(b"[]"))
        thief.evil = caught
        if what == "a redirect":
            forgery = evil(FILE, redirect(f"{thief.url}/x"))
        else:
            forgery = evil(TREE, says(b"[]", Link=f'<{thief.url}/x>; rel="next"'))
        victim.run("fresh", "--store", victim.folder / "mine", "pull", "chat",
                   "--from", victim.address, code=None)  # fmt: skip
    assert forgery.tokens and all(forgery.tokens)
    assert bool(caught.answers) == (what == "a redirect")
    assert not any(caught.tokens)


# -- commits ------------------------------------------------------------------------------


def all_there(forgery: Forgery, request: Request) -> None:
    """Whatever is asked about is there, under the digest that its name says."""
    said = json.loads(request.said)["paths"]  # type: ignore[attr-defined]
    rows(*(row(path, 1) for path in said))(forgery, request)


def commits() -> dict[str, tuple[str, Act, int]]:
    true = json.dumps({"success": True, "commitOid": "f" * 40, "commitUrl": "http://x/y"}).encode()
    return {
        "a head that is no commit": (HEAD, says(b'{"sha": "../../main"}'), UNREACHABLE),
        "a head that is a list": (HEAD, says(b'["sha"]'), UNREACHABLE),
        "a head without end": (HEAD, says(endless), INVALID),
        "a parent that is never right": (r"POST .*/commit/", says(b"{}", 412), UNREACHABLE),
        "a commit that is not made": (r"POST .*/commit/", says(true), UNREACHABLE),
        "an answer that is a page": (r"POST .*/commit/", says(b"<html>"), UNREACHABLE),
        "objects that are there already": (PATHS, all_there, NOT_FOUND),
    }  # fmt: skip


@pytest.mark.parametrize("attack", commits())
def test_a_push_to_it_says_what_happened(
    victim_of: Make, evil: Callable[[str, Act], Forgery], attack: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Of a commit that was told and not made nobody can know at once: looking at it tells."""
    monkeypatch.setattr(hub_store, "CONFLICTS", 3)
    victim = victim_of("hub")
    pattern, act, code = commits()[attack]
    forgery = evil(pattern, act)
    before = forget_peak()
    mine = victim.honest.folder / "store"
    target = victim.address + "-2"
    found: Any
    done, found = victim.run("me", "--store", mine, "push", "chat@1", "--to", target, code=None)
    assert forgery.answers
    assert peak() - before < PEAK_MEGABYTES
    if done == 0:
        evil("$^", says(b""))
        done, found = victim.run("new", "--store", victim.folder / "x", "pull", "chat@1",
                                 "--from", target, code=None)  # fmt: skip
        assert done in (NOT_FOUND, INVALID, 0), found
        if done == 0:
            victim.run("new", "--store", victim.folder / "x", "verify", "--all", "--deep")
    else:
        assert done == code, found
    assert files_of(victim.base) == files_of(victim.honest.folder / "base")

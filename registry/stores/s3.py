"""Object storage as a store: ``s3://bucket/prefix``, and ``gs://`` and ``az://`` by the same means.

A key is taken by a conditional write (If-None-Match), so one creator wins. Objects above one part
go up in parts under their final key, all or nothing; their keys are taken by a look before, which
is enough for what is named by its content (docs/adr/0011).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, BinaryIO

from paramdelta.errors import (
    CorruptError,
    InvalidError,
    NotFoundError,
    UnreachableError,
)
from paramdelta.limits import MIB
from registry.stores.base import Stat, check_key, is_key, read_at_most
from registry.stores.in_time import in_time
from registry.stores.remote import (
    ATTEMPTS,
    FIRST_PAUSE,
    LONGEST_PAUSE,
    Spool,
    StagedSpool,
    TransientError,
    attempts,
    masked,
    open_remote,
    pause,
)

# of an upload in parts, and of one request of a download. Azure knows parts by their number: two
# writers of one key whose parts differ in size would mix them
PART_BYTES = 8 * MIB
SINGLE_BYTES = 16 * MIB  # objects up to here go up in one conditional request, from memory
UPLOADS = 2  # parts of one object at once
UPLOAD_TRIES = 3  # of a whole object; each of its requests is tried ATTEMPTS times
HEADS = 16  # existence checks at once
PAGE = 1000  # keys of one listing request
PAGE_SECONDS = 300.0  # for as many, in as many requests as a server likes

_BACKOFF = {
    "init_backoff": timedelta(seconds=FIRST_PAUSE),
    "max_backoff": timedelta(seconds=LONGEST_PAUSE),
    "base": 2,
}
RETRY = {
    "max_retries": ATTEMPTS - 1,
    "retry_timeout": timedelta(seconds=120),
    "backoff": _BACKOFF,
}
ONCE = RETRY | {"max_retries": 0}

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z]{1,60})</Code>")
_PASSING = {408, 409, 425, 429, 500, 502, 503, 504}
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound", "ResourceNotFound")  # the last: no account
# Azure keeps the waiting parts of a name in one place for all writers: whoever completes first
# takes them from the others, who find the object there or send theirs again
_TAKEN_PARTS = "InvalidBlockList"


class ObjectStore:
    """A bucket's prefix. make: builds an obstore store with the given retries."""

    def __init__(self, url: str, make: Callable[[dict[str, Any]], Any]) -> None:
        self.url = url
        self.objects = make(RETRY)
        # for what is repeated here: reads go on where they broke, and a conditional write that
        # the library repeated by itself could fail on its own first try
        self._once = make(ONCE)

    def create(self, key: str, data: bytes) -> bool:
        return self._create(check_key(key), data)

    def stage(self) -> StagedSpool:
        return StagedSpool(self._put)

    def open(self, key: str) -> BinaryIO:
        import obstore

        check_key(key)
        tag: list[str | None] = []

        def source(offset: int) -> tuple[int, Iterable[Any]]:
            options: Any = {"range": (offset, offset + PART_BYTES)}
            if tag and tag[0]:
                options["if_match"] = tag[0]
            with self._errors(key, changed="the object changed while it was read"):
                try:
                    found = obstore.get(self._once, key, options=options)
                except obstore.exceptions.GenericError as error:
                    if offset or "status code: 416" not in str(error):
                        raise
                    found = obstore.get(self._once, key)  # an empty object has no range
                size = found.meta["size"]
                tag[:] = [found.meta["e_tag"]]
                # a server that knows no ranges sends it all: read on in pieces
                if found.range[0] != offset:
                    raise TransientError("the store ignored the range of a request", where=self.url)
                return size, self._pieces(key, found.stream(min_chunk_size=MIB))

        return open_remote(source, self._where(key))

    def _pieces(self, key: str, stream: Iterable[bytes]) -> Iterator[bytes]:
        with self._errors(key):
            yield from stream

    def read(self, key: str, max_bytes: int) -> bytes:
        with self.open(key) as file:
            return read_at_most(file, max_bytes, self._where(key))

    def stat(self, key: str) -> Stat | None:
        import obstore

        check_key(key)
        try:
            with self._errors(key):
                return _stat(key, obstore.head(self.objects, key))
        except NotFoundError:
            return None

    def stat_many(self, keys: Iterable[str]) -> dict[str, Stat]:
        with ThreadPoolExecutor(max_workers=HEADS, thread_name_prefix="stat") as pool:
            found = pool.map(self.stat, list(keys))
        return {stat.key: stat for stat in found if stat}

    def list(self, prefix: str) -> Iterator[Stat]:
        import obstore

        folder = prefix.rpartition("/")[0]
        pages = obstore.list(self.objects, prefix=folder or None, chunk_size=PAGE)
        with self._errors(prefix):
            try:
                for page in in_time(pages, PAGE_SECONDS):
                    for meta in page:
                        key = meta["path"]
                        if key.startswith(prefix) and is_key(key):
                            yield _stat(key, meta)
            except TimeoutError:
                raise UnreachableError(
                    f"the store takes more than {PAGE_SECONDS:.0f} s for {PAGE} names of its list",
                    where=self._where(prefix),
                    remedy="check the address and the network, and try again",
                ) from None

    def delete(self, key: str) -> None:
        import obstore

        check_key(key)
        with suppress(NotFoundError), self._errors(key):
            obstore.delete(self.objects, key)

    def flush(self) -> None:
        """Nothing waits: every commit was answered."""

    # -- writing --------------------------------------------------------------------------

    def _create(self, key: str, data: bytes) -> bool:
        """One conditional write. Where a reply was lost, the object itself says who wrote it."""
        import obstore

        doubt: TransientError | None = None
        for attempt in range(ATTEMPTS):
            try:
                with self._errors(key):
                    obstore.put(self._once, key, data, mode="create", use_multipart=False)
                return True
            except _TakenError:
                # some servers say so too while another write is under way and may yet fail
                if self.stat(key) is not None:
                    return doubt is not None and self._reads_as(key, data)
            except TransientError as error:
                doubt = error
            if attempt < ATTEMPTS - 1:
                pause(attempt)
        with suppress(NotFoundError, UnreachableError):
            if doubt is not None and self._reads_as(key, data):
                return True  # every reply was lost, the object is there
        reason = doubt.reason if doubt else "other writers keep the object busy"
        raise UnreachableError(
            reason,
            where=self._where(key),
            remedy="run the command again: it looks first and goes on from there",
        )

    def _reads_as(self, key: str, data: bytes) -> bool:
        with suppress(InvalidError):
            return self.read(key, len(data)) == data
        return False

    def _put(self, key: str, spool: Spool, *, replace: bool) -> bool:
        import obstore

        if spool.size <= SINGLE_BYTES:
            data = spool.whole()
            if not replace:
                return self._create(key, data)
            with self._errors(key):
                obstore.put(self.objects, key, data, use_multipart=False)
            return True
        if not replace and self.stat(key) is not None:
            return False

        def put() -> bool:
            try:
                with self._errors(key):
                    obstore.put(
                        self.objects,
                        key,
                        spool.chunks(PART_BYTES),
                        chunk_size=PART_BYTES,
                        max_concurrency=UPLOADS,
                        use_multipart=True,
                    )
            except (TransientError, NotFoundError) as error:
                # completed, and the reply lost, looks like an upload that is unknown
                if not self._has(key, spool):
                    raise TransientError(error.reason, where=self._where(key)) from error
            return True

        return attempts(put, UPLOAD_TRIES)

    def _has(self, key: str, spool: Spool) -> bool:
        with suppress(NotFoundError), self.open(key) as there:
            return spool.equals(there)
        return False

    # -- errors ---------------------------------------------------------------------------

    def _where(self, key: str) -> str:
        return f"{self.url.partition('?')[0].rstrip('/')}/{key}"

    @contextmanager
    def _errors(self, key: str, changed: str = "") -> Iterator[None]:
        """changed: what a failed condition of a read means."""
        from obstore import exceptions

        where = self._where(key)
        try:
            yield
        except (exceptions.AlreadyExistsError, exceptions.PreconditionError) as error:
            if changed:
                raise CorruptError(changed, where=where) from None
            raise _TakenError("an object of this name is there", where=where) from error
        except (exceptions.NotFoundError, FileNotFoundError) as error:
            if any(code in str(error) for code in _NO_BUCKET):
                raise _no_bucket(self.url) from None
            raise NotFoundError("no such object", where=where) from None
        except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
            raise _refused(error, where) from None
        except exceptions.BaseError as error:
            raise self._failure(error, where) from None

    def _failure(self, error: Exception, where: str) -> UnreachableError:
        text = str(error)
        if any(code in text for code in _NO_BUCKET):
            return _no_bucket(self.url)
        status = int(found[1]) if (found := _STATUS.search(text)) else 0
        if status in (401, 403):  # of whoever was asked for credentials
            return _refused(error, where)
        passing = not status or status in _PASSING or _TAKEN_PARTS in text
        kind = TransientError if passing else UnreachableError
        if "token request" in text:  # to a metadata server or an issuer, not to the store
            return kind(
                f"no credentials for the store: {_reason(error)}",
                where=where,
                remedy="set them in the environment; docs/stores.md says how",
            )
        return kind(
            f"the store does not answer: {_reason(error)}",
            where=where,
            remedy="check the address, region and network, and try again",
        )


class _TakenError(UnreachableError):
    """A condition failed: the key is taken."""


def _stat(key: str, meta: Any) -> Stat:
    return Stat(key, meta["size"], meta["last_modified"].timestamp())


def _no_bucket(url: str) -> UnreachableError:
    return UnreachableError(
        "no such bucket or container", where=url, remedy="create it, or check the address"
    )


def _refused(error: Exception, where: str) -> UnreachableError:
    return UnreachableError(
        f"the store refuses access: {_reason(error)}",
        where=where,
        remedy="check the credentials (environment or profile) and what they may do",
    )


def _reason(error: Exception) -> str:
    """One line of a message that has many: status and the server's code where it gave one."""
    text = str(error).partition("\n\nDebug source")[0]
    status, code = _STATUS.search(text), _CODE.search(text)
    if status:
        return f"status {status[1]}{' ' + code[1] if code else ''}"
    return masked(text.rpartition(" - ")[2] or text)

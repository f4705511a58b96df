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
from types import TracebackType
from typing import Any, BinaryIO
from urllib.parse import parse_qsl, unquote, urlsplit

from paramdelta.errors import (
    CorruptError,
    InvalidError,
    NotFoundError,
    UnreachableError,
    UsageError,
)
from paramdelta.limits import MIB
from registry.stores.base import Stat, check_key, is_key
from registry.stores.remote import (
    ATTEMPTS,
    FIRST_PAUSE,
    LONGEST_PAUSE,
    Spool,
    TransientError,
    attempts,
    masked,
    open_remote,
    pause,
)

PART_BYTES = 8 * MIB  # of an upload in parts, and of one request of a download
SINGLE_BYTES = 16 * MIB  # objects up to here go up in one conditional request, from memory
UPLOADS = 2  # parts of one object at once
UPLOAD_TRIES = 3  # of a whole object; each of its requests is tried ATTEMPTS times
HEADS = 16  # existence checks at once
PAGE = 1000  # keys of one listing request

# one request moves at most SINGLE_BYTES, so these bound slow links, not large objects
CLIENT = {"connect_timeout": "5s", "read_timeout": "60s", "timeout": "300s"}
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

# what an address may set; credentials never stand in one
OPTIONS = {
    "s3": ("endpoint", "region", "profile", "virtual_hosted_style_request", "skip_signature"),
    "gs": ("skip_signature",),
    "az": ("account_name", "endpoint", "skip_signature"),
}
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z]{1,60})</Code>")
_PASSING = {408, 409, 425, 429, 500, 502, 503, 504}


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

    def stage(self) -> _StagedObject:
        return _StagedObject(self)

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
            parts, left = [], max_bytes + 1
            while left and (part := file.read(left)):
                parts.append(part)
                left -= len(part)
        if not left:
            raise InvalidError(f"more than {max_bytes} bytes", where=self._where(key))
        return b"".join(parts)

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
        with self._errors(prefix):
            for page in obstore.list(self.objects, prefix=folder or None, chunk_size=PAGE):
                for meta in page:
                    key = meta["path"]
                    if key.startswith(prefix) and is_key(key):
                        yield _stat(key, meta)

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
            if "NoSuchBucket" in str(error) or "ContainerNotFound" in str(error):
                raise _no_bucket(self.url) from None
            raise NotFoundError("no such object", where=where) from None
        except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
            raise _refused(error, where) from None
        except exceptions.BaseError as error:
            raise self._failure(error, where) from None

    def _failure(self, error: Exception, where: str) -> UnreachableError:
        text = str(error)
        if "NoSuchBucket" in text or "ContainerNotFound" in text:
            return _no_bucket(self.url)
        status = int(found[1]) if (found := _STATUS.search(text)) else 0
        if status in (401, 403):  # of whoever was asked for credentials
            return _refused(error, where)
        kind = UnreachableError if status and status not in _PASSING else TransientError
        return kind(
            f"the store does not answer: {_reason(error)}",
            where=where,
            remedy="check the address, region and network, and try again",
        )


class _TakenError(UnreachableError):
    """A condition failed: the key is taken."""


class _StagedObject:
    """Spooled here until its key is known."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._spool = Spool()

    def write(self, data: bytes) -> None:
        self._spool.write(data)

    def commit(self, key: str, replace: bool = False) -> bool:
        return self._store._put(check_key(key), self._spool, replace=replace)

    def __enter__(self) -> _StagedObject:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._spool.close()


def open_objects(address: str) -> ObjectStore:
    """``s3://bucket/prefix?endpoint=…&region=…&profile=…``, ``gs://…``, ``az://…``. No request yet.

    Credentials come from the environment, as AWS, Google and Azure users know it, or for S3 from a
    profile. UsageError on anything else in the address.
    """
    try:
        from obstore import store as stores
    except ImportError as error:
        raise UsageError(
            "object stores need obstore", remedy="pip install 'paramdelta[s3]'"
        ) from error
    scheme, bucket, prefix, options = _parse(address)
    provider = None
    if scheme == "s3":
        from registry.stores.aws_profile import read_profile

        config, provider = read_profile(options.pop("profile", None))
        options = config | options
    client: dict[str, Any] = CLIENT | {"allow_http": _plain_http(options)}
    kind: Any = {"s3": stores.S3Store, "gs": stores.GCSStore, "az": stores.AzureStore}[scheme]
    more = {"credential_provider": provider} if provider else {}

    def make(retry: dict[str, Any]) -> Any:
        try:
            return kind(
                bucket, prefix=prefix or None, client_options=client, retry_config=retry,
                **options, **more,
            )  # fmt: skip
        except Exception as error:
            # the library's messages may quote settings of the environment
            reason = masked(str(error).partition("\n\n")[0], *options.values())
            raise UsageError(f"this store cannot be used: {reason}") from None

    shown = {key: value for key, value in options.items() if key in OPTIONS[scheme]}
    query = "&".join(f"{key}={value}" for key, value in shown.items())
    path = f"/{prefix}" if prefix else ""
    return ObjectStore(f"{scheme}://{bucket}{path}{'?' + query if query else ''}", make)


def _parse(address: str) -> tuple[str, str, str, dict[str, str]]:
    """(scheme, bucket, prefix, options)."""
    parts = urlsplit(address)
    if "@" in parts.netloc:
        raise UsageError(
            "credentials in a store's address", remedy="put them into the environment or a profile"
        )
    prefix = unquote(parts.path).strip("/")
    if not parts.netloc or (prefix and not _PREFIX.fullmatch(prefix)):
        raise UsageError(
            f"malformed address {parts.scheme}://{parts.netloc}{parts.path[:100]}",
            remedy=f"write {parts.scheme}://bucket/prefix",
        )
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := sorted(set(options) - set(OPTIONS[parts.scheme])):
        raise UsageError(
            f"unknown options in a store's address: {', '.join(unknown)[:100]}",
            remedy=f"known: {', '.join(OPTIONS[parts.scheme])}; credentials stay out of it",
        )
    if "@" in options.get("endpoint", ""):
        raise UsageError("credentials in an endpoint", remedy="put them into the environment")
    return parts.scheme, parts.netloc, prefix, options


_PREFIX = re.compile(r"[A-Za-z0-9_.@=-]+(/[A-Za-z0-9_.@=-]+)*")


def _plain_http(options: dict[str, str]) -> bool:
    """Only where an endpoint says http:// in so many words."""
    import os

    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AZURE_STORAGE_ENDPOINT")
    said = [options.get("endpoint", ""), *(os.environ.get(name, "") for name in names)]
    return any(text.startswith("http://") for text in said)


def _stat(key: str, meta: Any) -> Stat:
    return Stat(key, meta["size"], meta["last_modified"].timestamp())


def _no_bucket(url: str) -> UnreachableError:
    return UnreachableError("no such bucket", where=url, remedy="create it, or check the address")


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

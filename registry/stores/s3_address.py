"""Addresses of object stores and their clients: ``s3://bucket/prefix?…``, ``gs://…``, ``az://…``."""

from __future__ import annotations

import os
import re
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from paramdelta.errors import UsageError
from registry.stores.remote import masked
from registry.stores.s3 import ObjectStore

# one request moves at most SINGLE_BYTES, so these bound slow links, not large objects
CLIENT = {"connect_timeout": "5s", "read_timeout": "60s", "timeout": "300s"}
# what an address may set; credentials never stand in one
OPTIONS = {
    "s3": ("endpoint", "region", "profile", "virtual_hosted_style_request", "skip_signature"),
    "gs": ("skip_signature",),
    "az": ("account_name", "endpoint", "skip_signature"),
}
_PREFIX = re.compile(r"[A-Za-z0-9_.@=-]+(/[A-Za-z0-9_.@=-]+)*")


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


def _plain_http(options: dict[str, str]) -> bool:
    """Only where an endpoint says http:// in so many words."""
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AZURE_STORAGE_ENDPOINT")
    said = [options.get("endpoint", ""), *(os.environ.get(name, "") for name in names)]
    return any(text.startswith("http://") for text in said)

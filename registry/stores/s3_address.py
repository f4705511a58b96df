"""Addresses of object stores and their clients: ``s3://bucket/prefix?…``, ``gs://…``, ``az://…``."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from paramdelta.errors import UsageError
from registry.stores.cloud_endpoint import check_option, plain_http, settings_for
from registry.stores.remote import masked
from registry.stores.s3 import ObjectStore

# one request moves at most SINGLE_BYTES, so these bound slow links, not large objects
CLIENT = {"connect_timeout": "5s", "read_timeout": "60s", "timeout": "300s"}
# what an address may set; credentials never stand in one
OPTIONS = {
    "s3": ("endpoint", "region", "profile", "virtual_hosted_style_request", "skip_signature"),
    "gs": ("endpoint", "skip_signature"),
    "az": ("account_name", "endpoint", "skip_signature"),
}
_NAMES = {("gs", "endpoint"): "base_url"}  # where obstore's name is another
_NO_ACCOUNT = "write az://container/prefix?account_name=…, or set AZURE_STORAGE_ACCOUNT_NAME"
_PREFIX = re.compile(r"[A-Za-z0-9_.@=-]+(/[A-Za-z0-9_.@=-]+)*")


def open_objects(address: str) -> ObjectStore:
    """``s3://bucket/prefix?endpoint=…&region=…&profile=…``, ``gs://…``, ``az://…``. No request yet.

    Credentials come from the environment, as AWS, Google and Azure users know it, or for S3 from a
    profile; tokens do not go to just any endpoint (cloud_endpoint). UsageError on anything else in
    the address.
    """
    try:
        from obstore import store as stores
    except ImportError as error:
        raise UsageError(
            "object stores need obstore", remedy="pip install 'paramdelta[s3]'"
        ) from error
    scheme, bucket, prefix, options = _parse(address)
    more = settings_for(scheme, options.get("endpoint", ""))  # before a profile's own comes in
    if scheme == "s3":
        from registry.stores.aws_profile import read_profile

        config, provider = read_profile(options.pop("profile", None))
        options = config | options
        more = {"credential_provider": provider} if provider else {}
    client: dict[str, Any] = CLIENT | {
        "allow_http": plain_http(scheme, options.get("endpoint", ""))
    }
    kind: Any = {"s3": stores.S3Store, "gs": stores.GCSStore, "az": stores.AzureStore}[scheme]
    settings = {_NAMES.get((scheme, key), key): value for key, value in options.items()} | more

    def make(retry: dict[str, Any]) -> Any:
        try:
            return kind(
                bucket, prefix=prefix or None, client_options=client, retry_config=retry,
                **settings,
            )  # fmt: skip
        except Exception as error:
            # the library's messages may quote settings of the environment
            reason = masked(str(error).partition("\n\n")[0], *options.values())
            remedy = _NO_ACCOUNT if "Account must be specified" in reason else ""
            raise UsageError(f"this store cannot be used: {reason}", remedy=remedy) from None

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
    options = {name: check_option(name, value) for name, value in options.items()}
    return parts.scheme, parts.netloc, prefix, options

"""Endpoints of object stores: what one may be, when plain HTTP is meant, who may see a token.

An address may come from a stranger, the environment is the user's own. What S3 is sent is a
signature, good for one request to one host. Access tokens of Google and Azure are good for whoever
receives them, and Azure's signatures by an account's key do not say for which host they are. So an
endpoint that an address names gets these only where it is Google's or Azure's own; other servers
get nothing, but for a signature to a server on this very machine, such as Azurite.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from paramdelta.errors import UsageError
from registry.stores.remote import masked

# an endpoint of the environment, as obstore finds it
VARIABLES = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "gs": ("GOOGLE_BASE_URL",),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}
_ACCOUNT_KEYS = (
    "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_MASTER_KEY",
)  # fmt: skip
# the provider's own hosts, regional, private and sovereign ones too
_OWN = {
    # others may have hosts of their own below amazonaws.com, but not below S3's
    "s3": r"(.+\.)?s3([.-][a-z0-9-]+)*\.amazonaws\.com(\.cn)?",
    "gs": r".+\.googleapis\.com",
    "az": r".+\.(core\.windows\.net|storage\.azure\.net|core\.chinacloudapi\.cn"
    r"|core\.usgovcloudapi\.net|dfs\.fabric\.microsoft\.com|blob\.fabric\.microsoft\.com)",
}
_HERE = ("127.0.0.1", "::1", "localhost")
# keys of the user's own that go along with every request as they are
_SENT = {
    "s3": ("AWS_SSE_CUSTOMER_KEY_BASE64",),
    "az": ("AZURE_STORAGE_ENCRYPTION_KEY", "AZURE_ENCRYPTION_KEY"),
}
# values that become a part of the names of hosts: (form, in words)
_FORMS = {
    "endpoint": (
        r"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[A-Za-z0-9._~-]+)*/?",
        "https://host, or http://host:port for a server without TLS",
    ),
    "account_name": (r"[a-z0-9]{3,24}", "3 to 24 lower-case letters and digits"),
    "region": (r"[A-Za-z0-9_-]{1,64}", "letters, digits, - and _"),
}


def check_option(name: str, value: str) -> str:
    """*value* of an option of an address, an endpoint without its last slash.

    UsageError if it has not the form that its name asks for; most options have none.
    """
    if name == "endpoint" and "@" in value:
        raise UsageError("credentials in an endpoint", remedy="put them into the environment")
    form, words = _FORMS.get(name, (None, ""))
    if form and not re.fullmatch(form, value):
        raise UsageError(
            f"malformed {name} {masked(value)[:100]!r} in a store's address",
            remedy=f"write {words}",
        )
    return value.rstrip("/") if name == "endpoint" else value


def plain_http(scheme: str, endpoint: str, env: Mapping[str, str] = os.environ) -> bool:
    """Only where the endpoint says http:// in so many words.

    endpoint: of the address or a profile; where it is empty, that of the environment counts.
    """
    said = [endpoint] if endpoint else [env.get(name, "") for name in VARIABLES[scheme]]
    return any(text.startswith("http://") for text in said)


def settings_for(scheme: str, endpoint: str, env: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """What obstore's store needs so that *endpoint*, of an address, is sent no token.

    Empty where there is nothing to change. UsageError where a key could not be kept from it.
    """
    if not endpoint or _is_own(scheme, endpoint):
        return {}
    if told := [name for name in _SENT.get(scheme, ()) if env.get(name)]:
        raise UsageError(
            f"{told[0]} would be sent to an endpoint that stands in an address",
            remedy=f"name the endpoint in {VARIABLES[scheme][0]} if it may see the key",
        )
    if scheme == "s3":
        return {}
    if scheme == "gs":
        # a placeholder: the library asks for a token whatever it is told about signatures
        return {"credential_provider": _fixed({"token": "anonymous", "expires_at": None})}
    for name in _ACCOUNT_KEYS if urlsplit(endpoint).hostname in _HERE else ():
        if key := env.get(name):
            try:
                base64.b64decode(key, validate=True)
            except ValueError:
                raise UsageError(
                    f"{name} is not a key", remedy="copy it from the account: it is Base64"
                ) from None
            return {"credential_provider": _fixed({"access_key": key, "expires_at": None})}
    return {"skip_signature": "true"}


def _is_own(scheme: str, endpoint: str) -> bool:
    parts = urlsplit(endpoint)
    host = (parts.hostname or "").lower()
    return parts.scheme == "https" and re.fullmatch(_OWN[scheme], host) is not None


def _fixed(credential: dict[str, Any]) -> Callable[[], Any]:
    return lambda: credential

"""Secrets out of texts that people and logs will read.

Three kinds: what stands in an address (user and password, credentials in a query), what this
process's environment holds under names that are known to hold secrets, and tokens that tell by
their form what they are. A text without any stays as it is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

HIDDEN = "***"
# the values of these never appear in a message
SECRETS = (
    "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID",
    "AWS_SSE_CUSTOMER_KEY_BASE64", "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_MASTER_KEY", "AZURE_STORAGE_KEY",
    "AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_SAS_KEY", "AZURE_STORAGE_TOKEN",
    "AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_CLIENT_SECRET", "AZURE_CLIENT_SECRET",
    "AZURE_STORAGE_ENCRYPTION_KEY", "AZURE_ENCRYPTION_KEY", "GOOGLE_BEARER_TOKEN",
    "GOOGLE_SERVICE_ACCOUNT_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "PGPASSWORD",
    "PARAMDELTA_SIGN_PASSPHRASE",
)  # fmt: skip
_SHORTEST = 4  # characters; shorter values would take half of any text with them
# with one slash, too: that is what is left of an address that was taken for a path
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{1,30}:/{1,3}|//)[^\s/?#'\"<>]*@")
_WORDS = (
    "password|passwd|passphrase|pwd|secret|token|api[_-]?key|access[_-]?key(?:[_-]?id)?|"
    "secret[_-]?access[_-]?key|account[_-]?key|session[_-]?token|sas[_-]?(?:token|key)?|sig|"
    "signature|credential|authorization|x-amz-(?:signature|credential|security-token)|"
    "x-goog-(?:signature|credential)"
)
_QUERY = re.compile(rf"(?i)([?&;](?:{_WORDS})=)[^&;\s'\"#]+")
_FORMS = re.compile(r"\bhf_[A-Za-z0-9]{16,}|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bBearer [\w.~+/-]{8,}=*")


def redacted(text: str, *secrets: str, env: Mapping[str, str] = os.environ) -> str:
    """*text* with HIDDEN in the place of secrets. secrets: more values to hide."""
    for secret in (*secrets, *(env.get(name, "") for name in SECRETS)):
        if len(secret) >= _SHORTEST:
            text = text.replace(secret, HIDDEN)
    if "@" in text:
        text = _ADDRESS.sub(rf"\1{HIDDEN}@", text)
    if "=" in text:
        text = _QUERY.sub(rf"\1{HIDDEN}", text)
    return _FORMS.sub(HIDDEN, text)

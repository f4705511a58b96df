"""Credentials, region and endpoint of a profile, where the environment has no keys.

Files as the AWS tools keep them. Profiles with fixed keys need nothing more; those that fetch keys
(SSO, roles, processes) go through boto3.
"""

from __future__ import annotations

import configparser
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from paramdelta.errors import InvalidError, UsageError
from paramdelta.limits import MAX_PROFILE_CHARACTERS

_SETTINGS = {"region": "region", "endpoint_url": "endpoint"}
_FETCHED = ("sso_session", "sso_start_url", "role_arn", "credential_process")

Provider = Callable[[], Any]


def read_profile(
    name: str | None, env: Mapping[str, str] = os.environ
) -> tuple[dict[str, str], Provider | None]:
    """(settings of an obstore S3Store, who gives its credentials if the profile does).

    name: as asked for in the address; else ``AWS_PROFILE``; else ``default`` if no key is in the
    environment. UsageError where a named profile does not exist.
    """
    asked = name or env.get("AWS_PROFILE") or ""
    if not name and env.get("AWS_ACCESS_KEY_ID"):
        return {}, None  # as the AWS tools do: keys of the environment come first
    values = _section(asked or "default", env)
    if values is None:
        if asked:
            raise UsageError(f"no AWS profile {asked[:100]!r}", remedy="see `aws configure list`")
        return {}, None
    found = {ours: values[key] for key, ours in _SETTINGS.items() if key in values}
    if any(env.get(key) for key in ("AWS_REGION", "AWS_DEFAULT_REGION")):
        found.pop("region", None)
    if any(key in env for key in ("AWS_ENDPOINT", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")):
        found.pop("endpoint", None)
    if "aws_access_key_id" in values:
        return found, _fixed(values)
    if any(key in values for key in _FETCHED):
        return found, _boto3_provider(asked or "default")
    return found, None


def _fixed(values: Mapping[str, str]) -> Provider:
    """As one piece, so that nothing of the environment mixes in."""
    credentials = {
        "access_key_id": values["aws_access_key_id"],
        "secret_access_key": values.get("aws_secret_access_key", ""),
        "token": values.get("aws_session_token"),
        "expires_at": None,
    }
    return lambda: credentials


def _section(name: str, env: Mapping[str, str]) -> dict[str, str] | None:
    """The profile's lines in both files; those of ``credentials`` come first."""
    config = env.get("AWS_CONFIG_FILE") or "~/.aws/config"
    credentials = env.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials"
    sections = [
        _read(Path(config), name if name == "default" else f"profile {name}"),
        _read(Path(credentials), name),
    ]
    known = [section for section in sections if section is not None]
    return {key: value for section in known for key, value in section.items()} if known else None


def _read(path: Path, section: str) -> dict[str, str] | None:
    parser = configparser.RawConfigParser()
    try:
        with path.expanduser().open(encoding="utf-8") as file:
            text = file.read(MAX_PROFILE_CHARACTERS + 1)
        if len(text) > MAX_PROFILE_CHARACTERS:
            raise InvalidError(f"more than {MAX_PROFILE_CHARACTERS} characters", where=path)
        parser.read_string(text)
    except FileNotFoundError:
        return None
    except (configparser.Error, UnicodeDecodeError, OSError) as error:
        # the parser's own message quotes lines, and lines hold secrets
        raise InvalidError(f"unreadable: {type(error).__name__}", where=path) from None
    return dict(parser.items(section)) if parser.has_section(section) else None


def _boto3_provider(name: str) -> Provider:
    try:
        import boto3
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError as error:
        raise UsageError(
            f"the AWS profile {name!r} fetches its keys", remedy="pip install boto3"
        ) from error
    provider: Provider = Boto3CredentialProvider(boto3.Session(profile_name=name))
    return provider

"""A checkpoint of the Hugging Face Hub as a folder, through huggingface_hub's cache and token."""

from __future__ import annotations

from pathlib import Path

from paramdelta.errors import NotFoundError, UnreachableError

# weights in safetensors and the small files beside them; pickles are never fetched
PATTERNS = ["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model", "*.md", "LICENSE*"]


def download(repo: str, revision: str | None) -> tuple[Path, str]:
    """(folder, commit) of a model repository. The folder's files are links into the cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    where = f"hf://{repo}" + (f"@{revision}" if revision else "")
    try:
        path = Path(snapshot_download(repo, revision=revision, allow_patterns=PATTERNS))
    except GatedRepoError as error:
        raise NotFoundError(
            "the repository is gated",
            where=where,
            remedy="accept its terms on its page and log in with `hf auth login`",
        ) from error
    except RepositoryNotFoundError as error:
        raise NotFoundError(
            "no such repository, or it is private",
            where=where,
            remedy="check the name; for a private one log in with `hf auth login`",
        ) from error
    except RevisionNotFoundError as error:
        raise NotFoundError("no such revision", where=where) from error
    except LocalEntryNotFoundError as error:
        raise UnreachableError(
            "not in the local cache, and the hub cannot be reached",
            where=where,
            remedy="check the network, HF_ENDPOINT and HF_HUB_OFFLINE",
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise UnreachableError(
            f"the hub did not answer: {type(error).__name__}", where=where
        ) from error
    return path, path.name

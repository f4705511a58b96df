"""The real ssh-keygen: keys, signatures and verdicts to compare ours with."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest


def ssh_keygen() -> str:
    """Its path. Root installs it where it is missing; for others the test fails and says how."""
    found = shutil.which("ssh-keygen")
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        install = ["apt-get", "install", "-y", "--no-install-recommends", "openssh-client"]
        subprocess.run(["apt-get", "update", "-q"], capture_output=True, check=False)
        subprocess.run(install, capture_output=True, check=False)
        found = shutil.which("ssh-keygen")
    if found is None:
        pytest.fail("these tests need ssh-keygen: apt-get install openssh-client")
    return found


@dataclass(frozen=True)
class Key:
    """path: of the private half; the public one lies beside it."""

    path: Path

    @property
    def line(self) -> str:
        """``ssh-ed25519 AAAA…``: the public half without its comment."""
        return " ".join(self.path.with_suffix(".pub").read_text().split()[:2])

    def sign(self, file: Path, namespace: str = "paramdelta") -> Path:
        """The signature that ssh-keygen makes of *file*."""
        out = Path(f"{file}.sig")
        out.unlink(missing_ok=True)
        _run("-Y", "sign", "-q", "-n", namespace, "-f", str(self.path), str(file))
        return out


def new_key(path: Path, kind: str = "ed25519", passphrase: str = "") -> Key:
    more = ["-Z", "aes256-ctr", "-a", "4"] if passphrase else []  # few rounds: a test, not a vault
    _run("-q", "-t", kind, "-N", passphrase, "-C", "test", *more, "-f", str(path))
    return Key(path)


def accepts(signers: Path, who: str, signature: Path, data: bytes) -> bool:
    """Whether ``ssh-keygen -Y verify`` accepts it as a signature for paramdelta."""
    words = ["-Y", "verify", "-n", "paramdelta", "-f", str(signers), "-I", who, "-s"]
    found = subprocess.run(
        [ssh_keygen(), *words, str(signature)], input=data, capture_output=True, check=False
    )
    return found.returncode == 0


def _run(*words: str) -> None:
    command = [ssh_keygen(), *words]
    found = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=False)
    assert found.returncode == 0, (words, found.stderr)

"""A real Chromium, installed where it is missing and may be: a page is looked at, not parsed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

CHROMIUM = "/usr/bin/chromium"
PACKAGES = ("chromium", "fonts-dejavu-core")
ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage",
)  # fmt: skip


def chromium() -> str:
    """The program's path. RuntimeError saying what to do where it cannot be installed here."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise RuntimeError(f"no Chromium: apt-get install {' '.join(PACKAGES)}")
    quiet = {"check": True, "stdout": subprocess.DEVNULL, "timeout": 600}
    subprocess.run(["apt-get", "update", "-qq"], **{**quiet, "check": False})
    subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES],
                   **quiet, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})  # fmt: skip
    return CHROMIUM


@contextmanager
def opened() -> Iterator[Any]:
    """A Playwright browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()

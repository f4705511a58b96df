"""Puts this folder on the import path, so that tests say ``from support.checkpoints import …``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

pytest_plugins = ["support.store_fixtures"]

"""Puts this folder on the import path, so that tests say ``from support.checkpoints import …``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

# Triton's own functions are interpreted or compiled as they are when it is first imported, by torch
# perhaps; where there is no GPU the tests of the kernels run them in its interpreter
if not Path("/dev/nvidiactl").exists():
    os.environ["TRITON_INTERPRET"] = "1"

from support import compiled

compiled.share()
pytest_plugins = ["support.store_fixtures"]

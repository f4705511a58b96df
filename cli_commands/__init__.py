"""The commands, one module a topic: parse, one call, show.

Importing a module adds its commands to the group of ``core``. Heavy modules are imported inside the
command that needs them.
"""

from cli_commands import (
    applying,
    bases,
    collecting,
    evaluating,
    matching,
    measuring,
    naming,
    releases,
    reporting,
    signing,
    transferring,
    upkeep,
)

__all__ = [
    "applying",
    "bases",
    "collecting",
    "evaluating",
    "matching",
    "measuring",
    "naming",
    "releases",
    "reporting",
    "signing",
    "transferring",
    "upkeep",
]

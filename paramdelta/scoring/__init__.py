"""What a model can do, as numbers: a task measures a model that is in memory.

Importing this package imports neither torch nor transformers; measuring does (extra ``eval``).
"""

from paramdelta.scoring.base import Held, Measured, Scorer, Task
from paramdelta.scoring.table import SCORERS, find_scorer, open_task

__all__ = ["SCORERS", "Held", "Measured", "Scorer", "Task", "find_scorer", "open_task"]

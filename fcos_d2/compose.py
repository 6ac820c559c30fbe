"""Former place of `fcos_d2.config.compose`, kept for config files that import from here."""

from .config.compose import Composed, compose
from .zoo.schedules import SCHEDULES, Schedule

__all__ = ["SCHEDULES", "Composed", "Schedule", "compose"]

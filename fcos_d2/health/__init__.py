"""What `fcos doctor` knows: what is installed and what this machine has, and what of it does not fit.

What may be changed here: what is looked at, and the rows of `CHECKS`. It works without PyTorch and without Detectron2;
nothing is installed, changed or fetched.
"""

from .findings import CHECKS, Finding, examine
from .inventory import Inventory, take_inventory

__all__ = ["CHECKS", "Finding", "Inventory", "examine", "take_inventory"]

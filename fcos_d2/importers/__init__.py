"""Published checkpoints -> ours, and back.

    imported = load("FCOS_imprv_R_50_FPN_1x.pth")
    model.load_state_dict(imported.state_dict)
    print(imported.report)

A family is recognised by the names in the file. Which variant it is follows from names and shapes where they decide it;
where several variants share them (the original and the improved FCOS do), the file's name decides, or the caller.
Nothing is guessed: what is not decided stays open, and `Imported.config_name` then says what the choices are.
"""

from __future__ import annotations

from ..weights.convert import convert, export
from ..weights.families import FAMILIES
from ..weights.imagenet import load_backbone
from ..weights.published import Imported, load
from ..weights.report import Report

__all__ = ["FAMILIES", "Imported", "Report", "convert", "export", "load", "load_backbone"]

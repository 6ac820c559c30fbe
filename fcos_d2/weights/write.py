"""Checkpoints are written so that a file is either whole or the old one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer

from ..errors import FcosError
from ..files import write_atomically
from .fetch import fetch
from .fit import Policy, fit
from .read import read
from .saving import save

__all__ = ["Checkpointer", "save"]


class Checkpointer(DetectionCheckpointer):
    """Detectron2's checkpointer with atomic writing and safe reading.

    Args:
        extra: plain data that each file holds besides ("class_names", "config").
        checkpointables: objects with `state_dict`, by the name of their entry.
    """

    def __init__(
        self, model: torch.nn.Module, save_dir: str, *, extra: dict[str, Any] | None = None, **checkpointables: Any
    ) -> None:
        super().__init__(model, save_dir, **checkpointables)
        self.extra = dict(extra or {})

    def save(self, name: str, *, tag: bool = True, **extra: Any) -> None:
        """Write `<name>.pth`.

        Args:
            name: without suffix.
            tag: whether training resumes from it.
            extra: more entries of this file; those that are named like a usual one replace it, those that are None
                leave it out.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        payload = {"model": None, **dict.fromkeys(self.checkpointables), **self.extra, **extra}
        payload["model"] = extra.get("model") or self.model.state_dict()
        for key, holder in self.checkpointables.items():
            payload[key] = holder.state_dict() if key not in extra else extra[key]
        file = Path(self.save_dir) / f"{name}.pth"
        save(file, {key: value for key, value in payload.items() if value is not None})
        if tag:
            self.tag_last_checkpoint(file.name)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        path = Path(self.save_dir) / "last_checkpoint"
        write_atomically(path, lambda file: file.write(last_filename_basename.encode()))

    def get_checkpoint_file(self) -> str:
        """The file that training resumes from; raises FcosError if `last_checkpoint` names one that is gone."""
        path = super().get_checkpoint_file()
        if not path or not os.path.isfile(path):
            raise FcosError(
                f"{Path(self.save_dir) / 'last_checkpoint'} names {Path(path).name or 'nothing'}, which is not there: "
                "write the name of another checkpoint of that folder into it, or start without resuming."
            )
        return path

    def load(self, path: str, checkpointables: Sequence[str] | None = None) -> dict[str, Any]:
        """Load weights into the model, and states into the checkpointables; raises as `fit`.

        Args:
            path: file or address; empty to load nothing.
            checkpointables: names of those that are loaded; by default all that the file holds.
        Returns:
            What else the file holds.
        """
        if not path:
            return {}
        weights = read(fetch(path))
        fit(self.model, weights, Policy(allow_backbone=True, averaged=False, other_recipe="warn"))
        rest = dict(weights.extra)
        if weights.averages is not None:
            rest["ema"] = dict(weights.averages)  # `read` keeps them apart
        for name in self.checkpointables if checkpointables is None else checkpointables:
            if name in rest:
                self.checkpointables[name].load_state_dict(rest.pop(name))
        return rest

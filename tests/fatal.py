"""A detector that dies of some pictures, as one dies of too little memory; for processes that Ray starts."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np

from fcos_d2.predict import Predictor
from fcos_d2.predict.look import Whole

SHARED = ("model.num_classes=2", "dataloader.test.mapper.augmentations[0].short_edge_length=64")
POISON, ONCE = 250, 240  # red of all pixels


class Fatal(Whole):
    """Dies of each picture of POISON, and of one of ONCE as long as the file is there."""

    once: Path | None = None

    def find(self, images, tell):
        shades = {int(image[0, 0, 0]) for image in images if np.ptp(image) == 0}
        if POISON in shades:
            os.kill(os.getpid(), signal.SIGKILL)
        if ONCE in shades and self.once and self.once.exists():
            self.once.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().find(images, tell)


def look(once: Path | None = None) -> Fatal:
    predictor = Predictor(
        "fcos_R_18_slim_FPN_small", weights="random", device="cpu", overrides=SHARED, score_threshold=0.0
    )
    import torch

    torch.manual_seed(0)
    for parameter in predictor.model.parameters():
        torch.nn.init.normal_(parameter, 0, 0.02)
    made = Fatal(predictor=predictor)
    object.__setattr__(made, "once", once)
    return made

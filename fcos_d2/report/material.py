"""What the sections are made of: a detector is run over a data set once, and everything is computed from that."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from ..config.stored import dump_config
from ..data.mapper import read_rgb
from ..evaluation import confusion
from ..evaluation.breakdown import Numbers, Objects, evaluated
from ..evaluation.evaluate import build_test_loader
from ..evaluation.ledger import ErrorLedger
from ..evaluation.observation import Observed, observe
from ..evaluation.ranking import RANKINGS
from ..evaluation.scores import true_boxes
from ..evaluation.tally import Sights
from ..evaluation.thresholds import Scored, choose
from ..modeling.record import follows
from ..predict.tta import DetectorWithTTA
from ..train.job import config_to_evaluate
from ..train.trainer import LazyTrainer
from ..weights.thresholds import Thresholds
from ..zoo.tta import TTA

__all__ = ["IOU", "Material", "gather"]

IOU = 0.5  # from which on a detection is right, where one number is needed
_SCORE = 0.5  # from which on detections count where nothing can be chosen
_SHOWN = 4  # pictures with maps


@dataclass(frozen=True)
class Material:
    """A detector, a data set, and what the one did on the other.

    Attributes:
        command: words of the command line that makes the report, without those that choose sections.
        weights: the checkpoint.
        split: part of the data; "" for that of a config.
        ledger: what became of each object and detection; `None` where nobody asks, or the model is not FCOS.
        tta: the views of each image that were looked at; `None` for one look at each.
    """

    objects: Objects
    observed: Observed
    cfg: DictConfig
    weights: str
    data: Path | None
    split: str
    format: str | None
    command: Sequence[str]
    ledger: ErrorLedger | None = None
    tta: TTA | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return self.objects.class_names

    @cached_property
    def numbers(self) -> Numbers:
        """COCO's numbers of the detections as they are."""
        return evaluated(self.objects, self.observed.found)

    @cached_property
    def scored(self) -> Scored:
        return Scored.of(self.observed.found, self.objects.truth, self.names, self.objects.dataset, IOU)

    @cached_property
    def thresholds(self) -> Thresholds | None:
        """The thresholds that suit these images; `None` with too few objects."""
        return choose(self.scored)

    @property
    def several_looks(self) -> str:
        """Why what belongs to one look at an image is not there; "" where it is."""
        if self.tta is None:
            return ""
        views = len(list(self.tta.views()))
        return f"This is of one look at each image; test-time augmentation looks at {views} views: --tta none shows it."

    @property
    def min_score(self) -> float:
        """The score from which on detections count where one number is needed for all classes."""
        return self.thresholds.for_all if self.thresholds else _SCORE

    @cached_property
    def pairs(self) -> list[confusion.Pair]:
        """Detections above `min_score` with the objects that they take."""
        records = [{**record, "image_id": i} for i, record in enumerate(self.objects.records)]
        return confusion.pairs(self.observed.found, self.objects.truth, records, IOU, self.min_score)

    @cached_property
    def config(self) -> str:
        """As YAML; a note where it cannot be written so."""
        try:
            return dump_config(self.cfg)
        except Exception as error:  # a .py config may hold anything
            return f"It cannot be written as YAML: {' '.join(str(error).split())[:300]}"

    def image(self, place: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB."""
        return np.asarray(read_rgb(self.objects.records[place]["file_name"]))

    def name(self, place: int) -> str:
        return Path(self.objects.records[place]["file_name"]).name


def gather(
    output: Path, command: Sequence[str], options: Mapping[str, Any], audience: Any, keep_maps: bool = True,
    keep_errors: bool = False,
) -> Material:  # fmt: skip
    """Run the detector.

    Args:
        output: the folder of the report.
        options: those of `config_to_evaluate` by their names.
        audience: see `train.job.Audience`.
        keep_maps: whether maps of some images are needed.
        keep_errors: whether the ledger of errors is.
    Raises:
        FcosError: as `config_to_evaluate` does.
    """
    asked = config_to_evaluate(output, **options)
    cfg, dataset = asked.cfg, asked.dataset
    shown = copy.deepcopy(cfg)
    objects = Objects.of(dataset)
    places = _places(objects) if keep_maps else []
    with tempfile.TemporaryDirectory() as folder:
        cfg.train.output_dir = folder
        trainer = LazyTrainer(cfg, eval_only=True, console=False, folder=folder)
        model, tta = trainer.bare_model, None if trainer.tta is None or trainer.tta.is_identity else trainer.tta
        with audience.progress("looking at images", len(objects.records)) as progress:
            tell: Callable[[int], Any] = progress.update
            loader = build_test_loader(cfg, dataset)
            sights = Sights(model, dataset, IOU) if keep_errors and tta is None and follows(model) else None
            each = {} if sights is None else {"each": sights.keep}
            detector = model if tta is None else DetectorWithTTA(model, tta)
            observed = observe(detector, loader, objects, RANKINGS, places, tell, **each)
        made = Material(
            objects, observed, shown, str(cfg.train.init_checkpoint), options["data"],
            options["split"] if options["data"] else "", options["format"], command, tta=tta,
        )  # fmt: skip
    if sights is not None:
        with audience.waiting("looking for the causes of errors"):
            made = replace(made, ledger=sights.ledger([made.min_score] * len(made.names)))
    return made


def _places(objects: Objects) -> list[int]:
    """Images to show maps of, spread evenly over those with objects."""
    there = [i for i, record in enumerate(objects.records) if true_boxes(record)] or list(range(len(objects.records)))
    count = min(_SHOWN, len(there))
    return [there[i * len(there) // count] for i in range(count)]

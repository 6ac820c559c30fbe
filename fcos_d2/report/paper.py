"""A table or a figure of the paper that needs a detector, on other data, beside the numbers that the paper prints."""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..analysis.paper import Comparison
from ..evaluation.breakdown import Objects
from ..evaluation.proposals import LIMITS
from ..modeling.proposals import FCOSProposals, first_stage
from ..train.job import config_to_evaluate
from ..train.trainer import LazyTrainer
from ..zoo.paper import PAPER, PROPOSER
from .differences import of_detector, of_proposals
from .make import write_pictures
from .material import Material, gather
from .parts import Section
from .sections import SECTIONS

__all__ = ["compare", "pictures_of"]


def compare(name: str, options: Mapping[str, Any], audience: Any) -> tuple[Comparison, Section]:
    """Make a table or a figure.

    Args:
        name: a key of `PAPER` that needs a detector.
        options: those of `fcos eval`, by their names.
        audience: who is told how it goes, see `train.job.Audience`.
    Returns:
        It, and the section of the report whose pictures and tables it has.
    Raises:
        FcosError: the detector or the data cannot be used.
    """
    if PAPER[name].needs == PROPOSER:
        return _of_proposals(name, options, audience), Section()
    return _of_detector(name, options, audience)


def pictures_of(name: str, section: Section, folder: Path) -> list[Path]:
    """Write the pictures of a figure, or of a table, as files; the paths."""
    only, row = PAPER[name].pictures, next(row for row in SECTIONS if row.key == PAPER[name].section)
    shown = [one for one in section.pictures if not only or one.name in only]
    return write_pictures(folder, {dataclasses.replace(row, key=name): dataclasses.replace(section, pictures=shown)})


def _of_detector(name: str, options: Mapping[str, Any], audience: Any) -> tuple[Comparison, Section]:
    published = PAPER[name]
    row = next(row for row in SECTIONS if row.key == published.section)
    m = gather(Path(), ("fcos", "paper", name), options, audience, keep_maps=row.key == "centerness")
    with audience.waiting("counting"), audience.no_tables():
        section = row.make(m)
    numbers = section.numbers.get("ap", section.numbers)
    rows = {label: found for label, found in numbers.items() if isinstance(found, Mapping)}
    if "curves" in section.numbers:
        rows = {label: {**found, "most recall": _most_recall(section, published.columns[0], label)}
                for label, found in rows.items()}  # fmt: skip
    setting = of_detector(m.cfg, m.weights)
    if m.tta is not None:
        setting["model"].append(
            f"Each image is looked at in {len(list(m.tta.views()))} views (test-time augmentation)."
        )
    differs = {"data": [_data(m.objects, options), *_some(rows)], **setting, "method": list(published.method)}
    more = {"numbers": section.numbers}
    here = {_part(m): rows} if published.columns else {}
    return Comparison(name, published, here, differs, more, section.absent), section


def _most_recall(section: Section, column: str, label: str) -> float | None:
    """The largest recall of one class, which the section has for each IoU."""
    iou = f"{int(column.removeprefix('AP') or 0) / 100:g}"
    return section.numbers["curves"].get(iou, {}).get("most_recall") if label == "one class" else None


def _part(m: Material) -> str:
    return m.split or "here"


def _data(objects: Objects, options: Mapping[str, Any]) -> str:
    where = Path(options["data"]).resolve().name if options["data"] is not None else objects.dataset
    part = f"{options['split']} of {where}" if options["data"] is not None else where
    return (
        f"Published: COCO minival, 5,000 images, 80 classes. Here: {part}, {len(objects.records):,} images with "
        f"{objects.count:,} objects; number of classes: {len(objects.class_names)}."
    )


def _some(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """How many objects overlap, of a table that is of the images with such."""
    row = rows.get("with overlapping objects")
    if row is None:
        return []
    told = f"{row['images']:,} images have overlapping objects, {row['overlapping']:,} of {row['objects']:,} in them"
    return [f"Here {told}."]


def _of_proposals(name: str, options: Mapping[str, Any], audience: Any) -> Comparison:
    """Table 8: what the first stage of a detector proposes."""
    asked = config_to_evaluate(Path(), **options)
    cfg, dataset = asked.cfg, asked.dataset
    with tempfile.TemporaryDirectory() as folder:
        cfg.train.output_dir = folder
        trainer = LazyTrainer(cfg, eval_only=True, console=False, folder=folder)
        trainer.model = trainer.bare_model = network = first_stage(trainer.bare_model)
        with audience.waiting("evaluating"), audience.no_tables():
            trainer.test()
    assert trainer.recall is not None  # of a network that only proposes
    generator: Any = network.proposal_generator
    label = type(generator).__name__
    if isinstance(generator, FCOSProposals):
        label = "FCOS" if getattr(generator.dense.head, "quality", None) is not None else "FCOS without centerness"
    shares = {f"AR@{limit}": trainer.recall.average("", limit) for limit in LIMITS}
    found = {column: None if math.isnan(share) else share for column, share in shares.items()}
    objects, weights = Objects.of(dataset), str(cfg.train.init_checkpoint)
    setting = of_proposals(cfg, weights, generator)
    differs = {"data": [_data(objects, options)], **setting, "method": list(PAPER[name].method)}
    more = {"recall": trainer.recall.curve(), "images": len(objects.records)}
    part = options["split"] if options["data"] is not None else "here"
    return Comparison(name, PAPER[name], {part: {label: found}}, differs, more)

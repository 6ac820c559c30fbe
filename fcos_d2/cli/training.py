"""Train with progress, then say in numbers and pictures what came of it: what `fcos train` and `fcos demo` share."""

from __future__ import annotations

import copy
import json
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.detection_utils import read_image
from detectron2.engine import HookBase
from detectron2.structures import BoxMode
from detectron2.utils import comm
from omegaconf import DictConfig
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..files import write_atomically
from ..train.trainer import LazyTrainer
from ..visualize.draw import Drawable, draw_comparison
from .progress import Progress
from .session import Session, plain

__all__ = ["clear", "count_images", "draw_samples", "run", "scores", "view", "view_of_scores", "write_json"]

# What a training leaves in its folder; a new one there begins by removing it.
_LEFT_BEHIND = (
    "model_*.pth", "last_checkpoint", "metrics.json", "evaluation.json", "config.yaml", "log.txt", "summary.json",
    "curves.png", "detections.png", "events.out.tfevents.*",
)  # fmt: skip


class _ShowProgress(HookBase):
    """Tells the loss, and the AP of the last evaluation."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def after_step(self) -> None:
        known = self.trainer.storage.latest()
        notes = [f"loss {self.trainer.storage.history('total_loss').median(20):.3f}"]
        if "bbox/AP50" in known:
            notes.append(f"AP50 {known['bbox/AP50'][0] / 100:.3f}")
        self.progress.update(self.trainer.iter + 1, "  ".join(notes))


def run(
    session: Session, cfg: DictConfig, resume: bool = False, channels_last: bool = False
) -> tuple[LazyTrainer, float]:
    """Train to the end, with progress on standard error.

    Args:
        session: of the command line.
        cfg: complete.
        resume: go on from the last checkpoint in the output folder.
        channels_last: memory layout of the weights; faster on some CPUs.
    Returns:
        The trainer, with the results of its last evaluation; and the seconds that it took.
    Raises:
        FcosError: see `LazyTrainer`.
    """
    started = time.monotonic()
    trainer = LazyTrainer(cfg, resume=resume, console=False)
    if channels_last:
        trainer.model.to(memory_format=torch.channels_last)
    with Progress(session.log, "training", trainer.max_iter) if comm.is_main_process() else nullcontext() as progress:
        if progress is not None:
            trainer.register_hooks([_ShowProgress(progress)])
        with session.no_tables():
            trainer.train()
    return trainer, time.monotonic() - started


def scores(results: Mapping[str, Any], dataset: str) -> dict[str, Any]:
    """The COCO numbers of an evaluation, from 0 to 1; None where there is nothing to find.

    Args:
        results: of Detectron2's `COCOEvaluator`, in percent; not a number where nothing was found.
        dataset: name in Detectron2's catalog of what was evaluated on.
    Returns:
        AP, AP50, AP75, AP_small, AP_medium, AP_large, and `per_class` {name: AP}.
    """
    boxes = results.get("bbox", {})
    names = MetadataCatalog.get(dataset).get("thing_classes") or []
    objects = Counter(names[box["category_id"]] for record in DatasetCatalog.get(dataset) for box in _truth(record))

    def share(key: str, count: int) -> float | None:
        value = float(boxes.get(key, math.nan))
        if math.isfinite(value) and value >= 0:
            return round(value / 100, 6)
        return 0.0 if count else None

    found: dict[str, Any] = {key: share(key, objects.total()) for key in ("AP", "AP50", "AP75")}
    found |= {f"AP_{size}": share(f"AP{size[0]}", 0) for size in ("small", "medium", "large")}
    found["per_class"] = {name: share(f"AP-{name}", objects[name]) for name in names}
    if len(names) == 1:  # which Detectron2 does not list
        found["per_class"] = {names[0]: found["AP"]}
    return found


def view_of_scores(found: Mapping[str, Any], images: str) -> RenderableType:
    """The numbers of `scores` for people.

    Args:
        found: from `scores`.
        images: what was evaluated on, e.g. "60 val images".
    """
    head = Text.assemble(
        *(
            part
            for key in ("AP", "AP50", "AP75")
            for part in ((f"{key} ", "bold"), (_number(found[key]), "bold green" if key == "AP50" else ""), "   ")
        ),
        (f"on {images}", "dim"),
    )
    if found["AP"] is None:
        head.append("\nThere is no object in these images, so there is no AP.", "yellow")
        return head
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 3, 0, 0))
    cells = [f"{name} {_number(value)}" for name, value in found["per_class"].items()]
    if len(cells) < 2 or len(cells) > 24:
        return head
    columns = 5
    for first in range(0, len(cells), columns):
        table.add_row(*cells[first : first + columns])
    return Group(head, Text("AP of each class", "dim"), table)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def view(
    title: str, numbers: RenderableType, folder: Path, files: Mapping[str, str], following: Sequence[str]
) -> RenderableType:
    """The end of a training, for people.

    Args:
        title: what happened.
        numbers: from `view_of_scores`.
        folder: of the files.
        files: name -> what it is; those that do not exist are left out.
        following: commands that one may want to run now.
    """
    table = Table.grid(padding=(0, 2))
    for name, meaning in files.items():
        if (folder / name).exists():
            table.add_row(f"  {name}", Text(meaning, "dim"))
    commands = [Text(f"  {line}", "cyan", no_wrap=True, overflow="ignore") for line in following]
    parts: list[RenderableType] = [Text(title, "bold"), numbers, Text(f"\n{folder}/", "bold"), table]
    return Group(*parts, *([Text("\nNow", "bold"), *commands] if commands else []))


def draw_samples(
    trainer: LazyTrainer, dataset: str, path: Path, count: int, title: str, min_score: float = 0.5
) -> bool:
    """Draw ground truth beside detections for images of a registered data set, spread evenly over it.

    Args:
        trainer: holds the model and the config.
        dataset: name in Detectron2's catalog.
        path: PNG to write.
        count: images at most; those with objects are preferred.
        title: of the picture.
        min_score: detections below are not drawn.
    Returns:
        Whether there was an image to draw.
    """
    records = DatasetCatalog.get(dataset)
    records = [record for record in records if _truth(record)] or records
    step = max(1.0, len(records) / count)
    chosen = [records[int(i * step)] for i in range(min(count, len(records)))]
    if not chosen:
        return False
    mapper = instantiate(trainer.cfg.dataloader.test.mapper)
    model = getattr(trainer.model, "module", trainer.model)
    rows = []
    with nullcontext() if trainer.average is None else trainer.average.in_place():
        training = model.training
        model.eval()
        with torch.inference_mode():
            for record in chosen:
                found = model([mapper(copy.deepcopy(record))])[0]["instances"].to("cpu")
                truth = _truth(record)
                boxes = [BoxMode.convert(box["bbox"], box["bbox_mode"], BoxMode.XYXY_ABS) for box in truth]
                drawn = Drawable(boxes, [box["category_id"] for box in truth])
                rows.append((read_image(record["file_name"], "RGB"), drawn, found))
        model.train(training)
    draw_comparison(rows, trainer.class_names or [], path, title, min_score)
    return True


def count_images(dataset: str) -> int:
    """Number of images in a registered data set."""
    return len(DatasetCatalog.get(dataset))


def _truth(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [box for box in record.get("annotations", ()) if not box.get("iscrowd", 0)]


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write data as JSON, whole or not at all."""
    text = json.dumps(plain(data), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def clear(folder: Path, also: Sequence[str] = ()) -> None:
    """Remove what an earlier training left in its folder."""
    for pattern in (*_LEFT_BEHIND, *also):
        for path in folder.glob(pattern):
            path.unlink()

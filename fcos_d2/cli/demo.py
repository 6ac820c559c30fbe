"""`fcos demo`: the whole path on images that it makes itself, in a few minutes on two CPU cores."""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .session import Result, Session, fcos_command

if TYPE_CHECKING:
    from ..data import DatasetLayout

__all__ = ["DemoSettings"]


@dataclass(frozen=True)
class DemoSettings:
    """What the demo trains, and on what; recorded in its metrics.json.

    Attributes:
        model: variant of the zoo.
        train_images, val_images: number of synthetic images.
        image_size: side of an image, pixels.
        min_size: longer side of the smallest shapes, pixels.
        max_objects: most shapes in an image, crowd regions aside.
        iterations: length of training.
        batch_size: images of an iteration.
        lr, weight_decay: of AdamW.
        warmup: share of the iterations in which the learning rate rises.
        clip_grad: largest norm of the gradient.
        evaluations: how often to evaluate, the end included.
        channels_last: memory layout of the weights.
        seed: of images and training.
    """

    model: str = "fcos_R_18_slim_FPN_small"
    train_images: int = 1000
    val_images: int = 100
    image_size: int = 160
    min_size: float = 16.0
    max_objects: int = 6
    iterations: int = 1600
    batch_size: int = 8
    lr: float = 2e-3
    weight_decay: float = 0.05
    warmup: float = 0.15
    clip_grad: float = 10.0
    evaluations: int = 3
    channels_last: bool = True
    seed: int = 0


@fcos_command("demo", short_help="Make images, train on them, show what is found.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=Path("output", "demo"), show_default=True,
    help="Folder for the pictures, the numbers and the checkpoint.",
)  # fmt: skip
@click.option(
    "--seed", type=click.IntRange(0), default=DemoSettings.seed, show_default=True, help="Of images and training."
)
@click.option(
    "--iterations", type=click.IntRange(1), default=DemoSettings.iterations, show_default=True,
    help="Length of training; AP needs about the default.",
)  # fmt: skip
@click.option("--device", help="cuda or cpu; by default what the machine has.")
def command(session: Session, output: Path, seed: int, iterations: int, device: str | None) -> Result:
    """Make a synthetic data set, train a small FCOS on it from scratch, evaluate it, and draw what it finds.

    Takes about four minutes on two CPU cores. OUTPUT gets detections.png, curves.png, metrics.json (AP, AP50 and others
    from 0 to 1, seconds, settings), training.jsonl (the course of training), model_final.pth and the images.
    """
    import fcos_d2

    fcos_d2.register()
    from .. import zoo
    from ..train.interrupt import TrainingInterrupted
    from ..train.own_data import Preset, configure, open_data
    from ..visualize.draw import draw_curves
    from . import training
    from .progress import Progress

    settings = dataclasses.replace(DemoSettings(), seed=seed, iterations=iterations)
    started = time.monotonic()
    output.mkdir(parents=True, exist_ok=True)
    training.clear(output, also=("training.jsonl",))

    total = settings.train_images + settings.val_images
    with Progress(session.log, "making images", total) as progress:
        _make_images(output / "data", settings, lambda done, _: progress.update(done))
    data = open_data(output / "data")

    preset = Preset(
        lr=settings.lr, weight_decay=settings.weight_decay, batch_size=settings.batch_size, epochs=0,
        least_iterations=settings.iterations, warmup=settings.warmup, clip_grad=settings.clip_grad,
        evaluations=settings.evaluations, image_size=settings.image_size, pixel_std=(57.375, 57.12, 58.395),
    )  # fmt: skip
    cfg = configure(
        zoo.get_config(settings.model), data.names, data.class_names,
        train_images=settings.train_images, weights="", device=device, preset=preset,
    )  # fmt: skip
    cfg.train.output_dir = str(output)
    cfg.train.seed = settings.seed
    try:
        trainer, seconds = training.run(session, cfg, channels_last=settings.channels_last)
    except TrainingInterrupted as error:
        raise TrainingInterrupted("Interrupted; the demo starts anew when it is run again.", error.code) from None

    found = training.scores(trainer.results, data.names.val or "")
    os.replace(output / "metrics.json", output / "training.jsonl")
    draw_curves(output / "training.jsonl", output / "curves.png", "FCOS on synthetic shapes")
    training.draw_samples(trainer, data.names.val or "", output / "detections.png", 6, "FCOS on synthetic shapes")
    summary = {
        **found,
        "seconds": round(time.monotonic() - started, 1),
        "seconds_training": round(seconds, 1),
        "device": cfg.train.device,
        "checkpoint": output / "model_final.pth",
        "settings": dataclasses.asdict(settings),
    }
    training.write_json(output / "metrics.json", summary)
    files = {
        "detections.png": "ground truth beside detections",
        "curves.png": "losses, learning rate and AP",
        "metrics.json": "these numbers and the settings",
        "training.jsonl": "the course of training",
        "model_final.pth": "the detector",
    }
    view = training.view(
        f"FCOS learned {len(data.class_names)} shapes in {seconds:.0f} s ({iterations} iterations).",
        training.view_of_scores(found, f"{settings.val_images} new images"),
        output,
        files,
        [f"fcos detect {output / 'data' / 'images' / 'val_000000.jpg'} --weights {output / 'model_final.pth'}"],
    )
    return Result(summary, view)


def _make_images(folder: Path, settings: DemoSettings, progress: Callable[[int, int], object]) -> DatasetLayout:
    """Make the data set, or take the one that is there; one with other settings is replaced."""
    from ..data.synthetic import generate
    from ..errors import FcosError

    def make() -> DatasetLayout:
        return generate(
            folder,
            splits={"train": settings.train_images, "val": settings.val_images},
            image_size=(settings.image_size, settings.image_size),
            min_size=settings.min_size,
            max_objects=settings.max_objects,
            seed=settings.seed,
            progress=progress,
        )

    try:
        return make()
    except FcosError:
        if not (folder / "synthetic.json").is_file():
            raise
        shutil.rmtree(folder)
        return make()

"""`fcos demo`: the whole path on images that it makes itself, in a few minutes on two CPU cores."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

import click

from . import options as shared
from .checks import check
from .session import Result, Session, fcos_command

_FILES = {
    "detections.png": "ground truth beside detections",
    "curves.png": "losses, learning rate and AP",
    "metrics.json": "these numbers and the settings",
    "training.jsonl": "the course of training",
    "model_final.pth": "the detector",
}


@fcos_command("demo")
@shared.output(Path("output", "demo"), "Folder for the pictures, the numbers and the checkpoint.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of images and training.")
@click.option(
    "--iterations", type=click.IntRange(1), default=1600, show_default=True,
    help="Length of training; AP needs about the default.",
)  # fmt: skip
@shared.device
def command(session: Session, output: Path, seed: int, iterations: int, device: str | None) -> Result:
    """Make a synthetic data set, train a small FCOS on it from scratch, evaluate it, and draw what it finds.

    Takes about four minutes on two CPU cores. OUTPUT gets detections.png, curves.png, metrics.json (AP, AP50 and others
    from 0 to 1, seconds, settings), training.jsonl (the course of training), model_final.pth and the images. An earlier
    demo there is replaced when the new one is complete; a folder with anything else is refused.
    """
    check(device=device)
    from ..train.workspace import DEMO, Workspace

    workspace = Workspace.open(output, DEMO, overwrite=True)
    session.start(device)
    from ..train import TrainingInterrupted
    from ..train.job import DemoSettings, run_demo
    from . import views

    settings = dataclasses.replace(DemoSettings(), seed=seed, iterations=iterations)
    try:
        summary = run_demo(settings, device, workspace, session)
    except TrainingInterrupted as error:
        raise TrainingInterrupted("Interrupted; the demo starts anew when it is run again.", error.code) from None
    image = output / "data" / "images" / "val_000000.jpg"
    course = f"{len(summary['per_class'])} shapes in {summary['seconds_training']:.0f} s ({iterations} iterations)"
    view = views.view_of_results(
        f"FCOS learned {course}.",
        views.view_of_scores(summary, f"{settings.val_images} new images"),
        output,
        _FILES,
        [shlex.join(["fcos", "detect", str(image), "--weights", views.best_checkpoint(summary, output)])],
    )
    return Result(summary, view)

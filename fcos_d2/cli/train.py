"""`fcos train`: on a folder of one's own, or whatever a config says."""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..libraries import require_library
from . import options as shared
from .checks import check
from .session import Result, Session, fcos_command

if TYPE_CHECKING:
    from ..train.job import TrainingJob
    from ..train.workspace import Workspace


@fcos_command("train")
@shared.data
@shared.data_format
@shared.model(
    "A variant (`fcos zoo`), a config file, or a checkpoint. [default: that of --weights, else one for the device]"
)
@shared.output(help="Folder for the results. [default: output/NAME]")
@click.option("--epochs", type=shared.POSITIVE, help="Passes over the training images.")
@click.option("--iterations", type=click.IntRange(1), help="Length of training, instead of epochs.")
@click.option("--minutes", type=shared.POSITIVE, help="Choose size, length and model so that they fit into this time.")
@click.option("--batch-size", type=click.IntRange(1), help="Images of an iteration, all processes together.")
@click.option("--image-size", type=click.IntRange(32), help="Shorter side of an image in pixels.")
@shared.workers
@shared.device
@shared.max_pixels
@shared.weights(
    "What to start from; none: from scratch. [default: COCO weights of the model, else ImageNet's, else none]",
    metavar="FILE|NAME|none",
)
@click.option("--new-classes", is_flag=True, help="Learn all classes anew, also those whose names the weights have.")
@shared.offline
@shared.val_fraction
@click.option(
    "--log", "loggers", multiple=True, type=click.Choice(["wandb", "mlflow"]),
    help="Send the course of training there, too, repeatable.",
)  # fmt: skip
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint in the output folder.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier training in the output folder when it is complete.")
@click.option("--num-gpus", type=click.IntRange(1), default=1, show_default=True, help="Processes, one for each GPU.")
@shared.overrides
def command(session: Session, output: Path | None, overwrite: bool, num_gpus: int, **options: Any) -> Result:
    """Train a detector.

    \b
    fcos train --data DIR                       your images; classes are theirs
    fcos train --data DIR --minutes 15          what can be learned in that time
    fcos train --data DIR --model fcos_imprv_R_50_FPN_1x
    fcos train --config fcos_imprv_R_50_FPN_1x  COCO in $DETECTRON2_DATASETS

    DIR holds images and labels as tools lay them out, in COCO JSON (train.json, val.json), YOLO (data.yaml),
    Pascal VOC, CSV, Label Studio, labelme or CVAT; it may be a .zip, too.
    KEY=VALUE changes anything in the config, for example optimizer.lr=0.0005 or train.ema.enabled=true.
    """
    data, model = options["data"], options["model"]
    if data is None and model is None:
        raise click.UsageError("Give --data DIR to train on your own images, or --config NAME to train what it says.")
    if data is None and (
        only := next(
            (key for key in ("epochs", "minutes", "image_size", "val_fraction", "format") if options[key]), None
        )
    ):
        raise click.UsageError(f"--{only.replace('_', '-')} goes with --data; change a config with KEY=VALUE.")
    if len([key for key in ("epochs", "iterations", "minutes") if options[key]]) > 1:
        raise click.UsageError("Give one of --epochs, --iterations and --minutes, not both.")
    given = {name: options[name] for name in ("data", "format", "val_fraction", "weights", "model", "device")}
    if num_gpus > 1 and ":" in (given["device"] or ""):
        raise click.UsageError(f"--device {given['device']} is one device: leave the number out with --num-gpus.")
    for name in options["loggers"]:
        require_library(name, f"--log {name}")
    check(**given, need=("train", "val"))
    from ..train.workspace import TRAINING, Workspace, default_folder

    output = output or default_folder(data, model)
    inputs = [Path(path) for path in (data, options["weights"]) if path]
    workspace = Workspace.open(output, TRAINING, overwrite=overwrite, resume=options["resume"], inputs=inputs)
    session.start(given["device"])
    from ..train import TrainingInterrupted, distributed
    from ..train.job import TrainingJob

    job = TrainingJob(**options, allow_py=not session.no_py)
    spawned = num_gpus > 1
    try:
        distributed.run(_train, num_gpus, args=(job, workspace, dataclasses.replace(session), spawned))
    except TrainingInterrupted as error:
        raise TrainingInterrupted(f"{str(error).partition(': run ')[0]}. {_how_to_go_on()}", error.code) from None
    except BaseException:
        if workspace.is_complete:
            where = f"{workspace.folder}, and what has been moved of it in {output}"
            session.say(f"The finished training lies in {where}. {_how_to_go_on()}")
        elif workspace.replaces:
            session.say(f"{output} is as it was.{' ' + _how_to_go_on() if workspace.can_go_on else ''}")
        raise
    summary = json.loads((output / "summary.json").read_text(encoding="utf-8"))
    return Result(summary, _view(summary, job, output))


def _train(job: TrainingJob, workspace: Workspace, session: Session, spawned: bool) -> None:
    """Train in this process, which has yet to send output where the command line wants it if it was spawned."""
    from ..train.job import train_job

    if not spawned:
        train_job(job, workspace, session)
        return
    session.start()
    with session.running():
        train_job(job, workspace, session)


def _how_to_go_on() -> str:
    """The command that was run, changed to one that resumes it."""
    words = [word for word in sys.argv[1:] if word not in ("--overwrite", "--resume")]
    at = words.index("--") if "--" in words else len(words)
    return f"Go on with: {shlex.join(['fcos', *words[:at], '--resume', *words[at:]])}"


def _view(summary: dict[str, Any], job: TrainingJob, output: Path) -> Any:
    from rich.console import Group

    from . import views

    best, checkpoint = summary["best"], views.best_checkpoint(summary, output)
    files = {"model_final.pth": "the detector, with its class names and config"}
    detects = "proposals" not in summary
    if not detects:
        files["model_best.pth"] = f"the weights of iteration {best['iteration'] + 1}, of the best AR@1000"
    elif best["AP"] is not None and best["AP"] > (summary["AP"] or 0):
        files["model_best.pth"] = f"the weights of iteration {best['iteration'] + 1}, of the best AP, {best['AP']:.3f}"
    else:
        files["model_best.pth"] = "the same weights alone, without what --resume needs"
    files |= {
        "detections.png": "ground truth beside detections",
        "confusion.png": "which class is taken for which",
        "misses.jpg": "what was not found, and what was found wrongly",
        "hits.jpg": "the best detections",
        "curves.png": "losses, learning rate and AP",
        "thresholds.png": "precision, recall and F1 over the score, with the threshold of each class",
        "thresholds.json": "these thresholds, which model_best.pth holds and fcos detect uses",
        "summary.json": "these numbers",
        "metrics.json": "the course of training",
        "evaluation.json": "the last evaluation, AP from 0 to 1",
    }
    plugins = [word for name in summary["plugins"] for word in ("--plugin", name)]
    model = ["--model", str(job.model)]
    needed = [*plugins, *([] if summary["holds_config"] else model)]  # of classes that the config file defines
    detect = ["fcos", "detect", summary.get("image") or "IMAGE", "--weights", checkpoint, *needed]
    following = [detect] if detects else []
    if job.data:
        share = [] if job.val_fraction is None else ["--val-fraction", f"{job.val_fraction:g}"]
        share += ["--format", job.format] if job.format else []
        following.append(["fcos", "eval", "--weights", checkpoint, "--data", str(job.data), *share, *needed])
    elif summary.get("dataset"):
        following.append(["fcos", "eval", "--weights", checkpoint, *model, *plugins, *job.overrides])
    images = f"{summary['images']['val']} val images" if summary["images"] else "the test images of the config"
    seconds = summary["seconds"]
    time = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
    title = f"Trained {summary['iterations']} iterations in {time}."
    numbers = views.view_of_scores(summary, images if summary.get("dataset", True) else None)
    numbers = Group(numbers, views.view_of_thresholds(summary.get("thresholds")))
    return views.view_of_results(title, numbers, output, files, [shlex.join(line) for line in following])

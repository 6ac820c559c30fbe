"""`fcos eval`: COCO's AP of a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Group
from rich.text import Text

from . import options as shared
from . import thresholds
from .causes import view_of_errors
from .checks import check
from .session import Result, Session, fcos_command


@fcos_command("eval")
@shared.weights("Checkpoint of the detector, or a variant; by default what the config names, or was published for it.")
@shared.data
@shared.data_format
@shared.model()
@shared.offline
@shared.force_recipe
@click.option(
    "--split", type=click.Choice(["val", "test", "train"]), default="val", show_default=True, help="Part of --data."
)
@shared.val_fraction
@click.option("--proposals", is_flag=True, help="Recall of the first stage of a two-stage detector.")
@shared.tta
@thresholds.goal
@thresholds.iou
@thresholds.save
@click.option("--errors", is_flag=True, help="Say why each object was missed, and why each detection is wrong.")
@thresholds.threshold_of_errors
@shared.output(Path("output", "eval"), "Folder for summary.json, pictures and log.txt.")
@shared.workers
@shared.device
@shared.max_pixels
@shared.overrides
def command(
    session: Session, output: Path, goal: tuple[str, float] | None, iou: float | None, save: Path | None, errors: bool,
    threshold: Any, **options: Any,
) -> Result:  # fmt: skip
    """Evaluate a detector.

    \b
    fcos eval --weights FILE --data DIR [--split test]
    fcos eval --weights FILE --config fcos_imprv_R_50_FPN_1x
        COCO in $DETECTRON2_DATASETS
    fcos eval --weights FILE --data DIR --thresholds f1 --save NEW
    fcos eval --weights FILE --data DIR --errors
    fcos eval --weights FILE --data DIR --proposals
        AR@100 and AR@1000 of what a two-stage detector proposes
    fcos eval --weights FILE --data DIR --tta flip

    AP is COCO's, from 0 to 1, here and with --json.
    """
    weights, data, model = options["weights"], options["data"], options["model"]
    if weights is None and model is None:
        raise click.UsageError("Give --weights FILE, and --data DIR or --config NAME.")
    if data is None and model is None:
        raise click.UsageError("Give --data DIR, or --config NAME for the data that it names.")
    given = {name: options[name] for name in ("data", "format", "val_fraction", "weights", "model", "device")}
    if save is not None and goal is None:
        raise click.UsageError("--save goes with --thresholds, for example --thresholds f1.")
    if threshold is not None and not errors:
        raise click.UsageError("--threshold goes with --errors; AP is of all detections.")
    if (goal is not None or errors) and options["proposals"]:
        raise click.UsageError("--thresholds and --errors are of detections: leave out --proposals.")
    check(**given, need=(options["split"],), detects=True)
    from ..train.workspace import EVALUATION, Workspace

    workspace = Workspace.open(output, EVALUATION, inputs=[] if data is None else [data])
    session.start(options["device"])
    from ..evaluation.thresholds import Goal
    from ..train.job import evaluate_job
    from ..train.mistakes import Asked
    from ..train.operating_points import Wanted
    from . import views

    wanted = Wanted(Goal(*goal) if goal else None, iou, save)
    asked = Asked(threshold, iou or 0.5) if errors else None
    summary = evaluate_job(workspace, session, **options, allow_py=not session.no_py, thresholds=wanted, errors=asked)
    if "proposals" in summary:
        told = views.view_of_recall(summary, f"{summary['images']} images of {summary['dataset']}")
        return Result(summary, Group(told, Text(str(output / "summary.json"), "dim")))
    each = f", {summary['tta']['views']} views of each" if summary["tta"] else ""
    numbers = views.view_of_scores(summary, f"{summary['images']} images of {summary['dataset']}{each}")
    chosen = views.view_of_thresholds(summary["thresholds"])
    why = view_of_errors(summary["errors"])
    view = Group(numbers, views.ap_by_size(summary), chosen, why, Text(str(output / "summary.json"), "dim"))
    return Result(summary, view)

"""`fcos train`: on a folder of one's own, or whatever a config says."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .session import Result, Session, fcos_command

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from ..train.own_data import OwnData

__all__ = ["Job"]


@dataclass(frozen=True)
class Job:
    """What was asked for on the command line; each process makes its config from it."""

    model: str | None
    data: Path | None
    output: Path
    weights: str | None
    iterations: int | None
    epochs: float | None
    batch_size: int | None
    image_size: int | None
    workers: int | None
    device: str | None
    val_fraction: float | None
    new_classes: bool
    resume: bool
    overrides: tuple[str, ...]
    json: bool
    debug: bool


@fcos_command("train", short_help="Train on your own images, or any config on COCO.")
@click.option("--data", type=click.Path(path_type=Path), help="Folder with your images and COCO JSON files.")
@click.option(
    "--model", "--config", "model", metavar="NAME|FILE",
    help="A variant (`fcos zoo`), a config file, or a checkpoint. [default: that of --weights, else a small ResNet-18]",
)  # fmt: skip
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder for the results. [default: output/NAME]")
@click.option("--epochs", type=click.FloatRange(0, min_open=True), help="Passes over the training images.")
@click.option("--iterations", type=click.IntRange(1), help="Length of training, instead of epochs.")
@click.option("--batch-size", type=click.IntRange(1), help="Images of an iteration, all processes together.")
@click.option("--image-size", type=click.IntRange(32), help="Shorter side of an image in pixels.")
@click.option("--workers", type=click.IntRange(0), help="Processes that load images.")
@click.option("--device", help="cuda or cpu; by default what the machine has.")
@click.option("--weights", metavar="FILE|none", help="Checkpoint to start from; none: from scratch.")
@click.option("--new-classes", is_flag=True, help="Start from weights of other classes; their class layer starts anew.")
@click.option(
    "--val-fraction", type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Where the data has no val part: the share of training images that becomes it.",
)  # fmt: skip
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint in the output folder.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier training in the output folder.")
@click.option("--num-gpus", type=click.IntRange(1), default=1, show_default=True, help="Processes, one for each GPU.")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
def command(
    session: Session, model: str | None, data: Path | None, output: Path | None, overwrite: bool, num_gpus: int,
    **options: Any,
) -> Result:  # fmt: skip
    """Train a detector.

    \b
    fcos train --data DIR                       your images; classes are theirs
    fcos train --data DIR --model fcos_imprv_R_50_FPN_1x
    fcos train --config fcos_imprv_R_50_FPN_1x  COCO in $DETECTRON2_DATASETS

    DIR holds train.json and val.json (or annotations/instances_train2017.json and other usual names) and the images.
    KEY=VALUE changes anything in the config, for example optimizer.lr=0.0005 or train.ema.enabled=true.
    """
    from ..errors import FcosError

    if data is None and model is None:
        raise click.UsageError("Give --data DIR to train on your own images, or --config NAME to train what it says.")
    if data is None and (only := next((key for key in ("epochs", "image_size", "val_fraction") if options[key]), None)):
        raise click.UsageError(f"--{only.replace('_', '-')} goes with --data; change a config with KEY=VALUE.")
    if options["epochs"] and options["iterations"]:
        raise click.UsageError("Give --epochs or --iterations, not both.")
    output = output or Path("output", data.resolve().name if data else Path(str(model)).stem)
    job = Job(model=model, data=data, output=output, json=session.json, debug=session.debug, **options)
    if not job.resume and not overwrite and (output / "last_checkpoint").is_file():
        raise FcosError(
            f"{output} holds an earlier training: go on with --resume, replace it with --overwrite, or choose another "
            "--output."
        )

    import fcos_d2

    fcos_d2.register()
    from ..train import distributed
    from . import training

    if overwrite and not job.resume:
        training.clear(output)
    distributed.run(_train, num_gpus, args=(job, session if num_gpus == 1 else None))
    summary = json.loads((output / "summary.json").read_text(encoding="utf-8"))
    return Result(summary, _view(summary, job))


def _train(job: Job, session: Session | None) -> None:
    """Train in this process; the first one writes the pictures and summary.json."""
    if session is None:  # a process of its own
        session = Session(json=job.json, debug=job.debug)
        with session.running():
            _train(job, session)
        return
    from detectron2.utils import comm

    from ..train.own_data import check_images
    from ..visualize.draw import draw_curves
    from ..weights.read import load
    from . import training
    from .progress import Progress

    cfg, data = configured(job)
    first = comm.is_main_process()
    if data and first:
        session.say(_about(data, cfg.train.max_iter))
        names = [name for name in (data.names.train, data.names.val) if name]
        with Progress(session.log, "checking images", data.images["train"] + data.images.get("val", 0)) as progress:
            check_images(names, lambda done, _: progress.update(done))
    comm.synchronize()
    trainer, seconds = training.run(session, cfg, job.resume)
    if not first:
        return
    evaluated_on = str(cfg.dataloader.test.dataset.names)
    found = training.scores(trainer.results, evaluated_on)
    output = job.output
    title = data.folder.resolve().name if data else str(job.model)
    if (output / "metrics.json").is_file():
        draw_curves(output / "metrics.json", output / "curves.png", title)
    training.draw_samples(trainer, evaluated_on, output / "detections.png", 6, title)
    best = load(output / "model_best.pth") if (output / "model_best.pth").is_file() else {}
    summary = {
        **found,
        "best": {"iteration": best.get("iteration"), "AP": best.get("metrics", {}).get("bbox/AP", math.nan) / 100},
        "classes": trainer.class_names,
        "images": data.images if data else None,
        "iterations": trainer.max_iter,
        "seconds": round(seconds, 1),
        "device": cfg.train.device,
        "output": output,
        "checkpoint": output / "model_final.pth",
    }
    training.write_json(output / "summary.json", summary)


def configured(job: Job) -> tuple[DictConfig, OwnData | None]:
    """The complete config of a training, and the user's data set, registered in this process.

    Raises:
        FcosError: the model, the data, the weights or an override is wrong.
    """
    from ..config.overrides import apply_lazy
    from ..train.own_data import DEFAULT_MODEL, check_classes, configure, holds_config, lazy_config, open_data

    weights = "" if job.weights == "none" else job.weights
    model = job.model or (weights if weights and holds_config(weights) else DEFAULT_MODEL)
    cfg = lazy_config(model)
    data = None
    if job.data:
        data = open_data(job.data, job.val_fraction, need=("train", "val"))
        if weights and not job.new_classes:
            check_classes(
                weights, data.class_names, f"the data set {job.data}", "add --new-classes to learn those anew"
            )
        numbers = ("image_size", "batch_size", "iterations", "epochs", "workers", "device")
        configure(
            cfg, data.names, data.class_names, train_images=data.images["train"], weights=weights,
            **{name: getattr(job, name) for name in numbers},
        )  # fmt: skip
    else:
        _plain_options(cfg, job, weights)
    cfg.train.output_dir = str(job.output)
    if job.new_classes:
        cfg.train.init_classes = "drop"
    return apply_lazy(cfg, job.overrides), data


def _plain_options(cfg: DictConfig, job: Job, weights: str | None) -> None:
    """Options for a config that names its data itself."""
    from omegaconf import OmegaConf

    for key, value in (
        ("train.init_checkpoint", weights),
        ("train.max_iter", job.iterations),
        ("train.device", job.device),
        ("dataloader.train.total_batch_size", job.batch_size),
        ("dataloader.train.num_workers", job.workers),
        ("dataloader.test.num_workers", job.workers),
    ):
        if value is not None:
            OmegaConf.update(cfg, key, value)


def _about(data: OwnData, iterations: int) -> str:
    shown = ", ".join(data.class_names[:8]) + (", ..." if len(data.class_names) > 8 else "")
    parts = ", ".join(f"{count} {part} images with {data.boxes[part]} boxes" for part, count in data.images.items())
    return f"{data.folder}: {len(data.class_names)} classes ({shown}); {parts}. {iterations} iterations."


def _view(summary: dict[str, Any], job: Job) -> Any:
    from . import training

    files = {
        "model_final.pth": "the detector, with its class names and config",
        "model_best.pth": "",
        "detections.png": "ground truth beside detections",
        "curves.png": "losses, learning rate and AP",
        "summary.json": "these numbers",
        "metrics.json": "the course of training",
        "evaluation.json": "the last evaluation, in percent",
    }
    best = summary["best"]
    if best["AP"] is None or best["AP"] <= (summary["AP"] or 0):
        del files["model_best.pth"]
    else:
        files["model_best.pth"] = (
            f"the weights of iteration {best['iteration'] + 1}, which had the best AP, {best['AP']:.3f}"
        )
    checkpoint = summary["checkpoint"]
    following = [f"fcos detect IMAGE --weights {checkpoint}"]
    if job.data:
        following.append(f"fcos eval --weights {checkpoint} --data {job.data}")
    images = f"{summary['images']['val']} val images" if summary["images"] else "the test images of the config"
    title = f"Trained {summary['iterations']} iterations in {_time(summary['seconds'])}."
    return training.view(title, training.view_of_scores(summary, images), job.output, files, following)


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"

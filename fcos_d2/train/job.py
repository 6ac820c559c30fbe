"""What `fcos train`, `fcos eval` and `fcos demo` do: from what a user asks for to a folder of results."""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import inference_context
from detectron2.structures import BoxMode
from detectron2.utils import comm
from omegaconf import DictConfig, OmegaConf

from ..config.edits import class_node
from ..config.overrides import apply_lazy
from ..config.plugins import modules_of
from ..data.mapper import read_rgb
from ..data.synthetic import generate
from ..errors import FcosError
from ..evaluation.evaluate import data_class_names, data_names
from ..evaluation.proposals import shares_of
from ..evaluation.scores import scores, true_boxes
from ..files import write_json
from ..modeling.proposals import first_stage
from ..visualize import Drawable, draw_comparison, draw_recall
from ..weights.fetch import fetch
from ..weights.read import load
from ..words import duration
from ..zoo import get_config, is_name
from . import mistakes, operating_points, own_data
from .advice import LONG, advice
from .building import options_of
from .gallery import guarded
from .ground_truth import check_labels
from .pace import measure
from .plan import Plan, TrainingJob, configure
from .presets import PRESETS, Preset
from .settings import start_threads, without_denormals
from .state import finished, iterations_done
from .trainer import LazyTrainer
from .workspace import DEMO_IMAGES, Workspace

__all__ = [
    "Audience", "DemoSettings", "ToEvaluate", "TrainingJob", "config_to_evaluate", "configure", "evaluate_job",
    "run_demo", "train_job",
]  # fmt: skip


_WORTH_MEASURING = 50  # iterations; a shorter training is over before its time is known

# Who is told how far a job is, like the command line's session: say(text), progress(title, total) -> a context with
# update(done, note, left, due) and say(text), waiting(title) -> a context, no_tables() -> a context in which what
# libraries print is dropped.
Audience: TypeAlias = Any


def _train(
    audience: Audience, cfg: DictConfig, folder: Path, title: str, resume: bool = False
) -> tuple[LazyTrainer, float]:
    """Train to the end, with a title for pictures; returns the trainer and the seconds that it took."""
    started = time.monotonic()
    # This process, which the command has to itself, keeps the memory of one image for the next, up to 64 MiB: glibc
    # returns memory when twice the largest block freed so far lies free. Freeing 32 MiB, never touched, raises that,
    # for data workers, too: an image takes 15.3 ms, not 17.7 (COCO's sizes). Elsewhere this does nothing.
    torch.empty((32 << 20) - (1 << 13), dtype=torch.uint8)
    with without_denormals():
        start_threads()
    trainer = LazyTrainer(cfg, resume=resume, console=False, folder=str(folder))
    first = comm.is_main_process()
    with audience.progress("training", trainer.max_iter) if first else nullcontext() as progress:
        trainer.progress, trainer.title = progress, title
        with audience.no_tables():
            trainer.train()
    return trainer, time.monotonic() - started


def _evaluated_on(cfg: DictConfig) -> str | None:
    """The first of the data sets that a config evaluates on, by its name in Detectron2's catalog."""
    names = OmegaConf.select(cfg, "dataloader.test.dataset.names")
    first = names if isinstance(names, str) else next(iter(names or ()), None)
    return first if OmegaConf.select(cfg, "dataloader.evaluator") else None


def _scores(results: dict[str, Any], dataset: str | None) -> dict[str, Any]:
    """`scores`, of the first data set where there are several; all None where nothing is evaluated."""
    if dataset is None:
        return {**dict.fromkeys(("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")), "per_class": {}}
    found = results.get(dataset, results)
    recall = {"proposals": shares_of(found["box_proposals"])} if "box_proposals" in found else {}
    return {**scores(found, dataset), **recall}


def _recall(trainer: LazyTrainer, folder: Path, title: str) -> dict[str, Any]:
    """The recall over the number of proposals, where there are any, and its picture."""
    if trainer.recall is None:
        return {}
    curve = trainer.recall.curve()
    guarded("recall.png", lambda: draw_recall({title: curve}, folder / "recall.png"))
    return {"recall": curve}


def _draw(trainer: LazyTrainer, folder: Path, dataset: str | None) -> None:
    """Draw detections.png: what is there beside what is found, in six images.

    The images are spread evenly over a registered data set; those with objects are preferred.
    """
    if dataset is None or "mapper" not in trainer.cfg.dataloader.test:
        return
    records = DatasetCatalog.get(dataset)
    records = [record for record in records if true_boxes(record)] or records
    count = min(6, len(records))
    mapper = instantiate(trainer.cfg.dataloader.test.mapper)
    model, rows = trainer.bare_model, []
    averaged = nullcontext() if trainer.average is None else trainer.average.in_place()
    with averaged, inference_context(model), torch.inference_mode():
        for record in (records[i * len(records) // count] for i in range(count)):
            found = model([mapper(copy.deepcopy(record))])[0].get("instances")
            if found is None:  # regions are proposed, and nothing is detected
                return
            truth = true_boxes(record)
            boxes = [BoxMode.convert(box["bbox"], box["bbox_mode"], BoxMode.XYXY_ABS) for box in truth]
            drawn = Drawable(boxes, [box["category_id"] for box in truth])
            rows.append((np.asarray(read_rgb(record["file_name"])), drawn, found.to("cpu")))
    if rows:
        draw_comparison(rows, trainer.class_names or [], folder / "detections.png", trainer.title)


def train_job(job: TrainingJob, workspace: Workspace, audience: Audience) -> None:
    """Train, and leave pictures and summary.json in the workspace; every process of a training must call it.

    Raises:
        FcosError: something is wrong with what was asked for; an earlier training is as it was.
        TrainingInterrupted: see `LazyTrainer.train`.
    """
    output = workspace.target
    first = comm.is_main_process()
    if job.resume:
        job = job.as_before(workspace.folder)
    plan = dataclasses.replace(job, tell=audience.say if first else None).plan(output)
    cfg, data = plan.cfg, plan.data
    if job.resume and all(comm.all_gather(_is_finished(workspace, cfg))):
        more = "--iterations with a higher number trains longer"
        audience.say(f"The training in {output} is complete, so --resume changes nothing; {more}.")
        return
    labels: dict[str, Any] | None = None
    if data and first:
        for text in plan.described(job.resume, job.new_classes):
            audience.say(text)
        names = [name for name in (data.names.train, data.names.val) if name]
        labels = check_labels(data.names, cfg, audience.say, str(data.folder))
        with audience.progress("checking images", data.images["train"] + data.images.get("val", 0)) as progress:
            own_data.check_images(names, lambda done, _: progress.update(done))
    comm.synchronize()
    expected = _tell_time(plan, workspace, job.resume, audience)
    title = data.folder.resolve().name if data else str(job.model)
    if not first:
        comm.synchronize()  # the folder is there
        _train(audience, cfg, workspace.folder, title, job.resume)
        return
    with workspace.writing(job.resume) as folder:
        if workspace.replaces:
            audience.say(f"{output} stays as it is until the new training is complete; that is written to {folder}.")
        plan.write(folder)
        comm.synchronize()
        trainer, seconds = _train(audience, cfg, folder, title, job.resume)
        evaluated_on = _evaluated_on(cfg)
        if trainer.options.pictures:
            guarded("detections.png", lambda: _draw(trainer, folder, evaluated_on))
        thresholds, told = operating_points.of_training(folder, title)
        for sentence in told:
            audience.say(sentence)
        summary = {
            **_scores(trainer.results, evaluated_on), "best": _best(folder), "thresholds": thresholds,
            "dataset": evaluated_on, "image": _image(evaluated_on), "classes": trainer.class_names,
            "images": data.images if data else None, "labels": labels, "iterations": trainer.done + 1,
            "seconds": round(seconds, 1), "expected_seconds": expected, "device": cfg.train.device, "output": output,
            "checkpoint": output / "model_final.pth", "plugins": modules_of(cfg),
            "holds_config": trainer.checkpointer.extra["config"] is not None,
        }  # fmt: skip
        write_json(folder / "summary.json", summary)


def _tell_time(plan: Plan, workspace: Workspace, resume: bool, audience: Audience) -> float | None:
    """Tell how long the training will take, and what would shorten a long one; None if it is too short to tell."""
    cfg, first = plan.cfg, comm.is_main_process()
    done = comm.all_gather(iterations_done(workspace.folder) if resume else 0)[0]
    if plan.pace is None and cfg.train.max_iter - done < _WORTH_MEASURING:
        return None
    with audience.waiting("measuring a few steps") if first else nullcontext():
        pace = plan.pace or measure(cfg)
    expected = pace.seconds(cfg, done)
    if first and plan.said:
        audience.say(plan.said)
    if first:
        evaluations = f", and evaluations of {duration(pace.evaluation)}" if pace.images else ""
        steps = f"{cfg.train.max_iter - done} iterations of {pace.step:.2g} s{evaluations}"
        audience.say(f"It will take about {duration(expected)} on this machine: {steps}.")
        if expected > LONG:
            audience.say(f"Shorter: {'; '.join(advice(cfg, pace, plan.model, plan.image_size))}.")
    return round(expected, 1)


def _is_finished(workspace: Workspace, cfg: DictConfig) -> bool:
    """Whether a folder holds all that a training leaves."""
    there = not workspace.replaces and (workspace.folder / "summary.json").is_file()
    return there and finished(workspace.folder, options_of(cfg)) is not None


def _best(folder: Path) -> dict[str, Any]:
    """Iteration and AP (0 to 1) of model_best.pth; not a number where there is none."""
    best = load(folder / "model_best.pth") if (folder / "model_best.pth").is_file() else {}
    return {"iteration": best.get("iteration"), "AP": best.get("metrics", {}).get("bbox/AP", math.nan) / 100}


def _image(dataset: str | None) -> str | None:
    """An image to try a detector on."""
    return next((record["file_name"] for record in DatasetCatalog.get(dataset)), None) if dataset else None


def _take_classes(cfg: DictConfig, data: str) -> None:
    """Let the model of an evaluation have the data's classes; raises FcosError if its weights lack some."""
    if names := data_class_names(cfg, ("test",)):
        if start := cfg.train.init_checkpoint:
            remedy = "evaluate it on data of its classes, or learn these with `fcos train --new-classes`"
            own_data.check_classes(start, names, data, remedy, some=True)
        if (node := class_node(cfg.model)) is not None:
            node.num_classes = len(names)


@dataclass(frozen=True)
class ToEvaluate:
    """What is to be evaluated.

    Attributes:
        cfg: its config; `train.init_checkpoint` is the file of the weights, or their address.
        dataset: name in Detectron2's catalog.
        weights: as they were asked for: a file, an address, or the variant that was published with them; `None` where
            the config names them.
    """

    cfg: DictConfig
    dataset: str
    weights: str | None


def config_to_evaluate(
    output: Path, *, weights: str | None, data: Path | None, model: str | None, split: str,
    val_fraction: float | None, workers: int | None, device: str | None, format: str | None = None,
    overrides: Sequence[str] = (), allow_py: bool = True, force_recipe: bool = False, tta: str | None = None,
) -> ToEvaluate:  # fmt: skip
    """From what a user asks for to the config of an evaluation.

    Args:
        output: the folder of its results; the others are the options of `fcos eval` by their names.
    Raises:
        FcosError: as `TrainingJob.config` does.
    """
    cfg = own_data.lazy_config(model or str(weights), overrides, allow_py=allow_py)
    own_data.require_nodes(cfg, ("model", "dataloader", "train"))
    weights = weights or (model if model and is_name(model) else None)
    start = str(fetch(weights)) if weights and is_name(weights) else weights
    for node in ("test", "evaluator"):
        if OmegaConf.select(cfg, f"dataloader.{node}") is None:
            raise FcosError(
                f"The config has no dataloader.{node}, so it cannot be evaluated: add one, as its variant has."
            )
    if start is not None:
        cfg.train.init_checkpoint = start
    if data is not None:
        own = own_data.open_data(data, val_fraction, (split,), format)
        cfg.dataloader.test.dataset.names = getattr(own.names, split)
    if force_recipe:
        cfg.train.force_recipe = True
    if tta is not None:
        cfg.tta = tta
    cfg.dataloader.test.num_workers = own_data.default_workers() if workers is None else workers
    cfg.train.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    cfg.train.output_dir = str(output)
    cfg = apply_lazy(cfg, [text for text in overrides if not own_data.is_yacs_key(text)])
    if (dataset := _evaluated_on(cfg)) is None:
        raise FcosError(
            "The config names no data set to evaluate on in dataloader.test.dataset.names: give --data DIR."
        )
    if not any("num_classes" in text.lower() for text in overrides):
        _take_classes(cfg, f"the data set {data or dataset}")
    return ToEvaluate(cfg, dataset, weights)


def evaluate_job(
    workspace: Workspace, audience: Audience, *, thresholds: operating_points.Wanted | None = None,
    errors: mistakes.Asked | None = None, proposals: bool = False, **options: Any,
) -> dict[str, Any]:  # fmt: skip
    """What was asked of `fcos eval`, the options by their names: leave summary.json, and return what it says.

    With `proposals`, it is the first stage of a two-stage detector that is evaluated.

    Raises FcosError as `config_to_evaluate` does.
    """
    asked = config_to_evaluate(workspace.target, **options)
    cfg, dataset = asked.cfg, asked.dataset
    with workspace.writing() as folder:
        trainer = LazyTrainer(cfg, eval_only=True, console=False, folder=str(folder))
        if proposals:
            trainer.model = trainer.bare_model = first_stage(trainer.bare_model)
        wanted, evaluated = thresholds or operating_points.Wanted(), str(cfg.train.init_checkpoint)
        operating_points.require_copyable(wanted, evaluated, trainer.class_names)
        with mistakes.watched(errors, trainer, dataset) as ledger:
            results, how = _evaluated(trainer, audience)
        found, told = operating_points.of_evaluation(trainer.detected, evaluated, wanted, folder, Path(evaluated).stem)
        for sentence in told:
            audience.say(sentence)
        kept = {("thresholds.json", "thresholds.png"): found, mistakes.FILES: ledger, ("recall.png",): trainer.recall}
        workspace.remove([name for names, there in kept.items() if there is None for name in names])
        summary = {
            **_scores(results, dataset), **_recall(trainer, folder, Path(evaluated).stem), "dataset": dataset,
            "thresholds": found, **how,
            "errors": None if ledger is None else mistakes.write(ledger, folder, Path(evaluated).stem),
            "images": len(DatasetCatalog.get(dataset)), "weights": asked.weights, "output": workspace.target,
        }  # fmt: skip
        write_json(folder / "summary.json", summary)
    return summary


def _evaluated(trainer: LazyTrainer, audience: Audience) -> tuple[dict[str, Any], dict[str, Any]]:
    """The results of an evaluation, and how long it took to look in which way; of many views it tells how far it is."""
    started = time.monotonic()
    if trainer.tta is None:
        with audience.waiting("evaluating"), audience.no_tables():
            results = trainer.test()
    else:
        images = sum(len(DatasetCatalog.get(name)) for name in data_names(trainer.cfg, "test"))
        with audience.progress("evaluating", images) as trainer.progress, audience.no_tables():
            results = trainer.test()
    tta = trainer.tta and {**vars(trainer.tta), "views": len(list(trainer.tta.views()))}
    return results, {"seconds": round(time.monotonic() - started, 1), "tta": tta}


@dataclass(frozen=True)
class DemoSettings:
    """What the demo trains, and on what; recorded in its metrics.json."""

    model: str = "fcos_R_18_slim_FPN_small"  # variant of the zoo
    train_images: int = 1000
    val_images: int = 100
    image_size: int = 160  # side, pixels
    min_size: float = 16.0  # longer side of the smallest shapes, pixels
    max_objects: int = 6  # in an image, crowd regions aside
    iterations: int = 1600
    batch_size: int = 8
    lr: float = 2e-3  # of AdamW
    weight_decay: float = 0.05
    warmup: float = 0.15  # share of the iterations in which the learning rate rises
    clip_grad: float = 10.0  # largest norm of the gradient
    evaluations: int = 3  # the end included
    channels_last: bool = True
    seed: int = 0  # of images and training


def run_demo(settings: DemoSettings, device: str | None, workspace: Workspace, audience: Audience) -> dict[str, Any]:
    """Make images, train on them, evaluate, and draw; an earlier demo stays until the new one is complete.

    Returns what metrics.json says.
    """
    started = time.monotonic()
    shared = {field.name for field in dataclasses.fields(Preset)} & vars(settings).keys()
    preset = dataclasses.replace(PRESETS["scratch"]["large"], **{name: vars(settings)[name] for name in shared})
    with workspace.writing() as folder:
        data = own_data.open_data(_demo_images(settings, workspace, audience))
        try:
            cfg = own_data.adapt(
                get_config(settings.model), data.names, data.class_names, train_images=settings.train_images,
                weights="", device=device, iterations=settings.iterations, preset=preset,
            )  # fmt: skip
            cfg.train.update(
                output_dir=str(workspace.target),
                seed=settings.seed,
                channels_last=settings.channels_last,
                pictures=True,
            )
            trainer, seconds = _train(audience, cfg, folder, "FCOS on synthetic shapes")
            evaluated_on = data.names.val or ""
            (folder / "metrics.json").replace(folder / "training.jsonl")
            guarded("detections.png", lambda: _draw(trainer, folder, evaluated_on))
            summary = {
                **scores(trainer.results, evaluated_on), "best": _best(folder),
                "seconds": round(time.monotonic() - started, 1), "seconds_training": round(seconds, 1),
                "device": cfg.train.device, "settings": vars(settings),
                "checkpoint": workspace.target / "model_final.pth",
            }  # fmt: skip
            write_json(folder / "metrics.json", summary)
        finally:
            for name in filter(None, vars(data.names).values()):
                DatasetCatalog.remove(name)
                MetadataCatalog.remove(name)
    return summary


def _demo_images(settings: DemoSettings, workspace: Workspace, audience: Audience) -> Path:
    """Make the data set, or take that of an earlier demo with the same settings."""

    def make(folder: Path) -> Path:
        counts = {"train": settings.train_images, "val": settings.val_images}
        with audience.progress("making images", sum(counts.values())) as progress:
            generate(
                folder, counts, (settings.image_size,) * 2, seed=settings.seed, min_size=settings.min_size,
                max_objects=settings.max_objects, progress=lambda done, _: progress.update(done),
            )  # fmt: skip
        return folder

    there = workspace.target / "data"
    if (there / "synthetic.json").is_file():
        try:
            return make(there)
        except FcosError:  # of other settings
            if workspace.replaces:
                workspace.extra = DEMO_IMAGES
            else:
                workspace.remove(DEMO_IMAGES)
    return make(workspace.folder / "data")

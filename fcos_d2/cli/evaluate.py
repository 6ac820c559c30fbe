"""`fcos eval`: COCO's AP of a checkpoint."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from .session import Result, Session, fcos_command


@fcos_command("eval", short_help="COCO's AP of a checkpoint on a data set.")
@click.option("--weights", metavar="FILE", help="Checkpoint of the detector; by default what the config names.")
@click.option("--data", type=click.Path(path_type=Path), help="Folder with your images and COCO JSON files.")
@click.option(
    "--model", "--config", "model", metavar="NAME|FILE",
    help="Variant or config of the weights; by default what they hold themselves.",
)  # fmt: skip
@click.option(
    "--split", type=click.Choice(["val", "test", "train"]), default="val", show_default=True, help="Part of --data."
)
@click.option(
    "--val-fraction", type=click.FloatRange(0, 1, min_open=True, max_open=True), help="As given to `fcos train`."
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=Path("output", "eval"), show_default=True,
    help="Folder for summary.json and log.txt.",
)  # fmt: skip
@click.option("--workers", type=click.IntRange(0), help="Processes that load images.")
@click.option("--device", help="cuda or cpu; by default what the machine has.")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
def command(
    session: Session, weights: str | None, data: Path | None, model: str | None, split: str, val_fraction: float | None,
    output: Path, workers: int | None, device: str | None, overrides: tuple[str, ...],
) -> Result:  # fmt: skip
    """Evaluate a detector.

    \b
    fcos eval --weights FILE --data DIR [--split test]
    fcos eval --weights FILE --config fcos_imprv_R_50_FPN_1x
        COCO in $DETECTRON2_DATASETS

    AP is COCO's, from 0 to 1, here and with --json.
    """
    if weights is None and model is None:
        raise click.UsageError("Give --weights FILE, and --data DIR or --config NAME.")
    if data is None and model is None:
        raise click.UsageError("Give --data DIR, or --config NAME for the data that it names.")

    import fcos_d2

    fcos_d2.register()
    import torch

    from ..config.overrides import apply_lazy
    from ..train.own_data import check_classes, cores, lazy_config, open_data
    from ..train.trainer import LazyTrainer
    from . import training

    cfg = lazy_config(model or str(weights))
    if weights is not None:
        cfg.train.init_checkpoint = weights
    if data is not None:
        own = open_data(data, val_fraction, need=(split,))
        cfg.dataloader.test.dataset.names = getattr(own.names, split)
        if weights is not None:
            remedy = "evaluate it on data with its own classes, or train it on these with `fcos train --new-classes`"
            check_classes(weights, own.class_names, f"the data set {data}", remedy)
        cfg.model.num_classes = len(own.class_names)
    cfg.dataloader.test.num_workers = min(4, cores() // 2) if workers is None else workers
    cfg.train.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    cfg.train.output_dir = str(output)
    apply_lazy(cfg, overrides)

    dataset = str(cfg.dataloader.test.dataset.names)
    trainer = LazyTrainer(cfg, eval_only=True, console=False)
    waiting = session.log.status("evaluating") if session.log.is_terminal else nullcontext()
    with waiting, session.no_tables():
        results = trainer.test()
    found = training.scores(results, dataset)
    count = training.count_images(dataset)
    summary = {**found, "dataset": dataset, "images": count, "weights": weights, "output": output}
    training.write_json(output / "summary.json", summary)
    return Result(summary, _view(found, f"{count} images of {dataset}", output))


def _view(found: dict[str, Any], images: str, output: Path) -> Any:
    from rich.console import Group
    from rich.text import Text

    from . import training

    sizes = "   ".join(
        f"AP_{size} {'-' if found[f'AP_{size}'] is None else format(found[f'AP_{size}'], '.3f')}"
        for size in ("small", "medium", "large")
    )
    return Group(training.view_of_scores(found, images), Text(sizes), Text(f"{output / 'summary.json'}", "dim"))

"""Options that several commands have, each said once: name, type, help."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ..zoo.tta import NONE, PRESETS
from .session import keep

__all__ = [
    "MEMORY", "POSITIVE", "data", "data_format", "device", "evaluated", "force_recipe", "max_pixels", "model",
    "offline", "optimize", "output", "overrides", "path", "tta", "val_fraction", "weights", "workers",
]  # fmt: skip

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def path(*names: str, **settings: Any) -> Decorator:
    """An option that names a file or a folder."""
    return click.option(*names, type=click.Path(path_type=Path), **settings)


def output(default: Path | None = None, help: str = "Folder for the results.") -> Decorator:
    return path("-o", "--output", default=default, show_default=default is not None, help=help)


def model(help: str = "Variant or config of the weights; by default what they hold themselves.") -> Decorator:
    """--model, with what decides whose code a config may name or be; the latter go to the session."""
    plugin = click.option(
        "--plugin", "plugins", multiple=True, metavar="MODULE", expose_value=False, callback=keep,
        help="A module of another project whose parts the model is made of, repeatable.",
    )  # fmt: skip
    no_py = click.option(
        "--no-py", is_flag=True, expose_value=False, callback=keep, help="Refuse configs that are code."
    )
    source = click.option("--model", "--config", "model", metavar="NAME|FILE", help=help)
    return lambda function: source(plugin(no_py(function)))


def weights(
    help: str = "Checkpoint of the detector, or the variant whose published weights it has.",
    metavar: str = "FILE|NAME",
) -> Decorator:
    return click.option("--weights", metavar=metavar, help=help)


def _no_folder(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    for text in values:
        if text.partition("=")[0] in ("train.output_dir", "OUTPUT_DIR"):
            raise click.UsageError(f"Give the output folder with --output, not with {text}.", context)
    return values


def _reach_all_processes(context: click.Context, parameter: click.Parameter, value: int | None) -> None:
    """Put the value into the environment, which data workers inherit, until the command ends."""
    if not value:
        return
    name = f"FCOS_D2_{str(parameter.name).upper()}"
    before = os.environ.get(name)
    os.environ[name] = str(int(value))
    context.call_on_close(lambda: os.environ.update({name: before or ""}))  # empty is none


force_recipe = click.option(
    "--force-recipe", is_flag=True, help="Use weights that were trained for another recipe than --model describes."
)


class _Memory(click.ParamType):
    """Bytes, said as 1.5GB, 800MB or 2GiB; a number alone is GB."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*", str(value), re.IGNORECASE)
        if not found:
            self.fail(f"{value!r} is no size; for example 1.5GB or 800MB.", param, ctx)
        power = " kmgt".index(found[2].lower() or "g")
        return int(float(found[1]) * (1024 if found[3] else 1000) ** power)


MEMORY = _Memory()
POSITIVE = click.FloatRange(0, min_open=True)
data = path(
    "--data", metavar="DIR|ZIP",
    help="Your images and labels: COCO JSON, YOLO, Pascal VOC, CSV, Label Studio, labelme or CVAT, also in a .zip.",
)  # fmt: skip
data_format = click.option(
    "--format", metavar="NAME",
    help="What --data is, where that can be read in several ways: coco, yolo, voc, voc0 (corners from 0), csv, "
    "labelstudio, labelme or cvat.",
)  # fmt: skip
device = click.option("--device", help="cuda or cpu; by default what the machine has.")
optimize = click.option(
    "--optimize", type=click.Choice(["fp32", "bf16"]),
    help="Run a faster copy of the model: fp32 with the same detections, bf16 with nearly the same.",
)  # fmt: skip
workers = click.option("--workers", type=click.IntRange(0), help="Processes that load images.")
overrides = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...", callback=_no_folder)
max_pixels = click.option(
    "--max-pixels", type=click.IntRange(1), expose_value=False, callback=_reach_all_processes,
    help="Width times height up to which an image is read.  [default: 268435456]",
)  # fmt: skip
offline = click.option(
    "--offline", is_flag=True, expose_value=False, callback=_reach_all_processes,
    help="Take weights from the cache folder alone; nothing is fetched.",
)  # fmt: skip
tta = click.option(
    "--tta", type=click.Choice([*PRESETS, NONE]),
    help="Look at several sizes and mirror images of each image, see docs/test-time-augmentation.md.  [default: what "
    "the config says, else none]",
)  # fmt: skip
val_fraction = click.option(
    "--val-fraction", type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Where the data has no val part: the share of training images that becomes it.",
)  # fmt: skip


def evaluated(function: Callable[..., Any]) -> Callable[..., Any]:
    """What is looked at, and with which detector: weights, data, config and the part of the data."""
    split = click.option(
        "--split", type=click.Choice(["val", "test", "train"]), default="val", show_default=True, help="Part of --data."
    )
    told = "Checkpoint of the detector, or a variant; by default what the config names, or was published for it."
    found: tuple[Decorator, ...] = (
        val_fraction, split, force_recipe, offline, model(), data_format, data, weights(told),
    )  # fmt: skip
    for option in found:
        function = option(function)
    return function

"""Options that several commands have, each said once: name, type, help."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from .session import keep

__all__ = [
    "data_option", "device_option", "model_option", "output_option", "overrides_argument", "path_option",
    "val_fraction_option", "weights_option", "workers_option",
]  # fmt: skip

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def path_option(*names: str, **settings: Any) -> Decorator:
    """An option that names a file or a folder."""
    return click.option(*names, type=click.Path(path_type=Path), **settings)


def output_option(default: Path | None = None, help: str = "Folder for the results.") -> Decorator:
    return path_option("-o", "--output", default=default, show_default=default is not None, help=help)


def model_option(help: str = "Variant or config of the weights; by default what they hold themselves.") -> Decorator:
    """--model, with what decides whose code a config may name or be; the latter go to the session."""
    plugin = click.option(
        "--plugin", "plugins", multiple=True, metavar="MODULE", expose_value=False, callback=keep,
        help="A module of another project whose parts the model is made of, repeatable.",
    )  # fmt: skip
    no_py = click.option(
        "--no-py", is_flag=True, expose_value=False, callback=keep, help="Refuse configs that are code."
    )
    model = click.option("--model", "--config", "model", metavar="NAME|FILE", help=help)
    return lambda function: model(plugin(no_py(function)))


def weights_option(help: str = "Checkpoint of the detector.", metavar: str = "FILE") -> Decorator:
    return click.option("--weights", metavar=metavar, help=help)


data_option = path_option("--data", help="Folder with your images and COCO JSON files.")
device_option = click.option("--device", help="cuda or cpu; by default what the machine has.")
workers_option = click.option("--workers", type=click.IntRange(0), help="Processes that load images.")
overrides_argument = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
val_fraction_option = click.option(
    "--val-fraction", type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Where the data has no val part: the share of training images that becomes it.",
)  # fmt: skip

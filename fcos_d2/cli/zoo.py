"""`fcos zoo`: the published variants."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from .session import Result, Session, fcos_command

if TYPE_CHECKING:
    from ..zoo import Variant

# Column -> its title and how its value is written. A column that no row has a value for is not shown.
_NUMBERS = {
    "ap": ("AP", "{:.1f}"),
    "ap_test_dev": ("test-dev", "{:.1f}"),
    "parameters": ("parameters", "{:.1f} M"),
    "gflops": ("GFLOPs", "{:.0f}"),
}


@fcos_command("zoo", short_help="The published variants.")
@click.argument("name", required=False)
@click.option("--family", help="Only those of one family, e.g. fcos or fcos_plus.")
def command(session: Session, name: str | None, family: str | None) -> Result:
    """List the published variants, or tell how to use the one called NAME.

    AP is in percent, as published for COCO minival and test-dev.
    """
    from .. import zoo
    from ..errors import FcosError

    if name is not None:
        variant = zoo.find(name)
        return Result(_row(variant, name_of(variant)), _details(variant))
    families = list(dict.fromkeys(variant.family for variant in zoo.VARIANTS))
    if family is not None and family not in families:
        raise FcosError(f"There is no family {family!r}; there are {', '.join(families)}.")
    rows = [_row(variant, name) for variant, name in zip(zoo.VARIANTS, zoo.names()) if family in (None, variant.family)]
    return Result({"variants": rows}, _Table(rows))


def name_of(variant: Variant) -> str:
    """The shortest name that stands for a variant."""
    from .. import zoo

    return zoo.names()[zoo.VARIANTS.index(variant)]


def _row(variant: Variant, name: str) -> dict[str, Any]:
    return {**dataclasses.asdict(variant), "name": name, "config": str(variant.config), "yaml": str(variant.yaml)}


class _Table:
    """The rows under their families; on a narrow terminal with fewer columns."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        columns = {"name": "name", "backbone": "backbone", "recipe": "recipe"}
        columns |= {
            key: title for key, (title, _) in _NUMBERS.items() if any(row.get(key) is not None for row in self.rows)
        }
        for dropped in (None, "ap_test_dev", "recipe", "backbone"):
            columns.pop(dropped, None)
            widths = {
                key: max(len(title), *(len(_text(row, key)) for row in self.rows)) for key, title in columns.items()
            }
            if 2 + sum(widths.values()) + 2 * (len(widths) - 1) <= options.max_width:
                break
        yield Text(_line(columns, widths), style="bold")
        group = None
        for row in self.rows:
            if (row["family"], row["source"]) != group:
                group = row["family"], row["source"]
                yield Text.assemble((row["family"], "bold cyan"), (f"  {row['source']}", "dim"))
            yield Text(_line({key: _text(row, key) for key in columns}, widths))
        yield Text(
            "\nAP in percent on COCO, minival and test-dev, as published. `fcos zoo NAME` tells how to use one, "
            "--json has all columns."
        )


def _text(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    return "" if value is None else _NUMBERS[key][1].format(value) if key in _NUMBERS else value


def _line(cells: Mapping[str, str], widths: Mapping[str, int]) -> str:
    return "  " + "  ".join(
        cell.rjust(widths[key]) if key in _NUMBERS else cell.ljust(widths[key]) for key, cell in cells.items()
    )


def _details(variant: Variant) -> RenderableType:
    from ..paths import config_root

    name = name_of(variant)
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row("name", name)
    for label, value in (
        ("family", variant.family),
        ("recipe", variant.recipe),
        ("backbone", variant.backbone),
        ("schedule", variant.schedule),
    ):
        grid.add_row(label, value)
    for key, (label, form) in _NUMBERS.items():
        if (number := getattr(variant, key, None)) is not None:
            grid.add_row(label, form.format(number) + (" % on COCO, as published" if key.startswith("ap") else ""))
    grid.add_row("source", variant.source)
    grid.add_row("config", str(config_root() / variant.config))
    grid.add_row("yaml", str(config_root() / variant.yaml))
    grid.add_row()
    grid.add_row("train", f"fcos train --data DIR --model {name}")
    grid.add_row("train on COCO", f"fcos train --config {name}")
    grid.add_row("detect", f"fcos detect IMAGE --model {name} --weights FILE")
    grid.add_row("in Python", f'fcos_d2.Predictor("{name}", weights="FILE")')
    return grid

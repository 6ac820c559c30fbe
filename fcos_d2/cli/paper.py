"""`fcos paper`: a table or a figure of the paper on one's own data, beside the published numbers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..errors import FcosError
from ..zoo.paper import PAPER
from . import options as shared
from .checks import check
from .session import Result, Session, fcos_command

if TYPE_CHECKING:
    from ..report.paper import Comparison


@fcos_command("paper")
@click.argument("name", type=click.Choice(tuple(PAPER)), metavar="TABLE|FIGURE")
@shared.weights("Checkpoint of the detector, or a variant.")
@shared.data
@shared.data_format
@shared.model()
@shared.offline
@shared.force_recipe
@click.option(
    "--split", type=click.Choice(["val", "test", "train"]), default="val", show_default=True, help="Part of --data."
)
@shared.val_fraction
@shared.path("--pictures", help="A new folder for its pictures.")
@shared.workers
@shared.device
@shared.max_pixels
@shared.overrides
def command(session: Session, name: str, pictures: Path | None, **options: Any) -> Result:
    """Make a table or a figure of the paper (arXiv:1904.01355) on your data, beside the published numbers.

    \b
    fcos paper table5 --weights FILE --data DIR
    fcos paper figure7 --weights FILE --data DIR --pictures NEW

    There are table1, 2, 5, 6 and 9, and figure3 to 7, numbered as in its first arXiv versions. Numbers are from 0 to 1.
    """
    data, model, weights = options["data"], options["model"], options["weights"]
    if not PAPER[name].section and data is None:
        raise click.UsageError(f"{name} is about the data: give --data DIR.")
    if PAPER[name].section and ((weights is None and model is None) or (data is None and model is None)):
        raise click.UsageError("Give --weights FILE, and --data DIR or --config NAME.")
    given = {key: options[key] for key in ("data", "format", "val_fraction", "weights", "model", "device")}
    check(**given, need=(options["split"],), detects=True)
    folder = None if pictures is None else pictures.expanduser()
    if folder is not None and (folder.is_file() or (folder.is_dir() and any(folder.iterdir()))):
        raise FcosError(f"{folder} is there already and not empty: choose another folder for --pictures.")
    session.start(options["device"])
    from ..report.make import write_pictures
    from ..report.material import gather
    from ..report.paper import compare

    asked = {**options, "allow_py": not session.no_py}
    material = gather(Path(), ("fcos", "paper", name), asked, session, PAPER[name].section == "centerness")
    with session.waiting("counting"), session.no_tables():
        found = compare(name, material)
    result = found.plain()
    if folder is not None and found.row is not None and found.section is not None:
        result["pictures"] = write_pictures(folder, {found.row: found.section})
    return Result(result, _view(found, result))


def _view(found: Comparison, result: dict[str, Any]) -> RenderableType:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    table.add_column("")
    table.add_column("")
    for column in found.published.columns:
        table.add_column(column.replace("_", " "), justify="right")
    for label, of, numbers in found.lines():
        cells = ["–" if number is None else f"{number:.3f}" for number in numbers]
        table.add_row(label, of, *cells, style="bold green" if of == "here" else "")
    head = Text(f"{found.name.capitalize()}: {found.published.title}", "bold")
    parts: list[RenderableType] = [head.append(f"  ({found.published.setting})", "dim")]
    parts += [table] if found.published.columns else []
    if found.section is not None:
        parts += [_own(one) for one in found.section.tables] if not found.published.columns else []
        parts += [Text(text, "yellow") for text in found.section.absent]
    parts += [Text(text, "dim") for text in found.differs]
    paths = result.get("pictures", ())
    parts += [Text(str(path), "cyan", no_wrap=True, overflow="ignore") for path in paths]
    if found.section is not None and found.section.pictures and not paths:
        parts.append(Text("--pictures DIR writes what belongs to it as pictures.", "dim"))
    return Group(*parts)


def _own(found: Any) -> Table:
    """A table of a section."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for place, head in enumerate(found.heads):
        table.add_column(head, justify="right" if place else "left")
    for row in found.rows:
        table.add_row(*row)
    return table

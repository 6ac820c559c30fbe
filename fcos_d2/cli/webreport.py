"""`fcos report`: what a detector does on a data set, as a page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Group, RenderableType
from rich.text import Text

from . import options as shared
from .checks import check
from .session import Result, Session, fcos_command

# What --only takes; the rows of report/sections.py, which would import PyTorch.
SECTIONS = (
    "summary", "curves", "kinds", "one-class", "centerness", "score-iou", "overlap", "rankings", "errors",
    "calibration", "confusion", "data", "learnable", "config", "environment",
)  # fmt: skip
_SAID = ("weights", "data", "format", "model", "split", "val_fraction", "device", "tta")


@fcos_command("report")
@shared.evaluated
@shared.tta
@click.option("--only", multiple=True, type=click.Choice(SECTIONS), help="Make this section, repeatable; else all.")
@shared.path("--pictures", help="A new folder for each picture as a file.")
@shared.output(Path("output", "report.html"), "The page; its numbers are written beside it, as .json.")
@shared.workers
@shared.device
@shared.max_pixels
@shared.overrides
def command(session: Session, output: Path, only: tuple[str, ...], pictures: Path | None, **options: Any) -> Result:
    """Write a page that says what a detector does on a data set: numbers, curves, pictures, errors.

    \b
    fcos report --weights FILE --data DIR -o report.html
    fcos report --weights FILE --data DIR --only rankings --pictures NEW

    The page is one file without anything from elsewhere; the numbers lie beside it as JSON.
    """
    weights, data, model = options["weights"], options["data"], options["model"]
    if weights is None and model is None:
        raise click.UsageError("Give --weights FILE, and --data DIR or --config NAME.")
    if data is None and model is None:
        raise click.UsageError("Give --data DIR, or --config NAME for the data that it names.")
    if output.suffix.lower() not in (".html", ".htm"):
        raise click.UsageError(f"--output is {output}; it names the page, for example report.html.")
    given = {name: options[name] for name in ("data", "format", "val_fraction", "weights", "model", "device")}
    check(**given, need=(options["split"],), output=output.expanduser().parent, detects=True)
    from ..report.make import make_report, require_free

    page, folder = output.expanduser(), None if pictures is None else pictures.expanduser()
    require_free(page, folder)
    session.start(options["device"])
    asked = {**options, "allow_py": not session.no_py}
    found = make_report(page, _words(options, session), asked, session, only, folder)
    return Result(found, _view(found, page))


def _words(options: Mapping[str, Any], session: Session) -> list[str]:
    """The command line again, without what chooses sections and files."""
    words = ["fcos", "report"]
    for name in _SAID:
        value = options[name]
        if value is not None and not (name == "split" and (value == "val" or options["data"] is None)):
            words += [f"--{name.replace('_', '-')}", str(value)]
    words += ["--force-recipe"] if options["force_recipe"] else []
    words += ["--no-py"] if session.no_py else []
    for name in session.plugins:
        words += ["--plugin", name]
    return [*words, *options["overrides"]]


def _view(found: Mapping[str, Any], page: Path) -> RenderableType:
    summary = found["sections"].get("summary")
    lines: list[RenderableType] = []
    if summary:
        head = Text()
        for key in ("AP", "AP50", "AP75", "f1"):
            value = summary[key]
            head.append(f"{key.upper()} ", "bold").append("-" if value is None else f"{value:.3f}").append("   ")
        lines.append(head.append(f"on {summary['images']} images", "dim"))
    for section in found["sections"].values():
        lines += [Text(f"{section['title']}: {text}", "dim") for text in section.get("left_out", ())]
    lines += [Text(str(path), "cyan", no_wrap=True, overflow="ignore") for path in (page, page.with_suffix(".json"))]
    return Group(*lines)

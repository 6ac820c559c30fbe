"""`fcos analyze`: what a detector can learn of a data set's boxes, and what to change so that it is more."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..files import write_json
from . import options as shared
from .checks import check
from .session import Result, Session, fcos_command

if TYPE_CHECKING:
    from ..analysis.report import Analysis

DEFAULT = "fcos_R_18_slim_FPN_small"  # what `fcos train --data` takes on a CPU
REPORT, SUGGESTED = "analysis.json", "suggested.py"


@fcos_command("analyze")
@click.argument("data", type=click.Path(path_type=Path))
@shared.data_format
@shared.model(f"The detector: a variant (`fcos zoo`), a config file, or a checkpoint. [default: {DEFAULT}]")
@click.option(
    "--image-size", type=click.IntRange(32), help="Shorter side of its input in pixels. [default: that of the model]"
)
@click.option("--split", "part", type=click.Choice(["train", "val", "test"]), help="Look at this part alone.")
@click.option(
    "--recall", "target", type=click.FloatRange(0, 1, min_open=True), default=0.99, show_default=True,
    help="Best possible recall that suggestions aim at, from 0 to 1.",
)  # fmt: skip
@click.option("--no-suggest", is_flag=True, help="Count only; do not look for what would help.")
@shared.output(help=f"Folder for {REPORT}, {SUGGESTED} and pictures of what is never learned.")
@click.option(
    "--pictures", type=click.IntRange(0), default=1000, show_default=True,
    help="With -o: the most objects of a part to draw.",
)  # fmt: skip
@shared.max_pixels
def command(
    session: Session, data: Path, format: str | None, model: str | None, image_size: int | None, part: str | None,
    target: float, no_suggest: bool, output: Path | None, pictures: int,
) -> Result:  # fmt: skip
    """Count what a detector can learn of the boxes in DATA, before any training.

    \b
    fcos analyze DATA                  for the small detector
    fcos analyze DATA --model fcos_imprv_R_50_FPN_1x
    fcos analyze DATA -o analysis      with a config that learns more, and pictures

    Best possible recall is the share of boxes that at least one location is assigned to in training. A positive
    location is ambiguous if it lies in the regions of several boxes at its level. Both stand beside the paper's.
    """
    name = model or DEFAULT
    check(data=data, format=format, model=name)
    from ..analysis import read_objects
    from ..data import find_dataset
    from ..train.workspace import ANALYSIS, Workspace

    workspace = None if output is None else Workspace.open(output, ANALYSIS, inputs=[data])
    layout = find_dataset(data, format)
    parts = read_objects(layout, () if part is None else (part,))
    session.start()
    from ..analysis.report import analyze
    from ..train.own_data import lazy_config
    from .learnable import view

    cfg = lazy_config(name, allow_py=not session.no_py)
    with session.waiting("counting"):
        found = analyze(parts, cfg, image_size)
    if not no_suggest:
        with session.waiting("looking for what helps"):
            found.suggest(target)
    result: dict[str, Any] = {"data": data, "format": layout.format, "model": name, **found.plain()}
    if workspace is not None:
        with workspace.writing() as folder:
            written = _draw(session, found, folder, pictures)
            result |= found.plain()
            if "train" in layout.splits and (told := found.write_config(folder / SUGGESTED, name, layout, data)):
                written.add(SUGGESTED)
                result["suggestion"] |= told
            write_json(folder / REPORT, result)
            workspace.remove([p.name for kind in ANALYSIS.files for p in folder.glob(kind) if p.name not in written])
    return Result(result, view(result, output))


def _draw(session: Session, found: Analysis, folder: Path, most: int) -> set[str]:
    """Pictures of what is lost, as many as asked for; the names of the files that are written."""
    from ..analysis.pictures import draw_lost

    shown = {part: those[:most] for part, those in found.lost.items()}
    total = sum(map(len, shown.values()))
    done = iter(range(1, total + 1))
    with session.progress("drawing", max(total, 1)) as progress:
        for part, those in shown.items():
            pages, failed = draw_lost(found.parts[part], those, folder, lambda: progress.update(next(done)))
            found.pages[part] = pages
            if failed:
                session.say(f"{part}: the pictures of {failed} of {len(those)} objects cannot be read.")
            if len(found.lost[part]) > most:
                session.say(f"{part}: {most} of {len(found.lost[part])} objects are drawn; --pictures draws more.")
    return {REPORT, *(page for pages in found.pages.values() for page in pages.values())}

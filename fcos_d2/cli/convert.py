"""`fcos convert`: checkpoints of other FCOS projects to ours, or back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import options as shared
from .session import Result, Session, fcos_command

if TYPE_CHECKING:
    from ..importers import Report


@fcos_command("convert", short_help="Read checkpoints of other FCOS projects, or write them.")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@shared.path("-o", "--output", required=True, help="The file to write.")
@click.option("--overwrite", is_flag=True, help="Replace the file if it is there.")
@click.option("--family", help="Where CHECKPOINT comes from; by default recognised from the names of its weights.")
@click.option(
    "--variant", metavar="NAME|FILE", help="Variant or config it belongs to; needed where nothing else tells."
)
@click.option("--to", "target", metavar="FAMILY", help="Write it for this family instead of for fcos_d2.")
@click.option("--num-classes", type=click.IntRange(1), help="80 or 91, for torchvision's numbering of COCO's classes.")
def command(
    session: Session, checkpoint: Path, output: Path, overwrite: bool, family: str | None, variant: str | None,
    target: str | None, num_classes: int | None,
) -> Result:  # fmt: skip
    """Read CHECKPOINT, published by another FCOS project, and write it for fcos_d2 (with --to: for another).

    \b
    fcos convert FCOS_imprv_R_50_FPN_1x.pth -o fcos.pth
    fcos detect IMAGE --weights fcos.pth

    Nothing in the file is run. What was changed on the way is said.
    """
    from ..errors import FcosError

    if output.exists() and not overwrite:
        raise FcosError(f"{output} is there already: choose another --output, or replace it with --overwrite.")
    session.start()
    from ..importers import convert

    report = convert(checkpoint, output, family=family, to=target, config=variant, num_classes=num_classes)
    return Result({**report.as_dict(), "output": output}, _view(report, output, target))


def _view(report: Report, output: Path, target: str | None) -> str:
    text = f"{report}\n\nwritten: {output}"
    if target:
        return text
    if report.config_name:  # the file holds its config
        return f"{text}\n\nNow\n  fcos detect IMAGE --weights {output}"
    names = " or ".join(report.variants) or "the config it was trained with"
    return f"{text}\n\nNow\n  fcos detect IMAGE --model NAME --weights {output}\nwhere NAME is {names}"

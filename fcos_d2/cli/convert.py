"""`fcos convert`: checkpoints of other FCOS projects to ours, or back."""

from __future__ import annotations

from pathlib import Path

import click

from ..errors import FcosError
from . import options as shared
from .session import Result, Session, fcos_command


@fcos_command("convert")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@shared.path("-o", "--output", required=True, help="The file to write.")
@click.option("--overwrite", is_flag=True, help="Replace the file if it is there.")
@click.option("--family", help="Where CHECKPOINT comes from; by default recognised from the names of its weights.")
@click.option("--variant", metavar="NAME|FILE", help="Variant or config it belongs to, where nothing else tells.")
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
    if output.exists() and not overwrite:
        raise FcosError(f"{output} is there already: choose another --output, or replace it with --overwrite.")
    session.start()
    from ..importers import convert

    report = convert(checkpoint, output, family=family, to=target, config=variant, num_classes=num_classes)
    view = f"{report}\n\nwritten: {output}"
    if target is None:
        names = " or ".join(report.variants) or "the config it was trained with"
        model, where = ("", "") if report.config_name else ("--model NAME ", f"\nwhere NAME is {names}")
        view += f"\n\nNow\n  fcos detect IMAGE {model}--weights {output}{where}"
    return Result({**report.as_dict(), "output": output}, view)

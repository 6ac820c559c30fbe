"""`fcos convert`: checkpoints of other FCOS projects to ours, or back."""

from __future__ import annotations

import shlex
from pathlib import Path

import click
from rich.text import Text

from ..errors import FcosError
from ..files import require_writable
from ..genotype import inlined
from . import options as shared
from .checks import check
from .session import Result, Session, fcos_command

# The families of checkpoints and their other names, here so that a wrong one is told at once; a test compares them.
FAMILIES = (
    "fcos_core", "fcos_plus", "adelaidet", "mmdet", "torchvision", "detectron2", "vovnet", "hrnet", "nas_fcos", "fad",
    "fcos", "tianzhi", "mmdetection", "fcos_d2",
)  # fmt: skip


@fcos_command("convert")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@shared.path("-o", "--output", required=True, help="The file to write.")
@click.option("--overwrite", is_flag=True, help="Replace the file if it is there.")
@click.option("--family", help="Where CHECKPOINT comes from; by default recognised from the names of its weights.")
@shared.offline
@click.option("--variant", metavar="NAME|FILE", help="Variant or config it belongs to, where nothing else tells.")
@click.option("--to", "target", metavar="FAMILY", help="Write it for this family instead of for fcos_d2.")
@click.option("--genotype", metavar="NAME|FILE", help="Of a FAD head: genotype.log, or paper (the default) or other.")
@click.option("--num-classes", type=click.IntRange(1), help="80 or 91, for torchvision's numbering of COCO's classes.")
def command(
    session: Session, checkpoint: Path, output: Path, overwrite: bool, family: str | None, variant: str | None,
    target: str | None, genotype: str | None, num_classes: int | None,
) -> Result:  # fmt: skip
    """Read CHECKPOINT, published by another FCOS project, and write it for fcos_d2 (with --to: for another).

    \b
    fcos convert FCOS_imprv_R_50_FPN_1x.pth -o fcos.pth
    fcos detect IMAGE --weights fcos.pth

    Nothing in the file is run. What was changed on the way is said.
    """
    if output.exists() and not overwrite:
        raise FcosError(f"{output} is there already: choose another --output, or replace it with --overwrite.")
    check(weights=checkpoint, model=variant)
    require_writable(output.parent)
    if output.is_dir():
        raise FcosError(f"{output} is a folder: choose another --output, the name of the file to write.")
    for name in (family, target):
        if name is not None and name not in FAMILIES:
            raise FcosError(f"There is no family {name!r} of checkpoints; choose one of: {', '.join(FAMILIES)}.")
    if genotype is not None:
        genotype = inlined(genotype)
    session.start()
    from ..importers import convert
    from ..train.own_data import holds_config

    report = convert(
        checkpoint, output, family=family, to=target, config=variant, num_classes=num_classes, genotype=genotype
    )
    view = f"{report}\n\nwritten: {output}"
    if target is None:
        known = holds_config(str(output))
        models = [[]] if known else [["--model", name] for name in report.variants]
        lines = [shlex.join(["fcos", "detect", "IMAGE", "--weights", str(output), *model]) for model in models]
        hint = "" if known else "\nfor the variant that it was trained as" if models else ""
        advice = "\n".join(f"  {line}" for line in lines)
        view += f"\n\nNow{hint}\n{advice}" if lines else "\n\nNo variant has these weights: give --model its config."
    return Result({**report.as_dict(), "output": output}, Text(view, no_wrap=True, overflow="ignore"))

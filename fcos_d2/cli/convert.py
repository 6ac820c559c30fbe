"""`fcos convert`: checkpoints of other FCOS projects to ours, or back."""

from __future__ import annotations

from pathlib import Path

import click

from .session import Result, Session, fcos_command


@fcos_command("convert", short_help="Checkpoints of other FCOS projects.")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The file to write.")
@click.option("--family", help="Where CHECKPOINT comes from; recognised from its weights' names by default.")
@click.option("--variant", help="The variant that it belongs to; recognised by default.")
@click.option("--to", "target", help="Write it for this family instead of for fcos_d2.")
def command(
    session: Session, checkpoint: Path, output: Path, family: str | None, variant: str | None, target: str | None
) -> Result:
    """Read CHECKPOINT, published by another FCOS project, and write it for fcos_d2 (or, with --to, for another)."""
    import fcos_d2

    fcos_d2.register()
    from ..importers import convert

    report = convert(checkpoint, output, family=family, variant=variant, to=target)
    return Result({"output": output, "report": vars(report)}, str(report))

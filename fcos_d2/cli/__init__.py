"""The console command `fcos`: a table of commands, each a module that is imported when it is chosen.

Nothing here imports PyTorch, so `fcos --help` answers at once.

What may be changed here: options, and what is printed. What a command does is done in a room below.
"""

from __future__ import annotations

import difflib
import importlib
import platform
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from ..files import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from ..paths import camera_of
from .session import Session, report

__all__ = ["COMMANDS", "cli", "main"]


@dataclass(frozen=True)
class Row:
    """A command: its name, the module whose `command` it is, and what it does in a line."""

    name: str
    module: str
    help: str


COMMANDS: tuple[Row, ...] = (
    Row("train", "train", "Train on your own images, or any config on COCO."),
    Row("eval", "evaluate", "COCO's AP of a checkpoint on a data set."),
    Row("report", "webreport", "A page of what a detector does on a data set, with pictures."),
    Row("detect", "detect", "Find objects in images, videos, folders, URLs, cameras."),
    Row("serve", "serve", "A detector that answers over HTTP, with a page for pictures."),
    Row("explain", "explain", "Why a detector found this and missed that, in one image."),
    Row("demo", "demo", "Make images, train a small FCOS on them, show what it finds."),
    Row("data", "data", "Data sets: to other formats, divided, looked at."),
    Row("zoo", "zoo", "The published variants, and how to use one."),
    Row("check", "audit", "Look for what is wrong with your images and boxes."),
    Row("analyze", "analyze", "What can be learned of your boxes, before any training."),
    Row("paper", "paper", "The paper's tables and figures on your data, beside its numbers."),
    Row("verify", "verify", "Check that an exported file is as it was certified."),
    Row("bench", "bench", "How fast a detector is, plain and optimized."),
    Row("export", "export", "One file that finds the same without PyTorch, with proof."),
    Row("doctor", "doctor", "Versions, devices, and how to mend what is missing."),
    Row("convert", "convert", "Read checkpoints of other FCOS projects, or write them."),
)


class CommandTable(click.Group):
    """A group that knows its commands' names and helps from `COMMANDS` and imports the one that is run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [row.name for row in COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        row = next((row for row in COMMANDS if row.name == cmd_name), None)
        return None if row is None else importlib.import_module(f".{row.module}", __name__).command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(row.name, row.help) for row in COMMANDS])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own = {name for parameter in self.get_params(ctx) for name in (*parameter.opts, *parameter.secondary_opts)}
        if args and args[0].startswith("-") and args[0].partition("=")[0] not in own and any(map(_is_image, args)):
            args = ["detect", *args]  # fcos --threshold 0.3 IMAGE
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        word, names = args[0], self.list_commands(ctx)
        if word in names or _is_image(word):
            return super().resolve_command(ctx, args if word in names else ["detect", *args])
        near = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
        hint = f" Did you mean '{near[0]}'?" if near else f" There are {', '.join(names)}; fcos IMAGE detects."
        raise click.UsageError(f"No command or image '{word}'.{hint}", ctx)


def _is_image(word: str) -> bool:
    """Whether a word on the command line stands for something to detect in."""
    by_name = "://" in word or word.lower().endswith((*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)) or camera_of(word) is not None
    return (by_name or Path(word).exists()) and not word.startswith("-")


def _version(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    from importlib.metadata import version

    import fcos_d2

    flavour = torch = "not installed"
    with suppress(ImportError):
        from .._compat import DETECTRON2_FLAVOUR as flavour
    with suppress(ImportError):
        torch = version("torch")
    python = platform.python_version()
    click.echo(f"fcos_d2 {fcos_d2.__version__} (Detectron2 {flavour}, PyTorch {torch}, Python {python})")
    ctx.exit()


@click.group(
    "fcos",
    cls=CommandTable,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="`fcos IMAGE_OR_URL` is short for `fcos detect IMAGE_OR_URL`. `fcos COMMAND --help` tells more; every "
    "command takes --json (one JSON object on stdout, all else on stderr) and --debug.",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version,
    help="Versions of fcos_d2, Detectron2 and PyTorch.",
)  # fmt: skip
def cli() -> None:
    """FCOS: fully convolutional one-stage object detection, on Detectron2."""


def main() -> None:
    """Run the command line; exit code 0, 1 for an error, 2 for wrong usage, 130 for Ctrl-C."""
    session = Session()
    try:
        code = cli.main(prog_name="fcos", standalone_mode=False, obj=session)
    except BaseException as error:
        code = report(error, session)
    sys.exit(code if isinstance(code, int) else 0)

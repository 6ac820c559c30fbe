"""`fcos bench`: this package beside other FCOS implementations."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .session import Result, Session, fcos_command

if TYPE_CHECKING:
    from projects_tools.bench.speed import Report

_SUITES = ("assign", "loss", "decode", "forward", "train", "data")


@fcos_command("bench", short_help="Speed and memory beside other FCOS implementations.")
@click.option(
    "--suite", "suites", multiple=True, type=click.Choice(_SUITES), help="What to measure, repeatable; by default all."
)
@click.option(
    "--peer", "peers", multiple=True, metavar="NAME[=MODULE:CLASS]",
    help="Whom to compare with, repeatable; by default detectron2 and torchvision.",
)  # fmt: skip
@click.option("--data", type=click.Path(path_type=Path), help="Folder of a data set, for the suite 'data'.")
@click.option("--threads", type=click.IntRange(1), default=2, show_default=True, help="Threads of PyTorch.")
@click.option(
    "--seconds", type=click.FloatRange(0, min_open=True), default=4.0, show_default=True, help="For each row."
)
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
@click.option("--quick", is_flag=True, help="A few small settings, and no memory: a try.")
@click.option(
    "--markdown", type=click.Path(path_type=Path), help="Write tables; keeps the text around the marks of a file."
)
@click.option("--json-file", type=click.Path(path_type=Path), help="Write everything, all runs included, as JSON.")
@click.option("--chart", type=click.Path(path_type=Path), help="Draw the ratios, e.g. chart.png.")
def command(
    session: Session, suites: tuple[str, ...], peers: tuple[str, ...], data: Path | None, threads: int, seconds: float,
    device: str, quick: bool, markdown: Path | None, json_file: Path | None, chart: Path | None,
) -> Result:  # fmt: skip
    """Measure this package beside its peers, in one process, in turns.

    \b
    fcos bench --quick
    fcos bench --suite loss --suite decode
    fcos bench --peer mine=my_module:Peer --suite assign

    Each row runs both on the same inputs, compares their answers, and gives a ratio only if those are the same. A peer
    of yours is a class with the methods that fcos_d2/analysis/peers.py describes.
    """
    import fcos_d2

    fcos_d2.register()
    from projects_tools.bench import report as reports
    from projects_tools.bench import speed

    from .progress import Progress

    progress: list[Progress] = []

    def tell(done: int, total: int, note: str) -> None:
        if not progress:
            progress.append(Progress(session.log, "bench", total))
            progress[0].__enter__()
        progress[0].update(done, note)

    try:
        found = speed.run(
            suites or _SUITES,
            peers or tuple(speed.KNOWN_PEERS),
            threads,
            quick,
            str(data.expanduser()) if data else "",
            seconds,
            device,
            tell,
        )
    finally:
        for bar in progress:
            bar.__exit__(None, None, None)
    line = shlex.join(["fcos", *sys.argv[1:]])
    if markdown is not None:
        reports.write_markdown(markdown, found, line)
    if json_file is not None:
        reports.write_json(json_file, found, line)
    if chart is not None:
        reports.draw_chart(chart, found)
    return Result(found.as_dict(), _view(found))


def _view(report: Report):
    """Machine and rows for a terminal."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    parts = [Text(f"{name}: {value}") for name, value in report.machine.items()]
    table = Table(box=None, pad_edge=False)
    for title, justify in (
        ("suite", "left"), ("setting", "left"), ("peer", "left"), ("peer ms", "right"), ("fcos_d2 ms", "right"),
        ("ratio", "right"), ("memory", "right"), ("difference of the answers", "left"),
    ):  # fmt: skip
        table.add_column(title, justify=justify, no_wrap=title != "difference of the answers")
    for row in report.rows:
        table.add_row(
            row.case.setting.suite,
            row.case.setting.label,
            row.peer,
            f"{row.theirs.median * 1e3:.2f}",
            f"{row.ours.median * 1e3:.2f}",
            "not equal" if row.ratio is None else f"{row.ratio:.1f}x",
            "" if row.memory_ratio is None else f"{row.memory_ratio:.1f}x",
            row.agreement.text,
        )
    parts += [Text(""), table]
    parts += [Text(f"{g.suite}: time ~ {g.axis}^{g.exponent:.2f} for {g.who}") for g in report.growth]
    parts += [Text(f"Not measured: {text}.") for text in report.skipped]
    return Group(*parts)

"""Measure this package beside other FCOS implementations: `python -m projects_tools.bench --quick`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click
import torch

from fcos_d2.devices import find_device
from fcos_d2.errors import FcosError
from fcos_d2.files import require_writable
from projects_tools.bench import report as reports
from projects_tools.bench import speed, sync
from projects_tools.bench.peers import SUITES


@click.command("python -m projects_tools.bench", context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--suite", "suites", multiple=True, type=click.Choice([*SUITES, "sync"]),
    help="What to measure, repeatable; by default all but sync, which counts where the host waits for a GPU.",
)  # fmt: skip
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
    suites: tuple[str, ...], peers: tuple[str, ...], data: Path | None, threads: int, seconds: float, device: str,
    quick: bool, markdown: Path | None, json_file: Path | None, chart: Path | None,
) -> None:  # fmt: skip
    """Measure this package beside its peers, in one process, in turns.

    \b
    python -m projects_tools.bench --quick
    python -m projects_tools.bench --suite loss --suite decode
    python -m projects_tools.bench --peer mine=my_module:Peer --suite assign

    Each row runs both on the same inputs, compares their answers, and gives a ratio only if those are the same. A peer
    of yours is a class with the methods that projects_tools/bench/peers.py describes.
    """
    if "sync" in suites:
        click.echo(_sync(find_device(device, "--device")))
        suites = tuple(suite for suite in suites if suite != "sync")
        if not suites:
            return
    folder = str(data.expanduser()) if data else ""
    for path in filter(None, (markdown, json_file, chart)):  # not when all is measured
        require_writable(path.parent)
    found = speed.run(suites or SUITES, peers or speed.KNOWN_PEERS, threads, quick, folder, seconds, device, tell=_tell)
    line = f"python -m projects_tools.bench {shlex.join(sys.argv[1:])}".strip()
    if markdown is not None:
        reports.write_markdown(markdown, found, line)
    if json_file is not None:
        reports.write_json(json_file, found, line)
    if chart is not None:
        reports.draw_chart(chart, found)
    click.echo(reports.markdown(found))


def _sync(device: torch.device) -> str:
    """Where the host waits: without a GPU what it would, on one what it does."""
    if device.type == "cpu":
        return sync.table(sync.counted())
    found, seen = sync.counted_on(device)
    lines = [f"- {work}: {count} in the profiler" for work, count in seen.items()]
    return "\n".join([sync.table(found), "", *lines])


def _tell(done: int, total: int, note: str) -> None:
    """Progress, on standard error."""
    if note:
        click.echo(f"{done + 1}/{total} {note}", err=True)


if __name__ == "__main__":
    try:
        command()
    except FcosError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)

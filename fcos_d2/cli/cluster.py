"""Options of `fcos detect` about clusters, and what the command does with one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource
from rich.console import Group
from rich.text import Text

from ..errors import FcosError
from ..words import duration
from . import options as shared
from . import thresholds
from .checks import require_package
from .endings import how_to_go_on, stopping
from .session import Result, Session

if TYPE_CHECKING:
    from ..data.sources import Source
    from ..predict.cluster import ClusterJob
    from ..predict.look import Look
    from .detect import Wanted

__all__ = ["detected", "options", "require"]

_ONE_BY_ONE = ("track", "show", "every")  # options of what one process does with videos


def options(function: Callable[..., Result]) -> Callable[..., Result]:
    """The options; the command gets them as one, `cluster`, for `require`."""

    @functools.wraps(function)
    def command(session: Session, engine_cluster: str | None, **given: Any) -> Result:
        chosen = {name: given.pop(f"cluster_{name}") for name in ("workers", "cpus", "gpus", "address")}
        chosen = {name: value for name, value in chosen.items() if value is not None}
        if engine_cluster is None and chosen:
            first = f"cluster-{next(iter(chosen))}"
            raise click.UsageError(f"--{first} goes with --engine-cluster ray.")
        return function(session, cluster=None if engine_cluster is None else chosen, **given)

    for option in reversed((
        click.option(
            "--engine-cluster", type=click.Choice(["ray"]),
            help="Look at pictures by many processes, on this machine or a cluster; for folders, lists and Parquet.",
        ),
        click.option("--cluster-workers", type=click.IntRange(1), help="Processes.  [default: as many as fit]"),
        click.option("--cluster-cpus", type=click.IntRange(1), help="CPU cores of each.  [default: 1]"),
        click.option("--cluster-gpus", type=shared.POSITIVE, help="GPUs of each, or a share.  [default: 1 if any]"),
        click.option("--cluster-address", metavar="ADDRESS", help="A running Ray cluster: auto or ray://HOST:PORT."),
    )):  # fmt: skip
        command = option(command)
    return command


def require(cluster: Mapping[str, Any] | None, wanted: Wanted, sources: Sequence[Source]) -> None:
    """Raise FcosError or UsageError if an option asks for what is not done by many processes, or Ray is missing."""
    if cluster is None:
        for source in sources:
            if source.is_table:
                raise FcosError(f"{source.where} is a table of pictures: add --engine-cluster ray to look at them.")
        return
    for name in _ONE_BY_ONE:
        if getattr(wanted, name) not in (False, 1):
            raise click.UsageError(f"--{name} is for one process: leave it or --engine-cluster out.")
    for package in ("ray", "pyarrow"):
        require_package(package, "--engine-cluster ray", "fcos_d2[ray]")


def detected(
    session: Session, cluster: Mapping[str, Any], look: Callable[[], Look], sources: Sequence[Source], wanted: Wanted,
    run: str, classes: Sequence[str], least: Mapping[str, float], name: str,
) -> Result:  # fmt: skip
    """Look at all sources by many processes.

    Args:
        look: makes in each process how its detector looks at an image.
        run: what decides about the results, see `predict.journal`.
        classes, least, name: of the detector: names of classes, score thresholds, and which one it is.
    """
    from ..predict.cluster import Cluster, ClusterJob, count_of
    from ..predict.job import Interrupted
    from ..predict.journal import Journal
    from ..predict.outputs import Results, write

    pictures = click.get_current_context().get_parameter_source("pictures") is not ParameterSource.DEFAULT
    total, code = count_of(sources), 0
    journal = Journal(wanted.output.expanduser(), run, wanted.resume)
    with closing(journal), session.progress("detecting", total) as progress:
        job = ClusterJob(
            look, journal, Cluster(**cluster), wanted.output if wanted.pictures and pictures else None,
            tell=progress.update, complain=session.say,
        )  # fmt: skip
        try:
            with stopping():
                job.run(sources)
        except Interrupted as error:
            code = error.code
        done = sum(1 for _ in journal) if code else 0
        kept = None if journal.is_empty else journal.path
        results = Results(journal, classes, thresholds.single(least), name)
        new = bool(job.finished) or not wanted.resume
        written = write(wanted.output, journal.stem, wanted.formats, results, new) if kept and not code else {}
    if code:
        session.say(how_to_go_on(done, kept, total))
    aside = job.aside if job.failed else None
    data = {
        "pictures": job.finished, "before": job.before, "failed": job.failed, "objects": dict(job.counts),
        "thresholds": dict(least), "classes": list(classes), "results": kept, "files": written,
        "aside": aside, "seconds": round(job.seconds, 1), "interrupted": bool(code),
    }  # fmt: skip
    files = [path for path in (kept, aside, *written.values()) if path]
    return Result(data, _view(job, thresholds.told(least), files), code or int(bool(job.failed)))


def _view(job: ClusterJob, least: str, files: Sequence[Path]) -> Group:
    objects = ", ".join(f"{count:,} {name}" for name, count in job.counts.most_common()) or "nothing"
    speed = f", {job.finished / job.seconds:.1f} a second" if job.seconds and job.finished else ""
    before = f" ({job.before:,} before)" if job.before else ""
    lines = [
        Text(f"{job.finished:,} pictures{before} in {duration(job.seconds)}{speed}: {objects}."),
        Text(f"{job.empty:,} have no score above {least}.", "dim"),
    ]
    if job.failed:
        lines.append(Text(f"{job.failed:,} pictures could not be used; the reasons are in {job.aside.name}.", "red"))
    return Group(*lines, *(Text(str(path), "cyan", no_wrap=True, overflow="ignore") for path in files))

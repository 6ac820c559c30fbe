"""`fcos paper`: a table or a figure of the paper on one's own data, beside the published numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..files import require_own_json, write_json
from ..zoo.paper import LABELS, NEEDS, PAPER
from . import options as shared
from .checks import check
from .session import Result, Session, fcos_command

if TYPE_CHECKING:
    from ..analysis.paper import Comparison

GENERATOR = "fcos paper"
_UNKNOWN = "not confirmed"
# Options that say nothing about labels.
_OF_DETECTORS = {
    "--weights": "weights", "--config": "model", "--tta": "tta", "--val-fraction": "val_fraction", "--output": "output",
    "KEY=VALUE": "overrides",
}  # fmt: skip


class _Name(click.ParamType):
    """A table or a figure, however it is written: table5, "Table 5", "fig. 5"."""

    name = "table|figure"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        found = re.fullmatch(r"(tab|fig)(?:le|ure)?[ ._-]*(\d+)", str(value).strip().lower())
        name = f"{'table' if found[1] == 'tab' else 'figure'}{int(found[2])}" if found else ""
        if name not in PAPER:
            why = " Tables 3, 4 and 7 compare trainings on COCO." if name in ("table3", "table4", "table7") else ""
            self.fail(f"{value!r} is none of {', '.join(PAPER)}.{why}", param, ctx)
        return name


@fcos_command("paper")
@click.argument("name", required=False, type=_Name(), metavar="[TABLE|FIGURE]")
@shared.evaluated
@shared.tta
@shared.output(help="Folder for its pictures.  [default: output/paper/NAME for a figure]")
@shared.path("--json-file", help="Write the numbers, published and here, to this file.")
@shared.workers
@shared.device
@shared.max_pixels
@shared.overrides
def command(session: Session, name: str | None, output: Path | None, json_file: Path | None, **options: Any) -> Result:
    """Make a table or a figure of the paper (arXiv:1904.01355) on your data, beside the published numbers.

    \b
    fcos paper                    what there is, and what it needs
    fcos paper table1 --data DIR
    fcos paper table5 --weights FILE --data DIR
    fcos paper figure7 --weights FILE --data DIR

    Below the numbers stands what is not the same here as in the paper. All numbers are from 0 to 1. Of labels, all
    parts of the data count unless --split names one.
    """
    if name is None:
        return _listed()
    published, words = PAPER[name], ("data", "format", "val_fraction", "weights", "model", "device")
    split = options["split"] if _is_given("split") or published.needs != LABELS else None
    if options["data"] is None and (published.needs == LABELS or options["model"] is None):
        raise click.UsageError(f"{name} is made of {NEEDS[published.needs]}.")
    if published.needs != LABELS and options["weights"] is None and options["model"] is None:
        raise click.UsageError(f"{name} is made of {NEEDS[published.needs]}.")
    if json_file is not None:
        require_own_json(json_file := json_file.expanduser(), GENERATOR, "--json-file")
    paths: Sequence[Path] = ()
    tables: Sequence[Any] = ()
    if published.needs == LABELS:
        found = _of_labels(session, name, split, output, options)
    else:
        check(**{word: options[word] for word in words}, need=(split or "",) if options["data"] else (), detects=True)
        found, paths, tables = _of_detector(session, name, output, options)
    result = {"generator": GENERATOR, **found.plain(), "pictures": list(paths)}
    if json_file is not None:
        write_json(json_file, result)
    return Result(result, _view(found, tables, paths))


def _is_given(option: str) -> bool:
    """Whether the user named an option."""
    return click.get_current_context().get_parameter_source(option) is ParameterSource.COMMANDLINE


def _of_labels(session: Session, name: str, split: str | None, output: Path | None, options: Any) -> Comparison:
    check(data=options["data"], format=options["format"], need=() if split is None else (split,))
    given = {**options, "output": output}
    if idle := [said for said, key in _OF_DETECTORS.items() if given[key]]:
        session.say(f"{name} is made of labels alone, so this changes nothing: {', '.join(idle)}.")
    from ..analysis import read_objects
    from ..analysis.paper import compare_labels
    from ..data import find_dataset

    layout = find_dataset(options["data"], options["format"])
    with session.waiting("counting"):
        parts = read_objects(layout, () if split is None else (split,))
        return compare_labels(name, parts, layout.root.resolve().name)


def _of_detector(
    session: Session, name: str, output: Path | None, options: Any
) -> tuple[Comparison, Sequence[Path], Sequence[Any]]:
    """The comparison, the pictures, and tables of the figure that has no numbers in the paper."""
    from ..train.workspace import FIGURE, Workspace

    if output is None and name.startswith("figure"):
        output = Path("output", "paper", name)
    data = [] if options["data"] is None else [options["data"]]
    workspace = None if output is None else Workspace.open(output, FIGURE, inputs=data)
    session.start(options["device"])
    from ..report.paper import compare, pictures_of

    found, section = compare(name, {**options, "allow_py": not session.no_py}, session)
    paths: list[Path] = []
    if workspace is not None and section.pictures:
        with workspace.writing() as folder:
            paths = pictures_of(name, section, folder)
            written = {path.name for path in paths}
            earlier = {path.name for kind in FIGURE.files for path in folder.glob(kind)}
            workspace.remove([one for one in earlier - written if one.startswith(f"{name}-")])
    return found, paths, () if PAPER[name].columns else section.tables


# ------------------------------------------------------------------------------------------------------------- views
def _listed() -> Result:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    for head in ("", "what it shows", "made of"):
        table.add_column(head)
    for name, one in PAPER.items():
        table.add_row(Text(name, "bold"), one.title, NEEDS[one.needs])
    told: list[RenderableType] = [
        Text("Tables and figures of arXiv:1904.01355 that can be made on other data", "bold"), table,
        Text("Tables 3, 4 and 7 compare trainings on COCO.", "dim"),
        Text("  fcos paper table1 --data DIR", "cyan"),
        Text("  fcos paper table5 --weights FILE --data DIR", "cyan"),
    ]  # fmt: skip
    data = {name: {"title": one.title, "needs": one.needs} for name, one in PAPER.items()}
    return Result({"analyses": data}, Group(*told))


def _view(found: Comparison, tables: Sequence[Any], paths: Sequence[Path]) -> RenderableType:
    head = Text(f"{found.name[:-1].capitalize()} {found.name[-1]}: {found.published.title}", "bold")
    parts: list[RenderableType] = [head, Text(f"Published: {found.published.setting}.", "dim")]
    if found.published.columns:
        parts.append(_numbers(found))
    parts += [_own(one) for one in tables]
    parts += [Text(text, "yellow") for text in found.absent]
    parts.append(Text("\nWhat differs", "bold"))
    told = Table.grid(padding=(0, 2))
    for what, sentences in found.differs.items():
        told.add_row(Text(f"  {what}", "dim"), Text(" ".join(sentences)))
    parts.append(told)
    parts += [Text(str(path), "cyan", no_wrap=True, overflow="ignore") for path in paths]
    return Group(*parts)


def _numbers(found: Comparison) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    table.add_column("")
    table.add_column("")
    for column in found.published.columns:
        table.add_column(column.replace("_", " "), justify="right")
    before, digits = "", 4 if found.published.needs == LABELS else 3
    for line in found.lines():
        is_theirs = line.whose == "published"
        missing = _UNKNOWN if is_theirs else "–"
        cells = [missing if number is None else f"{number:.{digits}f}" for number in line.numbers]
        if is_theirs and set(cells) == {_UNKNOWN}:
            cells = [_UNKNOWN, *("" for _ in cells[1:])]
        label = line.label if line.label != before else ""
        style = "" if is_theirs else "bold green"
        table.add_row(
            Text(label if is_theirs else f"  {label}" if label else "", style), line.whose, *cells, style=style
        )
        before = line.label
    return table


def _own(found: Any) -> Table:
    """A table of a section of the report."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for place, head in enumerate(found.heads):
        table.add_column(head, justify="right" if place else "left")
    for row in found.rows:
        table.add_row(*row)
    return table

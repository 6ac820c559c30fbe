"""`fcos check`: what is wrong with a data set, before training on it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from . import options as shared
from .checks import check
from .progress import Progress
from .session import Result, Session, fcos_command

if TYPE_CHECKING:
    from ..data.audit import Audit, Finding, Rule

FOUND = 3  # exit code where there is something to mend
_STYLES = {"error": "bold red", "warning": "bold yellow", "advice": "bold blue"}


@fcos_command("check")
@click.argument("data", type=click.Path(path_type=Path))
@shared.model("The detector to be trained, a variant, a config file or a checkpoint: tells which boxes are too small.")
@click.option(
    "--image-size", type=click.IntRange(32),
    help="Shorter side of its input in pixels. [default: that of --model, else 320]",
)  # fmt: skip
@click.option("--no-pictures", is_flag=True, help="Look at the labels alone; no picture is opened.")
@shared.path("--html", "page", help="Write a page with pictures of what was found.")
@shared.path("--fix", "out", help="Write a mended copy into this new folder: COCO JSON, and links to the pictures.")
@click.option("--copy", is_flag=True, help="With --fix: copy the pictures instead of linking to them.")
@shared.max_pixels
def command(
    session: Session, data: Path, model: str | None, image_size: int | None, no_pictures: bool, page: Path | None,
    out: Path | None, copy: bool,
) -> Result:  # fmt: skip
    """Look for what is wrong with the data set in the folder DATA: boxes, classes, pictures.

    \b
    fcos check DIR                     what is found, and the line that mends each
    fcos check DIR --model NAME        boxes that this detector could not learn, too
    fcos check DIR --html check.html   the same with pictures
    fcos check DIR --fix MENDED        a mended copy; DIR itself is never changed

    Exit code 0: nothing to mend (advice aside); 3: something was found; 1: the data set cannot be read at all.
    """
    if copy and out is None:
        raise click.UsageError("--copy goes with --fix.")
    if out is not None and no_pictures:
        raise click.UsageError("--fix looks at the pictures, so it does not go with --no-pictures.")
    from ..data import FORMATS, find_dataset
    from ..data.audit import audit, mend
    from ..data.audit import page as pages

    layout = find_dataset(data)
    if page is not None:
        pages.require_own(page.expanduser())
    if out is not None:
        mend.require_new(out.expanduser(), layout.root)
    rule, size_from = _rule(session, model, image_size)
    reader = next(row.read for row in FORMATS if row.name == layout.format)
    with ExitStack() as shown:
        bars: list[Progress] = []

        def tell(done: int, total: int) -> None:
            if not bars:
                bars.append(shown.enter_context(session.progress("looking at pictures", total)))
            bars[0].update(done)

        found = audit(layout, reader, rule, not no_pictures, tell)
    found.size_from = size_from
    names = {"data": shlex.quote(str(data)), "out": shlex.quote(str(out or f"{data.resolve().name}_mended"))}
    result = found.plain(names)
    if page is not None:
        pages.write(found, page.expanduser(), names)
        result["html"] = page
    if out is not None:
        result["mended"] = {"folder": out, **mend.write(found, out.expanduser(), copy)}
    return Result(result, _view(found, names, result), exit_code=0 if found.clean else FOUND)


def _rule(session: Session, model: str | None, image_size: int | None) -> tuple[Rule, str]:
    """What the detector assigns, and who says the size of its input; only for a model is PyTorch imported."""
    from ..data.audit import Rule

    rule, size_from = Rule(), ""
    if model is not None:
        check(model=model)
        session.start()
        from ..analysis.rules import rule_of
        from ..train.own_data import lazy_config

        rule, size_from = rule_of(lazy_config(model, allow_py=not session.no_py)), model
    if image_size is not None:
        rule, size_from = replace(rule, image_size=image_size, max_size=None), "--image-size"
    return rule, size_from


def _view(found: Audit, names: Mapping[str, str], result: Mapping[str, Any]) -> RenderableType:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for head in ("part", "pictures", "annotations", "= used", "+ clipped", "+ dropped", "+ unassignable"):
        table.add_column(head, justify="left" if head in ("part", "+ dropped") else "right")
    for name, counts in found.ledger.items():
        dropped = ", ".join(f"{count} {reason}" for reason, count in counts["dropped"].items() if count) or "0"
        numbers = (len(found.parts[name].table.images), counts["in"], counts["used"], counts["clipped"])
        table.add_row(name, *map(str, numbers), dropped, str(counts["unassignable"]))
    parts: list[RenderableType] = [table, Text(f"Input: {found.size_text}.", "dim")]
    for finding in found.findings:
        parts.append(_text(finding, names))
    wrong = sum(finding.level != "advice" for finding in found.findings)
    end = "Nothing to mend." if not wrong else f"{wrong} {'kind' if wrong == 1 else 'kinds'} of findings to mend."
    parts.append(Text(f"\n{end}", "bold green" if not wrong else "bold"))
    if "html" in result:
        parts.append(Text(f"page: {result['html']}"))
    if "mended" in result:
        parts.append(_mended(result["mended"]))
    return Group(*parts)


def _text(finding: Finding, names: Mapping[str, str]) -> RenderableType:
    from ..data.audit import KINDS

    kind = KINDS[finding.kind]
    where = f" in {finding.part}" if finding.part else ""
    text = Text.assemble(
        "\n", (kind.level, _STYLES[kind.level]), f"  {kind.title}{where}: ", (str(finding.count), "bold")
    )
    text.append(f" of {finding.of}{f' ({finding.detail})' if finding.detail else ''}")
    text.append(f"\n    {kind.what}", "dim")
    for example in finding.examples[:3]:
        words = [f"{key} {_value(value)}" for key, value in example.items() if value is not None]
        text.append("\n    - " + ", ".join(words))
    if len(finding.examples) > 3 or finding.count > len(finding.examples) > 0:
        text.append(f"\n    - ... ({finding.count} in all)", "dim")
    line = finding.mend(names)  # to be pasted, so it is not wrapped
    return Group(text, Text(f"    {line}", "cyan", no_wrap=True, overflow="ignore")) if line else text


def _value(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join("NaN" if one is None else _value(one) for one in value) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _mended(found: Mapping[str, Any]) -> Text:
    text = Text(f"\nmended copy: {found['folder']}", "bold")
    for name, part in found["parts"].items():
        dropped = ", ".join(f"{count} {reason}" for reason, count in part["dropped"].items()) or "none"
        text.append(
            f"\n  {name}: {part['written']} of {part['in']} annotations ({part['changed']} changed), dropped: ", ""
        )
        text.append(f"{dropped}; {part['pictures_written']} of {part['pictures']} pictures")
    return text

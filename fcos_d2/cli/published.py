"""What `fcos zoo` says of published weights: which there are, and that they have been fetched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..files import size_text
from .session import Result, Session

__all__ = ["facts_of", "fetch_weights", "list_weights"]

# State of a row -> how it is shown.
_STATES = {
    "cached": ("cached", "bold green"),
    "open": ("yes", "green"),
    "browser": ("by hand", "yellow"),
    "none": ("none", "dim"),
}


def facts_of(name: str) -> dict[str, Any]:
    """All that is known of the weights of a variant, or under a name of the table of addresses, as plain data."""
    from .. import hub

    row = hub.row_of(name)
    if row is None:
        return {"state": "none"}
    file = hub.file_of(row)
    state = "cached" if file.is_file() or hub.found_elsewhere(row) else row.state
    return {
        "state": state, "url": row.url, "mirrors": row.mirrors, "sha256": row.sha256, "bytes": row.size or None,
        "exact": row.exact, "layout": row.layout, "licence": row.terms.name, "terms": row.terms.says,
        "restricted": row.terms.restricted, "reason": row.reason, "file": file,
    }  # fmt: skip


def list_weights(rows: Sequence[Mapping[str, Any]]) -> Result:
    """The weights of variants (rows of `fcos zoo`), and of the networks that training starts from."""
    from ..zoo.addresses import ADDRESSES

    variants = [{"name": row["name"], "title": row["title"], "AP": row["ap"], **facts_of(row["name"])} for row in rows]
    backbones = [{"name": name, "title": "ImageNet weights", "AP": None, **facts_of(name)} for name in ADDRESSES]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column, justify in (("AP", "right"), ("size", "right"), ("licence", "left"), ("there?", "left")):
        table.add_column(column, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    table.add_column("name", overflow="fold")
    title = ""
    for entry in (*variants, *backbones):
        if title != entry["title"]:
            title = entry["title"]
            table.add_row("", "", "", "", Text(title, "bold cyan"))
        table.add_row(*_cells(entry))
    legend = (
        "\ncached: on this machine; yes: `fcos zoo fetch NAME` fetches it, and so does `fcos detect IMAGE --model "
        "NAME`; by hand: a browser may; none: nobody has published any. --json has addresses, digests and reasons."
    )
    piped = "".join("\t".join(_tabbed(entry)) + "\n" for entry in (*variants, *backbones))
    return Result({"variants": variants, "backbones": backbones}, Group(table, Text(legend)), piped=piped)


def _cells(entry: Mapping[str, Any]) -> list[RenderableType]:
    ap = "" if entry["AP"] is None else f"{entry['AP']:.1f}"
    size = size_text(entry["bytes"]) if entry.get("bytes") else ""
    licence = Text(entry.get("licence", ""), "yellow" if entry.get("restricted") else "")
    return [ap, size, licence, Text(*_STATES[entry["state"]]), Text(entry["name"], "bold")]


def _tabbed(entry: Mapping[str, Any]) -> list[str]:
    return [entry["name"], entry["state"], *(str(entry.get(key) or "-") for key in ("bytes", "licence", "url"))]


def fetch_weights(session: Session, names: Sequence[str]) -> Result:
    """Fetch the weights of variants, or of rows of the table of addresses, so that they are there without network."""
    from .. import hub
    from ..zoo.addresses import ADDRESSES

    if not names:
        raise click.UsageError("Say whose weights: fcos zoo fetch NAME (`fcos zoo --weights` lists them).")
    for name in names:  # all, before the first of them takes minutes
        if name not in ADDRESSES:
            hub.require(name)
    session.start()
    from ..weights.fetch import fetch

    found, lines = [], []
    for name in names:
        file = fetch(name)
        found.append({"name": name, **facts_of(name), "file": file})
        parts = ((name, "bold"), "  ", (str(file), "cyan"), (f"  {size_text(file.stat().st_size)}", "dim"))
        lines.append(Text.assemble(*parts, no_wrap=True, overflow="ignore"))
    detectors = [name for name in names if name not in ADDRESSES]
    advice = [Text(f"  fcos detect IMAGE --model {name}", "cyan", no_wrap=True) for name in detectors]
    return Result({"weights": found}, Group(*lines, *([Text("\nNow", "bold"), *advice] if advice else [])))

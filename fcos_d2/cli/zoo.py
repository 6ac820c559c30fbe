"""`fcos zoo`: the published variants."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from itertools import groupby
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.text import Text

from ..errors import FcosError
from ..files import size_text
from . import options as shared
from .published import facts_of, fetch_weights, list_weights
from .session import Result, Session, fcos_command

if TYPE_CHECKING:
    from ..zoo.variants import Variant

# Columns of numbers: key, title, width, unit, how a value is written.
_NUMBERS = (
    ("ap", "AP", 5, 1, "{:.1f}"),
    ("ap_test_dev", "test-dev", 8, 1, "{:.1f}"),
    ("parameters", "params", 7, 1e6, "{:.1f}M"),
    ("gflops", "GFLOPs", 6, 1, "{:.0f}"),
)


@fcos_command("zoo")
@click.argument("words", nargs=-1, metavar="[NAME | fetch NAME...]")
@click.option("--family", help="Only those of one family, e.g. fcos or adelaidet.")
@click.option("--weights", is_flag=True, help="List whose weights can be had, from where, under which licence.")
@shared.offline
def command(session: Session, words: tuple[str, ...], family: str | None, weights: bool) -> Result:
    """List the published variants, or tell how to use the one called NAME, or fetch published weights.

    \b
    fcos zoo                  all variants
    fcos zoo NAME             one of them
    fcos zoo --weights        whose weights can be had
    fcos zoo fetch NAME       fetch them, to detect without network later

    AP is in percent on COCO (minival or val2017, and test-dev), as its authors published it; GFLOPs are 1e9
    multiply-adds of the convolutions at the variant's test size. A pipe gets a line for each variant, separated by
    tabs: name, family, AP, AP on test-dev, millions of parameters, GFLOPs, backbone, recipe.
    """
    from .. import zoo

    if words[:1] == ("fetch",):
        return fetch_weights(session, words[1:])
    if len(words) > 1:
        raise click.UsageError(f"Give one NAME, or `fcos zoo fetch {' '.join(words)}`.")
    name = words[0] if words else None
    costs = zoo.costs()
    named = {variant.full_name: bare for variant, bare in zip(zoo.VARIANTS, zoo.names())}
    variants = (*zoo.VARIANTS, *zoo.PROPOSALS)
    rows = [_row(variant, named.get(variant.full_name, variant.name), costs) for variant in variants]
    if name is not None:
        row = rows[variants.index(zoo.find(name))]
        row["weights"] = facts_of(name)
        return Result(row, _details(row))
    if family is not None:
        known = list(dict.fromkeys(row["family"] for row in rows))
        if family not in known:
            raise FcosError(f"There is no family {family!r}; there are {', '.join(known)}.")
        rows = [row for row in rows if row["family"] == family]
    if weights:
        return list_weights([row for row in rows if "architecture" not in row])  # of others nobody publishes any
    return Result({"variants": rows}, _Listing(rows), piped="".join(map(_tabbed, rows)))


def _row(variant: Variant, name: str, costs: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """All that is known of a variant, as plain data."""
    from ..paths import config_root
    from ..zoo.variants import FAMILIES

    family = FAMILIES[variant.family]
    return {
        **dataclasses.asdict(variant), "name": name, "title": family.title, "licence": family.licence,
        **costs.get(variant.full_name, {}),
        "config": config_root() / variant.config, "yaml": config_root() / variant.yaml,
    }  # fmt: skip


def _numbers(row: Mapping[str, Any]) -> list[str]:
    """The cells of `_NUMBERS`, "-" for what is not known."""
    return ["-" if row.get(key) is None else form.format(row[key] / unit) for key, _, _, unit, form in _NUMBERS]


def _tabbed(row: Mapping[str, Any]) -> str:
    numbers = [number.removesuffix("M") for number in _numbers(row)]
    return "\t".join((row["name"], row["family"], *numbers, row["backbone"], row["recipe"])) + "\n"


class _Listing:
    """The rows under their families: numbers first, since names are of all lengths."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        head = "".join(title.rjust(width + 2) for _, title, width, *_ in _NUMBERS)
        yield _line((f"{head}  name, backbone, recipe", "bold"))
        for (title, source), group in groupby(self.rows, lambda row: (row["title"], row["source"])):
            rows = list(group)
            yield _line((title, "bold cyan"), (f"  {source}", "dim"))
            widths = [min(44, max(len(row[key]) for row in rows)) for key in ("name", "backbone")]
            for row in rows:
                cells = (cell.rjust(width + 2) for cell, (_, _, width, *_) in zip(_numbers(row), _NUMBERS))
                line, name = _line("".join(cells), "  "), (row["name"], "bold")
                if len(line) + len(row["name"]) > options.max_width:  # the name in a line of its own
                    yield _line(name)
                    yield line
                    continue
                line.append(*name)
                gap = " " * (2 + widths[0] - len(row["name"]))
                backbone = row["backbone"].ljust(widths[1])
                for more in (f"{gap}{backbone}  {row['recipe']}", f"{gap}{row['backbone']}"):
                    if len(line) + len(more) <= options.max_width:
                        line.append(more, "dim")
                        break
                yield line
        yield Text(
            "\nAP in percent on COCO as its authors published it, GFLOPs at the test size. `fcos zoo NAME` tells how "
            "to use one; --json has everything."
        )


def _details(row: Mapping[str, Any]) -> RenderableType:
    name, there = row["name"], row["weights"]["state"] in ("cached", "open")
    size = f", for an image of {row['width']}x{row['height']} pixels" if "width" in row else ""
    rows = [
        ("name", name),
        ("also called", ", ".join(row["aliases"])),
        ("family", row["title"]),
        *((key, row[key]) for key in ("architecture", "generator", "recipe", "backbone", "schedule") if key in row),
        ("AP", "" if row["ap"] is None else f"{row['ap']:.1f} % on COCO, as published"),
        ("AP test-dev", "" if row["ap_test_dev"] is None else f"{row['ap_test_dev']:.1f} %, as published"),
        ("parameters", f"{row['parameters'] / 1e6:.1f} million" if "parameters" in row else ""),
        ("GFLOPs", f"{row['gflops']:g}{size}" if "gflops" in row else ""),
        ("source", row["source"]),
        ("licence", f"{row['licence']} (of the authors' code)"),
        ("weights", _weights(row["weights"])),
        *((key, str(row[key])) for key in ("config", "yaml")),
        ("", ""),
        ("your data", f"fcos train --data DIR --model {name}"),
        ("COCO", f"fcos train --config {name}"),
        *([("recall", "fcos eval --weights FILE --data DIR --proposals")] if "architecture" in row else []),
    ]
    if row.get("architecture") != "ProposalNetwork":  # which detects nothing
        rows += [
            ("detect", f"fcos detect IMAGE --model {name}" + ("" if there else " --weights FILE")),
            ("Python", f'fcos_d2.Predictor("{name}"' + (")" if there else ', weights="FILE")')),
        ]
    lines = [_line((label.ljust(13), "bold"), value) for label, value in rows if value or not label]
    return Group(*lines)


def _weights(facts: Mapping[str, Any]) -> str:
    """Where the weights are and under which terms, in a sentence."""
    if facts["state"] == "none":
        return "nobody has published any"
    size = f", {'' if facts['exact'] else 'about '}{size_text(facts['bytes'])}" if facts["bytes"] else ""
    where = f"{facts['file']}" if facts["state"] == "cached" else facts["url"]
    reason = f" ({facts['reason']})" if facts["reason"] and facts["state"] != "cached" else ""
    return f"{where}{size}, licence {facts['licence']}{reason}"


def _line(*parts: Any) -> Text:
    """One line that is never cut: a terminal breaks it where it must, and what is copied is whole."""
    return Text.assemble(*parts, no_wrap=True, overflow="ignore")

"""Sections as an HTML page: light and dark, for a wide window, a telephone and paper; nothing is from elsewhere."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from ..visualize.charts import page_colors, scheme_css
from ..webpage import escaped, inlined, write_page
from .parts import Picture, Section, Table
from .sections import Row

__all__ = ["GENERATOR", "write"]

GENERATOR = "fcos report"
_NUMBER = re.compile(r"[-+]?\d[\d.,]*(\s?%| of \d+)?|–")  # a cell that stands to the right of its column

_STYLE = (
    f"""
{page_colors()}@media print{{:root{{{scheme_css(False)};color-scheme:light;--page:#fff}}}}
"""
    + """
*{box-sizing:border-box}
html{scroll-behavior:smooth;-webkit-text-size-adjust:100%}
body{background:var(--page);color:var(--ink);max-width:none;margin:0;padding:0;overflow-wrap:break-word}
header{padding:2.2rem 1rem 1.2rem;max-width:76rem;margin:0 auto}
h1{font-size:1.7rem;line-height:1.25;letter-spacing:-.01em;overflow-wrap:anywhere}
h2{font-size:1.25rem;letter-spacing:-.01em}h3{font-size:.95rem;margin:1.2rem 0 .4rem;overflow-wrap:anywhere}
h2 small{font-weight:500;font-size:.75rem;color:var(--dim);margin-left:.5rem;white-space:nowrap}
.dim,figcaption{color:var(--dim);opacity:1}
.body{max-width:76rem;margin:0 auto;padding:0 1rem 3rem;display:grid;grid-template-columns:minmax(0,1fr);gap:1.2rem}
nav ul{list-style:none;margin:0;padding:0;display:flex;flex-wrap:wrap;gap:.3rem}
nav a{display:block;padding:.25rem .6rem;border-radius:.4rem;color:var(--dim);text-decoration:none;font-size:.85rem}
nav a:hover,nav a:focus-visible{background:var(--soft);color:var(--ink)}
section{background:var(--card);border:1px solid var(--line);border-radius:.8rem;padding:1.2rem 1.3rem;margin:0 0 1.2rem;
scroll-margin-top:1rem}
p{max-width:48rem}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(max(6.5rem,22%),1fr));gap:.6rem;margin:1rem 0}
.tiles div{background:var(--soft);border-radius:.6rem;padding:.7rem .6rem .7rem .8rem}
.tiles b{display:block;white-space:nowrap;font-size:1.4rem;line-height:1.2;font-variant-numeric:tabular-nums}
.tiles span{font-size:.78rem;color:var(--dim)}
.scroll{overflow-x:auto;margin:.8rem 0;
background:linear-gradient(90deg,var(--card) 2rem,transparent) left/3rem 100% no-repeat local,
linear-gradient(270deg,var(--card) 2rem,transparent) right/3rem 100% no-repeat local,
linear-gradient(90deg,var(--line),transparent) left/.6rem 100% no-repeat scroll,
linear-gradient(270deg,var(--line),transparent) right/.6rem 100% no-repeat scroll}
table{margin:0;font-size:.88rem;font-variant-numeric:tabular-nums}
caption{caption-side:bottom;text-align:left;font-size:.8rem;color:var(--dim);padding-top:.4rem}
th{color:var(--dim);font-weight:600}td,th{padding:.3rem .7rem}
.words{text-align:left}
.matrix td:not(:first-child){text-align:center;min-width:2.6rem;
background:color-mix(in srgb,var(--s1) calc(var(--share)*70%),transparent)}
.matrix th:not(:first-child){text-align:center}
.pictures{gap:1rem;align-items:flex-start}
.pictures figure{max-width:none;flex:0 1 13.4rem}
.charts figure{flex:1 1 19rem;max-width:27rem}
figure svg,figure img{display:block;width:100%;height:auto}
figcaption{margin-top:.3rem;line-height:1.4}
details summary{cursor:pointer;color:var(--dim);font-size:.75rem}
.how code{display:block;margin:.2rem 0;font-size:.72rem;background:var(--soft)}
pre{background:var(--soft);border-radius:.6rem;padding:.9rem 1rem;font-size:.78rem;line-height:1.45;max-height:34rem;
overflow:auto;white-space:pre-wrap;overflow-wrap:anywhere}
.absent{border-left:.25rem solid var(--s5);padding-left:.7rem;color:var(--dim)}
footer{max-width:76rem;margin:0 auto;padding:0 1rem 2rem;font-size:.8rem;color:var(--dim)}
@media (min-width:70rem){.body{grid-template-columns:13rem minmax(0,1fr);gap:1.6rem}
nav{position:sticky;top:1.2rem;align-self:start}nav ul{flex-direction:column}}
@media (max-width:32rem){.pictures:not(.charts) figure{flex:0 1 calc(50% - .5rem)}
td,th{padding:.3rem .4rem;font-size:.8rem}section{padding:1rem}}
@page{margin:14mm 12mm}
@media print{body{font-size:11px}nav,.how{display:none}.body{display:block;padding:0}header{padding:0 0 1rem}
section{border:0;border-radius:0;padding:.6rem 0;margin:0}h2,h3,section>p{break-after:avoid}
p,h3{break-inside:avoid}.matrix td{-webkit-print-color-adjust:exact;print-color-adjust:exact}
.pictures:not(.charts) figure{flex:0 1 calc(25% - .75rem)}figure,table,.tiles{break-inside:avoid}
.scroll{overflow:visible;background:none}pre{max-height:none}details::details-content{content-visibility:visible;height:auto}}
"""
)


def write(path: Path, title: str, told: str, sections: Mapping[Row, Section], command: Sequence[str]) -> None:
    """Write the page.

    Args:
        path: the file; what is there is replaced.
        title, told: heading and a line below it.
        sections: in order.
        command: words of the command line that makes the report.
    Raises:
        FcosError: the file cannot be written.
    """
    links = "".join(f'<li><a href="#{row.key}">{escaped(row.title)}</a></li>' for row in sections)
    parts = [
        f'<header><h1>{escaped(title)}</h1><p class="dim">{escaped(told)}</p></header>',
        f'<div class="body"><nav aria-label="Sections"><ul>{links}</ul></nav><main>',
        *("".join(_section(row, section, command)) for row, section in sections.items()),
        f"</main></div><footer>Made by <code>{escaped(shlex.join(command))}</code></footer>",
    ]
    write_page(path, GENERATOR, title, _STYLE, parts)


def _section(row: Row, section: Section, command: Sequence[str]) -> Iterator[str]:
    paper = f" <small>as {escaped(row.paper)} of the paper</small>" if row.paper else ""
    yield f'<section id="{row.key}"><h2>{escaped(row.title)}{paper}</h2>'
    yield from (f"<p>{_sentences(text)}</p>" for text in section.text)
    yield from (f'<p class="absent">{_sentences(text)}</p>' for text in section.absent)
    if section.tiles:
        tiles = "".join(
            f"<div><b>{escaped(value)}</b><span>{escaped(what)}</span></div>" for what, value in section.tiles
        )
        yield f'<div class="tiles">{tiles}</div>'
    how = escaped(shlex.join([*command, "--only", row.key, "--pictures", "pictures"]))
    for (group, is_chart), pictures in groupby(section.pictures, lambda one: (one.group, bool(one.svg))):
        heading = f"<h3>{escaped(group)}</h3>" if group else ""
        figures = "".join(_figure(one, how) for one in pictures)
        yield f'{heading}<div class="pictures{" charts" if is_chart else ""}">{figures}</div>'
    yield from map(_table, section.tables)
    for title, text in section.listings.items():
        yield f"<details open><summary>{escaped(title)}</summary><pre>{escaped(text)}</pre></details>"
    yield "</section>"


def _figure(picture: Picture, how: str) -> str:
    caption = escaped(picture.caption)
    shown = picture.svg or f'<img alt="{caption}" src="{inlined(picture.photo)}">'
    command = f'<details class="how"><summary>how to make it</summary><code>{how}</code></details>'
    return f"<figure>{shown}<figcaption>{caption}{command}</figcaption></figure>"


def _sentences(text: str) -> str:
    """Text in which commands stand between backquotes."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped(text))


def _table(table: Table) -> str:
    columns = [[cell for cell in column if cell] for column in zip(*table.rows)]
    kinds = [' class="words"' if column and not all(map(_NUMBER.fullmatch, column)) else "" for column in columns]
    kinds = kinds if table.rows and table.shades is None else [""] * len(table.heads)
    heads = "".join(f'<th scope="col"{kind}>{escaped(head)}</th>' for head, kind in zip(table.heads, kinds))
    lines = []
    for i, row in enumerate(table.rows):
        cells = [f"<td>{escaped(row[0])}</td>"]
        for j, cell in enumerate(row[1:]):
            shade = "" if table.shades is None else f' style="--share:{table.shades[i][j]:.3f}"'
            cells.append(f"<td{kinds[j + 1]}{shade}>{escaped(cell)}</td>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    caption = f"<caption>{escaped(table.caption)}</caption>" if table.caption else ""
    kind = ' class="matrix"' if table.shades is not None else ""
    return f'<div class="scroll"><table{kind}>{caption}<tr>{heads}</tr>{"".join(lines)}</table></div>'

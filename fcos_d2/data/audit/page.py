"""A check as one HTML page: nothing is loaded from elsewhere, no script, pictures inlined, every name escaped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import ImageDraw

from ...webpage import escaped, inlined, jpeg, require_own_page, write_page
from ..images import open_image, rgb
from ..pictures import Pictures
from .kinds import KINDS, LEVELS, Finding
from .report import Audit

__all__ = ["require_own", "write"]

_SIDE = 260  # pixels of a small picture
_VISIBLE = 6  # pixels; a ring is drawn around boxes that are smaller there
_COLOURS = {"error": "#c62828", "warning": "#b26a00", "advice": "#1565c0"}
_STYLE = """
article{border:1px solid var(--line);
border-left:.4rem solid var(--level);border-radius:.4rem;padding:.8rem 1rem;margin:1rem 0}
.level{color:var(--level);font-weight:600;text-transform:uppercase;font-size:.75rem;letter-spacing:.05em}
"""


def write(found: Audit, path: Path, names: Mapping[str, str]) -> None:
    """Write the page.

    Args:
        found: what `audit` found.
        path: the file; one that is there already is replaced if it is such a page.
        names: words of the lines that mend, see `Finding.mend`.
    Raises:
        FcosError: the file is there and something else, or cannot be written.
    """
    require_own(path)
    title = f"Check of {found.layout.root}"
    counts = {level: sum(one.level == level for one in found.findings) for level in LEVELS}
    verdict = "Nothing to mend." if found.clean else "Something is to be mended."
    kinds = ", ".join(f"{counts[level]} {_PLURAL[level][counts[level] != 1]}" for level in LEVELS)
    parts = [
        f"<h1>{escaped(title)}</h1><p>{verdict} {kinds}.</p>", _table(found),
        *(_article(found, one, names) for one in found.findings),
    ]  # fmt: skip
    write_page(path, _GENERATOR, title, _STYLE, parts)


_GENERATOR = "fcos check"
_PLURAL = {"error": ("error", "errors"), "warning": ("warning", "warnings"), "advice": ("advice", "pieces of advice")}


def require_own(path: Path) -> None:
    """Raise FcosError if there is a file that no check has written."""
    require_own_page(path, _GENERATOR, "--html")


def _table(found: Audit) -> str:
    """The counts of each part."""
    rows = []
    for name, counts in found.ledger.items():
        part = found.parts[name]
        dropped = ", ".join(f"{count} {reason}" for reason, count in counts["dropped"].items() if count) or "0"
        cells = (name, len(part.table.images), counts["in"], counts["used"], counts["clipped"], dropped,
                 counts["unassignable"])  # fmt: skip
        rows.append("<tr>" + "".join(f"<td>{escaped(cell)}</td>" for cell in cells) + "</tr>")
    heads = ("part", "pictures", "annotations", "= used", "+ clipped", "+ dropped", "+ too small or covered")
    line = "".join(f"<th>{head}</th>" for head in heads)
    boxes = "; ".join(
        f"{name}: {part.verdict.reading}" + (f", odds {part.verdict.odds}" if part.verdict.confused else "")
        for name, part in found.parts.items()
    )
    size = f"Input size: {escaped(found.size_text)}."
    return f"<table><tr>{line}</tr>{''.join(rows)}</table><p class=dim>{size} Boxes are read as {escaped(boxes)}.</p>"


def _article(found: Audit, finding: Finding, names: Mapping[str, str]) -> str:
    kind = KINDS[finding.kind]
    where = f" in {finding.part}" if finding.part else ""
    mend = finding.mend(names)
    lines = [
        f'<article style="--level:{_COLOURS[kind.level]}"><p class=level>{kind.level}</p>',
        f"<h2>{escaped(kind.title)}{escaped(where)}: {finding.count} of {finding.of}</h2>",
        f"<p>{escaped(kind.what)}</p>" + (f"<p class=dim>{escaped(finding.detail)}</p>" if finding.detail else ""),
        f"<p>Mend it: <code>{escaped(mend)}</code></p>" if mend else "",
        '<div class="pictures">', *(_figure(found, finding, one) for one in finding.examples), "</div></article>",
    ]  # fmt: skip
    return "".join(lines)


def _figure(found: Audit, finding: Finding, example: Mapping[str, Any]) -> str:
    words = [f"{key} {_value(value)}" for key, value in example.items() if value is not None]
    pictures = []
    for key, part in (("image", finding.part), ("other", finding.part)):
        if key in example and part in found.parts:
            folders = [found.parts[part].split.images]
            if key == "image" and finding.kind.endswith("train and val"):
                folders = [found.parts["train"].split.images]
            picture = _small(folders[0], example[key], example.get("bbox"))
            if picture:
                pictures.append(f'<img alt="" src="{picture}">')
    return f"<figure>{''.join(pictures)}<figcaption>{escaped(', '.join(words))}</figcaption></figure>"


def _value(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_value(one) for one in value) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _small(root: Path, name: Any, box: Any) -> str:
    """A small picture as what `src` takes, with the box drawn where there is one; "" where there is no such picture."""
    pictures = Pictures(root)
    files = [name] if isinstance(name, str) and pictures.holds(name) else pictures.find(name) if name else []
    if len(files) != 1:
        return ""
    try:
        with open_image(root / files[0]) as opened:
            image = rgb(opened)
    except Exception:  # it is told among the findings
        return ""
    scale = min(1.0, _SIDE / max(image.size))
    small = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    if box and None not in box:
        x, y, width, height = (value * scale for value in box)
        corners = [max(-9.0, min(value, 2.0 * _SIDE)) for value in (x, y, x + width, y + height)]
        corners = [min(corners[0], corners[2]), min(corners[1], corners[3]), max(corners[0], corners[2]),
                   max(corners[1], corners[3])]  # fmt: skip
        draw = ImageDraw.Draw(small)
        draw.rectangle([c + d for c, d in zip(corners, (-1, -1, 1, 1))], outline="white")
        draw.rectangle(corners, outline="red", width=2)
        if min(corners[2] - corners[0], corners[3] - corners[1]) < _VISIBLE:
            x, y = (corners[0] + corners[2]) / 2, (corners[1] + corners[3]) / 2
            draw.ellipse((x - 9, y - 9, x + 9, y + 9), outline="red", width=2)
    return inlined(jpeg(small))

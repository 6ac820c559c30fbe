"""Pages of HTML that work from a disk: nothing is loaded from elsewhere, no script, pictures inlined, text escaped."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image

from .errors import FcosError
from .files import write_atomically

__all__ = ["escaped", "inlined", "jpeg", "page_text", "require_own_page", "write_page"]

# What all pages have: the reader's colors, tables, figures, code; no line is wider than the window.
_STYLE = """
:root{color-scheme:light dark;--line:#8884;--dim:#8889}
body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;margin:0}h2{font-size:1.1rem;margin:0}p{margin:.3rem 0}
table{border-collapse:collapse;margin:1rem 0}
td,th{padding:.25rem .8rem;border-bottom:1px solid var(--line);text-align:right}
td:first-child,th:first-child{text-align:left;padding-left:0}
.pictures{display:flex;flex-wrap:wrap;gap:.8rem;margin-top:.6rem}
figure{margin:0;max-width:260px}figure img{display:block;max-width:100%;border-radius:.3rem}
figcaption,.dim{font-size:.8rem;opacity:.75;overflow-wrap:anywhere}
code{background:#8882;padding:.1rem .35rem;border-radius:.25rem;overflow-wrap:anywhere}
"""


def escaped(value: Any) -> str:
    """A value as text of a page; half a character of a file's name becomes a question mark."""
    return html.escape(str(value).encode("utf-8", "replace").decode(), quote=True)


def jpeg(image: Image.Image, quality: int = 80) -> bytes:
    """A picture as the bytes of a JPEG file."""
    data = io.BytesIO()
    Image.Image.save(image, data, "JPEG", quality=quality)
    return data.getvalue()


def inlined(data: bytes, kind: str = "image/jpeg") -> str:
    """The bytes of a picture's file as what `src` takes."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def write_page(path: Path, generator: str, title: str, style: str, parts: Iterable[str]) -> None:
    """Write a page.

    Args:
        path: the file; one that is there already is replaced if it is such a page.
        generator: the command that makes it.
        title: of the window, not escaped.
        style: CSS after that of all pages.
        parts: HTML of the body.
    Raises:
        FcosError: the file cannot be written.
    """
    text = page_text(generator, title, style, parts)
    write_atomically(path, lambda file: file.write(text.encode("utf-8", "replace")))


def page_text(generator: str, title: str, style: str, parts: Iterable[str]) -> str:
    """The text of a page; see `write_page`."""
    head = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="generator" content="{generator}">'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><title>{escaped(title)}</title>'
    )
    return "\n".join([head, f"<style>{_STYLE}{style}</style></head><body>", *parts, "</body></html>\n"])


def require_own_page(path: Path, generator: str, option: str) -> None:
    """Raise FcosError if there is a file that is no page of a command; the message names the option to change."""
    ours = not path.exists()
    with suppress(OSError), path.open("rb") as file:
        ours = f'content="{generator}"'.encode() in file.read(4096)
    if not ours:
        raise FcosError(f"{path} is there already and not a page of `{generator}`: choose another name for {option}.")

"""The pages of a server. All of it is in the page: nothing is loaded from elsewhere, and nothing else may run in it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..visualize.charts import page_colors
from ..webpage import escaped, page_text

__all__ = ["HEADERS", "PAGE", "reference"]

_SOURCE = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
PAGE = _SOURCE.replace("/*colors*/", page_colors())
_SCRIPT = re.findall(r"<script>(.*?)</script>", PAGE, re.DOTALL)[0]
_DIGEST = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; script-src 'sha256-{_DIGEST}'; style-src 'unsafe-inline'; "
    "img-src data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_STYLE = """
body{background:var(--page);color:var(--ink)}h2{margin:1.8rem 0 .3rem;overflow-wrap:anywhere}h3{font-size:.95rem}
td,th{text-align:left;vertical-align:top}a{color:var(--s1)}
pre{background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:.8rem;overflow:auto}
.scroll{overflow-x:auto}
"""
_EXAMPLES = """curl -F file=@photo.jpg HOST/detect
curl --data-binary @photo.jpg 'HOST/detect?threshold=0.6'
curl -F file=@photo.jpg 'HOST/detect?answer=picture' -o boxes.jpg"""


def reference(schema: Mapping[str, Any]) -> str:
    """A page about the addresses of a server.

    Args:
        schema: OpenAPI's description of them.
    """
    return page_text("fcos serve", schema["info"]["title"], page_colors() + _STYLE, _parts(schema))


def _parts(schema: Mapping[str, Any]) -> Iterator[str]:
    info = schema["info"]
    yield f"<h1>{escaped(info['title'])}</h1><p>{_marked(info.get('description', ''))}</p>"
    yield '<p><a href="openapi.json">openapi.json</a> is for programs, <a href="./">a page</a> for people.</p>'
    yield f"<pre>{escaped(_EXAMPLES)}</pre>"
    for path, methods in schema["paths"].items():
        for method, row in methods.items():
            yield f"<h2><code>{method.upper()} {escaped(path)}</code></h2><p>{_marked(row.get('summary', ''))}</p>"
            if row.get("description"):
                yield f"<p>{_marked(row['description'])}</p>"
            parameters = [(p["name"], p.get("description", ""), _kind(p["schema"])) for p in row.get("parameters", ())]
            yield from _table(("parameter", "what it is", "value"), parameters)
            bodies = row.get("requestBody", {}).get("content", {})
            yield from _table(("body", "holds"), [(kind, _kind(body["schema"])) for kind, body in bodies.items()])
            answers = row.get("responses", {}).items()
            yield from _table(("status", "means"), [(status, answer["description"]) for status, answer in answers])


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    if rows:
        cells = ["".join(f"<td>{_marked(cell)}</td>" for cell in row) for row in rows]
        names = "".join(f"<th>{name}</th>" for name in head)
        body = "".join(f"<tr>{row}</tr>" for row in cells)
        yield f'<div class="scroll"><table><tr>{names}</tr>{body}</table></div>'


def _kind(schema: Mapping[str, Any]) -> str:
    """What values a schema takes, in few words."""
    if "properties" in schema:
        return ", ".join(f"`{name}`: {_kind(inner)}" for name, inner in schema["properties"].items())
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    kind = "bytes" if schema.get("format") == "binary" else schema.get("type", "any")
    return kind + (f", by default {json.dumps(schema['default'])}" if "default" in schema else "")


def _marked(text: str) -> str:
    """Text whose words between back quotes are code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped(text))

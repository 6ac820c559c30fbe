"""The digest of OpenVINO's files: whether an .xml and the .bin beside it are those that were certified.

As in an ONNX file, it covers the metadata, and by one hash all else: the graph and the weights.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, unescape

from .runtime import KEY, RuntimeFault, digest_of, parsed_metadata, verified, written

__all__ = ["EMPTY", "sealed", "verify_xml"]

EMPTY = "none yet"
"""What stands in rt_info where the metadata come."""

_QUOTE = {'"': "&quot;"}
_PLACE = re.compile(rb"<" + KEY.encode() + rb' value="([^"]*)"')


def sealed(xml: bytes, weights: bytes, metadata: Mapping[str, Any]) -> bytes:
    """An .xml file with the metadata and their digest in the place of `EMPTY`."""
    whole = {**metadata, "digest": digest_of(metadata, _graph_sha256(xml, weights))}
    return _with(xml, escape(written(whole).decode(), _QUOTE).encode())


def verify_xml(path: Path, pictures: Path | None = None, threads: int | None = None) -> dict[str, Any]:
    """What `runtime.verify` is for ONNX files: returns and raises the same.

    Args:
        path: of the .xml; the .bin is beside it.
        pictures: folder with the pictures that the certificate names besides the generated ones.
        threads: of one run.
    """
    from .intel import OpenVinoSession

    path = path.expanduser()
    xml, weights = _bytes_of(path), _bytes_of(path.with_suffix(".bin"))
    quotes = {name: sign for sign, name in _QUOTE.items()}
    texts = [unescape(text.decode("latin-1"), quotes).encode("latin-1") for text in _PLACE.findall(xml)]
    metadata = parsed_metadata(texts if len(texts) == 1 else [], str(path))
    if "digest" not in metadata:
        raise RuntimeFault(f"{path} has no digest: export it again.")
    graph = _graph_sha256(_with(xml, EMPTY.encode()), weights)
    same = metadata["digest"] == digest_of(metadata, graph) and texts[0] == written(metadata)
    return verified(path, metadata, same, lambda: OpenVinoSession(path, threads), pictures)


def _with(xml: bytes, text: bytes) -> bytes:
    """The .xml with other metadata."""
    place = _PLACE.search(xml)
    assert place is not None, "the caller has looked"
    return xml[: place.start(1)] + text + xml[place.end(1) :]


def _graph_sha256(xml: bytes, weights: bytes) -> str:
    return hashlib.sha256(hashlib.sha256(xml).digest() + hashlib.sha256(weights).digest()).hexdigest()


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise RuntimeFault(f"The model {path} does not exist; a file of OpenVINO is an .xml and a .bin.") from None
    except OSError as error:
        raise RuntimeFault(f"The model {path} cannot be read: {error.strerror}.") from error

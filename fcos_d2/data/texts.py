"""Files of text, JSON, YAML and XML, read as data: nothing in them runs, and no entity or alias of them grows."""

from __future__ import annotations

import codecs
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

import yaml

from ..errors import FcosError
from .meant import shown

__all__ = ["Element", "bytes_of", "lines_of", "parse_json", "read_json", "read_text", "read_xml", "read_yaml"]

Element = ElementTree.Element

_LARGEST_YAML = 4 << 20  # bytes; Objects365's file has 10,000
_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def read_json(path: Path) -> Any:
    """Read JSON in UTF-8, UTF-16 or UTF-32; raises FcosError if the file is missing or not JSON, e.g. truncated."""
    return parse_json(bytes_of(path), path)


def parse_json(data: bytes, path: Path) -> Any:
    """What the bytes of a JSON file hold; raises as `read_json` does."""
    try:
        return json.loads(data)
    except UnicodeDecodeError as error:
        raise FcosError(f"{path} is not a text file in UTF-8 (byte {error.start}), so it is not JSON.") from error
    except json.JSONDecodeError as error:
        raise FcosError(
            f"{path} is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}; it may be cut off."
        ) from error
    except (ValueError, RecursionError) as error:  # a number of more than 4,300 digits; lists in lists without end
        raise FcosError(f"{path} is not valid JSON: it cannot be read ({error}).") from error


def read_text(path: Path) -> str:
    """Read text in UTF-8 or UTF-16, which its first bytes then say; raises FcosError if it is neither."""
    data = bytes_of(path)
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise FcosError(f"{path} is not a text file in UTF-8 (byte {error.start}): save it as UTF-8.") from error


def lines_of(path: Path) -> list[str]:
    """The lines of a text file that are not blank, without the spaces around them."""
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def read_yaml(path: Path) -> dict[Any, Any]:
    """Read a YAML file that holds keys and values, as plain data; raises FcosError if it is anything else."""
    text = read_text(path)
    if len(text) > _LARGEST_YAML:
        raise FcosError(f"{path} has {len(text)} characters, which is no description of a data set.")
    try:
        found = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        why = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise FcosError(f"{path} is not valid YAML: {shown(why)}{where}.") from error
    if not isinstance(found, dict):
        raise FcosError(f"{path} holds no keys and values, so it describes no data set.")
    return found


def read_xml(path: Path) -> Element:
    """Read an XML file; raises FcosError if it is none, is cut off, or declares entities, which could grow at will."""
    builder, parser = ElementTree.TreeBuilder(), expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = builder.start, builder.end
    parser.CharacterDataHandler = builder.data
    parser.buffer_text = True

    def refuse(*declaration: Any) -> None:
        raise FcosError(f"{path} declares the XML entity '{shown(declaration[0])}', which no label file needs.")

    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(bytes_of(path), True)
        return builder.close()
    except (expat.ExpatError, LookupError, ValueError) as error:  # an encoding that there is not
        if isinstance(error, FcosError):
            raise
        raise FcosError(f"{path} is not valid XML: {error}; it may be cut off.") from error


def bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FcosError(f"The annotation file {path} cannot be read: {reason}.") from error

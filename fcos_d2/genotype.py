"""Genotypes: which operations a searched head is made of and what each reads, as data (FAD, arXiv:2007.12075).

The search of msight-tech/research-fad writes `genotype.log`, a text of two lines, the box tower's and then the class
tower's, each the printed form of a named tuple:

    Genotype(normal=[[('std_conv_3x3', 0), ('sinSep_conv_3x3', 1)], ...], normal_concat=range(2, 5))

`normal` has a list for each node of a cell, and in it an edge for each operation: its name, and the state that it
reads. States 0 and 1 are the inputs of the cell, state 2 is its first node, and so on; the cell gives the states of
`normal_concat`. The grammar is parsed here, nothing of it is evaluated.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from .errors import FcosError

__all__ = ["GENOTYPES", "OPERATIONS", "Genotype", "Pair", "inlined", "pair_of", "parse", "read_genotype"]

OPERATIONS: dict[str, tuple[str, ...]] = {
    "std_conv_3x3": ("std",),
    "std_conv_3x3+dil_conv_3x3": ("std", "dil"),
    "std_conv_3x3_x2": ("std", "std"),
    "std_conv_3x3_x2+dil_conv_3x3": ("std", "std", "dil"),
    "std_conv_3x3_x3": ("std", "std", "std"),
    "sinSep_conv_3x3": ("sep",),
    "sinSep_conv_3x3+dil_conv_3x3": ("sep", "dil"),
    "sinSep_conv_3x3_x2": ("sep", "sep"),
    "sinSep_conv_3x3_x2+dil_conv_3x3": ("sep", "sep", "dil"),
    "sinSep_conv_3x3_x3": ("sep", "sep", "sep"),
}
"""Operation -> its layers: a 3x3 convolution, a separable one, a separable one of dilation 2."""

_LARGEST = 8_000  # characters of a genotype, bytes of a file: the published ones have 500
_LINE = re.compile(r"Genotype\s*\(\s*normal\s*=\s*\[(.*)\]\s*,\s*normal_concat\s*=\s*range\s*\((.*)\)\s*\)")
_NODE, _EDGE = re.compile(r"\[([^\[\]]*)\]"), re.compile(r"""\(\s*(['"])([\w+]+)\1\s*,\s*(\d{1,2})\s*\)""")
_RANGE = re.compile(r"\s*(\d{1,2})\s*,\s*(\d{1,2})\s*")
_START = "Genotype"


@dataclass(frozen=True)
class Genotype:
    """The cell that a tower repeats.

    Attributes:
        nodes: for each node its edges, each the name of an operation and the state that it reads; the node is their
            sum, and the cell gives all its nodes, one after the other.

    Raises:
        FcosError: there is no such operation, or a node reads a state that is not there yet.
    """

    nodes: tuple[tuple[tuple[str, int], ...], ...]

    def __post_init__(self) -> None:
        if not self.nodes or not all(self.nodes):
            raise FcosError("A genotype needs a node, and every node an edge.")
        for state, node in enumerate(self.nodes, start=2):
            for operation, source in node:
                if operation not in OPERATIONS:
                    raise FcosError(f"A genotype has no operation {operation!r}; there are {', '.join(OPERATIONS)}.")
                if not 0 <= source < state:
                    raise FcosError(f"State {state} of a genotype reads state {source}, which is not before it.")

    def __str__(self) -> str:
        """The line that the published program prints."""
        return f"{_START}(normal={[list(node) for node in self.nodes]!r}, normal_concat=range(2, {self.end}))"

    @property
    def end(self) -> int:
        """The number of states, the two inputs included."""
        return len(self.nodes) + 2


Pair = tuple[Genotype, Genotype]


def parse(line: str, origin: str = "The genotype") -> Genotype:
    """Read one line of `genotype.log`; blanks between its words count for nothing.

    Args:
        line: see above.
        origin: what to call it in messages.
    Raises:
        FcosError: it is no such line, or its genotype cannot be built; the message does not quote the line.
    """
    whole = _LINE.fullmatch(line.strip()) if len(line) <= _LARGEST else None
    nodes = None if whole is None else _listed(whole[1], _NODE)
    edges = None if nodes is None else [_listed(node[1], _EDGE) for node in nodes]
    concat = None if whole is None else _RANGE.fullmatch(whole[2])
    if edges is None or concat is None or any(node is None for node in edges):
        raise FcosError(
            f"{origin} is not of the form {_START}(normal=[[('NAME', SOURCE), ...]], normal_concat=range(2, 5))."
        )
    try:
        made = Genotype(tuple(tuple((edge[2], int(edge[3])) for edge in node or ()) for node in edges))
    except FcosError as error:
        raise FcosError(f"{origin} cannot be built: {error}") from error
    if (int(concat[1]), int(concat[2])) != (2, made.end):
        raise FcosError(
            f"{origin} joins the states {concat[1]} to {concat[2]}, but a cell of {len(made.nodes)} nodes gives all of "
            f"them: range(2, {made.end})."
        )
    return made


def _listed(text: str, item: re.Pattern[str]) -> list[re.Match[str]] | None:
    """The items of a list that is separated by commas; `None` if something else stands between them."""
    found: list[re.Match[str]] = []
    end = 0
    for match in item.finditer(text):
        if text[end : match.start()].strip() != ("," if found else ""):
            return None
        found.append(match)
        end = match.end()
    return None if text[end:].strip() else found


def _published(box: tuple[str, ...], classes: tuple[str, ...]) -> Pair:
    """Rows "operation source" of two edges for each node."""

    def genotype(edges: tuple[str, ...]) -> Genotype:
        pairs = [(name, int(source)) for name, source in map(str.split, edges)]
        return Genotype(tuple(tuple(pairs[i : i + 2]) for i in range(0, len(pairs), 2)))

    return genotype(box), genotype(classes)


# msight-tech/research-fad, README.md, "Explored architectures".
GENOTYPES: dict[str, Pair] = {
    "paper": _published(
        (
            *("sinSep_conv_3x3_x3 0", "std_conv_3x3_x3 1"),
            *("std_conv_3x3 2", "sinSep_conv_3x3+dil_conv_3x3 1"),
            *("sinSep_conv_3x3_x2 2", "std_conv_3x3_x2 3"),
        ),
        (
            *("sinSep_conv_3x3_x2+dil_conv_3x3 1", "std_conv_3x3_x3 0"),
            *("sinSep_conv_3x3_x2+dil_conv_3x3 0", "sinSep_conv_3x3 2"),
            *("sinSep_conv_3x3_x2 2", "std_conv_3x3 3"),
        ),
    ),
    "other": _published(
        (
            *("std_conv_3x3_x3 0", "std_conv_3x3_x2 1"),
            *("std_conv_3x3 0", "std_conv_3x3+dil_conv_3x3 2"),
            *("std_conv_3x3_x2+dil_conv_3x3 3", "std_conv_3x3+dil_conv_3x3 2"),
        ),
        (
            *("std_conv_3x3_x3 1", "sinSep_conv_3x3+dil_conv_3x3 0"),
            *("sinSep_conv_3x3 0", "sinSep_conv_3x3+dil_conv_3x3 2"),
            *("std_conv_3x3 1", "std_conv_3x3_x3 0"),
        ),
    ),
}
"""The published pairs, of box and class tower: that of the published detectors, and another that was found good."""


def pair_of(value: str, origin: str = "The genotype") -> Pair:
    """The genotypes of box and class tower.

    Args:
        value: name in `GENOTYPES`, or the two lines of `genotype.log`; further lines do not count.
        origin: what to call it in messages.
    Raises:
        FcosError: it is neither; the message tells how a file is read.
    """
    if value in GENOTYPES:
        return GENOTYPES[value]
    if not _is_text(value):
        raise FcosError(
            f"{origin} is {value!r}, but it must be one of {', '.join(map(repr, GENOTYPES))}, or the two lines of a "
            "genotype.log; fcos_d2.genotype.read_genotype reads such a file, and so do all fcos commands."
        )
    return _two_lines(value, origin)


def read_genotype(path: str | Path) -> str:
    """The two lines of a `genotype.log`, as a config keeps them: such a config needs the file no more.

    Raises:
        FcosError: there is no such file, or it is none.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FcosError(
            f"There is no genotype file {path}; without a file, the published pairs are {' and '.join(GENOTYPES)}."
        )
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(_LARGEST + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise FcosError(f"The genotype file {path} cannot be read: {error}.") from error
    if len(text) > _LARGEST:
        raise FcosError(f"The genotype file {path} is too long: it has two lines, of the box and of the class tower.")
    return "\n".join(map(str, _two_lines(text, f"The genotype file {path}")))


def inlined(value: str) -> str:
    """What stands for the value of a config: the text of the file that it names, else the value itself."""
    return value if value in GENOTYPES or _is_text(value) else read_genotype(value)


def _is_text(value: str) -> bool:
    return value.lstrip().startswith(_START)


def _two_lines(text: str, origin: str) -> Pair:
    lines = text.strip().splitlines()
    if len(lines) < 2:
        raise FcosError(f"{origin} has {len(lines)} lines, but it needs two: the box tower's and the class tower's.")
    where = f"the {origin[4:]}" if origin.startswith("The ") else origin
    return parse(lines[0], f"Line 1 of {where}"), parse(lines[1], f"Line 2 of {where}")

"""The shape of the package: rooms import downwards only, no cycles, short functions, nothing written twice.

The floors are read from the table in CONTRIBUTING.md, so the table and the code cannot drift apart.
"""

from __future__ import annotations

import ast
import io
import keyword
import re
import tokenize
from collections import defaultdict
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import grimp
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "fcos_d2"
FILES = sorted(PACKAGE.rglob("*.py"))
PACKAGES = sorted(path.parent for path in FILES if path.name == "__init__.py")

LONGEST_FUNCTION = 60  # lines from `def` to the last one, its docstring included
SHARED_LINES = 6  # so many equal lines in two places are one too many
SHAPE_TOKENS = 10 * SHARED_LINES  # words and signs of six lines that count whatever their names and values

# What is still to be mended. Empty is the aim; nothing is added.
KNOWN: dict[str, set[str] | set[tuple[str, str]]] = {
    "names": set(),
    "duplicates": set(),
    "functions": set(),
}


@cache
def texts() -> dict[str, str]:
    """Path below the package -> text of each file."""
    return {path.relative_to(PACKAGE).as_posix(): path.read_text(encoding="utf-8") for path in FILES}


# ------------------------------------------------------------------------------------------------------------- imports
@cache
def imports() -> dict[str, frozenset[str]]:
    """Module -> modules that it imports, inside functions too; imports for type checkers do not count."""
    graph = grimp.build_graph("fcos_d2", exclude_type_checking_imports=True, cache_dir=None)
    return {module: frozenset(graph.find_modules_directly_imported_by(module)) for module in graph.modules}


def cycles(graph: dict[str, frozenset[str]]) -> set[frozenset[str]]:
    """Strongly connected components of more than one module, or of one that imports itself."""
    reached = {module: reachable(graph, module) for module in graph}
    return {frozenset(n for n in reached[m] if m in reached[n]) for m in graph if m in reached[m]}


def reachable(graph: dict[str, frozenset[str]], start: str) -> set[str]:
    found: set[str] = set()
    waiting = [start]
    while waiting:
        new = graph[waiting.pop()] - found
        found |= new
        waiting += new
    return found


@cache
def floors() -> dict[str, int]:
    """Name directly below the package -> its floor, from the table of rooms in CONTRIBUTING.md.

    A row reads `| floor | names in back quotes | ... |`; `modeling/` is a room, `structures.py` a module.
    """
    found = {}
    for line in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) > 3 and cells[1].isdigit():
            for name in re.findall(r"`([^`]+)`", cells[2]):
                found[name.rstrip("/").removesuffix(".py")] = int(cells[1])
    return found


def room(module: str) -> str:
    """`fcos_d2.data.coco` -> "data"; the package itself is "__init__"."""
    return (module.split(".") + ["__init__"])[1]


def upward(graph: dict[str, frozenset[str]], floor: dict[str, int]) -> list[str]:
    """Imports that do not run downwards. Modules of the ground and those of the top may import each other."""
    found = []
    for module, others in graph.items():
        for other in others:
            here, there = room(module), room(other)
            same = here == there or floor[here] == floor[there] in (min(floor.values()), max(floor.values()))
            if not same and floor[there] >= floor[here]:
                found.append(f"{module} (floor {floor[here]}) imports {other} (floor {floor[there]})")
    return sorted(found)


def test_no_module_imports_itself_on_a_way_round() -> None:
    assert len(imports()) == len(FILES)
    assert cycles(imports()) == set()


def test_rooms_import_downwards_only() -> None:
    assert {room(module) for module in imports()} == set(floors()), "the table in CONTRIBUTING.md names every room"
    assert upward(imports(), floors()) == []


def test_a_cycle_and_an_upward_import_are_found() -> None:
    graph = {"p": frozenset(), "p.low.a": frozenset({"p.low.b"}), "p.low.b": frozenset({"p.high", "p.low.a"})}
    graph["p.high"] = frozenset({"p.low.a"})
    assert cycles(graph) == {frozenset({"p.low.a", "p.low.b", "p.high"})}
    assert upward(graph, {"__init__": 3, "low": 1, "high": 2}) == ["p.low.b (floor 1) imports p.high (floor 2)"]
    beside = {"p.data.a": frozenset({"p.zoo"}), "p.zoo": frozenset()}
    assert upward(beside, {"data": 1, "zoo": 1, "ground": 0, "top": 2})


# ----------------------------------------------------------------------------------------------------- size and names
def long_functions(source: str) -> dict[str, int]:
    """Name -> lines of each function that has too many."""
    functions = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    return {f.name: f.end_lineno - f.lineno + 1 for f in functions if f.end_lineno - f.lineno >= LONGEST_FUNCTION}


def test_functions_are_short() -> None:
    found = {f"{name} {f}": n for name, source in texts().items() for f, n in long_functions(source).items()}
    assert {name: lines for name, lines in found.items() if name not in KNOWN["functions"]} == {}


def test_a_long_function_is_found() -> None:
    body = ["    x = 1"] * LONGEST_FUNCTION
    source = "\n".join(["def short():", *body[1:], "class A:", "  def long():", *body])
    assert long_functions(source) == {"long": LONGEST_FUNCTION + 1}


@pytest.mark.parametrize("folder", PACKAGES, ids=lambda path: path.name)
def test_every_room_says_what_may_be_changed_there(folder: Path) -> None:
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
    if folder not in (PACKAGE, PACKAGE / "importers"):  # names for users, of today and of earlier versions
        assert re.search(r"What may be changed here: \w", text), f"{folder.name}/__init__.py"


def nearly_one_name(files: list[str]) -> list[tuple[str, str]]:
    """Pairs of paths "room/name" whose names share their stem (checkpoint, checkpointing) or are one edit apart.

    A module may be called after the room that it lies in (train/trainer), and two rooms may use one name (data/coco,
    evaluation/coco), since each path then says what it is.
    """
    found = []
    for one, other in combinations(sorted(files), 2):
        (_, a), (_, b) = (path.rsplit("/", 1) if "/" in path else ("", path) for path in (one, other))
        inside = any(x in path.split("/")[:-1] for x, path in ((a, other), (b, one)))
        if a != b and not inside and (stem(a) == stem(b) or one_edit(a, b)):
            found.append((one, other))
    return found


def stem(name: str) -> str:
    """A name without the endings that English adds to make a plural, or a noun of a verb."""
    return re.sub(r"(?<=\w{4})(?:ings?|ers?|ors?|ions?|ed|es|s|e)$", "", name)


def one_edit(a: str, b: str) -> bool:
    """Whether one letter more, less or other makes one of the other; names of fewer than six letters do not count."""
    if min(len(a), len(b)) < 6 or abs(len(a) - len(b)) > 1:
        return False
    start = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
    return a[start + 1 :] in (b[start + 1 :], b[start:]) or a[start:] == b[start + 1 :]


# Commands are called after what they run, `config.load` and `data.loader` after Detectron2's names, `data.exports`
# writes labels, `export` detectors, and `engine` is the former place of what is in `train` and `predict` now.
SAME_SUBJECT = {
    ("cli/train", "train/trainer"), ("cli/evaluate", "evaluation"), ("config/load", "data/loader"),
    ("cli/export", "data/exports"), ("data/exports", "export"), ("engine", "engines"),
}  # fmt: skip


def test_no_two_files_have_nearly_one_name() -> None:
    paths = [path.parent if path.name == "__init__.py" else path.with_suffix("") for path in FILES]
    names = [path.relative_to(PACKAGE).as_posix() for path in paths if path != PACKAGE]
    assert set(nearly_one_name(names)) - SAME_SUBJECT - KNOWN["names"] == set()


def test_near_names_are_found() -> None:
    for pair in (("a/checkpoint", "a/checkpointing"), ("a/weight", "weights"), ("a/network", "b/netwerk")):
        assert nearly_one_name(list(pair)) == [pair]
    assert nearly_one_name(["train", "train/trainer", "data/coco", "evaluation/coco", "modeling/head", "read"]) == []


def test_the_linter_has_one_version() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    (hook,) = (hook for hook in hooks if hook["repo"].endswith("ruff-pre-commit"))
    assert f'"ruff=={hook["rev"].removeprefix("v")}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


# --------------------------------------------------------------------------------------------------------- duplicates
class Line(NamedTuple):
    """A line of logic: its tokens, the same with one letter for all names, numbers and strings, and their number."""

    number: int
    text: str
    shape: str
    tokens: int
    in_function: bool


@cache
def logic_lines(source: str) -> list[Line]:
    """Imports, docstrings, comments, blank lines and lines of punctuation alone are left out."""
    tree = ast.parse(source)
    skipped: set[int] = set()
    within: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            within |= set(range(node.lineno, node.end_lineno + 1))
        text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        if text or isinstance(node, ast.Import | ast.ImportFrom):
            skipped |= set(range(node.lineno, node.end_lineno + 1))
    lines: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        name = token.type == tokenize.NAME and not keyword.iskeyword(token.string)
        if name or token.type in (tokenize.NUMBER, tokenize.STRING):
            lines[token.start[0]].append((token.string, "N" if name else "V"))
        elif token.type in (tokenize.NAME, tokenize.OP):
            lines[token.start[0]].append((token.string, token.string))
    return [
        Line(number, " ".join(t for t, _ in tokens), " ".join(s for _, s in tokens), len(tokens), number in within)
        for number, tokens in sorted(lines.items())
        if number not in skipped and any(t[0].isalnum() or t[0] in "_'\"" for t, _ in tokens)
    ]


def shared_runs(sources: dict[str, str], shapes: bool = False) -> list[str]:
    """Pairs of places with `SHARED_LINES` equal lines of logic that do not overlap.

    With `shapes`, lines of functions are equal whatever the names and values in them, where they have many tokens:
    argument lists and tables, whose rows have one shape by nature, do not count.
    """
    at: dict[tuple[str, ...], list[tuple[str, int, int]]] = defaultdict(list)
    for name, source in sources.items():
        lines = [line for line in logic_lines(source) if line.in_function or not shapes]
        for window in zip(*(lines[start:] for start in range(SHARED_LINES))):
            if not shapes or sum(line.tokens for line in window) >= SHAPE_TOKENS:
                key = tuple(line.shape if shapes else line.text for line in window)
                at[key].append((name, window[0].number, window[-1].number))
    pairs = {
        (a, b)
        for places in at.values()
        for a, b in combinations(places, 2)
        if a[0] != b[0] or a[2] < b[1] or b[2] < a[1]
    }
    return [f"{a[0]}:{a[1]}-{a[2]} ~ {b[0]}:{b[1]}-{b[2]}" for a, b in sorted(pairs)]


@pytest.mark.parametrize("shapes", [False, True], ids=["same lines", "same shape"])
def test_nothing_is_written_twice(shapes: bool) -> None:
    found = shared_runs(texts(), shapes)
    assert [pair for pair in found if re.sub(r":[-\d]+", "", pair) not in KNOWN["duplicates"]] == []


def test_what_is_written_twice_is_found() -> None:
    body = "".join(f"    value_{i} = call({i}, name)\n" for i in range(SHARED_LINES))
    other = body.replace("    value_3", "\n    # said otherwise\n    value_3")
    sources = {"a.py": f"def one(name):\n{body}", "b.py": f'def two(name):\n    """Text."""\n{other}'}
    assert shared_runs(sources) == ["a.py:2-7 ~ b.py:3-10"]
    renamed = {"a.py": sources["a.py"], "b.py": sources["b.py"].replace("value_3 =", "value_x =")}
    assert shared_runs(renamed) == [] and shared_runs(renamed, shapes=True) == []
    long = {name: text.replace("name)\n", "name[0], key=[x + 1 for x in name])\n") for name, text in renamed.items()}
    assert shared_runs(long) == [] and shared_runs(long, shapes=True)


# ------------------------------------------------------------------------------------------------------------ encodings
NO_TEXT = {"Image", "archive", "Workspace", "os", "self._log", "log"}  # whose `open` opens no text file


def texts_in_the_systems_encoding(source: str) -> list[int]:
    """Lines of calls that open or read text and name no encoding."""
    found = []
    for call in [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]:
        name = getattr(call.func, "attr", None) or getattr(call.func, "id", "")
        given = {keyword.arg: keyword.value for keyword in call.keywords}
        modes = [arg.value for arg in [*call.args, given.get("mode")] if isinstance(getattr(arg, "value", None), str)]
        binary = any(set(mode) <= set("rwxab+") and "b" in mode for mode in modes)
        opens = name in ("open", "fdopen") and not binary and ast.unparse(call.func).rpartition(".")[0] not in NO_TEXT
        reads = name in ("FileHandler", "TextIOWrapper") or getattr(call.func, "attr", "") in (
            "read_text",
            "write_text",
        )
        if (opens or reads or "text" in given or "universal_newlines" in given) and "encoding" not in given:
            found.append(call.lineno)
    return found


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("open(p)\nopen(p, 'rb')\nopen(p, 'w', encoding='utf-8')\nopen(p, mode='a')", [1, 4]),
        ("Path(p).open()\npath.open('wb')\nPathManager.open(p, 'w')\nImage.open(p)", [1, 3]),
        ("p.read_text()\np.write_text(t)\np.read_text(encoding='utf-8')\nlogging.FileHandler(p)", [1, 2, 4]),
        ("subprocess.run(c, text=True)\nsubprocess.run(c, text=True, encoding='utf-8')", [1]),
    ],
)
def test_texts_without_an_encoding_are_seen(source: str, lines: list[int]) -> None:
    assert texts_in_the_systems_encoding(source) == lines


def test_every_text_is_read_and_written_in_utf_8() -> None:
    files = [*FILES, *sorted((ROOT / "projects_tools").rglob("*.py"))]
    found = {
        path.relative_to(ROOT).as_posix(): lines
        for path in files
        if (lines := texts_in_the_systems_encoding(path.read_text(encoding="utf-8")))
    }
    assert not found, found


def test_no_host_of_a_package_registry_is_named() -> None:
    """Packages are named; where they come from is the business of whoever installs them."""
    hosts = [".".join(parts) for parts in (("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"))]
    files = [path for folder in ("fcos_d2", "docs", "projects_tools", "tests") for path in (ROOT / folder).rglob("*")]
    texts = {path: path.read_bytes() for path in [*files, *ROOT.glob("*.*")]
             if path.is_file() and path.name != "uv.lock"}  # fmt: skip  # which git leaves out
    assert [str(path) for path, data in texts.items() for host in hosts if host.encode() in data] == []

"""Private names of PyTorch, Detectron2 and others are used in `_compat.py` alone, with the versions tried."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "fcos_d2"
COMPAT = PACKAGE / "_compat.py"
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != COMPAT)
_LOOKUPS = ("getattr", "hasattr", "setattr", "delattr", "attrgetter", "methodcaller")
_VERSION = re.compile(r"\b(0\.6|main [0-9a-f]{8}|\d+\.\d+\.\d+)\b")


def private(name: str) -> bool:
    return name.startswith("_") and name != "_" and not (name.startswith("__") and name.endswith("__"))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def own_names() -> frozenset[str]:
    """Private names that the package itself defines, wherever."""
    found: set[str] = set()
    for path in [*FILES, COMPAT]:
        for node in ast.walk(tree(path)):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                found.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_self(node.value):
                found.add(node.attr)
    return frozenset(filter(private, found))


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def _is_foreign(module: str) -> bool:
    return module.partition(".")[0] not in {*sys.stdlib_module_names, "fcos_d2"}


def foreign_private_names(module: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and text of every use of a private name that the package does not define."""
    foreign: set[str] = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if _is_foreign(alias.name):
                    foreign.add(alias.asname or alias.name.partition(".")[0])
                    if any(map(private, alias.name.split("."))):
                        yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module and _is_foreign(node.module):
            for alias in node.names:
                foreign.add(alias.asname or alias.name)
                if any(map(private, [*node.module.split("."), alias.name])):
                    yield node.lineno, f"{node.module}.{alias.name}"
    for node in ast.walk(module):
        if isinstance(node, ast.Attribute) and private(node.attr):
            root: ast.expr = node.value
            while isinstance(root, ast.Attribute):
                root = root.value
            inherited = isinstance(root, ast.Call) and isinstance(root.func, ast.Name) and root.func.id == "super"
            of_module = isinstance(root, ast.Name) and root.id in foreign
            if inherited or of_module or node.attr not in own_names() | {"_exit"}:
                yield node.lineno, ast.unparse(node)
        elif isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            texts = [arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
            if name in _LOOKUPS:
                yield from (
                    (node.lineno, f"{name} {text}") for text in texts if private(text) and text not in own_names()
                )


def test_no_private_name_of_another_package():
    found = [
        f"{path.relative_to(PACKAGE)}:{line}: {text}"
        for path in FILES
        for line, text in foreign_private_names(tree(path))
    ]
    assert not found, "move these to _compat.py, behind a function with a public name: " + "; ".join(found)


def test_uses_in_compat_say_what_they_were_tried_with():
    uses = 0
    for node in ast.walk(tree(COMPAT)):
        if isinstance(node, ast.FunctionDef) and (found := list(foreign_private_names(node))):
            uses += len(found)
            assert _VERSION.search(ast.get_docstring(node) or ""), f"{node.name} names no version: {found}"
    assert uses > 0


@pytest.mark.parametrize(
    "code",
    [
        "from torch._C import x",
        "import torch._dynamo",
        "from detectron2.utils.registry import _convert_target_to_string",
        "import torch\ntorch._foreach_lerp_()",
        "from torch import nn\nnn.modules.batchnorm._BatchNorm",
        "def f(loader): return loader._dataset_of_theirs",
        "class A(B):\n    def f(self): return super()._load_file()",
        "class A(B):\n    def f(self): return self._private_of_the_base",
        "def f(x): return getattr(x, '_private_of_theirs', None)",
    ],
)
def test_the_search_finds(code):
    assert list(foreign_private_names(ast.parse(code)))

"""Exported programs without operators that write to their inputs, which ONNX does not have.

PyTorch's own way to that, `ExportedProgram.run_decompositions`, traces the graph twice more with symbols for all sizes,
and takes longer than all else together. Here operators are replaced one by one, where nobody else sees what is written.
"""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["functional"]

_ATEN = torch.ops.aten
_COPIES = (_ATEN.lift_fresh_copy.default, _ATEN.detach_.default, _ATEN.detach.default)


def functional(program: Any) -> bool:
    """Replace what writes to its input in a `torch.export.ExportedProgram` that shall only infer, in place.

    Returns:
        Whether nothing is left that does; if something is, the program still computes what it did.
    """
    graph, whole = program.graph_module.graph, True
    for node in list(graph.nodes):
        name = getattr(node.target, "__name__", "")
        if node.op != "call_function":
            continue
        if name.startswith("_assert"):
            graph.erase_node(node)
        elif node.target in _COPIES or _is_idle(node):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
        elif name.partition(".")[0].endswith("_") and not name.startswith("_"):
            pure = _pure(node)
            node.target, whole = pure or node.target, whole and pure is not None
    program.graph_module.recompile()
    return whole


def _is_idle(node: Any) -> bool:
    """Whether a node converts to the type that its input has; what the program returns has its name and stays."""
    returned = any(user.op == "output" for user in node.users)
    return node.target is _ATEN.to.dtype and not returned and node.args[0].meta["val"].dtype == node.args[1]


def _pure(node: Any) -> Any:
    """The operator that gives a new tensor, if the one that is written to is a new one that nothing else uses."""
    written = node.args[0]
    if written.op != "call_function" or len(written.users) > 1 or getattr(written.target, "is_view", True):
        return None
    name, _, overload = node.target.__name__.partition(".")
    return getattr(getattr(_ATEN, name.removesuffix("_"), None), overload, None)

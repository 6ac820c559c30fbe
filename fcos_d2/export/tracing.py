"""Formats of files: how a graph is written, and how a file of it is run again."""

from __future__ import annotations

import inspect
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..intel import OpenVinoSession
from ..runtime import OnnxSession, RuntimeFault, seal
from .functional import functional
from .nms import suppress_in_onnx, suppress_in_torch
from .onnx_operators import onnx_translations
from .shapes import Shapes
from .vino import saved_openvino

__all__ = ["FORMATS", "Format"]

_SEALED = "fcos_d2.json"  # under which PyTorch's files hold the metadata
Files = dict[str, bytes]
_LOGGERS = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir", "torch.fx", "onnxslim")


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        packages: that writing it needs.
        suppress: how its graphs suppress boxes, see `graphs.Suppress`.
        traced: a graph and its shapes -> onnx.ModelProto, or a module of PyTorch's that can be saved.
        is_onnx: it is the former.
        saved: that and the metadata -> bytes of the files by name.
        session: those, the graph and its shapes -> a callable of named arrays, as `Detector` takes it.
    """

    packages: tuple[str, ...]
    suppress: Callable[..., Tensor]
    traced: Callable[[Any, Shapes], Any]
    is_onnx: bool
    saved: Callable[[Any, Mapping[str, Any]], Files]
    session: Callable[[Files, Any, Shapes], Any]


class ModuleSession:
    """A traced module of PyTorch as `Detector` runs it.

    Attributes:
        inputs: as those of `OnnxSession`.
    """

    def __init__(self, module: Any, graph: Any, shapes: Shapes) -> None:
        self._module, self._outputs = module, list(graph.output_names)
        images, sizes = (list(value.shape) for value in shapes.example())
        images[0] = sizes[0] = shapes.batch or -1
        images[2:] = images[2:] if shapes.size else [-1, -1]
        self.inputs = {
            "images": (tuple(images), np.dtype("float32")), "image_sizes": (tuple(sizes), np.dtype("int64"))
        }  # fmt: skip

    def __call__(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        given = [torch.from_numpy(np.ascontiguousarray(feeds[name])) for name in self.inputs]
        try:
            with torch.no_grad():
                found = self._module(*given)
        except (RuntimeError, AssertionError) as error:
            size = "x".join(map(str, feeds["images"].shape[:1:-1]))
            raise RuntimeFault(f"PyTorch cannot run the file on network inputs of {size} pixels.") from error
        return {name: value.numpy() for name, value in zip(self._outputs, found)}


@contextmanager
def _quietly() -> Iterator[None]:
    """While it lasts, exporters keep their warnings about themselves; errors stay errors."""
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in _LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)


def _exported(graph: nn.Module, shapes: Shapes) -> Any:
    with torch.no_grad(), _quietly():
        return torch.export.export(graph, shapes.example(), dynamic_shapes=shapes.dynamic(), strict=False)


def _onnx(graph: Any, shapes: Shapes) -> Any:
    """The graph as onnx.ModelProto; its weights are laid out as ONNX has them, whose strides are traced faster, too."""
    import onnx
    import onnxslim

    graph = graph.to(memory_format=torch.contiguous_format)
    with torch.no_grad(), _quietly():
        slim = onnxslim.slim(_simpler(_translated(graph, shapes)), no_shape_infer=True)
    del slim.metadata_props[:]
    onnx.checker.check_model(slim, full_check=True)
    return slim


def _translated(graph: Any, shapes: Shapes) -> Any:
    """What PyTorch's exporter makes of a graph: with all operators as they are, else after its decompositions."""

    def translated(program: Any) -> Any:
        return torch.onnx.export(
            program, (), dynamo=True, custom_translation_table=onnx_translations(), optimize=False, verbose=False,
            input_names=shapes.names, output_names=list(graph.output_names),
        )  # fmt: skip

    program = _exported(graph, shapes)
    if not functional(program):
        return translated(program)
    program.run_decompositions = lambda *args: program
    try:
        return translated(program)
    except Exception:  # an operator has no translation; torch.onnx.export raises anything, and has changed the program
        return translated(_exported(graph, shapes))


def _simpler(made: Any) -> Any:
    """onnx.ModelProto with constants computed: what torch.onnx.export's `optimize` does, but for its rules."""
    import onnx_ir
    from onnx_ir.passes import common
    from onnxscript.optimizer import fold_constants

    for _ in range(2):
        fold_constants(made.model)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(made.model)
    common.CommonSubexpressionEliminationPass()(made.model)
    common.RemoveUnusedNodesPass()(made.model)
    return onnx_ir.to_proto(made.model)


def _torchscript(graph: nn.Module, shapes: Shapes) -> Any:
    with torch.no_grad(), _quietly():
        return torch.jit.trace(graph, shapes.example(), check_trace=False)


def _saved_torchscript(module: Any, metadata: Mapping[str, Any]) -> Files:
    file = io.BytesIO()
    torch.jit.save(module, file, _extra_files={_SEALED: json.dumps(metadata)})
    return {"model.pt": file.getvalue()}


def _saved_program(program: Any, metadata: Mapping[str, Any]) -> Files:
    file = io.BytesIO()
    with _quietly():
        torch.export.save(program, file, extra_files={_SEALED: json.dumps(metadata)})
    return {"model.pt2": file.getvalue()}


def _scripted_session(files: Files, graph: Any, shapes: Shapes) -> ModuleSession:
    with _quietly():
        return ModuleSession(torch.jit.load(io.BytesIO(files["model.pt"])), graph, shapes)


def _program_session(files: Files, graph: Any, shapes: Shapes) -> ModuleSession:
    with _quietly():
        module: Any = torch.export.load(io.BytesIO(files["model.pt2"])).module
        # Guards refuse pictures of which a map has one row of cells, which the certificate shows to be right.
        checks = {"check_guards": False} if "check_guards" in inspect.signature(module).parameters else {}
        return ModuleSession(module(**checks), graph, shapes)


_EXPORTER = ("onnx", "onnxscript", "onnxslim", "onnxruntime")

FORMATS: dict[str, Format] = {
    "onnx": Format(
        _EXPORTER, suppress_in_onnx, _onnx, True,
        lambda model, metadata: {"model.onnx": seal(model.SerializeToString(), metadata)},
        lambda files, graph, shapes: OnnxSession(files["model.onnx"]),
    ),
    "openvino": Format(
        (*_EXPORTER, "openvino"), suppress_in_onnx, _onnx, True, saved_openvino,
        lambda files, graph, shapes: OpenVinoSession(files["model.xml"], weights=files["model.bin"]),
    ),
    "torchscript": Format((), suppress_in_torch, _torchscript, False, _saved_torchscript, _scripted_session),
    "torch-export": Format((), suppress_in_torch, _exported, False, _saved_program, _program_session),
}  # fmt: skip
"""Name -> format."""

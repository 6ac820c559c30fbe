"""The boundary to Detectron2: one entry for each symbol in which its builds differ.

Three builds are met in practice, all of which call themselves version 0.6:

* "pypi-0.6": release v0.6 as packed on PyPI, Python files only, without the compiled `detectron2._C`;
* "0.6": release v0.6 built from its sources;
* "main": the development branch, which guards each use of `detectron2._C` itself.

`mend` makes the two 0.6 builds importable next to today's Pillow, NumPy and PyTorch. FCOS needs no compiled operation:
batched NMS, RoIAlign and deformable convolution come from torchvision. An entry acts only where its symbol is
missing, so "main", and a whole 0.6 among libraries of its own time, stay as they are. With "pypi-0.6", `import fcos_d2`
must precede the first import of `detectron2.layers` and of all that uses it.

Importing this module looks at files only; PyTorch and Detectron2 are imported by `mend`.
"""

from __future__ import annotations

import builtins
import importlib.util
import pickle
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NoReturn

from .libraries import OFFICIAL


def detectron2_flavour() -> str:
    """Name the installed Detectron2 without importing it: "pypi-0.6", "0.6" or "main".

    Raises:
        ImportError: there is none; the message says how to get one.
    """
    spec = importlib.util.find_spec("detectron2")
    if spec is None or spec.origin is None:
        raise ImportError(
            "fcos_d2 needs Detectron2, which is not installed: take the build on PyPI with "
            f"`uv sync --extra detectron2` in a clone of fcos_d2, or the official one with `{OFFICIAL}`.",
            name="detectron2",
        )
    folder = Path(spec.origin).parent
    # `utils/develop.py` holds main's guards for a missing `_C`; it came in January 2022, two months after v0.6.
    if (folder / "utils" / "develop.py").is_file():
        return "main"
    return "0.6" if any((folder / f"_C{suffix}").is_file() for suffix in EXTENSION_SUFFIXES) else "pypi-0.6"


DETECTRON2_FLAVOUR: str = detectron2_flavour()


@cache
def mend() -> None:
    """Import Detectron2 and mend what its build lacks; later calls do nothing. Raises ImportError for another lack."""
    with warnings.catch_warnings():
        # All builds script a few functions while they are imported, which torch has come to call deprecated.
        warnings.filterwarnings("ignore", message=r".*torch\.jit\.script", category=FutureWarning)
        if DETECTRON2_FLAVOUR == "main":
            _import_main()
            return
        with _pillow_linear(), _compiled_ops() as missing:
            for name in ("layers", "structures", "data", "modeling", "evaluation"):
                importlib.import_module(f"detectron2.{name}")
    if missing is not None:
        _without_compiled_ops(missing)
    _numpy_aliases()


def _import_main() -> None:
    """Import main 02b5c4e2, which goes on without OpenCV only where none is installed: one that lacks a library of the
    system, as on servers without a screen, counts as absent while Detectron2 is imported.
    """
    try:
        importlib.import_module("detectron2.modeling")
    except ImportError as error:
        if "cv2" in sys.modules or isinstance(error, ModuleNotFoundError):
            raise
        sys.modules["cv2"] = None  # type: ignore[assignment]
        try:
            importlib.import_module("detectron2.modeling")
        finally:
            del sys.modules["cv2"]


@contextmanager
def _pillow_linear() -> Iterator[None]:
    """`PIL.Image.LINEAR`, gone since Pillow 10: 0.6 reads it while `detectron2.data.transforms` is imported."""
    from PIL import Image

    missing = not hasattr(Image, "LINEAR")
    if missing:
        Image.LINEAR = Image.BILINEAR  # type: ignore[attr-defined]  # the value it had
    try:
        yield
    finally:
        if missing:
            del Image.LINEAR  # type: ignore[attr-defined]


class _MissingOps(ModuleType):
    """Stands in for `detectron2._C`: whatever is asked of it is a function that says what is missing when called."""

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*args: object, **kwargs: object) -> NoReturn:
            raise ImportError(
                f"'{name}' is a compiled operation of Detectron2, which this build ({DETECTRON2_FLAVOUR}) has not got: "
                f"install the official build with `{OFFICIAL}`.",
                name="detectron2._C",
            )

        return missing


@contextmanager
def _compiled_ops() -> Iterator[_MissingOps | None]:
    """`detectron2._C`, absent from "pypi-0.6" (or built for another PyTorch): 0.6 imports it at the head of
    `layers/deform_conv.py`, `layers/rotated_boxes.py`, `layers/roi_align_rotated.py`, `evaluation/fast_eval_api.py`.
    Yields the stand-in, in `sys.modules` until the block ends; None where the compiled module loads.
    """
    name, stand_in = "detectron2._C", None
    try:
        importlib.import_module(name)
    except ImportError:
        stand_in = sys.modules[name] = _MissingOps(name)
    try:
        yield stand_in
    finally:
        if stand_in is not None:
            del sys.modules[name]


def _without_compiled_ops(missing: _MissingOps) -> None:
    """Replace the two uses of compiled code in 0.6 that do not go through a `_C` in the module's own globals."""
    from detectron2 import layers
    from detectron2.evaluation import coco_evaluation, fast_eval_api
    from pycocotools.cocoeval import COCOeval

    # `COCOeval_opt`: `COCOEvaluator` takes it unless told otherwise; main falls back to `COCOeval` by itself.
    coco_evaluation.COCOeval_opt = fast_eval_api.COCOeval_opt = COCOeval
    # `nms_rotated` asks `torch.ops.detectron2`, which `_C` would have filled.
    # The module is looked up by name, since `layers.nms` is the function of that name.
    nms: Any = importlib.import_module("detectron2.layers.nms")
    nms.nms_rotated = layers.nms_rotated = missing.nms_rotated


def _numpy_aliases() -> None:
    """`numpy.int`, `.float`, `.str` (gone since NumPy 1.24), and `.bool` (gone in 1.24, back in 2.0), used by 0.6.

    Without `int`, `detectron2.data.build` leaves out the table of instances per class in silence.
    """
    import numpy as np

    if not hasattr(np, "bool"):
        np.bool = np.bool_  # type: ignore[misc]  # as NumPy 2 has it; the users are masks, visualizers and the VOC evaluator
    known = SimpleNamespace(**{**vars(np), "int": int, "float": float, "str": str})
    for module in ("data.build", "data.datasets.pascal_voc", "evaluation.sem_seg_evaluation"):
        importlib.import_module(f"detectron2.{module}").np = known  # type: ignore[attr-defined]


def create_local_process_group(processes_per_machine: int) -> None:
    """`detectron2.utils.comm.create_local_process_group`, absent from 0.6, where only `launch` on CUDA makes the group.

    Call it in each process after `init_process_group`; `comm.get_local_rank` needs it. All machines have the same
    number of processes, and ranks on one machine are consecutive.
    """
    import torch.distributed as dist
    from detectron2.utils import comm

    world, rank = dist.get_world_size(), dist.get_rank()
    if world % processes_per_machine:
        raise ValueError(f"{world} processes cannot be split into machines of {processes_per_machine}")
    if hasattr(comm, "create_local_process_group"):
        comm.create_local_process_group(processes_per_machine)
        return
    for first in range(0, world, processes_per_machine):
        ranks = range(first, first + processes_per_machine)
        group = dist.new_group(list(ranks))  # each process takes part in making every group
        if rank in ranks:
            comm._LOCAL_PROCESS_GROUP = group


def train_loader_parts(loader: Any) -> dict[str, Any] | None:
    """What `detectron2.data.build_detection_train_loader` put together: the fields of `data.loader.TrainLoader`.

    None for any other loader, and for one of an iterable data set. Tested with Detectron2 0.6 and main 02b5c4e2.
    """
    from detectron2.data.build import trivial_batch_collator
    from detectron2.data.common import AspectRatioGroupedDataset, MapDataset, ToIterableDataset
    from torch.utils.data import DataLoader, IterableDataset

    collate, grouped, batch_size = trivial_batch_collator, False, None
    if hasattr(loader, "_map_func") and isinstance(getattr(loader, "_dataset", None), AspectRatioGroupedDataset):
        collate, loader = loader._map_func, loader._dataset
    if isinstance(loader, AspectRatioGroupedDataset):
        grouped, batch_size, loader = True, loader.batch_size, loader.dataset
    if not isinstance(loader, DataLoader) or not isinstance(loader.dataset, ToIterableDataset):
        return None
    records, sampler, mapper = loader.dataset.dataset, loader.dataset.sampler, None
    if isinstance(records, IterableDataset):
        return None
    if isinstance(records, MapDataset):
        records, mapper = records._dataset, records._map_func
    options = ("prefetch_factor", "timeout", "multiprocessing_context") if loader.num_workers else ()
    return {
        "records": records, "mapper": mapper, "sampler": sampler, "grouped": grouped,
        "batch_size": batch_size if grouped else loader.batch_size,
        "collate": collate if grouped else loader.collate_fn,
        "num_workers": loader.num_workers, "pin_memory": loader.pin_memory,
        "options": {name: getattr(loader, name) for name in options},
    }  # fmt: skip


def wrap_mapper(loader: Any, wrap: Callable[[Callable], Callable]) -> None:
    """Let a loader of `build_detection_test_loader` map its records with `wrap(mapper)`; others stay as they are.

    Tested with Detectron2 0.6 and main 02b5c4e2, whose `MapDataset` keeps its mapper under a private name.
    """
    from detectron2.data.common import MapDataset

    dataset = getattr(loader, "dataset", None)
    if isinstance(dataset, MapDataset):
        dataset._map_func = wrap(dataset._map_func)


@cache
def can_pack_convolutions() -> bool:
    """Whether the operators of `pack_convolution` and `convolve_packed` are there (tested with PyTorch 2.14.1)."""
    import torch

    operators = getattr(torch.ops, "mkldnn", None)
    return torch.backends.mkldnn.is_available() and hasattr(operators, "_convolution_pointwise_")


def pack_convolution(weight: Any, padding: Any, stride: Any, dilation: Any, groups: int, size: Any) -> Any:
    """Weights of a 2-D convolution as oneDNN lays them for inputs of a size; `to_dense()` gives them back.

    `torch._C._nn.mkldnn_reorder_conv2d_weight`, tested with PyTorch 2.14.1, float32 and bfloat16 on the CPU.
    """
    import torch

    reorder: Any = torch._C._nn.mkldnn_reorder_conv2d_weight
    return reorder(weight.to_mkldnn(), padding, stride, dilation, groups, list(size))


def convolve_packed(
    x: Any, weight: Any, bias: Any, padding: Any, stride: Any, dilation: Any, groups: int,
    clamp: tuple[float, float | None] | None, added: Any, overwrite: bool,
) -> Any:  # fmt: skip
    """Convolution with packed weights, sum with `added` unless that is `None`, and clamp, in one pass.

    `torch.ops.mkldnn._convolution_pointwise`, tested with PyTorch 2.14.1.
    `clamp` is (0, None), (0, 6) or None, and not (0, 6) with `added`, whose place the result may take with `overwrite`.
    """
    import torch

    operators, shape = torch.ops.mkldnn, (padding, stride, dilation, groups)
    name, scalars = ("none", []) if clamp is None else ("relu", []) if clamp[1] is None else ("hardtanh", list(clamp))
    if added is None:
        return operators._convolution_pointwise(x, weight, bias, *shape, name, scalars, "")
    if overwrite:
        return operators._convolution_pointwise_.binary(added, x, weight, bias, *shape, "add", None, name, scalars, "")
    return operators._convolution_pointwise.binary(x, added, weight, bias, *shape, "add", None, name, scalars, "")


def load_lazy_config(path: Path, name: str | None = None) -> Any:
    """`LazyConfig.load`, which leaves `builtins.__import__` exchanged when the file raises (0.6 and main 02b5c4e2).

    It reads files in the system's encoding, where Python reads its own in UTF-8.
    """
    from detectron2.config import LazyConfig, lazy

    imports, paths = builtins.__import__, lazy.PathManager
    lazy.PathManager = _Utf8Paths(paths)
    try:
        return LazyConfig.load(str(path), name)
    finally:
        builtins.__import__, lazy.PathManager = imports, paths


class _Utf8Paths:
    """A `PathManager` that opens text in UTF-8."""

    def __init__(self, paths: Any) -> None:
        self._paths = paths

    def __getattr__(self, name: str) -> Any:
        return getattr(self._paths, name)

    def open(self, path: str, mode: str = "r", **options: Any) -> Any:
        options.setdefault("encoding", None if "b" in mode else "utf-8")
        return self._paths.open(path, mode, encoding=options.pop("encoding"), **options)


def transform_annotations(mapper: Any, record: dict[str, Any], transforms: Any, size: tuple[int, int]) -> None:
    """`DatasetMapper._transform_annotations`: a record's "annotations" become "instances" (0.6, main 02b5c4e2)."""
    from detectron2.data import DatasetMapper

    DatasetMapper._transform_annotations(mapper, record, transforms, size)


def python_unpickler() -> Any:
    """The standard library's unpickler in Python, whose single steps can be replaced (tested with Python 3.11.7)."""
    return pickle._Unpickler

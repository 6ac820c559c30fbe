"""Pickles read as data: a file may name what it likes, but only plain data and `Foreign` objects are made of it.

`pickle` calls what a file names, with the arguments that the file gives. Here no class or function that a file names is
imported, looked up or called: a name is a `Foreign`. The few that mean plain data (tensors, NumPy arrays and numbers,
ordered dicts, sets) are worked out of their arguments, with all sizes checked; of others in a closed table, name and
arguments are kept; the rest is refused.
"""

from __future__ import annotations

import math
import os
import re
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING  # names of Python 2, as pickles have them that it can read
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from .._compat import python_unpickler

__all__ = ["STORAGES", "Foreign", "Refused", "read_pickle"]


class Refused(Exception):
    """A file names an object that is not in the table; `args` holds the name."""


class Foreign:
    """An object of another project, of which the name and the data are kept; it can do nothing.

    Attributes:
        name: its class or function, with the module.
        args: what it would have been made of; `None` for the class or function itself.
        state: what its attributes would have been.
        items: what would have been put into it, as a list of values, or of (key, value) pairs.
        data: the array or dtype that it stands for, where its state says one.
    """

    def __init__(self, name: str, args: tuple[Any, ...] | None = None) -> None:
        self.name, self.args = name, args
        self.state: Any = None
        self.data: Any = None
        self.items: list[Any] = []

    def extend(self, items: Iterable[Any]) -> None:
        self.items += items

    update = extend

    def append(self, item: Any) -> None:
        self.items.append(item)

    def __repr__(self) -> str:
        return f"<{self.name}, not loaded>"


# Classes of PyTorch's flat tensors, and what each number of theirs is.
STORAGES = {
    f"torch.{place}{kind}Storage": dtype
    for place in ("", "cuda.", "storage.")
    for kind, dtype in {
        "Float": torch.float32, "Double": torch.float64, "Half": torch.float16, "BFloat16": torch.bfloat16,
        "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8,
        "Bool": torch.bool, "ComplexFloat": torch.complex64, "ComplexDouble": torch.complex128, "Untyped": torch.uint8,
    }.items()
}  # fmt: skip
# Kept as they are: their name, arguments and state.
_HARMLESS = re.compile(
    r"""argparse\.Namespace | types\.SimpleNamespace | enum\.\w+ | typing\.\w+ | decimal\.Decimal | uuid\.\w*UUID
    | datetime\.(datetime|date|time|timedelta|timezone) | fractions\.Fraction
    | builtins\.(list|dict|tuple|int|float|str|bool|object|range|slice|bytes|NoneType)
    | mmengine\.logging\.(history_buffer\.HistoryBuffer|message_hub\.MessageHub|HistoryBuffer|MessageHub)
    | mmcv\.runner\.log_buffer\.LogBuffer | mmcv\.utils\.config\.Config | mmengine\.config(\.config)?\.Config
    | (yacs|fvcore\.common|detectron2\.config)\.config\.(_?CfgNode)
    | omegaconf\.(base|nodes|dictconfig|listconfig|_utils)\.[A-Z]\w*
    | detectron2\.structures\.boxes\.BoxMode | torchvision\.transforms\.functional\.InterpolationMode
    | PIL\.Image\.\w+ing | torch\.(device|layout|memory_format|strided|Tensor|nn\.parameter\.Parameter)
    | numpy\.(dtypes\.\w+|ndarray|bool_?|u?int\d+|float\d+|complex\d+|str_|bytes_|longlong|ulonglong)""",
    re.VERBOSE,
)
# Methods of these classes lie as getattr(class, name) in their pickles, and types as getitem(class, part).
_OWNERS = re.compile(r"mm(engine|cv)\.[\w.]*(HistoryBuffer|LogBuffer)|typing\.\w+")
_NUMBERS = re.compile(r"[<>=|]?[biufcSU]\d+")
_LARGEST_KEY = 64


def read_pickle(file: BinaryIO, storage: Callable[[Any], Tensor] | None = None) -> Any:
    """Read the next pickle of a file.

    Args:
        file: at the first byte of the pickle; afterwards behind its last.
        storage: the flat tensor of a persistent id; by default such ids are refused.
    Raises:
        Refused: it names an object outside the table.
        Exception: it is damaged; anything may be raised.
    """
    return _Reader(file, storage).load()


def _key(value: Any) -> Any:
    """A key or an element of a set; raises ValueError for tuples of tuples whose hash would take for ever."""
    parts = [value]
    for part in parts:  # it grows meanwhile
        parts += part if isinstance(part, tuple) else ()
        if len(parts) > _LARGEST_KEY:
            raise ValueError("a key of too many parts")
    return value


def _pairs(items: list[Any]) -> Iterable[tuple[Any, Any]]:
    return zip(map(_key, items[::2]), items[1::2])


class _Memo(dict):
    """What a pickle has numbered, to use it again."""

    def __getitem__(self, number: int) -> Any:
        made = super().__getitem__(number)
        return made if not isinstance(made, Foreign) or made.data is None else made.data


_Steps: Any = python_unpickler()  # the public one is in C, where single steps cannot be replaced


class _Reader(_Steps):
    """Python's own reader, but for the steps that call something, change something, or compute a hash."""

    def __init__(self, file: BinaryIO, storage: Callable[[Any], Tensor] | None) -> None:
        super().__init__(file, encoding="latin1")
        self.memo, self.persistent_load = _Memo(), storage  # `None` cannot be called: the pickle is damaged
        start = file.tell()
        self.left = 2**16 + 4 * (file.seek(0, os.SEEK_END) - start)
        file.seek(start)

    def find_class(self, module: str, name: str) -> Any:
        module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        full = f"{module}.{name}"
        if module == "torch" and isinstance(vars(torch).get(name), torch.dtype):
            return vars(torch)[name]
        if full in _MEANINGS or full in _STATES or full in STORAGES or _HARMLESS.fullmatch(full):
            return Foreign(full)
        raise Refused(full)

    def get_extension(self, code: int) -> None:
        raise Refused(f"extension {code}")  # a number that the running program may have given to any object

    def _count(self, parts: Any) -> None:
        """Raise ValueError if the same text or numbers are made into ever more objects."""
        self.left -= sum(len(part) for part in parts if isinstance(part, (str, bytes, list, dict)))
        if self.left < 0:
            raise ValueError("more is made of the file than it holds")

    def _instantiate(self, named: Any, args: Any) -> None:
        self.append(_made(named, args))
        self._count(args)

    def load_reduce(self) -> None:
        args, named = self.stack.pop(), self.stack.pop()
        self._instantiate(named, args)

    load_newobj = load_reduce

    def load_newobj_ex(self) -> None:
        keywords = self.stack.pop()
        self.stack[-1] += (keywords,)
        self.load_reduce()

    def load_build(self) -> None:
        state, made = self.stack.pop(), self.stack[-1]
        if isinstance(made, OrderedDict):
            return  # PyTorch's state dicts have `_metadata`
        if not isinstance(made, Foreign) or made.args is None:
            raise ValueError("a state of what has none")
        made.state = state
        if made.name in _STATES and isinstance(state, tuple):
            self._count(state)
            made.data = _STATES[made.name](made.args, state)
            self.stack[-1] = made if made.data is None else made.data

    def _fill(self, kind: Any, items: Iterable[Any]) -> None:
        made = self.stack[-1]
        if not isinstance(made, (kind, Foreign)):
            raise ValueError("items of what has none")
        made.update(items)

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._fill(dict, _pairs([key, value]))

    def load_setitems(self) -> None:
        self._fill(dict, _pairs(self.pop_mark()))

    def load_additems(self) -> None:
        self._fill(set, map(_key, self.pop_mark()))

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append(dict(_pairs(items)))

    def load_frozenset(self) -> None:
        items = self.pop_mark()
        self.append(frozenset(map(_key, items)))

    load_bytearray8 = _Steps.load_binbytes8  # which asks for no more memory than the file has bytes


_Reader.dispatch = {code: getattr(_Reader, step.__name__) for code, step in _Steps.dispatch.items()}


def _made(named: Any, args: Any) -> Any:
    """What a call would have given: plain data, or the call itself."""
    if not isinstance(named, Foreign) or named.args is not None or not isinstance(args, (tuple, list)):
        raise ValueError("no call of a class or function")
    found = _MEANINGS[named.name](*args) if named.name in _MEANINGS else None
    return Foreign(named.name, tuple(args)) if found is None else found


def _part(owner: Any, part: Any) -> Foreign:
    if not isinstance(owner, Foreign) or owner.args is not None or not _OWNERS.fullmatch(owner.name):
        raise Refused("builtins.getattr")
    return Foreign(f"{owner.name}.{part}") if isinstance(part, str) else owner


def _tensor(flat: Tensor, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
    """A tensor over flat numbers; raises ValueError if it would reach beyond them."""
    plain = isinstance(size, (tuple, list)) and isinstance(stride, (tuple, list)) and len(size) == len(stride)
    if not plain or not all(type(x) is int and x >= 0 for x in (offset, *size, *stride)):
        raise ValueError("sizes of a tensor that are none")
    if not math.prod(size):
        return flat.new_empty(size)
    if offset + sum((n - 1) * step for n, step in zip(size, stride)) >= flat.numel():
        raise ValueError("a tensor reaches beyond its numbers")
    return flat.as_strided(size, stride, offset)


def _list(items: Any = (), *_: Any) -> list[Any]:
    if not isinstance(items, (list, tuple, set, frozenset)):
        raise ValueError("items that are none")
    return list(items)


def _dict(*args: Any) -> OrderedDict:
    start = next((x for x in args if isinstance(x, (dict, list))), {})
    return OrderedDict((_key(key), value) for key, value in (start.items() if isinstance(start, dict) else start))


def _bytes(value: Any = b"", encoding: str = "", *_: Any) -> bytes | None:
    if isinstance(value, str):
        return value.encode("utf-8" if encoding == "utf-8" else "latin1")
    return value if isinstance(value, bytes) else None


def _dtype(args: tuple, state: Any) -> np.dtype | None:
    code, order = args[0], state[1]
    if not isinstance(code, str) or not _NUMBERS.fullmatch(code):
        return None  # objects, records and dates: no numbers
    return np.dtype(code).newbyteorder(order if order in ("<", ">") else "=")


def _array(data: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> np.ndarray | None:
    data = _bytes(data)
    if data is None or axes is not None or not isinstance(dtype, np.dtype):
        return None
    return np.frombuffer(data, dtype).reshape(shape, order=order).astype(dtype.newbyteorder("="))


def _array_of_state(_: tuple, state: tuple) -> np.ndarray | None:
    return _array(state[-1], state[-3], state[-4], "F" if state[-2] else "C")


def _number(dtype: Any, data: Any = None) -> Any:
    found = _array(data, dtype, (), "C")
    return None if found is None else found.item()


_CORES = ("core", "_core")
_SAME = (
    *("_utils._rebuild_parameter", "_utils._rebuild_parameter_with_state"),
    *("serialization._get_layout", "torch_version.TorchVersion"),
)
_DICTS = (
    *("collections.OrderedDict", "collections.defaultdict", "collections.Counter", "addict.addict.Dict", "addict.Dict"),
    *("mmcv.utils.config.ConfigDict", "mmengine.config.ConfigDict", "mmengine.config.config.ConfigDict"),
)
# What a call of these names means, given its arguments; `None` where it means nothing more than itself.
_MEANINGS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": lambda flat, *args: _tensor(flat.view(args[5]), *args),
    **{f"torch.{name}": lambda value, *_: value for name in _SAME},
    "torch._utils._rebuild_from_type_v2": lambda function, _, args, *__: _made(function, args),
    "torch.Size": lambda sizes: tuple(int(x) for x in _list(sizes)),
    "builtins.set": lambda *args: set(map(_key, _list(*args))),
    "builtins.frozenset": lambda *args: frozenset(map(_key, _list(*args))),
    **dict.fromkeys(("builtins.bytes", "builtins.bytearray", "_codecs.encode"), _bytes),
    "builtins.complex": complex,
    "copyreg._reconstructor": lambda named, _, *start: _made(named, start),
    "collections.deque": _list,
    **dict.fromkeys(("builtins.getattr", "operator.getitem"), _part),
    **dict.fromkeys(_DICTS, _dict),
    **{f"numpy.{core}.multiarray.scalar": _number for core in _CORES},
    **{f"numpy.{core}.numeric._frombuffer": _array for core in _CORES},
    **{
        f"pathlib{module}.{kind}Path": lambda *parts: str(PurePosixPath(*parts))
        for module in ("", "._local")
        for kind in ("", "Pure", "Posix", "Windows", "PurePosix", "PureWindows")
    },
}
# The same for those that wait for their state.
_STATES: dict[str, Callable[[tuple, Any], Any]] = {
    "numpy.dtype": _dtype,
    **{f"numpy.{core}.multiarray._reconstruct": _array_of_state for core in _CORES},
}

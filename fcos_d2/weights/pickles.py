"""Pickles read as data: a file may name what it likes, but only `Foreign` objects are made, and these do nothing.

`pickle` calls what a file names, with the arguments that the file gives. Here every name becomes a subclass of
`Foreign`, which only keeps its arguments; no class or function that a file names is imported, looked up or called.
Names outside a closed table are refused. After reading, the few names that mean plain data (tensors, NumPy arrays and
numbers, ordered dicts, sets) are worked out from what was kept, with all sizes checked; the others stay as they are.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING  # names of Python 2, as pickles have them that it can read
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = ["Foreign", "Refused", "Storage", "as_data", "read_pickle", "tensor_of"]


class Refused(Exception):
    """A file names an object that is not in the table."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name.encode("unicode_escape").decode()[:120]


class Foreign:
    """An object of another project, of which the name and the data are kept; it can do nothing.

    Attributes:
        name: its class or function, with the module.
        args: what it would have been made of.
        state: what its attributes would have been.
        items: what would have been put into it, as a list of values, or of (key, value) pairs.
    """

    name = ""
    args: tuple[Any, ...]
    state: Any
    items: list[Any]

    def __new__(cls, *args: Any, **named: Any) -> Foreign:
        made = super().__new__(cls)
        made.args, made.state, made.items = (*args, *named.items()), None, []
        return made

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items.append((key, value))

    def append(self, value: Any) -> None:
        self.items.append(value)

    add = append

    def __call__(self, *args: Any, **named: Any) -> Any:
        raise Refused(self.name)

    def __repr__(self) -> str:
        return f"<{self.name}, not loaded>"


class Storage(NamedTuple):
    """Numbers of a tensor, which lie elsewhere in the file.

    Attributes:
        dtype: of each.
        key: where they lie.
        numel: how many there are.
        view: (offset, length) of the part that is meant; `None` for all.
    """

    dtype: torch.dtype
    key: str
    numel: int
    view: tuple[int, int] | None = None


_STORAGES = {
    "Float": torch.float32, "Double": torch.float64, "Half": torch.float16, "BFloat16": torch.bfloat16,
    "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8,
    "Bool": torch.bool, "ComplexFloat": torch.complex64, "ComplexDouble": torch.complex128, "Untyped": torch.uint8,
}  # fmt: skip
_STORAGE = re.compile(r"torch\.(?:cuda\.|storage\.)?(\w+)Storage")
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
# Methods of these classes lie as getattr(class, name) in their pickles.
_METHODS = re.compile(r"mm(engine|cv)\.[\w.]*(HistoryBuffer|LogBuffer)")
_NUMBERS = re.compile(r"[<>=|]?[biufcSU]\d+")


_MOST_HASHED = 2**26


class _Weight:
    """Weighs what a pickle makes, shared parts as often as they occur: so long it takes to hash a key of a dict."""

    def __init__(self) -> None:
        self.stack: list[int | None] = []  # `None` for a mark
        self.memo: dict[int, int | None] = {}
        self.hashed = 0

    def add(self, opcode: Any, argument: Any) -> None:
        """Follow one step; raises ValueError where a key or an element of a set is too heavy."""
        stack, taken, name = self.stack, 1, opcode.name
        if "PUT" in name or name == "MEMOIZE":
            self.memo[len(self.memo) if name == "MEMOIZE" else argument] = stack[-1]
            return
        if name == "MARK" or "GET" in name:
            stack.append(None if name == "MARK" else self.memo[argument])
            return
        fixed = len(opcode.stack_before)
        if pickletools.markobject in opcode.stack_before:
            fixed = opcode.stack_before.index(pickletools.markobject)
            while (top := stack.pop()) is not None:
                taken += top
        if name.endswith(("ITEM", "ITEMS", "DICT", "FROZENSET")):
            self.hashed += taken + (sum(x or 0 for x in stack[-2:]) if name == "SETITEM" else 0)
        taken += sum(stack.pop() or 0 for _ in range(fixed))
        if max(taken, self.hashed) > _MOST_HASHED:
            raise ValueError("nested too deep")
        stack += [taken] * len(opcode.stack_after)


def read_pickle(file: BinaryIO, persistent: Callable[[Any], Any] | None = None) -> Any:
    """Read the next pickle of a file; the result holds `Foreign` objects and has to go through `as_data`.

    Args:
        file: at the first byte of the pickle; afterwards behind its last.
        persistent: what an object that lies elsewhere becomes, of its id; by default such ids are refused.
    Raises:
        Refused: it names an object outside the table.
        Exception: it is damaged; anything may be raised.
    """
    start, count, weight = file.tell(), 0, _Weight()
    for count, (opcode, argument, _) in enumerate(pickletools.genops(file), start=1):
        if opcode.name.startswith("EXT"):  # a number that the running program may have given to any object
            raise Refused(f"extension {argument}")
        if "PUT" in opcode.name and (argument or 0) > count:
            raise ValueError("the memo has more places than the pickle has steps")
        weight.add(opcode, argument)
    end = file.tell()
    file.seek(start)
    reader = _Unpickler(io.BytesIO(file.read(end - start)), encoding="latin1")
    reader.persistent = persistent
    return reader.load()


class _Unpickler(pickle.Unpickler):
    persistent: Callable[[Any], Any] | None = None

    def find_class(self, module: str, name: str) -> type[Foreign]:
        module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        full = f"{module}.{name}"
        if full in _MEANINGS or _HARMLESS.fullmatch(full) or _is_dtype(full) or _STORAGE.fullmatch(full):
            return type(name, (Foreign,), {"name": full})
        raise Refused(full)

    def persistent_load(self, pid: Any) -> Any:
        if self.persistent is None:
            raise ValueError("a plain pickle has no tensors elsewhere")
        return self.persistent(pid)


def storage_of(pid: Any) -> Storage:
    """The storage that a persistent id of `torch.save` names.

    Raises:
        ValueError: it is no such id.
    """
    kind, cls, key, _, numel, *view = pid
    found = _STORAGE.fullmatch(cls.name) if _is_named(cls) else None
    if kind != "storage" or not found or found[1] not in _STORAGES or type(numel) is not int or numel < 0:
        raise ValueError("not the id of a storage")
    part = None
    if view and view[0] is not None:
        _, offset, length = view[0]
        part = (int(offset), int(length))
    return Storage(_STORAGES[found[1]], str(key), numel, part)


def _is_named(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, Foreign)


def _is_dtype(name: str) -> bool:
    return name.startswith("torch.") and isinstance(getattr(torch, name[6:], None), torch.dtype)


def tensor_of(numbers: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """A tensor over flat numbers.

    Raises:
        ValueError: it would reach beyond them.
    """
    plain = all(type(x) is int and x >= 0 for x in (offset, *size, *stride))
    if not plain or len(size) != len(stride):
        raise ValueError("sizes of a tensor that are none")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride)) + 1
    if math.prod(size) and last > numbers.numel():
        raise ValueError("a tensor reaches beyond its numbers")
    return numbers.as_strided(size, stride, offset) if math.prod(size) else numbers.new_empty(size)


def as_data(value: Any, numbers: Callable[[Storage], Tensor] | None = None) -> Any:
    """Turn what `read_pickle` returned into plain data, tensors, arrays, and `Foreign` objects for the rest.

    Args:
        value: see above.
        numbers: the flat tensor of a storage.
    Raises:
        Refused, Exception: as `read_pickle`.
    """
    return _Decoder(numbers).of(value)


class _Decoder:
    def __init__(self, numbers: Callable[[Storage], Tensor] | None) -> None:
        self.numbers = numbers
        self.known: dict[int, Any] = {}

    def of(self, value: Any) -> Any:
        """What a value stands for; what occurs twice in a file is one object afterwards, too."""
        if id(value) not in self.known:
            self.known[id(value)] = self._new(value)
        return self.known[id(value)]

    def _new(self, value: Any) -> Any:
        if isinstance(value, dict):
            made: Any = self.known.setdefault(id(value), {})
            made.update((self.of(key), self.of(item)) for key, item in value.items())
            return made
        if isinstance(value, list):
            made = self.known.setdefault(id(value), [])
            made.extend(self.of(item) for item in value)
            return made
        if isinstance(value, Storage):
            flat = self.numbers(value) if self.numbers else None
            return flat if value.view is None or flat is None else flat.narrow(0, *value.view)
        if isinstance(value, (tuple, set, frozenset)):
            return type(value)(self.of(item) for item in value)
        if _is_named(value):
            return getattr(torch, value.name[6:]) if _is_dtype(value.name) else value()
        return self._object(value) if isinstance(value, Foreign) else value

    def _object(self, value: Foreign) -> Any:
        name, args = value.name, value.args
        if name == "copyreg._reconstructor" and args and _is_named(args[0]):
            value.name = name = args[0].name
            args = ()
        if name == "torch._utils._rebuild_from_type_v2" and _is_named(args[0]):
            name, args = args[0].name, args[2]
        if name in ("builtins.getattr", "operator.getitem"):
            owner = args[0].name if _is_named(args[0]) else ""
            if not (_METHODS if name == "builtins.getattr" else re.compile(r"typing\.\w+")).fullmatch(owner):
                raise Refused(name)
        plain = _MEANINGS.get(name)
        if plain is not None:
            return plain(self.of(args), self.of(value.state), self.of(value.items))
        kept = self.known.setdefault(id(value), Foreign(*()))
        kept.name = name
        kept.args, kept.state, kept.items = self.of(args), self.of(value.state), self.of(value.items)
        return kept


def _tensor(args: tuple, *_: Any) -> Tensor:
    flat, offset, size, stride = args[:4]
    return tensor_of(flat, offset, tuple(size), tuple(stride))


def _tensor_of_bytes(args: tuple, *_: Any) -> Tensor:
    flat, offset, size, stride, _, _, dtype = args[:7]
    return tensor_of(flat.view(dtype), offset, tuple(size), tuple(stride))


def _first(args: tuple, *_: Any) -> Any:
    return args[0]


def _dict(args: tuple, _: Any, items: list) -> dict:
    start = next((x for x in args if isinstance(x, (dict, list))), ())
    return {**dict(start), **dict(items)}


def _dtype(args: tuple, state: Any, _: Any) -> Any:
    code = args[0]
    if not isinstance(code, str) or not _NUMBERS.fullmatch(code):
        return None  # objects, records and dates: no numbers
    order: Any = state[1] if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">") else "="
    return np.dtype(code).newbyteorder(order)


def _array(data: Any, dtype: Any, shape: Any, order: Any) -> Any:
    if isinstance(data, str):
        data = data.encode("latin1")
    if dtype is None or not isinstance(data, (bytes, bytearray)):
        return Foreign(data)
    return np.frombuffer(data, dtype).reshape(shape, order=order).astype(dtype.newbyteorder("="))


def _array_of_state(_: Any, state: tuple, __: Any) -> Any:
    *_, shape, dtype, fortran, data = state
    return _array(data, dtype, shape, "F" if fortran else "C")


def _number(args: tuple, *_: Any) -> Any:
    found = _array(args[1], args[0], (), "C")
    return found.item() if isinstance(found, np.ndarray) else found


def _bytes(args: tuple, *_: Any) -> bytes:
    return args[0].encode("utf-8" if args[1:] == ("utf-8",) else "latin1")


def _method(args: tuple, *_: Any) -> Foreign:
    made = Foreign()
    made.name = f"{args[0].name}.{args[1]}"
    return made


# What these names mean, given arguments, state and items. Nothing else in a file means more than itself.
_MEANINGS: dict[str, Callable[[tuple, Any, list], Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_bytes,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._utils._rebuild_from_type_v2": _first,
    "torch.serialization._get_layout": _first,
    "torch.torch_version.TorchVersion": _first,
    "torch.Size": lambda args, *_: tuple(int(x) for x in args[0]),
    "builtins.set": lambda args, *_: set(*args),
    "builtins.frozenset": lambda args, *_: frozenset(*args),
    "builtins.bytearray": lambda args, *_: args[0] if args and isinstance(args[0], bytes) else b"",
    "builtins.complex": lambda args, *_: complex(*args),
    "builtins.getattr": _method,
    "operator.getitem": _first,
    "copyreg._reconstructor": _first,
    "_codecs.encode": _bytes,
    "collections.deque": lambda args, _, items: [*(args[0] if args else ()), *items],
    **dict.fromkeys(("collections.OrderedDict", "collections.defaultdict", "collections.Counter"), _dict),
    **dict.fromkeys(("addict.addict.Dict", "addict.Dict", "mmcv.utils.config.ConfigDict"), _dict),
    **dict.fromkeys(("mmengine.config.ConfigDict", "mmengine.config.config.ConfigDict"), _dict),
    "numpy.dtype": _dtype,
    **{f"numpy.{core}.multiarray._reconstruct": _array_of_state for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _number for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": lambda args, *_: _array(*args) for core in ("core", "_core")},
    **{
        f"pathlib{module}.{kind}Path": lambda args, *_: str(PurePosixPath(*args))
        for module in ("", "._local")
        for kind in ("", "Pure", "Posix", "Windows", "PurePosix", "PureWindows")
    },
}

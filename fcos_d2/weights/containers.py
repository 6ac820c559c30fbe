"""The kinds of files that weights come in, told apart by their content; see `pickles` for why nothing in them runs.

- PyTorch's archive: a zip whose `data.pkl` names the records with the numbers, which lie uncompressed;
- PyTorch's older format: pickles one after the other, then the numbers;
- a plain pickle of NumPy arrays, as the model zoos of Detectron2 and Caffe2 have it;
- safetensors: a JSON header, then the numbers.
"""

from __future__ import annotations

import json
import os
import struct
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from ..errors import FcosError
from ..files import os_error
from .pickles import Refused, Storage, as_data, read_pickle, storage_of, tensor_of

__all__ = ["SUFFIXES", "load"]

SUFFIXES = (".pth", ".pt", ".bin", ".pyth", ".pkl", ".safetensors")
# The first pickle of PyTorch's older format.
_MAGIC = 0x1950A86A20F9469CFC6C
_SAFETENSORS = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


def load(path: str | Path) -> dict[str, Any]:
    """What a file of weights holds, on the CPU; nothing in it is run.

    Args:
        path: of any kind above, whatever it is called.
    Returns:
        Its content: dicts, lists, tuples, strings, numbers, tensors, arrays, and `pickles.Foreign` for harmless objects
        of other projects.
    Raises:
        FcosError: the file is missing, cut off, damaged, or holds an object that could run code.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        raise FcosError(f"The checkpoint {path} is a folder: name the file in it.")
    if not path.is_file():
        raise FcosError(f"The checkpoint {path} does not exist.")
    try:
        with path.open("rb") as file:
            payload = _content(file)
    except FcosError as error:
        raise FcosError(f"The checkpoint {path} {error}") from error
    except Refused as error:
        raise FcosError(
            f"The checkpoint {path} holds the object '{error.name}', which could run code when it is read; only "
            "tensors and plain data are accepted, and nothing was run."
        ) from error
    except Exception as error:  # a damaged file raises anything
        if cause := os_error(error):
            raise FcosError(f"The checkpoint {path} cannot be read: {cause.strerror or cause}.") from error
        raise FcosError(f"The checkpoint {path} is cut off, damaged, or no checkpoint at all.") from error
    if not isinstance(payload, dict):
        raise FcosError(f"The checkpoint {path} holds {type(payload).__name__} instead of named weights.")
    return payload


def _content(file: BinaryIO) -> Any:
    start = file.read(9)
    file.seek(0)
    if start.startswith(b"PK\x03\x04"):
        return _archive(file)
    if start[8:] == b"{":
        return _safetensors(file)
    first = as_data(read_pickle(file))
    return _older(file) if first == _MAGIC else first


class _Numbers:
    """The flat tensors of a file, each read once.

    Args:
        file: to read from.
        place: key -> (where its numbers begin, how many bytes they are).
        swapped: the bytes of each number are in the other order.
    """

    def __init__(self, file: BinaryIO, place: Callable[[str], tuple[int, int]], swapped: bool = False) -> None:
        self.file, self.place, self.swapped = file, place, swapped
        self.known: dict[tuple[str, torch.dtype], Tensor] = {}
        self.left = os.fstat(file.fileno()).st_size

    def __call__(self, storage: Storage) -> Tensor:
        key = storage.key, storage.dtype
        if key not in self.known:
            start, length = self.place(storage.key)
            self.left -= length
            if length != storage.numel * storage.dtype.itemsize or self.left < 0:
                raise ValueError("numbers of another length than the tensors say")
            self.file.seek(start)
            self.known[key] = self._read(length, storage.dtype)
        return self.known[key]

    def _read(self, length: int, dtype: torch.dtype) -> Tensor:
        raw = torch.empty(length, dtype=torch.uint8)
        room: Any = raw.numpy()
        if self.file.readinto(memoryview(room)) != length:  # type: ignore[attr-defined]  # BinaryIO lacks it
            raise ValueError("cut off")
        if self.swapped:
            raw = raw.view(-1, dtype.itemsize).flip(1).flatten()
        return raw.view(dtype)


def _archive(file: BinaryIO) -> Any:
    records = {info.filename: info for info in zipfile.ZipFile(file).infolist()}
    pickles = [name for name in records if name.split("/")[1:] == ["data.pkl"]]
    if len(pickles) != 1:
        raise ValueError("no archive of PyTorch")
    folder = pickles[0].removesuffix("data.pkl")
    if f"{folder}constants.pkl" in records or any(name.startswith(f"{folder}code/") for name in records):
        raise FcosError("is a TorchScript program: save its weights alone, with torch.save(model.state_dict(), FILE).")

    def place(name: str) -> tuple[int, int]:
        info = records[name]
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise FcosError("is a compressed archive: load it where it was made, and save it with torch.save.")
        file.seek(info.header_offset)
        header = struct.unpack("<4s22xHH", file.read(30))
        if header[0] != b"PK\x03\x04":
            raise ValueError("no record where one should be")
        return info.header_offset + 30 + header[1] + header[2], info.file_size

    order: str = sys.byteorder
    if f"{folder}byteorder" in records:
        start, length = place(f"{folder}byteorder")
        file.seek(start)
        order = file.read(min(length, 9)).decode()
    start, _ = place(pickles[0])
    numbers = _Numbers(file, lambda key: place(f"{folder}data/{key}"), order != sys.byteorder)
    file.seek(start)
    return as_data(read_pickle(file, storage_of), numbers)


def _older(file: BinaryIO) -> Any:
    version, system = as_data(read_pickle(file)), as_data(read_pickle(file))
    if version != 1001:
        raise ValueError("no version of PyTorch's format")
    sizes: dict[str, int] = {}

    def persistent(pid: Any) -> Storage:
        storage = storage_of(pid)
        sizes[storage.key] = storage.dtype.itemsize
        return storage

    tree, keys = read_pickle(file, persistent), as_data(read_pickle(file))
    places = {}
    for key in keys:
        (count,) = struct.unpack("<q", file.read(8))
        places[str(key)] = file.tell(), count * sizes[str(key)]
        file.seek(count * sizes[str(key)], os.SEEK_CUR)
    swapped = isinstance(system, Mapping) and system.get("little_endian", True) != (sys.byteorder == "little")
    return as_data(tree, _Numbers(file, places.__getitem__, swapped))


def _safetensors(file: BinaryIO) -> dict[str, Tensor]:
    (length,) = struct.unpack("<Q", file.read(8))
    header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    base = file.tell()
    spans = {name: row["data_offsets"] for name, row in header.items()}
    places = {name: (base + first, last - first) for name, (first, last) in spans.items()}
    if any(start < base for start, _ in places.values()):
        raise ValueError("numbers in the header")
    numbers, tensors = _Numbers(file, places.__getitem__, sys.byteorder == "big"), {}
    for name, row in header.items():
        dtype, shape = _SAFETENSORS[row["dtype"]], row["shape"]
        flat = numbers(Storage(dtype, name, places[name][1] // dtype.itemsize))
        tensors[name] = tensor_of(flat, 0, tuple(shape), torch.empty(shape, device="meta").stride())
    return tensors

"""The kinds of files that weights come in, told apart by their content; see `pickles` for why nothing in them runs.

- PyTorch's archive: a zip whose `data.pkl` names the records with the numbers, which lie uncompressed;
- PyTorch's older format: pickles one after the other, then the numbers;
- a plain pickle of NumPy arrays, as the model zoos of Detectron2 and Caffe2 have it;
- safetensors: a JSON header, then the numbers.
"""

from __future__ import annotations

import io
import json
import os
import struct
import sys
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from ..errors import FcosError
from ..files import os_error
from ..paths import require_checkpoint
from .packing import unpacked
from .pickles import STORAGES, Foreign, Refused, read_pickle

__all__ = ["SUFFIXES", "load"]

SUFFIXES = (".pth", ".pt", ".bin", ".pyth", ".pkl", ".safetensors")
# The first pickle of PyTorch's older format.
_MAGIC = 0x1950A86A20F9469CFC6C
_SAFETENSORS = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


def load(path: str | Path) -> dict[str, Any]:
    """What a file of weights of any kind holds, on the CPU, whatever it is called; nothing in it is run.

    Returns:
        Dicts, lists, tuples, strings, numbers, tensors, arrays, and `pickles.Foreign` for harmless objects of other
        projects.
    Raises:
        FcosError: the file is missing, cut off, damaged, or holds an object that could run code.
    """
    path = require_checkpoint(path)
    try:
        with path.open("rb") as file:
            payload = _content(file)
    except FcosError as error:
        raise FcosError(f"The checkpoint {path} {error}") from error
    except Refused as error:
        name = str(error).encode("unicode_escape").decode()[:120]
        raise FcosError(
            f"The checkpoint {path} holds the object '{name}', which could run code when it is read; only tensors and "
            "plain data are accepted, and nothing was run."
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
    first = read_pickle(file)
    return _older(file) if first == _MAGIC else first


class _Storages(dict[str, Tensor]):
    """The flat tensors of a file by their keys; empty until `fill`, for a pickle names them apart from their numbers.

    Args:
        file: whose numbers they are; together they cannot be longer.
    """

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self.file, self.left = file, os.fstat(file.fileno()).st_size

    def of_id(self, pid: Any) -> Tensor:
        """The tensor that a persistent id of `torch.save` names; raises ValueError if it is none."""
        kind, cls, key, _, numel, *view = pid
        if kind != "storage" or not isinstance(cls, Foreign) or not isinstance(key, str):
            raise ValueError("not the id of a storage")
        flat = self.of(key, STORAGES[cls.name], numel)
        return flat if not view or view[0] is None else flat.narrow(0, *view[0][1:])

    def of(self, key: str, dtype: torch.dtype, numel: int) -> Tensor:
        """The tensor of a key; raises ValueError if the file cannot hold it, or has said something else of it."""
        if key not in self:
            self.left -= numel * dtype.itemsize
            if self.left < 0:
                raise ValueError("more numbers than bytes")
            self[key] = torch.empty(numel, dtype=dtype)
        if self[key].dtype != dtype:
            raise ValueError("numbers of two kinds")
        return self[key]

    def fill(self, key: str, start: int, length: int, swapped: bool = False) -> None:
        """Read the numbers of a key, whose bytes may be in the other order; raises ValueError if they are too few."""
        raw = self[key].view(torch.uint8)
        self.file.seek(start)
        if length != len(raw) or self.file.readinto(raw.numpy()) != length:  # type: ignore[attr-defined]
            raise ValueError("cut off")
        if swapped:
            raw.copy_(raw.view(-1, self[key].itemsize).flip(1).flatten())


def _archive(file: BinaryIO) -> Any:
    records = {info.filename: info for info in zipfile.ZipFile(file).infolist()}
    pickles = [name for name in records if name.split("/")[1:] == ["data.pkl"]]
    if len(pickles) != 1:
        raise ValueError("no archive of PyTorch")
    folder = pickles[0].removesuffix("data.pkl")
    if f"{folder}constants.pkl" in records or any(name.startswith(f"{folder}code/") for name in records):
        raise FcosError("is a TorchScript program: save its weights alone, with torch.save(model.state_dict(), FILE).")

    def place(name: str) -> tuple[int, int]:
        """Where the bytes of a record begin, and how many they are."""
        info = records[f"{folder}{name}"]
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise FcosError("is a compressed archive: load it where it was made, and save it with torch.save.")
        file.seek(info.header_offset)
        header = struct.unpack("<4s22xHH", file.read(30))
        if header[0] != b"PK\x03\x04":
            raise ValueError("no record where one should be")
        return info.header_offset + 30 + header[1] + header[2], info.file_size

    def content(name: str) -> bytes:
        start, length = place(name)
        file.seek(start)
        return file.read(length)

    order = content("byteorder").decode() if f"{folder}byteorder" in records else sys.byteorder
    storages = _Storages(file)
    tree = read_pickle(io.BytesIO(content("data.pkl")), storages.of_id)
    for key in storages:
        storages.fill(key, *place(f"data/{key}"), order != sys.byteorder)
    return tree


def _older(file: BinaryIO) -> Any:
    version, system = read_pickle(file), read_pickle(file)
    if version != 1001:
        raise ValueError("no version of PyTorch's format")
    storages = _Storages(file)
    tree, keys = read_pickle(file, storages.of_id), read_pickle(file)
    if not all(isinstance(key, str) for key in keys) or storages.keys() != {*keys}:
        raise ValueError("not the keys of the storages")
    swapped = isinstance(system, dict) and system.get("little_endian", True) != (sys.byteorder == "little")
    for key in keys:
        (count,) = struct.unpack("<q", file.read(8))
        storages.fill(key, file.tell(), count * storages[key].itemsize, swapped)
    return tree


def _safetensors(file: BinaryIO) -> dict[str, Any]:
    (length,) = struct.unpack("<Q", file.read(8))
    header = json.loads(file.read(length))
    metadata = header.pop("__metadata__", None)
    base, storages = file.tell(), _Storages(file)
    for name, row in header.items():
        first, last = row["data_offsets"]
        if first < 0:
            raise ValueError("numbers in the header")
        dtype = _SAFETENSORS[row["dtype"]]
        storages.of(name, dtype, (last - first) // dtype.itemsize)
        storages.fill(name, base + first, last - first, sys.byteorder == "big")
    return unpacked({name: flat.reshape(header[name]["shape"]) for name, flat in storages.items()}, metadata)

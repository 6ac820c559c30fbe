"""Checkpoints: written so that a file is either whole or the old one, read without running anything in them.

A checkpoint is a dict: "model" (weights), "trainer" (all that `LazyTrainer` needs to go on, see there), "iteration"
(the last one finished), "class_names", "config" (YAML text, see `configuration.parse_config`), and "ema" (averaged
weights) where training kept them. Detectron2's own `DetectionCheckpointer` reads the same files.
"""

from __future__ import annotations

import os
import pickle
import re
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import numpy as np
import torch
from detectron2.checkpoint import DetectionCheckpointer

from ..errors import FcosError

__all__ = ["Checkpointer", "load", "read_model_zoo", "save", "write_atomically"]


def write_atomically(path: str | Path, write: Any) -> None:
    """Write a file through a temporary one beside it, so that nobody ever meets half of it.

    Args:
        path: the file; its folder is made.
        write: called with the temporary file, open for writing bytes.
    Raises:
        FcosError: it cannot be written (no space left, say); what was at `path` before is still there.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch.save turns a failed write into a RuntimeError
        cause = error if isinstance(error, OSError) else _os_error(error)
        reason = cause.strerror if cause is not None and cause.strerror else str(error).splitlines()[0]
        kept = "; the file of that name is unchanged" if path.is_file() else ""
        raise FcosError(f"{path} cannot be written: {reason}{kept}.") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def _os_error(error: BaseException | None) -> OSError | None:
    """The `OSError` that caused another error."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def _sync_folder(folder: Path) -> None:
    """Make the new name itself durable, where the system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def save(path: str | Path, payload: dict[str, Any]) -> None:
    """Write a checkpoint atomically.

    Args:
        path: the file.
        payload: tensors, numbers, strings, and dicts, lists and tuples of them: what `load` accepts.
    Raises:
        FcosError: the file cannot be written; an old one stays as it is.
    """
    write_atomically(path, lambda file: torch.save(payload, file))


# How torch says that a file names an object which it does not know as harmless.
_UNSUPPORTED = re.compile(r"unsupported (?:global|class)[: ]+(?:GLOBAL )?([\w.]+)", re.IGNORECASE)


def load(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint on the CPU; nothing in it is run.

    Args:
        path: a file of `torch.save`, or with the suffix .pkl one of Detectron2's model zoo.
    Raises:
        FcosError: the file is missing, cut off, damaged, or holds more than tensors and plain data.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FcosError(f"The checkpoint {path} does not exist.")
    if path.suffix == ".pkl":
        return read_model_zoo(path)
    try:
        payload = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises anything from KeyError to UnpicklingError
        if cause := _os_error(error):
            raise FcosError(f"The checkpoint {path} cannot be read: {cause.strerror or cause}.") from error
        if found := _UNSUPPORTED.search(str(error)):
            raise _hostile(path, found[1]) from error
        raise FcosError(f"The checkpoint {path} is cut off, damaged, or no checkpoint at all.") from error
    if not isinstance(payload, dict):
        raise FcosError(f"The checkpoint {path} holds {type(payload).__name__} instead of named weights.")
    return payload


def _hostile(path: Path, name: str) -> FcosError:
    return FcosError(
        f"The checkpoint {path} holds the object '{name}', which could run code when it is read; only tensors and "
        "plain data are accepted, and nothing was run."
    )


# Detectron2's model zoo


_PLAIN_OBJECTS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("numpy", "dtype"): np.dtype,
    ("numpy", "ndarray"): np.ndarray,
}
_NUMPY_MAKERS = ("_reconstruct", "scalar")


class _ArrayUnpickler(pickle.Unpickler):
    """Reads pickles of numbers, strings, containers and NumPy arrays."""

    path = Path()

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _PLAIN_OBJECTS:
            return _PLAIN_OBJECTS[module, name]
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name in _NUMPY_MAKERS:
            return getattr(_multiarray(), name)
        if (module, name) == ("_codecs", "encode"):  # how Python 2 strings are written
            return _encode
        raise _hostile(self.path, f"{module}.{name}")


def _multiarray() -> Any:
    import importlib

    try:
        return importlib.import_module("numpy._core.multiarray")
    except ImportError:  # NumPy 1
        return importlib.import_module("numpy.core.multiarray")


def _encode(text: str, encoding: str = "latin1") -> bytes:
    return text.encode("latin1" if encoding == "latin1" else "utf-8")


def read_model_zoo(path: str | Path) -> dict[str, Any]:
    """Read a .pkl of Detectron2's or Caffe2's model zoo: NumPy arrays and plain data only.

    Returns:
        "model": {name: array}, "__author__", and "matching_heuristics" where names have to be guessed, as
        `DetectionCheckpointer` expects.
    Raises:
        FcosError: the file is cut off, or holds any other object; nothing is run.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            reader = _ArrayUnpickler(file, encoding="latin1")
            reader.path = path
            data = reader.load()
    except FcosError:
        raise
    except OSError as error:
        raise FcosError(f"The checkpoint {path} cannot be read: {error.strerror or error}.") from error
    except Exception as error:  # a damaged pickle raises anything
        raise FcosError(f"The checkpoint {path} is cut off, damaged, or no checkpoint at all.") from error
    if not isinstance(data, dict):
        raise FcosError(f"The checkpoint {path} holds {type(data).__name__} instead of named weights.")
    if "model" in data and "__author__" in data:
        return data
    arrays = data.get("blobs", data)
    weights = {name: value for name, value in arrays.items() if not str(name).endswith("_momentum")}
    return {"model": weights, "__author__": "Caffe2", "matching_heuristics": True}


# Writing and reading while training


class Checkpointer(DetectionCheckpointer):
    """Detectron2's checkpointer with atomic writing and safe reading.

    Args:
        model: whose weights are kept.
        save_dir: folder of the files and of `last_checkpoint`.
        extra: plain data that each file holds besides ("class_names", "config").
        checkpointables: objects with `state_dict`, by the name of their entry.
    """

    def __init__(
        self, model: torch.nn.Module, save_dir: str, *, extra: dict[str, Any] | None = None, **checkpointables: Any
    ) -> None:
        super().__init__(model, save_dir, **checkpointables)
        self.extra = dict(extra or {})

    def save(self, name: str, *, tag: bool = True, **extra: Any) -> None:
        """Write `<name>.pth`.

        Args:
            name: without suffix.
            tag: whether training resumes from it.
            extra: more entries of this file; those that are named like a usual one replace it, those that are None
                leave it out.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        payload = {"model": None, **dict.fromkeys(self.checkpointables), **self.extra, **extra}
        payload["model"] = extra.get("model") or self.model.state_dict()
        for key, holder in self.checkpointables.items():
            payload[key] = holder.state_dict() if key not in extra else extra[key]
        file = Path(self.save_dir) / f"{name}.pth"
        save(file, {key: value for key, value in payload.items() if value is not None})
        if tag:
            self.tag_last_checkpoint(file.name)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        path = Path(self.save_dir) / "last_checkpoint"
        write_atomically(path, lambda file: file.write(last_filename_basename.encode()))

    def get_checkpoint_file(self) -> str:
        """The file that training resumes from.

        Raises:
            FcosError: `last_checkpoint` names a file that is gone.
        """
        path = super().get_checkpoint_file()
        if not path or not os.path.isfile(path):
            raise FcosError(
                f"{Path(self.save_dir) / 'last_checkpoint'} names {Path(path).name or 'nothing'}, which is not there: "
                "write the name of another checkpoint of that folder into it, or start without resuming."
            )
        return path

    def _load_file(self, filename: str) -> dict[str, Any]:
        payload = load(filename)
        if "model" not in payload:
            payload = {"model": payload}
        url = getattr(self, "_parsed_url_during_load", None)  # "file.pth?matching_heuristics=True"; not in 0.6
        if url is not None and parse_qs(url.query).get("matching_heuristics") == ["True"]:
            payload["matching_heuristics"] = True
        return payload


def is_address(path: str) -> bool:
    """Whether it names something to download (https://, detectron2://, catalog://) rather than a file."""
    return len(urlparse(path).scheme) > 1

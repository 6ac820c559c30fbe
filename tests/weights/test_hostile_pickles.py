"""Files that would run code or break the process when they are read, of which nothing runs; and harmless ones."""

from __future__ import annotations

import argparse
import builtins
import codecs
import collections
import copyreg
import datetime
import decimal
import functools
import importlib
import io
import logging
import os
import pathlib
import pickle
import runpy
import shutil
import struct
import subprocess
import sys
import timeit
import types
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yacs.config
from detectron2.structures import BoxMode
from omegaconf import OmegaConf
from torch.utils import collect_env

from fcos_d2 import importers
from fcos_d2.errors import FcosError
from fcos_d2.weights.containers import load
from fcos_d2.weights.pickles import Foreign
from fcos_d2.weights.read import read

WEIGHTS = {"rpn.head.cls_logits.bias": torch.zeros(80)}
CONTAINERS = ("archive", "older", "pickle")


class Call:
    """When it is unpickled freely, `function(*arguments)` runs."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.reduced = function, arguments

    def __reduce__(self) -> tuple:
        return self.reduced

    def __call__(self) -> None:
        """So that what one call gives can be called by another."""


def write(path: Path, content: object, container: str) -> Path:
    if container == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=container == "archive")
    return path


def refused(path: Path) -> str:
    """The one sentence that every reader says of a file."""
    texts = set()
    for reader in (load, read, importers.load, importers.load_backbone):
        with pytest.raises(FcosError) as error:
            reader(path)
        texts.add(str(error.value))
    (text,) = texts
    assert "\n" not in text and text.endswith(".") and str(path) in text
    return text


def script(target: str) -> str:
    path = f"{target}.py"
    Path(path).write_text(f"open({target!r}, 'w')")
    return path


# Each makes a file or folder at the path that it is given once it is unpickled freely; the sentence has the key.
CALLS: dict[str, Callable[[str], Any]] = {
    "posix.system": lambda p: Call(os.system, f"touch {p}"),
    "posix.mkdir": lambda p: Call(os.mkdir, p),
    "os.makedirs": lambda p: Call(os.makedirs, p),
    "subprocess.call": lambda p: Call(subprocess.call, ["touch", p]),
    "builtins.exec": lambda p: Call(exec, f"open({p!r}, 'w')"),
    "builtins.eval": lambda p: Call(eval, f"open({p!r}, 'w')"),
    "builtins.map": lambda p: Call(list, Call(map, Call(functools.partial, os.mkdir), [p])),
    "io.open": lambda p: Call(open, p, "w"),
    "_io.FileIO": lambda p: Call(io.FileIO, p, "w"),
    "builtins.getattr": lambda p: Call(Call(getattr, pathlib.Path(p), "touch")),
    "builtins.__import__": lambda p: Call(Call(getattr, Call(builtins.__import__, "os"), "mkdir"), p),
    "importlib.import_module": lambda p: Call(Call(getattr, Call(importlib.import_module, "os"), "mkdir"), p),
    "functools.partial": lambda p: Call(functools.partial(os.mkdir, p)),
    "pathlib.Path.touch": lambda p: Call(pathlib.Path.touch, pathlib.Path(p)),
    "runpy.run_path": lambda p: Call(runpy.run_path, script(p)),
    "shutil.copyfile": lambda p: Call(shutil.copyfile, script(p), p),
    "timeit.timeit": lambda p: Call(timeit.timeit, f"open({p!r}, 'w')", "pass", timeit.default_timer, 1),
    "codecs.open": lambda p: Call(codecs.open, p, "w"),
    "pickle.loads": lambda p: Call(pickle.loads, pickle.dumps(Call(os.mkdir, p))),
    "logging.FileHandler": lambda p: Call(logging.FileHandler, p),
    "numpy.lib.format.open_memmap": lambda p: Call(np.lib.format.open_memmap, p, "w+", "f4", (1,)),
    "torch.serialization.save": lambda p: Call(torch.save, 1, p),
    "torch.hub.download_url_to_file": lambda p: Call(torch.hub.download_url_to_file, f"file://{script(p)}", p),
    "torch.utils.collect_env.run": lambda p: Call(collect_env.run, f"touch {p}"),
}


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("name", CALLS)
def test_calls_are_not_made(name: str, container: str, tmp_path: Path) -> None:
    target = tmp_path / "went_off"
    path = write(
        tmp_path / "x.pth",
        {"model": WEIGHTS if container != "pickle" else {}, "x": CALLS[name](str(target))},
        container,
    )

    text = refused(path)

    first = text.partition("holds the object '")[2].partition("'")[0]
    in_c = name.replace("pickle", "_pickle"), f"_{name}"  # of the module that is written in C
    assert first in (name, *in_c, "builtins.getattr"), text
    assert "nothing was run" in text
    assert not target.exists()
    pickle.loads(pickle.dumps(CALLS[name](str(target))))
    assert target.exists()  # it is a bomb: whoever unpickles it freely sets it off


class Bomb:
    """Runs by the state that it is given, by its items, or by the class that it is made of."""

    def __setstate__(self, state: str) -> None:
        os.mkdir(state)


OPCODES = {
    "INST": b"(S'touch {p}'\nios\nsystem\n.",
    "OBJ": b"(cos\nsystem\nS'touch {p}'\no.",
    "GLOBAL of Python 2": b'c__builtin__\neval\n(S\'open("{p}", "w")\'\ntR.',
    "STACK_GLOBAL": b"\x80\x04\x8c\x02os\x8c\x06system\x93(S'touch {p}'\ntR.",
    "STACK_GLOBAL of a memo": b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94\x30\x30h\x00h\x01\x93(S'touch {p}'\ntR.",
    "dotted name": b"\x80\x04\x8c\x0bcollections\x8c\x1cOrderedDict.__init__.__globals__\x93.",
    "module by attribute": b"\x80\x04\x8c\x05torch\x8c\x09os.system\x93(S'touch {p}'\ntR.",
    "name that is no text": b"\x80\x04K\x01K\x02\x93.",
    "a module's name with a newline": b"\x80\x04\x8c\x04os\nx\x8c\x06system\x93.",
    "PERSID": b"Pstorage\n.",
    "BINPERSID": b"(S'storage'\ncos\nsystem\nS'0'\nS'cpu'\nK\x01tQ.",
    "EXT1": b"\x80\x02\x82\xf0(S'touch {p}'\ntR.",
    "REDUCE of an object": b"cargparse\nNamespace\n(tR(S'touch {p}'\ntR.",
    "BUILD of a class": b"ccollections\nOrderedDict\n(dS'__reduce__'\nS'x'\nsb.",
    "BUILD of a function": b"ctorch._utils\n_rebuild_tensor_v2\n(N(dS'__defaults__'\n(tstb.",
    "BUILD of a dict": b"(d(dS'items'\nS'x'\nsb.",
    "BUILD of a number": b"K\x01(dS'x'\nK\x01sb.",
    "NEWOBJ of no class": b"\x80\x02K\x01)\x81.",
    "NEWOBJ of a module's function": b"\x80\x02cos\nsystem\n(S'touch {p}'\nt\x81.",
    "getattr of a class that is data": b"c__builtin__\ngetattr\n(ccollections\nOrderedDict\nS'__init__'\ntR.",
    "getattr of a name": b"c__builtin__\ngetattr\n(cargparse\nNamespace\nS'__class__'\ntR.",
    "getitem": b"coperator\ngetitem\n(cargparse\nNamespace\nS'__class__'\ntR.",
    "attrgetter": b"coperator\nattrgetter\n(S'system'\ntR.",
    "reconstructor": b"ccopy_reg\n_reconstructor\n(cos\nsystem\nc__builtin__\nobject\nNtR.",
    "array of objects": b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tS'b'\ntR(K\x01(K\x01t"
    b"cos\nsystem\nI00\n]tb.",
    "array beyond its bytes": b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tS'b'\ntR(K\x01("
    b"J\xff\xff\xff\x7ft"
    b"cnumpy\ndtype\n(S'f4'\nI00\nI01\ntRI00\nS'abcd'\ntb.",
    "memo of 32 GB": b"K\x01r\xff\xff\xff\x7f.",
    "text of 2^60 bytes": b"\x80\x04\x8d" + struct.pack("<Q", 2**60) + b"abc.",
    "itself in a tuple": b"\x80\x02]q\x00h\x00\x85q\x01a(lh\x01a.",
    "half a pickle": b"\x80\x04}(\x8c\x05model",
    "nothing on the stack": b".",
    "unknown step": b"\xff\xfe.",
    "out of band": b"\x80\x05\x97.",
}


@pytest.fixture
def extension() -> Iterator[None]:
    """Some library of the running program has given `os.system` a number, and it was used."""
    copyreg.add_extension("posix", "system", 0xF0)
    pickle.loads(b"\x80\x02\x82\xf0.")
    yield
    copyreg.remove_extension("posix", "system", 0xF0)


@pytest.mark.parametrize("name", OPCODES)
def test_opcodes_that_pickle_never_writes_so(name: str, extension: None, tmp_path: Path) -> None:
    target, before = tmp_path / "went_off", torch._utils._rebuild_tensor_v2.__defaults__
    for file in ("x.pkl", "x.pth"):
        (tmp_path / file).write_bytes(OPCODES[name].replace(b"{p}", str(target).encode()))
        text = refused(tmp_path / file)
        assert "could run code" in text or "cut off, damaged" in text or "holds" in text
    assert not target.exists()
    assert torch._utils._rebuild_tensor_v2.__defaults__ == before


def test_hooks_of_an_objects_class_are_not_called(tmp_path: Path) -> None:
    bomb = Bomb()
    bomb.__dict__["x"] = 1
    stream = pickle.dumps(bomb)
    path = tmp_path / "x.pkl"
    path.write_bytes(stream)
    assert "Bomb', which could run code" in refused(path)


def archive(path: Path, records: dict[str, bytes], kind: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", kind) as file:
        for name, data in records.items():
            file.writestr(f"x/{name}", data)
    return path


def tensor_pickle(numel: int = 4, offset: int = 0, size: tuple = (4,), stride: tuple = (1,), key: str = "0") -> bytes:
    """{"w": a tensor of float32} as `torch.save` writes it, but with other numbers."""
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, protocol=2)
    marker = object()
    pickler.persistent_id = lambda value: (
        ("storage", torch.FloatStorage, key, "cpu", numel) if value is marker else None
    )
    pickler.dump({"w": Call(torch._utils._rebuild_tensor_v2, marker, offset, size, stride, False, {})})
    return buffer.getvalue()


ARCHIVES: dict[str, Callable[[Path], object]] = {
    "beyond its numbers": lambda p: archive(p, {"data.pkl": tensor_pickle(size=(5,)), "data/0": bytes(16)}),
    "a stride beyond": lambda p: archive(p, {"data.pkl": tensor_pickle(stride=(9,)), "data/0": bytes(16)}),
    "an offset before": lambda p: archive(p, {"data.pkl": tensor_pickle(offset=-1), "data/0": bytes(16)}),
    "a size that overflows": lambda p: archive(p, {"data.pkl": tensor_pickle(size=(2**62, 8)), "data/0": bytes(16)}),
    "fewer bytes than numbers": lambda p: archive(p, {"data.pkl": tensor_pickle(numel=2**40), "data/0": bytes(16)}),
    "no numbers": lambda p: archive(p, {"data.pkl": tensor_pickle()}),
    "numbers of another folder": lambda p: archive(p, {"data.pkl": tensor_pickle(key="../../etc/passwd")}),
    "a compressed bomb": lambda p: archive(
        p, {"data.pkl": tensor_pickle(), "data/0": bytes(10**6)}, zipfile.ZIP_DEFLATED
    ),
    "a program": lambda p: archive(p, {"data.pkl": tensor_pickle(), "constants.pkl": b"", "code/x.py": b"import os"}),
    "two pickles": lambda p: (archive(p, {"data.pkl": tensor_pickle()}), _append(p, "y/data.pkl", b"N.")),
    "no pickle": lambda p: archive(p, {"data/0": bytes(16)}),
    "half": lambda p: (torch.save(WEIGHTS, p), p.write_bytes(p.read_bytes()[:-200])),
    "half of the older format": lambda p: (
        torch.save(WEIGHTS, p, _use_new_zipfile_serialization=False),
        p.write_bytes(p.read_bytes()[:-20]),
    ),
    "an older program": lambda p: p.write_bytes(pickle.dumps(torch.nn.Linear(1, 1), protocol=2)),
    "safetensors beyond": lambda p: p.write_bytes(safetensors({"w": ("F32", [9], [0, 16])}, bytes(16))),
    "safetensors before": lambda p: p.write_bytes(safetensors({"w": ("F32", [4], [-16, 0])}, bytes(16))),
    "safetensors without end": lambda p: p.write_bytes(struct.pack("<Q", 2**60) + b"{}"),
    "empty": lambda p: p.write_bytes(b""),
    "a folder": lambda p: p.mkdir(),
    "not there": lambda p: None,
}


def _append(path: Path, name: str, data: bytes) -> None:
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(name, data)


def safetensors(rows: dict[str, tuple], data: bytes) -> bytes:
    import json

    header = json.dumps({n: {"dtype": d, "shape": s, "data_offsets": o} for n, (d, s, o) in rows.items()}).encode()
    return struct.pack("<Q", len(header)) + header + data


@pytest.mark.parametrize("name", ARCHIVES)
def test_containers_that_lie_or_are_no_weights(name: str, tmp_path: Path) -> None:
    ARCHIVES[name](tmp_path / "x.pth")
    text = refused(tmp_path / "x.pth")
    assert any(
        word in text for word in ("cut off", "does not exist", "a folder", "compressed", "TorchScript", "run code")
    )


# Harmless


def foreign(module: str, name: str, state: dict[str, Any]) -> Any:
    """An object of a class of a library that is not installed."""
    for i in range(module.count(".") + 1):
        part = ".".join(module.split(".")[: i + 1])
        sys.modules.setdefault(part, types.ModuleType(part))
    if not hasattr(sys.modules[module], name):
        setattr(sys.modules[module], name, type(name, (), {"__module__": module, "mean": lambda self: None}))
    made = getattr(sys.modules[module], name)()
    made.__dict__.update(state)
    return made


@pytest.fixture
def no_new_modules() -> Iterator[None]:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def history() -> Any:
    return foreign(
        "mmengine.logging.history_buffer",
        "HistoryBuffer",
        {"_log_history": np.arange(3.0), "_count_history": np.ones(3), "max_length": 10},
    )


HARMLESS: dict[str, tuple[Callable[[], Any], Any]] = {
    "NumPy number": (lambda: np.float64(1.5), 1.5),
    "NumPy text": (lambda: np.str_("a"), "a"),
    "NumPy array": (lambda: np.arange(3), [0, 1, 2]),
    "NumPy array of the other byte order": (lambda: np.arange(3, dtype=">i2"), [0, 1, 2]),
    "NumPy array in columns": (lambda: np.asfortranarray(np.arange(4).reshape(2, 2)), [[0, 1], [2, 3]]),
    "NumPy array of objects": (lambda: np.array([None, {}]), Foreign),
    "NumPy dtype": (lambda: np.dtype("float32"), np.dtype("float32")),
    "Namespace": (lambda: argparse.Namespace(lr=0.1), "argparse.Namespace"),
    "HistoryBuffer": (history, "mmengine.logging.history_buffer.HistoryBuffer"),
    "a method of HistoryBuffer": (
        lambda: Call(getattr, type(history()), "mean"),
        "mmengine.logging.history_buffer.HistoryBuffer.mean",
    ),
    "message hub": (
        lambda: foreign("mmengine.logging.message_hub", "MessageHub", {"_log_scalars": {"loss": history()}}),
        "mmengine.logging.message_hub.MessageHub",
    ),
    "mmengine Config": (
        lambda: foreign("mmengine.config.config", "Config", {"_text": "x"}),
        "mmengine.config.config.Config",
    ),
    "path": (lambda: pathlib.Path("/a/b.py"), "/a/b.py"),
    "date": (lambda: datetime.datetime(2020, 1, 2), "datetime.datetime"),
    "duration": (lambda: datetime.timedelta(3), "datetime.timedelta"),
    "deque": (lambda: collections.deque([1, 2], 5), [1, 2]),
    "defaultdict": (lambda: collections.defaultdict(list, a=[1]), {"a": [1]}),
    "OrderedDict": (lambda: collections.OrderedDict(a=1), {"a": 1}),
    "Counter": (lambda: collections.Counter("aab"), {"a": 2, "b": 1}),
    "CfgNode": (lambda: yacs.config.CfgNode({"A": {"B": 1}}), "yacs.config.CfgNode"),
    "omegaconf": (lambda: OmegaConf.create({"a": [1, {"b": 2}]}), "omegaconf.dictconfig.DictConfig"),
    "enumeration": (lambda: BoxMode.XYXY_ABS, "detectron2.structures.boxes.BoxMode"),
    "decimal": (lambda: decimal.Decimal("1.5"), "decimal.Decimal"),
    "size": (lambda: torch.Size([1, 2]), (1, 2)),
    "dtype": (lambda: torch.bfloat16, torch.bfloat16),
    "device": (lambda: torch.device("cuda", 1), "torch.device"),
    "version": (lambda: torch.__version__, str(torch.__version__)),
    "set": (lambda: {1, 2}, {1, 2}),
    "complex": (lambda: 1 + 2j, 1 + 2j),
    "bytes": (lambda: b"\xff", b"\xff"),
}


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("name", HARMLESS)
def test_harmless_objects_do_not_stop_weights_from_being_read(
    name: str, container: str, no_new_modules: None, tmp_path: Path
) -> None:
    make, wanted = HARMLESS[name]
    tensors = {n: t.numpy() if container == "pickle" else t for n, t in WEIGHTS.items()}
    path = write(tmp_path / "x.pth", {"state_dict": tensors, "extra": make(), "again": [make()]}, container)
    for module in [name for name in sys.modules if name.startswith("mmengine")]:
        del sys.modules[module]

    weights = read(path)

    assert torch.equal(weights.tensors["rpn.head.cls_logits.bias"], torch.zeros(80)) and weights.kind == "fcos_core"
    for found in (weights.extra["extra"], weights.extra["again"][0]):
        if isinstance(found, Foreign):
            assert found.name == wanted if isinstance(wanted, str) else wanted is Foreign
        else:
            assert (found.tolist() if isinstance(found, np.ndarray) else found) == wanted
    assert not any(module.startswith("mmengine") for module in sys.modules)  # nothing of it was imported


def test_what_harmless_objects_held_is_kept(no_new_modules: None, tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.pth", {"model": WEIGHTS, "args": argparse.Namespace(lr=0.1), "hub": history()}, "archive"
    )
    extra = read(path).extra
    assert extra["args"].state == {"lr": 0.1}
    assert extra["hub"].state["_log_history"].tolist() == [0, 1, 2]
    with pytest.raises(AttributeError):
        _ = extra["args"].lr


def test_every_protocol_and_kind_of_tensor(tmp_path: Path) -> None:
    base = torch.randn(10)
    tensors = {
        "turned": torch.arange(6.0).view(2, 3).t(),
        "part": base[2:5],
        "rest": base[5:],
        "expanded": torch.rand(()).expand(3, 4),
        "empty": torch.empty(0, 3),
        "number": torch.tensor(3),
        "parameter": torch.nn.Parameter(torch.rand(3)),
        **{str(d): torch.ones(3).to(d) for d in (torch.half, torch.bfloat16, torch.bool, torch.int8, torch.uint16)},
        "complex": torch.ones(2, dtype=torch.complex64),
    }
    for protocol in (2, 3, 4, 5):
        for archive in (True, False):
            torch.save(tensors, tmp_path / "x.pth", pickle_protocol=protocol, _use_new_zipfile_serialization=archive)
            found = load(tmp_path / "x.pth")
            assert found.keys() == tensors.keys()
            for name, tensor in tensors.items():
                assert torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype, name
            assert found["part"].untyped_storage().data_ptr() == found["rest"].untyped_storage().data_ptr()


def test_safetensors(tmp_path: Path) -> None:
    data = np.arange(6, dtype=np.float32).tobytes() + np.arange(2, dtype=np.int64).tobytes()
    rows = {"rpn.head.a": ("F32", [2, 3], [0, 24]), "b": ("I64", [2], [24, 40])}
    (tmp_path / "x.safetensors").write_bytes(safetensors(rows, data))
    weights = read(tmp_path / "x.safetensors")
    assert weights.kind == "fcos_core"
    assert torch.equal(weights.tensors["rpn.head.a"], torch.arange(6.0).view(2, 3))
    assert torch.equal(weights.tensors["b"], torch.arange(2))

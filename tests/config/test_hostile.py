"""Configs and checkpoints of a stranger: nothing in them runs, and each ends in one sentence.

`CASES` holds, by kind, a config as text or an edit of an honest one. Each goes to `Predictor` as a YAML file and as the
config of a checkpoint.
"""

from __future__ import annotations

import copy
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from fcos_d2.config.load import load_config
from fcos_d2.config.plain import parse_yaml
from fcos_d2.config.stored import dump_config
from fcos_d2.errors import FcosError
from fcos_d2.predict import Predictor

SYSTEM = "{_target_: os.system, command: touch CANARY}"
LOADER = "detectron2.data.build.load_proposals_into_dataset"


@pytest.fixture(scope="module")
def honest() -> dict[str, Any]:
    return parse_yaml(dump_config(load_config("fcos_R_18_slim_FPN_small", ["model.num_classes=3"])), "honest")


def put(path: str, value: Any) -> Callable[[dict], None]:
    """An edit: the value at a dotted path."""

    def edit(tree: dict) -> None:
        *parents, last = (int(key) if key.isdigit() else key for key in path.split("."))
        for key in parents:
            tree = tree[key]
        tree[last] = value

    return edit


def both(*edits: Callable[[dict], None]) -> Callable[[dict], None]:
    def edit(tree: dict) -> None:
        for one in edits:
            one(tree)

    return edit


def swap(path: str, **changes: Any) -> Callable[[dict], None]:
    return both(*(put(f"{path}.{key.replace('target', '_target_')}", value) for key, value in changes.items()))


def backbone(name: str, **arguments: Any) -> Callable[[dict], None]:
    """An edit: another backbone, with what the rest of the config refers to."""
    return put("model.backbone", {"_target_": name, "out_channels": 64, **arguments})


def rename(path: str, old: str, new: Any) -> Callable[[dict], None]:
    """An edit: another key in the place of one."""

    def edit(tree: dict) -> None:
        for key in path.split("."):
            tree = tree[key]
        tree[new] = tree.pop(old)

    return edit


BOTTOM_UP = "model.backbone.bottom_up"
AUGMENTATION = "dataloader.test.mapper.augmentations.0"
NESTED = "[" * 5000 + "]" * 5000
BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi")
)
MERGES = "a: &a {k: 1}\n" + "".join(
    f"{new}: &{new} {{<<: [{', '.join([f'*{old}'] * 10)}]}}\n" for old, new in zip("abcdefgh", "bcdefghi")
)
REFERENCES = {key: {str(i): f"${{{chr(ord(key) + 1)}}}" for i in range(10)} for key in "abcdefgh"} | {"i": 1}

CASES: dict[str, dict[str, str | Callable[[dict], None]]] = {
    "resolver": {
        "oc.create": put("model.num_classes", f"${{oc.create:{SYSTEM}}}"),
        "oc.create of a part": put("model.backbone", f"${{oc.create:{SYSTEM}}}"),
        "oc.decode": put("model.backbone", f"${{oc.decode:'{SYSTEM}'}}"),
        "oc.env": put("train.output_dir", "${oc.env:HOME}"),
        "oc.env in a text": put("dataloader.test.dataset.names", "x${oc.env:PATH}y"),
        "oc.select with a default": put("model.in_features", f"${{oc.select:gone,{SYSTEM}}}"),
        "oc.dict.values": put("model.backbone", "${oc.dict.values:model}"),
        "oc.deprecated": put("model.num_classes", "${oc.deprecated:model.backbone}"),
        "inside a reference": put("model.num_classes", "${model.${oc.env:HOME}}"),
        "in brackets": put("model.num_classes", "${model[${oc.env:HOME}]}"),
        "escaped": put("train.output_dir", "\\${oc.env:HOME}"),
        "with blanks": put("model.num_classes", "${ oc.env : HOME }"),
        "over two lines": put("model.num_classes", "${oc.env:\nHOME}"),
        "as a key": rename("train", "seed", "${oc.env:HOME}"),
        "unclosed": put("model.num_classes", "${oc.env:HOME"),
    },
    "target": {
        "os.system": swap(BOTTOM_UP, target="os.system"),
        "subprocess": put("optimizer", {"_target_": "subprocess.check_output", "args": ["touch", "CANARY"]}),
        "builtins.eval": put(AUGMENTATION, {"_target_": "builtins.eval", "source": "1"}),
        "torch.load": swap("optimizer", target="torch.load"),
        "torch.hub.load": put("model", {"_target_": "torch.hub.load", "repo_or_dir": "a/b", "model": "c"}),
        "a module that it imports": put(AUGMENTATION, {"_target_": "detectron2.engine.defaults.os.system"}),
        "LazyConfig.load": backbone("detectron2.config.LazyConfig.load", filename="x.py"),
        "instantiate": backbone("detectron2.config.instantiate", cfg={}),
        "proposals": put("dataloader.train.dataset", {"_target_": LOADER, "dataset_dicts": [], "proposal_file": "x"}),
        "an attribute of ours": swap("model", target="fcos_d2.modeling.FCOS.from_config"),
        "private": swap("model.backbone", target="detectron2.data.build._train_loader_from_config"),
        "a node": swap("optimizer", target={"_target_": "os.getcwd"}),
        "a number": swap("optimizer", target=7),
        "null": swap("optimizer", target=None),
        "in a list": put("model.in_features", [{"_target_": "os.getcwd"}]),
        "in a list of lists": put("train.list", [[{"_target_": "os.getcwd"}]]),
        "inside an augmentation": put(f"{AUGMENTATION}.interp", {"_target_": "os.getcwd"}),
        "in plain data": put("model.pixel_mean", {"x": {"_target_": "os.getcwd"}}),
        "in another node": put("extra", {"deep": {"_target_": "os.getcwd"}}),
        "instead of the loss": swap("model.dense.loss", target="os.system"),
        "a lambda of a colour transform": put(
            AUGMENTATION, {"_target_": "fvcore.transforms.transform.BlendTransform", "src_image": 1}
        ),
        "of another kind": backbone("torch.optim.SGD", params=[], lr=1.0),
        "an evaluator as augmentation": put(
            AUGMENTATION, {"_target_": "detectron2.evaluation.COCOEvaluator", "dataset_name": "x"}
        ),
        "unicode": swap(BOTTOM_UP, target="оs.system"),
        "with a call": swap(BOTTOM_UP, target="os.system('touch CANARY')"),
        "with blanks": swap(BOTTOM_UP, target=" os.system"),
    },
    "reference": {
        "to a target's name": both(put("name", "os.system"), swap(BOTTOM_UP, target="${name}")),
        "relative": both(put("train.name", "os.system"), swap("optimizer", target="${..train.name}")),
        "put together": both(put("a", "os"), put("b", "system"), swap(BOTTOM_UP, target="${a}.${b}")),
        "through two": both(put("a", "${b}"), put("b", "os.system"), swap(BOTTOM_UP, target="${a}")),
        "to a node": both(put("a", {"_target_": "os.getcwd", "out_channels": 64}), put("model.backbone", "${a}")),
        "to a list": both(put("a", [{"_target_": "os.getcwd"}]), put("model.in_features", "${a}")),
        "to an item": both(put("a", [{"_target_": "os.getcwd", "out_channels": 64}]), put("model.backbone", "${a[0]}")),
        "an evaluator for a model": both(
            put("dataloader.evaluator.out_channels", 64), put("model.backbone", "${dataloader.evaluator}")
        ),
        "proposal files": both(put("a", ["x.pkl"]), put("dataloader.train.dataset.proposal_files", "${a}")),
        "to nothing": put("model.num_classes", "${model.gone}"),
        "above the top": put("model.num_classes", "${.......x}"),
        "a node in a text": put("train.output_dir", "x${model}"),
    },
    "argument": {
        "cfg of a loader": both(
            swap("dataloader.train", target="detectron2.data.build_detection_train_loader"),
            put("dataloader.train.cfg", {"DATASETS": {"PROPOSAL_FILES_TRAIN": ["x.pkl"]}}),
        ),
        "cfg of a model": put("model.cfg", {}),
        "cfg of a mapper": put("dataloader.test.mapper.cfg", {}),
        "proposal files": put("dataloader.train.dataset.proposal_files", ["https://example.com/x.pkl"]),
        "empty proposal files": put("dataloader.train.dataset.proposal_files", []),
        "collate": put("dataloader.test.collate_fn", "os.system"),
        "a function": put("optimizer.params.lr_factor_func", "os.system"),
        "args": put("optimizer.args", ["touch CANARY"]),
        "unknown": put("model.dense.coder.hook", "os.system"),
        "_recursive_": put("model._recursive_", False),
        "_convert_": put("model.backbone._convert_", "all"),
        "_partial_": put("optimizer._partial_", True),
        "_args_": put("model._args_", ["touch CANARY"]),
        "__class__": put("model.__class__", "os.system"),
        "_call_ of Hydra": put("train._call_", "os.system"),
    },
    "yaml": {
        "python tag": "model: !!python/object/apply:os.system [touch CANARY]\n",
        "python name": "model: {x: !!python/name:os.system }\n",
        "python module": "model: {x: !!python/module:canary_module }\n",
        "new object": "model: !!python/object/new:canary_module.Canary {}\n",
        "own tag": "model: !canary {x: 1}\n",
        "billion laughs": f"model: {{x: 1}}\n{BOMB}",
        "merge keys": f"model: {{x: 1}}\n{MERGES}",
        "nesting": f"model: {{x: {NESTED}}}\n",
        "endless": "model: {x: 1}\ny: " + "[1]," * 400_000,
        "many": "model: {x: 1}\ny: [" + "1, " * 200_000 + "1]\n",
        "an alias to itself": "model: &a\n  x: *a\n",
        "a set": "model: {x: !!set {a, b}}\n",
        "bytes": "model: {x: !!binary aGVsbG8=}\n",
        "a date": "model: {x: 2020-01-01}\n",
        "a number of many digits": "model: {x: " + "9" * 5000 + "}\n",
        "a list as key": "model: {? [a, b] : 1}\n",
        "two documents": "model: {x: 1}\n---\nmodel: {x: 2}\n",
        "control characters": "model: {x: \x07}\n",
        "a string": "model\n",
        "no text": "\n",
    },
    "yacs": {
        "python tag": "MODEL: {WEIGHTS: !!python/object/apply:os.system [touch CANARY]}\n",
        "base elsewhere": "_BASE_: https://example.com/x.yaml\nMODEL: {}\n",
        "base of another scheme": "_BASE_: 'file://x.yaml'\nMODEL: {}\n",
        "base that is no YAML": "_BASE_: /etc/passwd\nMODEL: {}\n",
        "base that is a device": "_BASE_: /dev/zero\n",
        "base by its parent": "_BASE_: ../../../../../../etc/hostname\n",
        "base itself": "_BASE_: hostile.yaml\n",
        "base a number": "_BASE_: 7\n",
        "unknown key": "MODEL: {META_ARCHITECTUR: x}\n",
        "architecture": "MODEL: {META_ARCHITECTURE: os.system}\n",
        "backbone": "MODEL: {META_ARCHITECTURE: FCOS, BACKBONE: {NAME: canary_module.Canary}}\n",
        "another version": "VERSION: 99\n",
        "too many classes": "MODEL: {META_ARCHITECTURE: FCOS, FCOS: {NUM_CLASSES: 1000000000}}\n",
        "too many layers": "MODEL: {META_ARCHITECTURE: FCOS, FCOS: {NUM_CLS_CONVS: 100000000}}\n",
        "too many as a text": "MODEL: {META_ARCHITECTURE: FCOS, FCOS: {NUM_CLASSES: '1000000000'}}\n",
        "not a number": "MODEL: {PIXEL_STD: [.nan, 1.0, 1.0]}\n",
        "images too large": "MODEL: {META_ARCHITECTURE: FCOS}\nINPUT: {MIN_SIZE_TEST: 1000000000}\n",
        "merged into a value": "MODEL: {WEIGHTS: {x: 1}}\n",
    },
    "size": {
        "classes": put("model.num_classes", 10**9),
        "channels": put("model.backbone.out_channels", 10**9),
        "channels that fill the memory": put("model.backbone.out_channels", 10**6),
        "width": put(f"{BOTTOM_UP}.res2_out_channels", 500_000),
        "layers": put("model.dense.head.num_class_convs", 10**8),
        "depth": put(f"{BOTTOM_UP}.depth", 10**30),
        "levels": put("model.dense.head.num_levels", 10**7),
        "not a number": put("model.pixel_std", [float("nan")] * 3),
        "infinite": put("model.pixel_std", [float("inf")] * 3),
        "negative": put("model.num_classes", -(10**9)),
        "images": put(f"{AUGMENTATION}.short_edge_length", 10**9),
        "workers": put("dataloader.test.num_workers", 10**6),
        "a text": put("model.input_format", "B" * 100_000),
        "of text instead": put("model.num_classes", "80" * 10),
    },
    "circle": {
        "itself": put("model.num_classes", "${model.num_classes}"),
        "two": both(put("a", "${b}"), put("b", "${a}"), put("model.num_classes", "${a}")),
        "a node around it": put("model.backbone.x", "${model}"),
        "its parent": put("model.backbone.bottom_up", "${..backbone}"),
        "on the way": both(put("a", "${b.x}"), put("b", "${a.y}"), put("model.num_classes", "${a.z}")),
        "references like laughs": lambda tree: tree.update(REFERENCES),
    },
    "path": {
        "weights of a device": lambda tree: tree["train"].update(init_checkpoint="/dev/zero", output_dir=7),
        "a folder as a number": put("train.output_dir", 7),
        "an unknown option": put("train.hook", "os.system"),
        "a train node of text": put("train", "os.system"),
        "an option of a wrong type": put("train.amp", {"enabled": "$(touch CANARY)"}),
    },
    "plugin": {
        "named and used": both(put("plugins", ["canary_module"]), swap(BOTTOM_UP, target="canary_module.Canary")),
        "used": swap(BOTTOM_UP, target="canary_module.Canary"),
        "a path": put("plugins", ["../canary_module"]),
        "a file": put("plugins", ["canary_module.py; touch CANARY"]),
        "of the standard library": put("plugins", ["os"]),
        "as text": put("plugins", "canary_module"),
        "as a node": put("plugins", {"_target_": "os.getcwd"}),
        "very many": put("plugins", [f"canary_{i}" for i in range(1000)]),
        "as a name of ours": swap(BOTTOM_UP, target="fcos_d2.canary_module.Canary"),
        "in another's package": swap(BOTTOM_UP, target="detectron2.canary_module.Canary"),
        "the head": swap("model.dense.head", target="canary_module.Canary"),
    },
}  # fmt: skip

ALL = [(kind, name) for kind, cases in CASES.items() for name in cases]


@pytest.fixture(autouse=True)
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A folder with a module that leaves a trace when it is imported; no process, connection or trace may be made."""
    (tmp_path / "canary_module.py").write_text(
        "from pathlib import Path\nPath(__file__).with_name('CANARY').touch()\nclass Canary: pass\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    done: list[str] = []
    for module, name in ((os, "system"), (os, "popen"), (subprocess, "Popen"), (socket, "create_connection")):
        monkeypatch.setattr(module, name, lambda *a, _name=name, **k: done.append(_name))
    yield
    assert not (tmp_path / "CANARY").exists() and "canary_module" not in sys.modules and not done


def sentence(call: Callable[[], Any]) -> str:
    with pytest.raises(FcosError) as error:
        call()
    text = str(error.value)
    assert "\n" not in text and text[-1] in ".?" and len(text) < 600, text
    return text


def text_of(kind: str, name: str, honest: dict[str, Any]) -> str:
    case = CASES[kind][name]
    if isinstance(case, str):
        return case
    tree = copy.deepcopy(honest)
    case(tree)
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


def test_there_are_enough():
    assert len(ALL) >= 60 and len(CASES) >= 6


def test_the_honest_one_is_accepted(honest: dict[str, Any]):
    """So the others are refused for what was edited."""
    Path("honest.yaml").write_text(yaml.safe_dump(honest, sort_keys=False))
    detector = Predictor("honest.yaml", weights="random", device="cpu")
    torch.save({"model": detector.model.state_dict(), "config": Path("honest.yaml").read_text()}, "honest.pth")
    assert Predictor("honest.pth", device="cpu").class_names == ["class 0", "class 1", "class 2"]


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_hostile_config(kind: str, name: str, honest: dict[str, Any], tmp_path: Path):
    text = text_of(kind, name, honest)
    Path("hostile.yaml").write_text(text)
    torch.save({"model": {"backbone.x": torch.zeros(1)}, "config": text}, "hostile.pth")
    ways = [
        lambda: Predictor("hostile.pth", device="cpu"),
        lambda: Predictor("hostile.yaml", weights="random", device="cpu"),
    ]
    for way in ways:
        found = sentence(way)
        assert "hostile" in found or "train" in found, found


@pytest.mark.parametrize("payload", ["os.system", "canary_module.Canary", "builtins.eval", "torch.hub.load"])
@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
def test_hostile_pickle(payload: str, suffix: str, tmp_path: Path):
    """Weights that are a call; the config beside them is honest or missing."""
    module, _, function = payload.rpartition(".")
    code = f"c{module}\n{function}\n(Vtouch CANARY\ntR.".encode()
    Path(f"raw{suffix}").write_bytes(b"\x80\x02" + code)
    sentence(lambda: Predictor(f"raw{suffix}", device="cpu"))
    sentence(lambda: Predictor("fcos_R_18_slim_FPN_small", weights=f"raw{suffix}", device="cpu"))


class _Call:
    def __reduce__(self) -> tuple:
        return print, ("CANARY",)


@pytest.mark.parametrize("key", ["model", "config", "class_names", "extra"])
def test_hostile_object_in_a_checkpoint(key: str, honest: dict[str, Any], tmp_path: Path, capfd: Any):
    text = yaml.safe_dump(honest)
    payload = {"model": {"backbone.x": torch.zeros(1)}, "config": text, key: _Call()}
    torch.save(payload, "call.pth", pickle_protocol=pickle.HIGHEST_PROTOCOL)
    sentence(lambda: Predictor("call.pth", device="cpu"))
    assert "CANARY" not in capfd.readouterr().out

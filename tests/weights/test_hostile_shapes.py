"""Files that ask for more than they hold: dicts in themselves, keys that never end, numbers that lie nowhere."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from fcos_d2 import zoo
from fcos_d2.config.load import load_config
from fcos_d2.config.plain import check_number, parse_yaml, resolve
from fcos_d2.config.stored import dump_config, limited_memory, parse_config
from fcos_d2.errors import FcosError
from fcos_d2.weights.read import read


def test_a_dict_in_itself_ends(tmp_path: Path) -> None:
    value: dict = {}
    value["model"] = value
    path = tmp_path / "self.pkl"
    path.write_bytes(pickle.dumps(value, protocol=2))
    with pytest.raises(FcosError):
        read(path)


@pytest.mark.parametrize("start", [b"", b"\x80\x02", b"\x80\x04"])
def test_a_key_that_takes_for_ever_to_hash_is_refused(tmp_path: Path, start: bytes) -> None:
    """`{key: None}` whose key is a tuple of one tuple twice, sixty levels deep: its hash takes 2**60 steps."""
    path = tmp_path / "key.pkl"
    path.write_bytes(start + b"})" + b"".join(b"p%d\ng%d\n\x86" % (i, i) for i in range(60)) + b"Ns.")
    with pytest.raises(FcosError):
        read(path)


def test_ordinary_pickles_are_light(tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    arrays = {f"layer{i}": torch.full((2,), float(i)).numpy() for i in range(3000)}
    for protocol in range(2, 6):
        path.write_bytes(pickle.dumps({"model": arrays, "__author__": "test"}, protocol=protocol))
        assert len(read(path).tensors) == 3000


@pytest.mark.parametrize("text", ["a: !!bool x", "a: !!int ''", "a: 0x" + "f" * 6000, f"? {'9' * 500}\n: 1"])
def test_odd_scalars_are_one_sentence(text: str) -> None:
    with pytest.raises(FcosError) as caught:
        parse_yaml(text, "the file")
    assert "\n" not in str(caught.value)


def test_a_number_of_400_digits_is_one_sentence() -> None:
    with pytest.raises(FcosError):
        check_number(("model", "num_classes"), 10**400, "the file")


def test_references_cannot_make_a_reference() -> None:
    tree = {"a": "$", "b": "{oc.env:HOME}", "x": ["${a}${b}"]}
    with pytest.raises(FcosError, match="make a reference"):
        resolve(tree, "the file")


def test_an_unknown_loss_behind_a_reference_is_one_sentence() -> None:
    text = """
model: {_target_: fcos_d2.modeling.FCOS, dense: "${d}", num_classes: 3}
d: {_target_: fcos_d2.modeling.DenseFCOS, head: {}, coder: {}, loss: {_target_: foo.Loss}, assigner: {}}
"""
    with pytest.raises(FcosError) as caught:
        parse_config(text, "the file")
    assert "\n" not in str(caught.value)


def test_evaluators_of_a_checkpoint_write_nowhere(tmp_path: Path) -> None:
    cfg = zoo.get_config("fcos_R_18_slim_FPN_small")
    cfg.dataloader.evaluator = {
        "_target_": "detectron2.evaluation.DatasetEvaluators",
        "evaluators": [{**cfg.dataloader.evaluator, "output_dir": str(tmp_path / "elsewhere")}],
    }
    path = tmp_path / "x.pth"
    torch.save({"model": {"a": torch.zeros(1)}, "config": dump_config(cfg)}, path)
    assert "elsewhere" not in OmegaConf.to_yaml(load_config(path))


def test_memory_of_layers_that_make_their_weights_by_torch_tensor() -> None:
    with pytest.raises(FcosError, match="too large"), limited_memory(1000, "the file"):
        torch.nn.init.kaiming_uniform_(torch.empty(1, device="meta").expand(2000))

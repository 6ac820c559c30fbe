"""Files that ask for more than they hold: dicts in themselves, keys that never end, numbers that lie nowhere."""

from __future__ import annotations

import pickle
import struct
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


NESTED = b")" + b"".join(b"p%d\ng%d\n\x86" % (i, i) for i in range(60))
FLOATS = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\0aX\x03\0\0\0cpuK\x01NtQ"
# A tensor of 2**40 numbers, all of which lie at one place.
EXPANDED = b"ctorch._utils\n_rebuild_tensor_v2\n(" + FLOATS + b"K\0(\x8a\x06\0\0\0\0\0\1t(K\0t\x89)tR"


@pytest.mark.parametrize(
    "pickled",
    [
        b"\x80\x02})" + b"\x85" * 10**6 + b"Ns.",  # C has no stack for its hash
        b"\x80\x04\x8f(" + NESTED + b"\x90.",
        b"\x80\x04(" + NESTED + b"\x91.",
        b"(" + NESTED + b"Nd.",
        b"c__builtin__\nfrozenset\n((" + NESTED + b"ltR.",
    ],
    ids=["deep key", "set", "frozenset", "dict", "call of frozenset"],
)
def test_keys_and_elements_that_cannot_be_hashed_are_refused(tmp_path: Path, pickled: bytes) -> None:
    (tmp_path / "x.pkl").write_bytes(pickled)
    with pytest.raises(FcosError, match="damaged"):
        read(tmp_path / "x.pkl")


def older(path: Path, content: bytes, keys: bytes = pickle.dumps(["a"])) -> Path:
    """A file in PyTorch's older format whose one number has the key "a"."""
    start = b"".join(pickle.dumps(x, 2) for x in (0x1950A86A20F9469CFC6C, 1001, {}))
    path.write_bytes(start + b"\x80\x02}X\x01\0\0\0w" + content + b"s." + keys + struct.pack("<qf", 1, 1.0))
    return path


@pytest.mark.parametrize(
    "content",
    [
        b"ccollections\ndeque\n(" + EXPANDED + b"tR",
        b"c__builtin__\nset\n(" + EXPANDED + b"tR",
        b"ctorch\nSize\n" + EXPANDED + b"R",
        b"cargparse\nNamespace\n" + EXPANDED + b"\x81",
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + FLOATS + b"K\0" + EXPANDED * 2 + b"\x89)tR",
        b"ctorch._utils\n_rebuild_from_type_v2\n(ctorch\nSize\nN" + EXPANDED + b"NtR",
        EXPANDED + b"\x88K\1s",
        EXPANDED + b"(K\x01\x90",
        EXPANDED + b"}X\x01\0\0\0aNsb",
    ],
    ids=["list", "set", "size", "arguments", "sizes", "type", "item", "items", "state"],
)
def test_tensors_of_more_numbers_than_the_file_has_are_not_gone_through(tmp_path: Path, content: bytes) -> None:
    assert read(older(tmp_path / "x.pth", EXPANDED)).tensors["w"].shape == (2**40,)
    with pytest.raises(FcosError, match="damaged"):
        read(older(tmp_path / "x.pth", content))


def test_keys_of_numbers_are_text(tmp_path: Path) -> None:
    """The text of a tuple of one tuple twice, sixty levels deep, has no end."""
    for content, keys in ((EXPANDED, b"]" + NESTED + b"a."), (EXPANDED.replace(b"X\x01\0\0\0a", NESTED), b"].")):
        with pytest.raises(FcosError, match="damaged"):
            read(older(tmp_path / "x.pth", content, keys))


def test_the_same_bytes_are_not_made_into_ever_more_arrays(tmp_path: Path) -> None:
    number, numbers = 10**6, b"r\0\0\1\0"
    dtype = b"cnumpy\ndtype\nX\x02\0\0\0u1K\0K\x01\x87R(K\x03X\x01\0\0\0|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85C\x01b\x87R"
    state = b"(K\x01J" + struct.pack("<i", number) + b"\x85" + dtype + b"\x89" + numbers.replace(b"r", b"j") + b"tb"
    start = b"\x80\x03]B" + struct.pack("<i", number) + bytes(number) + numbers + b"0"
    path = tmp_path / "x.pkl"
    path.write_bytes(start + (array + state + b"a") * 2 + b".")
    with pytest.raises(FcosError, match="holds list"):
        read(path)
    path.write_bytes(start + (array + state + b"a") * 1000 + b".")
    with pytest.raises(FcosError, match="damaged"):
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

"""Checkpoints: whole or old, read without running anything; weights: nothing dropped in silence."""

from __future__ import annotations

import pickle
import resource
import sys
import textwrap
from collections import OrderedDict

import numpy as np
import pytest
import torch
import warm
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import instantiate

from fcos_d2.config.load import load_config
from fcos_d2.errors import FcosError
from fcos_d2.weights.fetch import fetch
from fcos_d2.weights.fit import fit, load_model
from fcos_d2.weights.read import load, read, weights_of
from fcos_d2.weights.write import Checkpointer, save


def detector(classes: int = 3, name: str = "fcos_R_18_slim_FPN_small"):
    return instantiate(load_config(name, [f"model.num_classes={classes}"]).model)


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class Hostile:
    """Unpickling it would leave a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_save_and_load(tmp_path):
    payload = {"model": {"w": torch.arange(3.0)}, "names": ["a"], "n": 3, "nested": {"t": (1, 2.5, None)}}
    save(tmp_path / "new folder" / "x.pth", payload)
    again = load(tmp_path / "new folder" / "x.pth")
    assert torch.equal(again.pop("model")["w"], payload.pop("model")["w"]) and again == payload
    assert [path.name for path in (tmp_path / "new folder").iterdir()] == ["x.pth"]


def test_full_disk_leaves_the_old_file(tmp_path):
    """The limit of a file's size fails a write in the middle, like a full disk."""
    save(tmp_path / "x.pth", {"model": {"w": torch.zeros(4)}})
    before = (tmp_path / "x.pth").read_bytes()
    code = f"""
        import resource, torch
        from fcos_d2.weights.write import save
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
        save({str(tmp_path / "x.pth")!r}, {{"model": {{"w": torch.zeros(1_000_000)}}}})
    """
    done = warm.run([sys.executable, "-c", textwrap.dedent(code)], cwd=tmp_path)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1 and "FcosError" in last and "x.pth cannot be written" in last and "unchanged" in last
    assert (tmp_path / "x.pth").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["x.pth"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 200_000


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FcosError, match="cannot be written"):
        save(tmp_path / "file" / "x.pth", {})


@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
def test_damaged_files(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    with pytest.raises(FcosError, match="does not exist"):
        load(path)
    for content in (b"", b"garbage", b"\x80\x02N.", b"PK\x03\x04 but no archive"):
        path.write_bytes(content)
        with pytest.raises(FcosError, match=r"x\.p.. (checkpoint )?.*(cut off|holds)|x\.p.*(cut off|holds)"):
            load(path)
    if suffix == ".pth":
        torch.save({"model": {"w": torch.zeros(10_000)}}, path)
    else:
        path.write_bytes(pickle.dumps({"w": np.zeros(10_000)}))
    for length in (10, 1000, path.stat().st_size - 100):
        path.write_bytes(path.read_bytes()[:length])
        with pytest.raises(FcosError, match="cut off"):
            load(path)


@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
def test_hostile_files_run_nothing(tmp_path, suffix):
    trace, path = tmp_path / "trace", tmp_path / f"x{suffix}"
    payload = {"model": {"w": torch.zeros(1) if suffix == ".pth" else np.zeros(1)}, "extra": Hostile(trace)}
    if suffix == ".pth":
        torch.save(payload, path)
    else:
        path.write_bytes(pickle.dumps(payload))
    with pytest.raises(FcosError, match=r"open'.*nothing was run") as error:
        load(path)
    assert "\n" not in str(error.value)
    assert not trace.exists()


def test_model_zoo_formats(tmp_path):
    weights = {"conv1_w": np.ones((2, 3), np.float32), "conv1_w_momentum": np.ones(1), "fc_b": np.ones(2)}
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps({"blobs": weights}, protocol=2))
    found = read(path)
    assert found.kind == "backbone" and str(found.pixels).startswith("BGR, mean 102.98")
    assert set(found.tensors) == {"conv1_w", "fc_b"} and np.array_equal(found.tensors["conv1_w"], weights["conv1_w"])
    path.write_bytes(pickle.dumps({"model": OrderedDict(weights), "__author__": "somebody"}))
    assert read(path).extra == {"__author__": "somebody"}


def test_detectron2_reads_our_files_and_we_read_its(tmp_path):
    one, other, third = detector(), detector(), detector()
    Checkpointer(one, str(tmp_path / "ours"), extra={"class_names": ["a", "b", "c"], "config": "x"}).save(
        "m", iteration=3
    )
    assert (tmp_path / "ours" / "last_checkpoint").read_text() == "m.pth"
    extra = DetectionCheckpointer(other).load(str(tmp_path / "ours" / "m.pth"))
    assert equal(one.state_dict(), other.state_dict()) and extra["iteration"] == 3
    DetectionCheckpointer(one, str(tmp_path)).save("theirs")
    load_model(third, str(tmp_path / "theirs.pth"))
    assert equal(one.state_dict(), third.state_dict())


def test_last_checkpoint_is_gone(tmp_path):
    checkpointer = Checkpointer(detector(), str(tmp_path))
    checkpointer.save("m")
    (tmp_path / "m.pth").unlink()
    with pytest.raises(FcosError, match=r"last_checkpoint names m\.pth"):
        checkpointer.get_checkpoint_file()


def test_class_count(tmp_path):
    file = str(tmp_path / "m.pth")
    Checkpointer(detector(3), str(tmp_path), extra={"class_names": ["cat", "dog", "cow"]}).save("m")
    model = detector(5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(FcosError, match=r"3 classes \(cat, dog, cow\), but the model has 5.*init_classes=drop"):
        load_model(model, file)
    assert equal(before, model.state_dict())
    load_model(model, file, classes="drop")
    after, there = model.state_dict(), load(file)["model"]
    for name in after:
        source = before if ".cls_logits." in name else there
        assert torch.equal(after[name], source[name]), name


def test_class_names(tmp_path):
    file, model = str(tmp_path / "m.pth"), detector(3)
    Checkpointer(detector(3), str(tmp_path), extra={"class_names": ["cat", "dog", "cow"]}).save("m")
    with pytest.raises(FcosError, match="'dog' there, 'cow' here"):
        load_model(model, file, class_names=["cat", "cow", "dog"])
    load_model(model, file, class_names=["cat", "cow", "dog"], classes="keep")
    load_model(model, file, class_names=["cat", "dog", "cow"])


def test_missing_unexpected_and_other_shapes():
    model = detector()
    state = model.state_dict()
    lacking = {name: value for name, value in state.items() if "bbox_pred" not in name}
    with pytest.raises(FcosError, match=r"it lacks dense\.head\.bbox_pred\.weight"):
        fit(model, weights_of(lacking, "F"))
    with pytest.raises(FcosError, match=r"F was made for another model: it has also extra"):
        fit(model, weights_of({**state, "extra": torch.zeros(1)}, "F"))
    with pytest.raises(FcosError, match=r"1 of its weights have another shape.*\(2,\) there"):
        fit(model, weights_of({**state, "dense.head.bbox_pred.bias": torch.zeros(2)}, "F"))
    with pytest.raises(FcosError, match="no weight of this model"):
        fit(model, weights_of({"a": torch.zeros(1)}, "F"))
    with pytest.raises(FcosError, match=r"F holds int at 'a' where a tensor"):
        weights_of({"a": 3}, "F")
    counters = [name for name in state if name.endswith("num_batches_tracked")]
    assert counters
    report = fit(model, weights_of({f"module.{n}": v for n, v in state.items() if n not in counters}, "F"))
    assert report.initial == counters


def test_backbone_alone(tmp_path):
    """ImageNet weights, of any kind of file, start training but detect nothing."""
    source, model = detector(), detector()
    bottom_up = {n: v for n, v in source.state_dict().items() if n.startswith("backbone.bottom_up.")}
    torch.save(bottom_up, tmp_path / "b.pth")
    arrays = {n.removeprefix("backbone.bottom_up."): v.numpy() for n, v in bottom_up.items()}
    zoo = {"model": arrays, "__author__": "somebody", "matching_heuristics": True}
    (tmp_path / "b.pkl").write_bytes(pickle.dumps(zoo))
    for name in ("b.pth", "b.pkl"):
        model = detector()
        with pytest.raises(FcosError, match="only a backbone"):
            load_model(model, str(tmp_path / name))
        load_model(model, str(tmp_path / name), allow_backbone=True)
        after = model.state_dict()
        assert all(torch.equal(after[n], bottom_up[n]) for n in bottom_up), name
    (tmp_path / "c.pkl").write_bytes(pickle.dumps({"model": {"odd": np.zeros(3)}, "__author__": "x"}))
    with pytest.raises(FcosError, match=r"c\.pkl holds no known backbone: the first of its 1 tensors is 'odd'"):
        load_model(detector(), str(tmp_path / "c.pkl"), allow_backbone=True)


def test_weights_that_cannot_be_fetched(tmp_path):
    with pytest.raises(FcosError, match=r"/gone\.pth do not exist"):
        fetch("/gone.pth")
    with pytest.raises(FcosError, match=r"http://127\.0\.0\.1:9/x\.pth cannot be fetched.*train\.init_checkpoint="):
        fetch("http://127.0.0.1:9/x.pth")

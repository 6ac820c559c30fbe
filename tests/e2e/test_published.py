"""From an empty cache to detections by the name of a variant, with a server on this machine for that of PyTorch."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torchvision
from console import Outcome, in_process
from PIL import Image
from publisher import Publisher, publisher

from fcos_d2 import Predictor, zoo
from fcos_d2.data.synthetic import generate
from fcos_d2.hub import http
from fcos_d2.weights.families.torchvision import coco_names
from fcos_d2.weights.fetch import fetch
from fcos_d2.weights.read import read

NAME = "fcos_resnet50_fpn"
FULL = f"torchvision/{NAME}"


@pytest.fixture(scope="module")
def content() -> bytes:
    """What torchvision publishes, as far as names and shapes go: 130 MB; its classes score high enough to be found."""
    torch.manual_seed(0)
    model = torchvision.models.detection.fcos_resnet50_fpn(weights=None, weights_backbone=None)
    torch.nn.init.constant_(model.head.classification_head.cls_logits.bias, 2.0)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    return file.getvalue()


@pytest.fixture
def host(
    content: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Publisher]:
    """A mirror, and a machine that has fetched nothing yet; a small photograph in its working directory."""
    home = tmp_path_factory.mktemp("home")
    for name in ("FCOS_D2_CACHE", "TORCH_HOME", "FVCORE_CACHE"):
        monkeypatch.setenv(name, str(home / name))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(http, "_PAUSE", 0.01)
    monkeypatch.chdir(home)
    Image.effect_noise((400, 24), 80).convert("RGB").save("photo.jpg")
    digest = hashlib.sha256(content).hexdigest()
    row = replace(zoo.DETECTORS[FULL], sha256=digest, size=len(content))
    monkeypatch.setitem(zoo.DETECTORS, FULL, row)
    with publisher() as found:
        found.serve(row.file, content)
        monkeypatch.setenv("FCOS_D2_MIRROR", found.base)
        yield found


@pytest.fixture
def fcos(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> Callable[..., Outcome]:
    return in_process(monkeypatch, capfd)


def sentence(done: Outcome) -> str:
    """The error of a command, one sentence after the lines that said what it did."""
    last = done.err.splitlines()[-1]
    assert done.code == 1 and last.startswith("error: ") and "Traceback" not in done.err, done
    return last


def test_one_command_from_nothing_and_again_without_network(
    fcos: Callable[..., Outcome], host: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.files["/fcos_resnet50_fpn_coco-99b0c9b7.pth"].stop_after = 80_000_000  # the server gives up half-way
    done = fcos("detect", "photo.jpg", "--device", "cpu", "--json")
    assert done.code == 0, done.err
    (found,) = json.loads(done.out)["images"]
    assert len(found["detections"]) == 100 and found["detections"][0]["class"] in coco_names(80)
    assert Image.open(found["picture"]).size == (400, 24)
    assert re.match(rf"Fetching the weights of {FULL} \(129\.6 MB\) from {host.base}/\S+ to \S+\n", done.err)
    assert len(host.requests) == 2 and host.sent[1].startswith("bytes=799")

    monkeypatch.delenv("FCOS_D2_MIRROR")
    again = fcos("photo.jpg", "--device", "cpu", "--json", "--offline", "--no-pictures")
    assert again.code == 0 and "Fetching" not in again.err, again.err
    assert json.loads(again.out)["images"][0]["detections"] == found["detections"]
    assert len(host.requests) == 2


@pytest.mark.slow
def test_python_by_name(host: Publisher, content: bytes) -> None:
    """What is converted is torchvision's model with COCO's 80 of its 91 classes, names and config in the file."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "weights.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    names: dict = {}
    exec(program, names)
    assert len(names["instances"]) == 100
    by_name = names["same"]
    assert by_name.class_names == coco_names(80) and len(host.requests) == 1
    file = fetch(FULL)
    assert file.name == f"{NAME}.fcos_d2.pth" and fetch(NAME) == file
    weights = read(file)
    assert weights.kind == "fcos_d2" and weights.class_names == tuple(coco_names(80))
    assert weights.extra["published"]["sha256"] == hashlib.sha256(content).hexdigest()
    theirs = torch.load(io.BytesIO(content), weights_only=True)
    bias = theirs["head.classification_head.cls_logits.bias"]
    assert torch.equal(weights.tensors["dense.head.cls_logits.bias"], bias[torch.tensor([1, *range(2, 81)])])
    other = Predictor(file, device="cpu").model.state_dict()
    assert all(torch.equal(other[name], tensor.cpu()) for name, tensor in by_name.model.state_dict().items())
    assert len(host.requests) == 1

    # A copy that is damaged is made anew from the published file, and that is fetched anew.
    good = file.read_bytes()
    file.write_bytes(good[:-1])
    assert fetch(NAME).read_bytes() == good and len(host.requests) == 1
    file.unlink()
    published = file.with_name(zoo.DETECTORS[FULL].file)
    published.write_bytes(b"x")
    assert fetch(NAME).read_bytes() == good and len(host.requests) == 2


@pytest.mark.slow  # `fcos detect` above takes the same way to the file, and its errors below
def test_commands_by_name(fcos: Callable[..., Outcome], host: Publisher) -> None:
    done = fcos("zoo", "fetch", NAME)
    assert done.code == 0 and f"{NAME}.fcos_d2.pth" in done.out and f"fcos detect IMAGE --model {NAME}" in done.out
    names = coco_names(80)
    generate(Path("data"), {"train": 1, "val": 2}, (400, 24), min_size=10)
    for part in ("train", "val"):
        path = Path("data", f"{part}.json")
        tree = json.loads(path.read_text())
        first = min(row["id"] for row in tree["categories"])
        tree["categories"] = [{"id": first + i, "name": name} for i, name in enumerate(names)]
        path.write_text(json.dumps(tree))
    line = ("eval", "--data", "data", "--workers", 0, "--device", "cpu", "--offline", "--json")
    one, other = (fcos(*line, key, NAME, "-o", key) for key in ("--model", "--weights"))
    assert one.code == 0, one.err
    assert other.code == 0, other.err
    assert json.loads(one.out)["per_class"] == json.loads(other.out)["per_class"]
    listed = json.loads(fcos("zoo", "--weights", "--json").out)
    states = {row["name"]: row["state"] for row in listed["variants"]}
    assert states[NAME] == "cached" and states["fcos_R_50_FPN_1x"] == "open" and len(states) == 107
    assert states["fcos_R_18_FPN_small"] == "none" and states["fcos_hrnet_w32_5l_2x"] == "browser"
    assert len(host.requests) == 1


def test_errors_are_one_sentence(
    fcos: Callable[..., Outcome], host: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = host.files
    served = host.files[path]
    line = ("detect", "photo.jpg", "--device", "cpu")
    for how, text in (
        ({"content": served.content[:1000]}, "it offers 1,000 bytes where 129,"),
        ({"content": bytes(len(served.content))}, "it has the SHA-256"),
        ({"status": 404}, "the server answers 404 Not Found"),
        ({"kind": "text/html"}, "it is a web page, not a file"),
        ({"ranges": False, "stop_after": 1000}, "broke off again and again"),
    ):
        host.files[path] = replace(served, **how)
        assert text in sentence(fcos(*line)), text
    monkeypatch.delenv("FCOS_D2_MIRROR")
    assert "are not in the cache, and --offline" in sentence(fcos(*line, "--offline"))
    assert "OneDrive" in sentence(fcos(*line, "--model", "fcos_hrnet_w32_5l_2x"))
    assert "Nobody has published" in sentence(fcos(*line, "--weights", "fcos_R_18_FPN_small"))
    assert "OneDrive" in sentence(fcos("zoo", "fetch", NAME, "fcos_hrnet_w32_5l_2x"))
    assert fcos("zoo", "fetch").code == 2


LAYOUTS = {
    "fcos/fcos_syncbn_bs32_c128_MNV2_FPN_1x": "fcos_core__fcos_syncbn_bs32_c128_MNV2_FPN_1x",
    "hrnet/ResNet_101_5l_2x": "fcos_core__fcos_R_101_FPN_2x",  # another variant's file
    "adelaidet/FCOS_RT_MS_DLA_34_4x": "adelaidet__FCOS_RT-MS_DLA_34_4x_syncbn",
    "mmdet/fcos_r50-caffe_fpn_gn-head_1x_coco": "mmdet__fcos_r50-caffe_fpn_gn-head_1x_coco",
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_other_publishers_layouts(name: str, host: Publisher, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As names and shapes; each tensor is one number. Their classes are COCO's 80, which no file says."""
    layout = json.loads((shared / "reference" / "checkpoint-keys" / f"{LAYOUTS[name]}.json").read_text())
    tensors = {}
    for i, (key, shape) in enumerate(layout["keys"].items()):
        tensors[key] = torch.tensor(i) if key.endswith("num_batches_tracked") else torch.tensor(0.5 + i).expand(shape)
    wrapped = {"mmdet": {"meta": {}, "state_dict": tensors}, "adelaidet": tensors}
    file = io.BytesIO()
    torch.save(wrapped.get(name.partition("/")[0], {"model": {f"module.{k}": t for k, t in tensors.items()}}), file)
    row = replace(zoo.DETECTORS[name], sha256="")
    monkeypatch.setitem(zoo.DETECTORS, name, row)
    host.serve(row.file, file.getvalue())
    weights = read(fetch(name))
    assert weights.class_names == tuple(coco_names(80)) and weights.config is not None
    assert weights.extra["published"]["variant"] == name

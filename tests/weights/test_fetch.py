"""Weights by address and by name, from a server on this machine: checked by their digest, whole or not at all."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
import torchvision
from detectron2.config import instantiate

from fcos_d2 import importers, zoo
from fcos_d2.errors import FcosError
from fcos_d2.modeling.backbone import BACKBONES
from fcos_d2.modeling.unfilled import unfilled
from fcos_d2.weights import fetch as module
from fcos_d2.weights.families.bodies import resnet
from fcos_d2.weights.fetch import fetch, is_backbone_only
from fcos_d2.weights.fit import load_model
from fcos_d2.weights.rules import to_theirs
from fcos_d2.zoo.addresses import ADDRESSES, Address


class Server:
    """A folder on 127.0.0.1, in the place of the hosts of some names."""

    def __init__(self, folder: Path, base: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.base, self.monkeypatch = folder, base, monkeypatch

    def serve(self, name: str, content: object, sha256: str | None = None) -> Path:
        """Let `name` mean a file with this content; its digest is what is published, unless said otherwise."""
        file = self.folder / f"{len(list(self.folder.iterdir()))}.pth"
        torch.save(content, file)
        digits = hashlib.sha256(file.read_bytes()).hexdigest()[:8] if sha256 is None else sha256
        row = replace(ADDRESSES.get(name, Address("")), url=f"{self.base}/{file.name}", sha256=digits, exact=False)
        self.monkeypatch.setitem(ADDRESSES, name, row)
        return file


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    folder = tmp_path / "served"
    folder.mkdir()
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "iopath"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("FCOS_D2_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    yield Server(folder, f"http://127.0.0.1:{http.server_port}", monkeypatch)
    http.shutdown()
    http.server_close()
    thread.join()


def test_every_backbones_weights_have_an_address() -> None:
    for name, row in BACKBONES.items():
        if row.weights:
            address = ADDRESSES[row.weights]
            assert address.url.startswith("https://"), name
            assert is_backbone_only(row.weights)
            assert all(digit in "0123456789abcdef" for digit in address.sha256)
            assert address.sha256[:7] in address.url  # MobileNetV2's name has seven digits


def test_torchvisions_resnet_starts_a_detector(server: Server) -> None:
    weights = torchvision.models.resnet18(weights=None).state_dict()
    server.serve("torchvision://resnet18", weights)
    config = zoo.get_config("mmdet/fcos_r18_fpn_gn-head-center-normbbox-centeronreg-giou_8xb8-amp-lsj-200e_coco")
    assert config.train.init_checkpoint == "torchvision://resnet18"
    model = instantiate(config.model)

    report = load_model(model, config.train.init_checkpoint, allow_backbone=True)

    ours = model.backbone.bottom_up.state_dict()
    assert torch.equal(ours["res5.1.conv2.weight"], weights["layer4.1.conv2.weight"])
    assert torch.equal(ours["stem.conv1.norm.running_var"], weights["bn1.running_var"])
    assert report.family == "torchvision or timm"
    assert not any(name.startswith("backbone.bottom_up.") for name in report.initial)


def test_openmmlabs_resnext_starts_a_detector(server: Server) -> None:
    """As names and shapes; the numbers are one each."""
    name = "mmdet/fcos_x101-64x4d_fpn_gn-head_ms-640-800-2x_coco"
    with unfilled():
        bottom_up = instantiate(zoo.get_config(name).model.backbone.bottom_up)
    own = {f"backbone.bottom_up.{n}": torch.rand(()).expand(t.shape) for n, t in bottom_up.state_dict().items()}
    theirs = to_theirs(own, resnet(""))
    assert not theirs.left_over
    server.serve("open-mmlab://resnext101_64x4d", {"state_dict": theirs.tensors})
    assert zoo.get_config(name).train.init_checkpoint == "open-mmlab://resnext101_64x4d"

    found = importers.load_backbone(fetch("open-mmlab://resnext101_64x4d"), name)

    assert found.state_dict.keys() == own.keys()
    assert all(torch.equal(found.state_dict[n], t) for n, t in own.items() if "stem" not in n)


def test_other_bytes_than_published_are_refused_before_they_are_read(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    good = server.serve("torchvision://resnet18", {"conv1.weight": torch.zeros(1)})
    file = fetch("torchvision://resnet18")
    assert file.read_bytes() == good.read_bytes()
    server.serve("torchvision://resnet18", {"conv1.weight": torch.zeros(1)}, sha256="01234567")

    with pytest.raises(
        FcosError, match=r"http://127.* cannot be fetched \(it has the SHA-256 [0-9a-f]{8}, but 01234567 was published"
    ) as error:
        load_model(torch.nn.Linear(1, 1), "torchvision://resnet18", allow_backbone=True)

    assert "\n" not in str(error.value)
    kept = [path for path in (tmp_path / "cache").rglob("*") if path.suffix in (".pth", ".part")]
    assert kept == [file]  # the bad one is gone, the good one stays
    file.write_bytes(b"something else")
    row = Address(f"{server.base}/0.pth", hashlib.sha256(good.read_bytes()).hexdigest())
    monkeypatch.setitem(ADDRESSES, "torchvision://resnet18", row)
    assert fetch("torchvision://resnet18").read_bytes() == good.read_bytes()  # a cached file is checked, too


def test_names_and_addresses_that_cannot_be_fetched(server: Server, tmp_path: Path) -> None:
    with pytest.raises(FcosError, match=r"torchvision://resnet19 names no weights .*torchvision://resnet1"):
        fetch("torchvision://resnet19")
    with pytest.raises(FcosError, match=r"/9\.pth cannot be fetched"):
        fetch(f"{server.base}/9.pth")
    with pytest.raises(FcosError, match="leads upwards"):
        fetch(f"{server.base}/../../../x.pth")
    with pytest.raises(FcosError, match="do not exist"):
        fetch(tmp_path / "x.pth")
    assert module.is_address("https://x/y.pth") and not module.is_address("C:\\x.pth")

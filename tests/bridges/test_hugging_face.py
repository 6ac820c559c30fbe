"""A detector in the layout of the Hugging Face Hub: written, read from its folder, and fetched by its name.

The Hub is a server on this machine that answers the real huggingface_hub.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from serving import running

pytest.importorskip("huggingface_hub")
import huggingface_hub
from safetensors import safe_open

from fcos_d2 import Predictor
from fcos_d2.bridges.hugging_face import write_repository
from fcos_d2.errors import FcosError
from fcos_d2.weights.read import load, read
from fcos_d2.weights.write import save

IMAGE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


@pytest.fixture(scope="module")
def folder(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_repository(weights, tmp_path_factory.mktemp("hub") / "my-detector", licence="apache-2.0")


def test_the_folder_is_as_the_hub_wants_it(folder: Path, weights: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    with safe_open(folder / "model.safetensors", "pt") as file:
        wanted = read(weights).tensors
        assert set(file.keys()) == set(wanted) and file.metadata()["format"] == "pt"
        assert all(torch.equal(file.get_tensor(name), tensor) for name, tensor in wanted.items())
    card = huggingface_hub.ModelCard.load(folder / "README.md")
    assert (card.data.library_name, card.data.pipeline_tag, card.data.license) == (
        "fcos_d2",
        "object-detection",
        "apache-2.0",
    )
    assert "circle, square, star" in card.text and 'Predictor("hf://owner/my-detector")' in card.text
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["id2label"] == {"0": "circle", "1": "square", "2": "star"} and config["model_type"] == "fcos_d2"


def test_the_folder_is_the_detector(folder: Path, weights: Path) -> None:
    ours, theirs = (
        Predictor(source, device="cpu", score_threshold=0.3, overrides=["model.dense.selector.max_detections=40"])
        for source in (weights, folder)
    )
    found = [predictor.describe(predictor(IMAGE)["instances"]) for predictor in (ours, theirs)]
    assert found[0] == found[1] != [] and theirs.class_names == ["circle", "square", "star"]
    both = Predictor(
        "fcos_R_18_slim_FPN_small",
        weights=folder,
        device="cpu",
        score_threshold=0.3,
        overrides=["model.dense.selector.max_detections=40"],
    )
    assert both.class_names == theirs.class_names
    assert Predictor(folder / "model.safetensors", device="cpu").class_names == theirs.class_names


def test_thresholds_come_along(weights: Path, tmp_path: Path) -> None:
    """Their curves are tensors."""
    curves = {"kept": torch.rand(2, 3), "counts": torch.rand(2, 3, 5)}
    payload = {**load(weights), "thresholds": {"values": [0.25, 0.5, 0.75], "deep": curves}, "iteration": 9}
    save(tmp_path / "w.pth", payload)
    folder = write_repository(tmp_path / "w.pth", tmp_path / "repository")
    again = load(folder / "model.safetensors")
    assert again["thresholds"]["values"] == [0.25, 0.5, 0.75] and set(again) == {
        "class_names",
        "config",
        "model",
        "thresholds",
    }
    assert all(torch.equal(again["thresholds"]["deep"][key], curves[key]) for key in curves)
    assert "| square | 0.50 |" in (folder / "README.md").read_text(encoding="utf-8")


def test_what_cannot_be_written(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(FcosError, match="nothing is overwritten"):
        write_repository(weights, tmp_path / "full")
    save(tmp_path / "bare.pth", {"model": load(weights)["model"]})
    with pytest.raises(FcosError, match="does not hold its config"):
        write_repository(tmp_path / "bare.pth", tmp_path / "new")
    assert not (tmp_path / "new").exists() and [p.name for p in (tmp_path / "full").iterdir()] == ["mine.txt"]


def test_a_damaged_text_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    data = (folder / "model.safetensors").read_bytes().replace(b'"fcos_d2":"{', b'"fcos_d2":"[', 1)
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(FcosError, match="cut off, damaged"):
        Predictor(tmp_path, device="cpu")


COMMIT = "1" * 40


@pytest.fixture
def hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A server that has me/my-detector, and the paths that it was asked for; an empty cache."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(f"{self.command} {self.path}")
            parts = self.path.strip("/").split("/")
            file = folder / parts[-1]
            status, code = 200, ""
            if parts[:2] != ["me", "my-detector"]:
                status, code = 404, "RepoNotFound"
            elif parts[3] not in ("main", COMMIT):
                status, code = 404, "RevisionNotFound"
            data = file.read_bytes() if status == 200 else b""
            self.send_response(status)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", str(len(data)))
            self.send_header(*(("X-Error-Code", code) if code else ("ETag", f'"{hashlib.sha256(data).hexdigest()}"')))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        do_HEAD = do_GET

        def log_message(self, *words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(
        huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with running(server, threading.Event()):
        yield asked


def test_by_name(hub: list[str], weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = (
        Predictor(source, device="cpu", score_threshold=0.3, overrides=["model.dense.selector.max_detections=40"])
        for source in (weights, "hf://me/my-detector")
    )
    assert theirs.describe(theirs(IMAGE)["instances"]) == ours.describe(ours(IMAGE)["instances"])
    assert any(path.startswith("GET /me/my-detector/resolve/") for path in hub)
    before = len(hub)
    monkeypatch.setenv("FCOS_D2_OFFLINE", "1")
    assert Predictor("hf://me/my-detector", device="cpu").class_names == ours.class_names and len(hub) == before
    with pytest.raises(FcosError, match=r"hf://me/other is not in the cache .* --offline"):
        Predictor("hf://me/other", device="cpu")
    monkeypatch.delenv("FCOS_D2_OFFLINE")
    for name, words in (
        ("hf://me/other", "There is no me/other"), ("hf://me/my-detector@old", "no revision old"),
        ("hf://my-detector", "no name at Hugging Face"), ("hf://me/../../etc", "no name at Hugging Face"),
    ):  # fmt: skip
        with pytest.raises(FcosError, match=words):
            Predictor(name, device="cpu")

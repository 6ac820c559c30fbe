"""`fcos serve` as a process: it says where it is, answers, and ends with an answer for everyone who was let in."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from console import environment, install
from onnx_files import certified
from PIL import Image
from served import picture, until

from fcos_d2 import runtime


@contextmanager
def started(*words: object, folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process of `fcos` that serves, and where."""
    process = subprocess.Popen(
        [*install(folder / "bin"), *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
        env=environment(), cwd=folder,
    )  # fmt: skip
    assert process.stdout and process.stderr
    try:
        url = ""
        while not url and (line := process.stderr.readline()):
            url = "".join(re.findall(r"answers at (http://127\.0\.0\.1:\d+) ", line))
        assert url
        yield process, url
    finally:
        process.kill()
        process.wait()


def test_what_is_wrong_is_told_before_the_weights_are_read(fcos: Callable, weights: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for words, code, said in (
            (("--weights", "gone.pth"), 1, "gone.pth does not exist"),
            (("--weights", weights, "--port", port), 1, f"127.0.0.1:{port} cannot be listened at"),
            (("--weights", weights, "--host", "no.such.invalid"), 1, "--host no.such.invalid is no address"),
            (("--weights", weights, "--url-host", "a:80"), 2, "--allow-urls"),
            (("--weights", weights, "--allow-urls", "--url-host", "http://a"), 2, "is not HOST:PORT"),
        ):
            done = fcos("serve", *words)
            assert done.code == code and said in done.err and done.out == "", done.err
            assert "Traceback" not in done.err


def test_without_its_libraries_it_says_how_to_get_them(fcos: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "fastapi", None)
    done = fcos("serve", "--weights", "gone.pth")
    assert done.code == 1 and "pip install 'fcos_d2[serve]'" in done.err


def test_an_exported_file_answers_as_its_runtime_does(tmp_path: Path) -> None:
    model = certified(tmp_path / "model.onnx")
    Image.fromarray(runtime.generated_picture(10, 100, 140)).save(tmp_path / "a.png")
    detector = runtime.Detector(model)
    expected = detector.describe(detector.detect([runtime.read_picture(tmp_path / "a.png")])[0])
    with started("serve", "--weights", model, "--port", 0, "--json", folder=tmp_path) as (process, url):
        answer = httpx.post(f"{url}/detect", content=(tmp_path / "a.png").read_bytes(), trust_env=False).json()
        asked = httpx.get(f"{url}/model", trust_env=False).json()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert expected and asked["engine"] == "onnx" and asked["threshold"] == 0.3
    assert [(row["class"], row["box"]) for row in answer["detections"]] == [(x["class"], x["box"]) for x in expected]


def test_a_request_to_end_loses_no_request(weights: Path, tmp_path: Path) -> None:
    """Four clients ask one after the other until the server is gone: who was let in has a whole answer."""
    words = ["serve", "--weights", str(weights), "--device", "cpu", "--threshold", "0.3", "--port", "0", "--json"]
    answers: list[int] = []
    with started(*words, folder=tmp_path) as (process, url):

        def ask() -> None:
            with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
                while True:
                    try:
                        answer = client.post("/detect", content=picture())
                    except httpx.TransportError:  # the server is gone
                        return
                    assert answer.json()["detections"]
                    answers.append(answer.status_code)

        until(lambda: httpx.get(f"{url}/readyz", trust_env=False).status_code == 200)
        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        until(lambda: len(answers) > 8)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
    assert process.returncode == 0, err
    counted = json.loads(out)
    assert counted["accepted"] == counted["answered"] == len(answers) and set(answers) == {200}
    assert counted["by_status"] == {"200": len(answers)} and "Traceback" not in err

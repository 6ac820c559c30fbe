"""A system whose encoding is not UTF-8: every command reads and writes UTF-8 all the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from console import environment
from PIL import Image

NAMES = ["café", "猫"]
# All commands in one process, since most of the time is spent on imports.
SCRIPT = """
import codecs, locale, os, sys
from fcos_d2.cli import main
assert codecs.lookup(locale.getpreferredencoding(False)).name == "ascii"
for words, expected in zip({commands!a}, {codes}):
    print("#", end=" ", flush=True)
    sys.argv[1:] = [os.fsdecode(word.encode()) for word in words]  # as a shell hands them over
    try:
        main()
    except SystemExit as end:
        assert end.code == expected, (words, end.code)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images and classes with names beyond ASCII, and a config with such a comment."""
    folder = tmp_path_factory.mktemp("locale") / "données"
    (folder / "images").mkdir(parents=True)
    for part in ("train", "val"):
        images, boxes = [], []
        for n in range(2):
            name = f"{part} é{n}.png"
            Image.new("RGB", (64, 48), (200, 40 * n, 10)).save(folder / "images" / name)
            images.append({"id": n + 1, "file_name": name, "width": 64, "height": 48})
            boxes.append({"id": n + 1, "image_id": n + 1, "category_id": n + 1, "bbox": [8, 8, 40, 30], "area": 1200})
        categories = [{"id": n + 1, "name": name} for n, name in enumerate(NAMES)]
        content = {"images": images, "annotations": boxes, "categories": categories}
        (folder / f"{part}.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    (folder / "mine.py").write_text(
        "# für Katzen: 猫\nfrom fcos_d2 import zoo\n"
        'model, dataloader, optimizer, lr_multiplier, train = zoo.get_config("fcos_R_18_slim_FPN_small").values()\n',
        encoding="utf-8",
    )
    return folder


@pytest.mark.slow
def test_all_commands_in_an_ascii_locale(folder, tmp_path):
    data, weights = str(folder), "out/model_final.pth"
    small = ["--image-size", "32", "--batch-size", "2", "--workers", "0", "train.pictures=false"]
    commands = [
        ["train", "--data", data, "--config", str(folder / "mine.py"), *small, "--iterations", "2", "-o", "out"],
        ["eval", "--data", data, "--weights", weights, "--workers", "0", "-o", "ev", "--json"],
        ["detect", str(folder / "images"), "--weights", weights, "--threshold", "0", "-o", "found", "--json"],
        ["detect", str(folder / "images"), "--weights", weights, "--threshold", "0", "-o", "found"],
        ["eval", "--data", str(folder / "gibt es nicht: ß"), "--weights", weights, "--json"],
    ]
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(commands=commands, codes=[0, 0, 0, 0, 1])],
        cwd=tmp_path, capture_output=True,
        env=environment(LC_ALL="C", PYTHONUTF8="0", PYTHONIOENCODING="ascii", PYTHONPATH=":".join(sys.path)),
    )  # fmt: skip
    errors = run.stderr.decode("ascii")
    assert run.returncode == 0, errors
    assert "Traceback" not in errors and "Logging error" not in errors
    trained, evaluated, found, told, failed = run.stdout.decode("ascii").split("# ")[1:]
    assert "caf\\xe9" in trained or "2 iterations" in trained
    assert set(json.loads(evaluated)["per_class"]) == set(NAMES)
    assert len(json.loads(found)["images"]) == 4 and json.loads(found)["classes"] == NAMES
    assert "found/train" in told and "ß" in json.loads(failed)["error"].encode("utf-8", "surrogateescape").decode()
    summary = json.loads((tmp_path / "out" / "summary.json").read_bytes().decode("utf-8"))
    assert summary["classes"] == NAMES
    for name in ("config.yaml", "log.txt", "metrics.json", "evaluation.json"):
        (tmp_path / "out" / name).read_bytes().decode("utf-8")
    assert len(list((tmp_path / "found").glob("*.jpg"))) == 4

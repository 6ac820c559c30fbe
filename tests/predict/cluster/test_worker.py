"""A worker answers each picture of a portion, whatever the pictures are, and remembers what others died of."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fatal import POISON, look
from PIL import Image

from fcos_d2.data.sources import Source
from fcos_d2.predict.cluster import Attempts, FilePortion, ParquetPortion, Worker
from fcos_d2.predict.cluster.worker import MOST_DEATHS
from fcos_d2.predict.job import row_of


@pytest.fixture(scope="module")
def whole():
    return look()


@pytest.fixture
def pictures(tmp_path) -> list[str]:
    random = np.random.default_rng(0)
    for i in range(11):
        Image.fromarray(random.integers(0, 255, (48, 64, 3), np.uint8)).save(tmp_path / f"{i}.png")
    (tmp_path / "3.png").write_bytes((tmp_path / "3.png").read_bytes()[:100])
    (tmp_path / "9.png").unlink()
    return [str(tmp_path / f"{i}.png") for i in range(11)]


def portion(pictures: list[str], number: int = 0) -> FilePortion:
    return FilePortion(number, tuple((where, None) for where in pictures))


def rows(worker: Worker, one) -> list[dict]:
    return [row for some in worker.rows(one) for row in some]


def test_each_picture_has_one_row_in_order_and_what_cannot_be_read_the_reason(whole, pictures):
    worker = Worker(lambda: whole, Attempts())
    found = rows(worker, portion(pictures, 5))
    assert [row["image"] for row in found] == pictures and [row["key"] for row in found] == [(5, i) for i in range(11)]
    for i, row in enumerate(found):
        if i in (3, 9):
            assert set(row) == {"image", "error", "key"} and pictures[i] in row["error"]
            continue
        image = whole.read(Source(pictures[i]))
        (instances,) = whole.find([image], print)
        assert row == {**row_of(whole, pictures[i], image, instances), "key": (5, i)} and row["detections"]
    (texts,) = [batch["row"] for batch in worker({"portion": [portion(pictures[:2])]})]
    assert [json.loads(text)["image"] for text in texts] == pictures[:2]


def test_an_unexpected_error_is_of_its_picture_alone(whole, pictures, monkeypatch):
    found = whole.predictor.predict

    def fails(images, *args):
        if any(image.shape == (32, 32, 3) for image in images):
            raise ZeroDivisionError("inside")
        return found(images, *args)

    Image.new("RGB", (32, 32)).save(pictures[1])
    monkeypatch.setattr(whole.predictor, "predict", fails)
    results = rows(Worker(lambda: whole, Attempts()), portion(pictures[:3]))
    assert [row.get("error") for row in results] == [None, "ZeroDivisionError: inside", None]


def test_what_processes_died_with_is_set_aside_and_nothing_else(whole, pictures):
    attempts = Attempts()
    Image.new("RGB", (64, 48), (POISON, POISON, POISON)).save(pictures[1])
    one = portion(pictures[:3])
    keys = [(0, i) for i in range(3)]
    attempts.begin(keys)  # as the first process did, which died with all three
    worker = Worker(lambda: whole, attempts)
    begun = worker.rows(one)
    assert [row["image"] for row in next(begun)] == pictures[:1]
    assert attempts.begun(keys) == [0, 1, 1]
    attempts.begin(keys[1:2])  # here the second died
    results = rows(worker, one)
    assert [row["image"] for row in results] == pictures[:3] and attempts.begun(keys) == [0, 0, 0]
    assert ["error" in row for row in results] == [False, True, False]
    assert f"{pictures[1]} is set aside: {MOST_DEATHS} processes died" in results[1]["error"]


def test_a_table_that_is_gone_is_told_once(whole, tmp_path):
    one = ParquetPortion(7, str(tmp_path / "t.parquet"), 0, 0, 5)
    (row,) = rows(Worker(lambda: whole, Attempts()), one)
    assert row["key"] == (7, -1) and "does not exist" in row["error"] and len(one.names()) == 5


def test_pictures_are_drawn_where_the_portion_says(whole, pictures, tmp_path):
    drawn = tmp_path / "drawn" / "0.jpg"
    (row,) = rows(Worker(lambda: whole, Attempts()), FilePortion(0, ((pictures[0], str(drawn)),)))
    assert Path(row["picture"]) == drawn and Image.open(drawn).size == (64, 48)

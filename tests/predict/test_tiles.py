"""Tiles of a large image find what there is in it: a detector of coloured rectangles knows no doubt."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from PIL import Image

from fcos_d2.data.regions import Regions
from fcos_d2.data.sources import Source
from fcos_d2.errors import FcosError
from fcos_d2.predict.look import InTiles
from fcos_d2.predict.tiles import Memory, Tiling, bytes_of_a_pixel, detect, fitted

COLOURS = ((250, 20, 20), (20, 250, 20))
WIDTH, HEIGHT = 1500, 1130


class Rectangles:
    """Finds rectangles of two colours by their pixels; the class is the colour."""

    device = torch.device("cpu")

    def __init__(self):
        self.shapes = []

    def __call__(self, image, image_format):
        return self.predict([image], 1, image_format)[0]

    def input_size(self, image, image_format):
        return image.shape[:2]

    def draw(self, image, found, image_format, **options):
        return image

    def predict(self, images, batch_size=1, image_format="BGR", resize=True):
        assert image_format == "RGB"
        self.shapes.append([image.shape[:2] for image in images])
        return [{"instances": self.found(image)} for image in images]

    def found(self, image):
        boxes, classes = [], []
        for label, colour in enumerate(COLOURS):
            mask = (np.abs(image.astype(int) - colour) < 100).all(2).astype(np.uint8)
            for x, y, w, h, area in cv2.connectedComponentsWithStats(mask)[2][1:].tolist():
                boxes += [(x, y, x + w, y + h)] if area > 3 else []
                classes += [label] if area > 3 else []
        return Instances(
            image.shape[:2], pred_boxes=Boxes(torch.tensor(boxes, dtype=torch.float).reshape(-1, 4)),
            scores=torch.full((len(boxes),), 0.9), pred_classes=torch.tensor(classes, dtype=torch.long),
        )  # fmt: skip


def unread(picture, folder):
    """An image whose head alone is in memory."""
    Image.fromarray(picture).save(folder / "x.bmp")
    return Regions.from_source(Source(str(folder / "x.bmp")), 1, 1.0)


@pytest.fixture(scope="module")
def scene():
    """(picture, boxes): small rectangles all over, on the borders of tiles, too, and a large one."""
    random = np.random.default_rng(0)
    picture = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
    boxes = [(700, 80, 1330, 130)]  # over three tiles
    for y in range(200, HEIGHT - 100, 110):
        for x in range(10, WIDTH - 100, 110):
            w, h = random.integers(12, 100, 2).tolist()
            boxes.append((x, y, x + w, y + h))
    for i, (x0, y0, x1, y1) in enumerate(boxes):
        picture[y0:y1, x0:x1] = COLOURS[i % 2]
    return picture, boxes


def rows(found):
    return sorted((*box, label) for box, label in zip(found.pred_boxes.tensor.tolist(), found.pred_classes.tolist()))


@pytest.mark.parametrize("batch", [1, 3])
def test_everything_is_found_once_and_exactly(scene, batch):
    picture, boxes = scene
    predictor, told = Rectangles(), []
    tiling = Tiling(size=512, overlap=128, batch=batch)
    found = detect(predictor, Regions.of(picture), tiling, lambda *done: told.append(done))
    assert found.image_size == (HEIGHT, WIDTH)
    assert rows(found) == sorted((*map(float, box), i % 2) for i, box in enumerate(boxes))
    assert told[-1] == (12, 12)
    assert max(len(shapes) for shapes in predictor.shapes) == batch
    assert max(max(shape) for shapes in predictor.shapes[1:] for shape in shapes) == 512


@pytest.mark.parametrize("scale", [0.5, 1.5, 2.0])
def test_scaled(scene, scale):
    picture, boxes = scene
    found = detect(Rectangles(), Regions.of(picture), Tiling(size=512, overlap=256, scale=scale))
    got = rows(found)
    assert len(got) == len(boxes)
    expected = sorted((*map(float, box), i % 2) for i, box in enumerate(boxes))
    assert max(min(np.abs(np.subtract(a, b)).max() for b in expected) for a in got) <= 2 / min(scale, 1)


def test_an_image_that_fits_in_a_tile_is_looked_at_as_ever(scene):
    predictor = Rectangles()
    found = detect(predictor, Regions.of(scene[0][:400, :500]), Tiling(size=512, overlap=128))
    assert predictor.shapes == [[(400, 500)]] and len(found) > 0


@pytest.mark.parametrize(("size", "overlap", "scale"), [(255, 0, 1.0), (512, 300, 1.0), (512, -1, 1.0), (512, 0, 0.0)])
def test_tilings_that_make_no_sense(size, overlap, scale):
    with pytest.raises(FcosError, match="--tile-"):
        Tiling(size, overlap, scale)


@pytest.mark.parametrize(
    ("megabytes", "size", "batch"), [(2000, 1024, 4), (500, 1024, 2), (300, 1024, 1), (150, 512, 1), (90, 256, 1)]
)
def test_memory_decides_on_size_and_number(scene, tmp_path, megabytes, size, batch):
    """A pixel of the network's input takes 160 bytes here, with a quarter in reserve 200."""
    used, image = 70_000_000, unread(scene[0], tmp_path)
    memory = Memory(megabytes * 1_000_000, lambda: used, lambda run: run() and 512 * 512 * 160)
    pixel = bytes_of_a_pixel(Rectangles(), memory)
    assert pixel == 200
    tiling = fitted(image, Tiling(batch=4), memory, pixel, on_gpu=False)
    assert (tiling.size, tiling.batch) == (size, batch) and tiling.overlap <= tiling.size // 2
    assert image.bytes_to_come == 4 * WIDTH * HEIGHT
    assert used + image.bytes_to_come + tiling.batch * tiling.size**2 * 200 <= memory.limit


def test_the_reduced_image_stays_within_the_memory(scene, tmp_path):
    """As large as usual where that fits, else as large as fits; what is found there lies where it is all the same."""
    picture = scene[0]
    predictor = Rectangles()
    limited = Tiling(512, 128, whole=100_000)
    found = detect(predictor, Regions.of(picture), limited)
    height, width = predictor.shapes[0][0]
    assert 80_000 < height * width <= 100_000 and width / height == pytest.approx(WIDTH / HEIGHT, rel=0.01)
    assert len(found) == len(detect(Rectangles(), Regions.of(picture), replace(limited, whole=math.inf)))
    memory = Memory(300_000_000, lambda: 70_000_000, lambda run: None)
    image = unread(picture, tmp_path)
    pixels = fitted(image, Tiling(), memory, 200.0, on_gpu=False).whole
    assert 70_000_000 + image.bytes_to_come + 200 * pixels == pytest.approx(memory.limit)


@pytest.mark.parametrize(("free", "longest"), [(21 * 2048 * 1024, 2048), (1 << 40, 4096), (1000, 1024)])
def test_a_picture_is_drawn_as_large_as_the_memory_holds(free, longest):
    image = Regions.of(np.zeros((2500, 5000, 3), np.uint8))
    nothing = Instances((2500, 5000), pred_boxes=Boxes(torch.zeros(0, 4)))
    look = InTiles(Rectangles(), Tiling(), Memory(70_000_000 + free, lambda: 70_000_000, lambda run: None))
    assert look.draw(image, nothing).shape == (longest // 2, longest, 3)


def test_too_little_memory_is_said_and_unknown_is_left(scene, tmp_path):
    image = unread(scene[0], tmp_path)
    memory = Memory(75_000_000, lambda: 70_000_000, lambda run: None)
    with pytest.raises(FcosError, match=r"1500x1130 pixels needs 0\.09 GB .* --max-memory gives 0\.07 GB"):
        fitted(image, Tiling(), memory, 200.0, on_gpu=False)
    assert bytes_of_a_pixel(Rectangles(), memory) is None
    Image.fromarray(scene[0]).save(tmp_path / "x.jpg", progressive=True)
    image = Regions.from_source(Source(str(tmp_path / "x.jpg")), 1, 1.0)
    memory = replace(memory, limit=80_000_000)  # the picture and decoding it take 7 bytes a pixel
    with pytest.raises(FcosError, match=r"needs 0\.08 GB .* --max-memory gives 0\.08 GB"):
        fitted(image, Tiling(), memory, 1.0, on_gpu=False)
    assert fitted(image, Tiling(), replace(memory, limit=82_000_000), 1.0, on_gpu=False).size == 1024
    assert fitted(image, Tiling(), replace(memory, limit=10**9), 200.0, on_gpu=True).size == 1024

"""The predictor: every kind of source and image, equal to Detectron2's DefaultPredictor."""

from __future__ import annotations

from importlib import import_module

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultPredictor
from detectron2.structures import Boxes
from PIL import Image

from fcos_d2 import zoo
from fcos_d2.config.load import load_config
from fcos_d2.config.stored import dump_config
from fcos_d2.data.images import to_array
from fcos_d2.errors import FcosError
from fcos_d2.paths import config_root
from fcos_d2.predict import Predictor
from fcos_d2.weights.containers import load
from fcos_d2.weights.write import Checkpointer

VARIANT = "fcos_R_18_slim_FPN_small"
SMALL = ("model.num_classes=3", "dataloader.test.mapper.augmentations[0].short_edge_length=64")


@pytest.fixture(scope="module")
def predictor():
    return Predictor(VARIANT, weights="random", device="cpu", overrides=SMALL, score_threshold=0.0)


@pytest.fixture
def picture():
    """(H, W, 3) uint8 RGB with something in it."""
    image = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    image[10:30, 20:40] = (250, 20, 60)
    return image


def boxes(result):
    return result["instances"].pred_boxes.tensor


def test_result_is_detectron2s(predictor, picture):
    found = predictor(picture, image_format="RGB")["instances"]
    assert found.image_size == (40, 60) and len(found) > 0
    assert isinstance(found.pred_boxes, Boxes) and set(found.pred_classes.tolist()) <= {0, 1, 2}
    assert predictor.class_names == ["class 0", "class 1", "class 2"]
    drawn = predictor.draw(picture, found[:0], image_format="RGB")
    assert drawn.shape == picture.shape and drawn.dtype == np.uint8


def test_all_kinds_of_one_image_give_one_result(predictor, picture, tmp_path):
    pillow = Image.fromarray(picture)
    pillow.save(tmp_path / "x.png")
    kinds = [
        tmp_path / "x.png",
        str(tmp_path / "x.png"),
        pillow,
        pillow.convert("RGBA"),
        picture[:, :, ::-1],  # BGR, as OpenCV reads it
        cv2.imread(str(tmp_path / "x.png")),
        np.dstack([picture[:, :, ::-1], np.full((40, 60), 255, np.uint8)]),
        picture[:, :, ::-1].astype(np.uint16) * 257,
        torch.from_numpy(picture[:, :, ::-1].transpose(2, 0, 1).copy()),
    ]
    expected = boxes(predictor(picture, image_format="RGB"))
    for kind in kinds:
        assert torch.equal(boxes(predictor(kind)), expected), type(kind)
    together = predictor.predict(kinds, batch_size=4)
    assert len(together) == len(kinds)
    assert all(torch.allclose(boxes(x), expected, atol=1e-3) for x in together)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I", "F", "I;16"])
def test_every_pillow_mode(mode, picture):
    grey = Image.fromarray(picture).convert("L")
    if mode == "I;16":
        image = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
        assert image.mode == "I;16"
    elif mode == "PA":
        image = Image.fromarray(picture).convert("P").convert("PA")
    else:
        image = (grey if mode in ("1", "I", "F", "LA") else Image.fromarray(picture)).convert(mode)
    array = to_array(image)
    assert array.shape == (40, 60, 3) and array.min() >= 0 and array.max() <= 255
    expected = np.asarray(Image.fromarray(picture))
    if mode in ("L", "LA", "I", "F", "I;16"):
        assert np.array_equal(array[:, :, 0], np.asarray(grey))
    elif mode in ("RGB", "RGBA"):
        assert np.array_equal(array, expected)


def test_numbers_of_arrays(picture):
    for image in (picture.astype(np.float64), picture.astype(np.uint16) * 257, picture.astype(np.int64)):
        assert np.array_equal(to_array(image, "RGB"), picture), image.dtype
    assert np.array_equal(to_array(picture > 128, "BGR"), (picture > 128)[:, :, ::-1] * np.uint8(255))
    assert np.array_equal(to_array(picture[:, :, 0])[:, :, 2], picture[:, :, 0])
    assert np.array_equal(to_array(torch.from_numpy(picture[:, :, 0]))[:, :, 2], picture[:, :, 0])


def test_grey_and_palette_files(predictor, picture, tmp_path):
    for name, mode in (("grey.png", "L"), ("palette.gif", "P"), ("bits.png", "1"), ("cmyk.jpg", "CMYK")):
        Image.fromarray(picture).convert(mode).save(tmp_path / name)
        assert predictor(tmp_path / name)["instances"].image_size == (40, 60)


def test_exif_orientation_is_applied(picture, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    Image.fromarray(picture).save(tmp_path / "x.png", exif=exif)
    assert np.array_equal(to_array(tmp_path / "x.png"), np.rot90(picture, -1))


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("absent.jpg", "absent.jpg does not exist"),
        (np.zeros((0, 5, 3), np.uint8), "(0, 5, 3)"),
        (np.zeros((5, 5, 2), np.uint8), "(5, 5, 2)"),
        (np.zeros((2, 5, 5, 3), np.uint8), "(2, 5, 5, 3)"),
        (np.full((5, 5), np.nan, np.float32), "not finite"),
        (np.full((5, 5), -1), "-1"),
        (np.zeros((5, 5), complex), "complex"),
        ([1, 2], "not list"),
        (np.zeros((1, 9000, 3), np.uint8), "9000x1 pixels"),
    ],
)
def test_image_that_cannot_be_used_is_one_sentence(predictor, image, words):
    with pytest.raises(FcosError) as error:
        predictor(image)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_corrupt_file_is_named(predictor, picture, tmp_path):
    path = tmp_path / "x.jpg"
    Image.fromarray(picture).save(path)
    for content in (path.read_bytes()[:300], b"", b"no image"):
        path.write_bytes(content)
        with pytest.raises(FcosError, match=r"x\.jpg cannot be read"):
            predictor(path)


@pytest.mark.parametrize("size", [(1, 1), (33, 31), (31, 200)])
def test_odd_sizes(predictor, size):
    assert predictor(np.zeros((*size, 3), np.uint8))["instances"].image_size == size


def test_score_threshold(picture):
    options = {"weights": "random", "device": "cpu", "overrides": SMALL}
    torch.manual_seed(0)
    every = Predictor(VARIANT, score_threshold=0.0, **options)
    torch.manual_seed(0)
    scores = every(picture)["instances"].scores
    middle = float(scores[len(scores) // 2 : len(scores) // 2 + 2].mean())
    some = Predictor(VARIANT, score_threshold=middle, **options)
    kept = scores[scores > middle]
    assert 0 < len(kept) < len(scores)
    assert torch.allclose(some(picture)["instances"].scores, kept)
    with pytest.raises(FcosError, match="score_threshold is 2"):
        Predictor(VARIANT, score_threshold=2, **options)


def test_no_weights_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("FCOS_D2_CACHE", str(tmp_path))
    monkeypatch.setenv("FCOS_D2_OFFLINE", "1")
    with pytest.raises(FcosError, match=r"weights of fcos/fcos_R_50_FPN_1x \(https://.*are not in the cache"):
        Predictor("fcos_R_50_FPN_1x", device="cpu")
    with pytest.raises(FcosError, match=r"Nobody has published weights of small/.*: torchvision/fcos_resnet50_fpn"):
        Predictor(VARIANT, device="cpu")
    config = zoo.config_file("fcos_R_50_FPN_1x")  # a file may be anybody's
    with pytest.raises(FcosError, match=r"\.py has no weights of a detector, only a backbone \(detectron2://"):
        Predictor(config, device="cpu")


def test_checkpoint_brings_config_weights_and_names(predictor, picture, tmp_path, monkeypatch):
    """And is read once for all of it."""
    reads = []
    module = import_module("fcos_d2.weights.read")
    monkeypatch.setattr(module, "load", lambda path: reads.append(path) or load(path))
    extra = {"class_names": ["a", "b", "c"], "config": dump_config(predictor.cfg)}
    Checkpointer(predictor.model, str(tmp_path), extra=extra).save("m")
    expected = boxes(predictor(picture))
    for arguments in (
        {"source": tmp_path / "m.pth"},
        {"source": VARIANT, "weights": tmp_path / "m.pth", "overrides": SMALL},
    ):
        reads.clear()
        again = Predictor(**arguments, device="cpu", score_threshold=0.0)
        assert again.class_names == ["a", "b", "c"] and len(reads) == 1
        assert torch.equal(boxes(again(picture)), expected)
    assert Predictor(VARIANT, weights=tmp_path / "m.pth", device="cpu").class_names == ["a", "b", "c"]
    with pytest.raises(FcosError, match="3 classes"):
        Predictor(VARIANT, weights=tmp_path / "m.pth", device="cpu", overrides=["model.num_classes=80"])


def test_equals_detectron2s_predictor(picture, tmp_path):
    """The same YAML and weights in Detectron2's own DefaultPredictor, at BGR and RGB networks."""
    path = config_root() / "yaml" / "small" / f"{VARIANT}.yaml"
    for order in ("BGR", "RGB"):
        overrides = ["MODEL.DEVICE=cpu", "MODEL.FCOS.NUM_CLASSES=3", "INPUT.MIN_SIZE_TEST=64", f"INPUT.FORMAT={order}"]
        overrides += ["MODEL.FCOS.INFERENCE_TH_TEST=0.0", "MODEL.WEIGHTS="]
        cfg = load_config(path, overrides)
        assert isinstance(cfg, CfgNode)
        theirs = DefaultPredictor(cfg)
        Checkpointer(theirs.model, str(tmp_path)).save(order)
        ours = Predictor(path, weights=tmp_path / f"{order}.pth", device="cpu", overrides=overrides)
        expected = theirs(picture)["instances"]
        found = ours(picture)["instances"]
        assert len(expected) > 0
        assert torch.equal(found.pred_boxes.tensor, expected.pred_boxes.tensor)
        assert torch.equal(found.scores, expected.scores)

"""The mapper gives what Detectron2's gives: pixels, boxes, random numbers and errors."""

from __future__ import annotations

import copy
import json
import pickle
import random

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetMapper, detection_utils
from detectron2.data import transforms as T
from detectron2.data.datasets.coco import load_coco_json
from detectron2.structures import BoxMode, Instances
from fvcore.transforms.transform import BlendTransform, CropTransform, HFlipTransform
from PIL import Image

from fcos_d2 import add_fcos_config
from fcos_d2.data.mapper import PIXEL_TOLERANCE, CloseMapper, FastMapper

HEIGHT, WIDTH = 60, 83

BOXES = [[3.5, 4.25, 30.1, 20.7], [0, 0.5, 83, 59.5], [70.2, 50.9, 40.0, 30.0], [10.0, 10.0, 0.0, 5.0]]


def noise(height=HEIGHT, width=WIDTH, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def annotation(box, **more):
    return {"bbox": box, "bbox_mode": BoxMode.XYWH_ABS, "category_id": len(str(box)) % 7, "iscrowd": 0, **more}


@pytest.fixture
def record(tmp_path):
    Image.fromarray(noise()).save(tmp_path / "noise.jpg", quality=95)
    x, y = [5.0, 30.0, 22.0], [6.0, 9.0, 31.0]
    polygon = [value for pair in zip(x, y) for value in pair]
    points = [8.0, 9.0, 2, 20.0, 15.0, 1, 0.0, 0.0, 0]
    return {
        "file_name": str(tmp_path / "noise.jpg"),
        "height": HEIGHT,
        "width": WIDTH,
        "image_id": 7,
        "extra": {"kept": [1, 2]},
        "annotations": [annotation(box, segmentation=[polygon], keypoints=points) for box in BOXES]
        + [annotation([1.0, 2.0, 50.0, 50.0], segmentation=[polygon], keypoints=points) | {"iscrowd": 1}],
    }


def seeded(mapper, record, seed=0):
    """What a mapper returns, and where it leaves the generators."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)
    found = mapper(record)
    return found, (random.random(), float(np.random.rand()), float(torch.rand(())))  # noqa: NPY002


def assert_same(found, expected, tolerance=0):
    assert found.keys() == expected.keys()
    assert list(found.keys()) == list(expected.keys()) or found.keys() == expected.keys()
    for key, value in expected.items():
        if key == "image":
            assert found[key].dtype == value.dtype and found[key].shape == value.shape and found[key].is_contiguous()
            assert float((found[key].double() - value.double()).abs().max()) <= tolerance
        elif isinstance(value, Instances):
            assert found[key].image_size == value.image_size
            assert list(found[key].get_fields()) == list(value.get_fields())
            for name, field in value.get_fields().items():
                ours = found[key].get(name)
                assert type(ours) is type(field), name
                one, other = (getattr(x, "tensor", getattr(x, "polygons", x)) for x in (ours, field))
                assert pickle.dumps(one) == pickle.dumps(other) if isinstance(one, list) else torch.equal(one, other)
                if isinstance(one, torch.Tensor):
                    assert one.dtype == other.dtype
        elif isinstance(value, torch.Tensor):
            assert torch.equal(found[key], value)
        else:
            assert found[key] == value, key


def check(record, augmentations, seeds=3, cls=FastMapper, tolerance=0, **options):
    options = {"is_train": True, "image_format": "BGR", **options}
    ours = cls(augmentations=augmentations, **options)
    theirs = DatasetMapper(augmentations=augmentations, **options)
    before = pickle.dumps(record)
    for seed in range(seeds):
        (found, drawn), (expected, drawn_by_them) = seeded(ours, record, seed), seeded(theirs, record, seed)
        assert_same(found, expected, tolerance)
        assert drawn == drawn_by_them
        assert pickle.dumps(record) == before  # untouched
    return found


class Halve(T.Augmentation):
    """An augmentation that nobody knows, and that looks at the pixels."""

    def get_transform(self, image):
        return BlendTransform(src_image=0, src_weight=0.5, dst_weight=float(image.mean() > 0) * np.random.rand())  # noqa: NPY002


RESIZE = T.ResizeShortestEdge((40, 150), 200, "range")
AUGMENTATIONS = {
    "none": [],
    "usual": [RESIZE, T.RandomFlip()],
    "choice": [T.ResizeShortestEdge((40, 100, 150), 200, "choice"), T.RandomFlip(prob=1.0)],
    "flips first": [T.RandomFlip(prob=1.0), T.RandomFlip(prob=1.0, horizontal=False, vertical=True), RESIZE],
    "flips last": [RESIZE, T.RandomFlip(prob=1.0), T.RandomFlip(prob=1.0, horizontal=False, vertical=True)],
    "twice": [T.Resize((97, 41)), T.RandomFlip(), RESIZE, T.RandomFlip()],
    "other interpolation": [T.ResizeShortestEdge(100, interp=Image.BICUBIC), T.RandomFlip()],
    "same size": [T.Resize((HEIGHT, WIDTH))],
    "crop": [T.RandomCrop("relative_range", (0.4, 0.4)), RESIZE, T.RandomFlip()],
    "crop after": [RESIZE, T.RandomFlip(prob=1.0), T.RandomCrop("absolute", (30, 30))],
    "colour": [RESIZE, T.RandomBrightness(0.5, 1.5), T.RandomFlip(), T.RandomContrast(0.5, 1.5)],
    "colour first": [T.RandomSaturation(0.5, 1.5), T.RandomLighting(10.0), RESIZE, T.RandomFlip()],
    "rotation": [T.RandomFlip(), T.RandomRotation([-20, 20]), RESIZE],
    "unknown": [T.RandomFlip(), Halve(), RESIZE],
    "applied": [T.RandomApply(RESIZE, 0.5), T.RandomFlip()],
    "nested": [T.AugmentationList([RESIZE, T.RandomFlip()]), RESIZE],
    "scale": [T.ResizeScale(0.5, 2.0, 120, 110), T.FixedSizeCrop((100, 100)), T.RandomFlip()],
    "extent": [T.RandomExtent((0.5, 1.5), (0.2, 0.2)), RESIZE],
    "transforms": [HFlipTransform(WIDTH), CropTransform(3, 4, 50, 40), T.ResizeTransform(40, 50, 80, 70), RESIZE],
}


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("order", ["BGR", "RGB"])
def test_augmentations(record, name, order):
    check(record, AUGMENTATIONS[name], image_format=order)


@pytest.mark.parametrize("order", ["L", "YUV-BT.601", "CMYK"])
def test_other_formats_go_detectron2s_way(record, order):
    check(record, [T.Resize((50, 70)), T.RandomFlip()], seeds=2, image_format=order)


def test_a_list_of_another_class_is_asked_itself(record):
    class Reversed(T.AugmentationList):
        def __call__(self, aug_input):
            return T.TransformList([augmentation(aug_input) for augmentation in self.augs[::-1]])

    mappers = [cls(is_train=True, augmentations=[], image_format="BGR") for cls in (FastMapper, DatasetMapper)]
    for mapper in mappers:
        mapper.augmentations = Reversed([RESIZE, T.RandomCrop("relative", (0.5, 0.5))])
    assert_same(*(seeded(mapper, record)[0] for mapper in mappers))


def test_inference(record):
    found = check(record, [T.ResizeShortestEdge(100, 133)], is_train=False)
    assert "annotations" not in found and "instances" not in found and found["extra"] == {"kept": [1, 2]}
    found["extra"]["kept"].append(3)
    assert record["extra"] == {"kept": [1, 2]}


ANNOTATIONS = {
    "none": [],
    "whole numbers": [annotation([3, 4, 30, 20])],
    "one whole": [annotation([3, 4, 30, 20]), annotation([3.5, 4.5, 30.0, 20.0])],
    "mixed": [annotation([3, 4.1, 30, 20]), annotation([3.3, 4, 31, 20])],
    "corners": [annotation([3.1, 4.2, 30.3, 20.4]) | {"bbox_mode": BoxMode.XYXY_ABS}],
    "arrays": [annotation(np.array([3.1, 4.2, 30.3, 20.4])) | {"bbox_mode": BoxMode.XYXY_ABS}],
    "numpy numbers": [annotation(list(np.array([3.1, 4.2, 30.3, 20.4])))],
    "tuples": [annotation((3.1, 4.2, 30.3, 20.4))],
    "all crowds": [annotation([3.1, 4.2, 30.3, 20.4]) | {"iscrowd": 1}],
    "no iscrowd": [{k: v for k, v in annotation([3.1, 4.2, 30.3, 20.4]).items() if k != "iscrowd"}],
    "outside": [annotation([-30.1, -4.2, 20.3, 20.4]), annotation([80.5, 55.5, 400.3, 20.4])],
}


@pytest.mark.parametrize("name", ANNOTATIONS)
def test_annotations(record, name):
    check({**record, "annotations": ANNOTATIONS[name]}, [RESIZE, T.RandomFlip()])


@pytest.mark.parametrize(
    "options",
    [
        {"use_instance_mask": True},
        {"use_instance_mask": True, "instance_mask_format": "bitmask", "recompute_boxes": True},
        {"use_keypoint": True, "keypoint_hflip_indices": np.array([0, 2, 1])},
        {"use_instance_mask": True, "use_keypoint": True, "keypoint_hflip_indices": np.array([0, 2, 1])},
    ],
    ids=["polygons", "bit masks", "keypoints", "both"],
)
def test_masks_and_keypoints(record, options):
    check(record, [RESIZE, T.RandomFlip()], **options)


def test_proposals_and_semantic_maps(record, tmp_path):
    record["proposal_boxes"] = np.array([[1.0, 2.0, 30.0, 40.0], [5.0, 5.0, 6.0, 7.0]])
    record["proposal_bbox_mode"] = BoxMode.XYXY_ABS
    record["proposal_objectness_logits"] = np.array([0.5, 0.25])
    check(record, [RESIZE, T.RandomFlip()], precomputed_proposal_topk=1)
    for key in ("proposal_boxes", "proposal_bbox_mode", "proposal_objectness_logits"):
        del record[key]
    Image.fromarray(noise()[:, :, 0]).save(tmp_path / "map.png")
    record["sem_seg_file_name"] = str(tmp_path / "map.png")
    assert "sem_seg" in check(record, [RESIZE, T.RandomFlip()])


def test_a_subclass_gets_all_that_detectron2_would_give(record):
    class Keeping(FastMapper):
        def _transform_annotations(self, dataset_dict, transforms, image_shape):
            self.seen = copy.deepcopy(dataset_dict["annotations"])
            dataset_dict["annotations"][0]["bbox"][0] = -99.0
            super()._transform_annotations(dataset_dict, transforms, image_shape)

    mapper = Keeping(is_train=True, augmentations=[], image_format="BGR")
    before = copy.deepcopy(record)
    mapper(record)
    assert mapper.seen == before["annotations"] == record["annotations"]


def picture(kind, folder):
    """A file of some kind."""
    array = noise(seed=3)
    path = folder / f"{kind.replace(';', '_')}.png"
    if kind == "CMYK":
        path = path.with_suffix(".jpg")
        Image.fromarray(array).convert("CMYK").save(path)
    elif kind == "transparent":
        Image.fromarray(array).save(path, transparency=(1, 2, 3))
    elif kind == "gray jpeg":
        path = path.with_suffix(".jpg")
        Image.fromarray(array[:, :, 0]).save(path)
    elif kind == "progressive":
        path = path.with_suffix(".jpg")
        Image.fromarray(array).save(path, progressive=True)
    elif kind == "bmp":
        path = path.with_suffix(".bmp")
        Image.fromarray(array).save(path)
    else:
        Image.fromarray(array).convert(kind).save(path)
    return path


KINDS = ["1", "L", "LA", "P", "RGBA", "CMYK", "transparent", "gray jpeg", "progressive", "bmp"]


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_images(record, tmp_path, kind):
    record["file_name"] = str(picture(kind, tmp_path))
    check(record, [RESIZE, T.RandomFlip()], seeds=2)
    check(record, [], seeds=1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(record, tmp_path, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(noise()).save(tmp_path / "turned.jpg", exif=exif)
    if orientation > 4:
        record["height"], record["width"] = WIDTH, HEIGHT
    check({**record, "file_name": str(tmp_path / "turned.jpg")}, [RESIZE, T.RandomFlip()], seeds=2)


def test_a_single_pixel_and_a_strip(record, tmp_path):
    for shape in ((1, 1), (1, 200), (200, 1), (70, 1)):
        Image.fromarray(noise(*shape)).save(tmp_path / "small.png")
        small = {"file_name": str(tmp_path / "small.png"), "annotations": []}  # its size is not in the record
        check(small, [RESIZE, T.RandomFlip(prob=1.0)], seeds=2)
        check(small, [RESIZE, T.RandomFlip(prob=1.0)], seeds=2, cls=CloseMapper, tolerance=PIXEL_TOLERANCE)


def raised(mapper, record):
    with pytest.raises(Exception) as caught:  # noqa: PT011  # whatever Detectron2's mapper raises
        mapper(record)
    return type(caught.value), str(caught.value)


def test_errors_are_detectron2s(record, tmp_path):
    mappers = [cls(is_train=True, augmentations=[RESIZE], image_format="BGR") for cls in (FastMapper, DatasetMapper)]
    whole = (tmp_path / "noise.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "empty.jpg").write_bytes(b"")
    for name in ("cut.jpg", "text.jpg", "empty.jpg", "missing.jpg"):
        ours, theirs = (raised(mapper, {**record, "file_name": str(tmp_path / name)}) for mapper in mappers)
        assert ours == theirs and issubclass(ours[0], OSError)
    ours, theirs = (raised(mapper, {**record, "width": 84}) for mapper in mappers)
    assert ours == theirs and ours[0] is detection_utils.SizeMismatchError and record["file_name"] in ours[1]


def test_from_a_yaml_config(record):
    cfg = get_cfg()
    add_fcos_config(cfg)
    cfg.INPUT.MIN_SIZE_TRAIN = (50, 90)
    cfg.INPUT.CROP.ENABLED = True
    for train in (True, False):
        assert_same(*(seeded(cls(cfg, train), record)[0] for cls in (FastMapper, DatasetMapper)))


def test_mappers_travel_to_spawned_processes(record):
    mapper = FastMapper(is_train=True, augmentations=[RESIZE, T.RandomFlip()], image_format="BGR")
    copied = pickle.loads(pickle.dumps(mapper))
    assert_same(seeded(copied, record)[0], seeded(mapper, record)[0])


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_close_pixels(record, name):
    """The worst case for the rounding of weights: neighbours that differ by up to 255."""
    if name in ("colour", "colour first", "unknown", "rotation", "extent", "twice", "nested", "applied"):
        tolerance = 255  # what follows a resize, or comes of two, enlarges its difference
    else:
        tolerance = PIXEL_TOLERANCE
    check(record, AUGMENTATIONS[name], seeds=5, cls=CloseMapper, tolerance=tolerance)


def test_close_pixels_are_not_the_same(tmp_path):
    """Else the mode would have no reason to be off by default."""
    Image.fromarray(noise(300, 401)).save(tmp_path / "large.png")
    large = {"file_name": str(tmp_path / "large.png")}
    resize = [T.Resize((517, 731))]
    close, exact = (
        cls(is_train=False, augmentations=resize, image_format="RGB")(large)["image"].int()
        for cls in (CloseMapper, DatasetMapper)
    )
    share = float((close != exact).float().mean())
    assert 0 < share < 0.05 and int((close - exact).abs().max()) <= PIXEL_TOLERANCE


@pytest.mark.parametrize("split", ["train2017", "val2017"])
def test_on_coco(shared, split):
    folder = shared / "data" / "coco"
    file = folder / "annotations" / f"instances_{split}.json"
    assert json.loads(file.read_text())["annotations"]
    records = load_coco_json(str(file), str(folder / split), None)
    usual = [T.ResizeShortestEdge((640, 800), 1333, "range"), T.RandomFlip()]
    for record in records[::4]:
        check(record, usual, seeds=1)
        check(record, usual, seeds=1, cls=CloseMapper, tolerance=PIXEL_TOLERANCE)

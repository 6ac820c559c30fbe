"""The runtime of exported files beside the parts of the package that it stands in for."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.structures import Instances
from hypothesis import given, settings
from hypothesis import strategies as st

from fcos_d2 import runtime
from fcos_d2.modeling.locations import LocationGrid
from fcos_d2.modeling.ltrb import LTRBCoder
from fcos_d2.modeling.meta_arch import as_instances, of_original, with_area
from fcos_d2.modeling.selector import Selector
from fcos_d2.structures import Predictions
from fcos_d2.zoo.recipes import RECIPES

STRIDES, SIZES = (8, 16, 32), [(40, 61), (37, 50)]  # of the network inputs of a batch of two


def rules() -> dict[str, tuple[Selector, LTRBCoder, LocationGrid, dict[str, Any]]]:
    """What turns maps into boxes, once for each different set of choices that was published."""
    found = {}
    for recipe in RECIPES.values():
        parts = Selector(**recipe.selector), LTRBCoder(**recipe.coder), LocationGrid(**recipe.grid)
        found.setdefault((*parts, tuple(recipe.detector.items())), recipe.name)
    return {name: (*key[:3], dict(key[3])) for key, name in found.items()}


RULES = rules()
CHANGES = {  # of the original's selector, what no recipe has
    "few": {"topk": 7, "max_detections": 5}, "few of class": {"topk": 7, "topk_by": "class", "threshold_on": "score"},
    "product": {"threshold_on": "product", "score_threshold": 0.2}, "all": {"score_threshold": 0.0, "topk": 50},
    "final product": {"threshold_on": "score", "score_form": "product", "topk": 9},
    "no suppression": {"nms_threshold": 1.0}, "all overlaps": {"nms_threshold": 0.0},
    "cut": {"max_detections": 3, "max_detections_ties": "cut"}, "large": {"min_size": 2.0},
}  # fmt: skip
for _name, _change in CHANGES.items():
    _selector, *_others = RULES["original"]
    RULES[_name] = (dataclasses.replace(_selector, **_change), *_others)
RULES["dense points"] = (*RULES["fcos_plus"][:2], LocationGrid(points_per_cell=5), {})


def random_maps(seed: int, points: int, scale: float, steps: int = 0, classes: int = 3) -> list[list[torch.Tensor]]:
    """Logits, raw ltrb and quality of a batch of two; with `steps`, rounded to so many values a unit, which ties."""
    draw = torch.Generator().manual_seed(seed)
    shapes = [(-(-64 // stride), -(-64 // stride)) for stride in STRIDES]
    kinds = []
    for channels, spread in ((classes, scale), (4, 1.0), (1, scale)):
        maps = [torch.randn(2, points * channels, *shape, generator=draw) * spread for shape in shapes]
        kinds.append([(x * steps).round() / steps for x in maps] if steps else maps)
    return kinds


def of_model(maps: list[list[torch.Tensor]], rule: tuple[Any, ...]) -> list[Instances]:
    """Detections in pixels of original images twice as high and three times as wide, as the detector gives them."""
    selector, coder, grid, detector = rule
    shapes = [tuple(x.shape[2:]) for x in maps[0]]
    predictions = Predictions(*maps, grid(shapes, STRIDES, (64, 64), torch.device("cpu")))
    found = selector(predictions, coder, SIZES)
    inclusive = detector.get("inclusive_far_corner", False)
    split = as_instances(found, predictions.locations.xy[found.location], SIZES)
    scaled = [of_original(x, (2 * h, 3 * w), inclusive) for x, (h, w) in zip(split, SIZES)]
    return scaled if inclusive or detector.get("keep_empty") else with_area(scaled)


def metadata_of(rule: tuple[Any, ...], classes: int = 3) -> dict[str, Any]:
    selector, _, grid, detector = rule
    return {
        "format": 1, "graph": "raw", "preprocessing": "outside", "class_names": [f"c{i}" for i in range(classes)],
        "thresholds": [0.0] * classes, "channel_order": "BGR", "size_divisibility": 32, "strides": list(STRIDES),
        "select": dataclasses.asdict(selector), "grid": dataclasses.asdict(grid),
        "inclusive": detector.get("inclusive_far_corner", False), "keep_empty": detector.get("keep_empty", False),
        "resize": None,
    }  # fmt: skip


class Given:
    """A session whose outputs are known."""

    inputs = {"images": ((-1, 3, -1, -1), np.dtype("float32")), "image_sizes": ((-1, 2), np.dtype("int64"))}  # noqa: RUF012

    def __init__(self, outputs: dict[str, np.ndarray]) -> None:
        self.outputs = outputs

    def __call__(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return self.outputs


def of_runtime(maps: list[list[torch.Tensor]], rule: tuple[Any, ...]) -> list[runtime.Detections]:
    _, coder, _, _ = rule
    outputs = {}
    for i, (logits, raw, quality) in enumerate(zip(*maps)):
        ltrb = coder.detected(raw) * (STRIDES[i] if coder.unit == "stride" else 1)
        named = {"class_logits": logits, "ltrb": ltrb, "quality_logits": quality}
        outputs |= {f"{name}_{i}": values.numpy() for name, values in named.items()}
    detector = runtime.Detector("maps", session=Given(outputs), metadata=metadata_of(rule))
    found = runtime.decode(outputs, detector.metadata, SIZES, (64, 64))
    return [detector._of_picture(x, size, (2 * size[0], 3 * size[1])) for x, size in zip(found, SIZES)]


def assert_same(found: list[runtime.Detections], expected: list[Instances], in_order: bool = True) -> int:
    assert [len(x) for x in found] == [len(x) for x in expected]
    for one, other in zip(found, expected):
        boxes, scores = other.pred_boxes.tensor.numpy(), other.scores.numpy()
        if in_order:
            np.testing.assert_array_equal(one.classes, other.pred_classes.numpy())
            np.testing.assert_allclose(one.scores, scores, rtol=1e-6, atol=1e-7)
            np.testing.assert_allclose(one.boxes, boxes, rtol=1e-6, atol=1e-4)
        known = runtime.Detections(boxes, scores, other.pred_classes.numpy())
        assert runtime.compared(one, known, 1e-3, 1e-5).kept_equal
    return sum(map(len, found))


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("scale", [1.0, 4.0], ids=["near threshold", "many sure"])
def test_numpy_finds_in_maps_what_the_selector_finds(name: str, scale: float) -> None:
    rule, total = RULES[name], 0
    for seed in range(4):
        maps = random_maps(seed, rule[2].points_per_cell, scale)
        total += assert_same(of_runtime(maps, rule), of_model(maps, rule))
    assert total > 8


@pytest.mark.parametrize("name", ["original", "adelaidet", "mmdet", "detectron2", "cut", "product"])
def test_equal_scores_come_in_the_same_order(name: str) -> None:
    rule = RULES[name]
    maps = random_maps(5, 1, 2.0, steps=1)
    found, expected = of_runtime(maps, rule), of_model(maps, rule)
    assert any(len(np.unique(x.scores)) < len(x) for x in found), "there are ties"
    assert_same(found, expected)


def test_more_than_the_most_are_kept_where_they_tie_with_the_last() -> None:
    rule = RULES["few"]
    maps = random_maps(1, 1, 2.0)
    maps[0] = [torch.full_like(x, 1.0) for x in maps[0]]
    maps[2] = [torch.full_like(x, 1.0) for x in maps[2]]
    maps[1] = [torch.full_like(x, -1.0) for x in maps[1]]  # small boxes, which do not overlap
    found = of_runtime(maps, rule)
    assert all(len(x) > rule[0].max_detections for x in found)
    assert [len(x) for x in found] == [len(x) for x in of_model(maps, rule)]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6), scale=st.floats(0.1, 8), threshold=st.sampled_from([0.0, 0.05, 0.3, 0.9]),
    on=st.sampled_from(["class", "score", "product"]), form=st.sampled_from(["sqrt", "product"]),
    topk=st.integers(1, 300), by=st.sampled_from(["score", "class"]), overlap=st.floats(0, 1),
    convention=st.sampled_from(["plain", "plus_one"]), most=st.integers(1, 60),
    ties=st.sampled_from(["cut", "keep"]), clip=st.sampled_from(["before", "after"]),
    margin=st.sampled_from([0.0, 1.0]), least=st.sampled_from([-1.0, 0.0, 8.0]),
)  # fmt: skip
def test_any_selector(
    seed: int, scale: float, threshold: float, on: str, form: str, topk: int, by: str, overlap: float, convention: str,
    most: int, ties: str, clip: str, margin: float, least: float,
) -> None:  # fmt: skip
    selector = Selector(threshold, on, form, topk, by, overlap, convention, most, ties, clip, margin, least)
    rule = (selector, LTRBCoder("exp", "stride"), LocationGrid(), {})
    maps = random_maps(seed, 1, scale)
    assert_same(of_runtime(maps, rule), of_model(maps, rule), in_order=False)


def test_maps_without_any_object_and_without_quality() -> None:
    rule = RULES["adelaidet"]
    maps = random_maps(0, 1, 1.0)
    maps[0] = [x - 50 for x in maps[0]]
    assert [len(x) for x in of_runtime(maps, rule)] == [0, 0]
    sure = {f"class_logits_{i}": x.numpy() + 52 for i, x in enumerate(maps[0])}
    sure |= {f"ltrb_{i}": x.relu().numpy() for i, x in enumerate(maps[1])}
    (found, _) = runtime.decode(sure, metadata_of(rule), SIZES, (64, 64))
    assert found.scores.min() > 0.2  # the root of the class score alone


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 1500), st.integers(1, 2000))
def test_pictures_get_the_size_that_detectron2_gives_them(height: int, width: int, short: int, most: int) -> None:
    size = runtime.resized_size(height, width, {"short_edge": short, "max_size": most})
    assert size == ResizeShortestEdge.get_output_shape(height, width, short, most)


@pytest.mark.parametrize("order", ["BGR", "RGB"])
def test_pictures_reach_the_network_as_through_detectron2(order: str) -> None:
    picture = runtime.generated_picture(3, 130, 97)
    metadata = {**metadata_of(RULES["original"]), "channel_order": order, "resize": {"short_edge": 64, "max_size": 80}}
    detector = runtime.Detector("maps", session=Given({}), metadata=metadata)
    size = runtime.resized_size(130, 97, metadata["resize"])
    images = detector.network_input([picture], size)
    pixels = picture[:, :, ::-1] if order == "BGR" else picture
    resize = ResizeShortestEdge([64, 64], 80).get_transform(pixels)
    expected = resize.apply_image(np.ascontiguousarray(pixels))
    assert images.shape == (1, 3, 96, 64) and expected.shape[:2] == size
    np.testing.assert_array_equal(images[0, :, : size[0], : size[1]], expected.transpose(2, 0, 1))
    assert images[0, :, size[0] :].max() == 0 and images[0, :, :, size[1] :].max(initial=0) == 0

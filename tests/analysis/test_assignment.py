"""Which locations boxes get and which are ambiguous: by hand, by a slow transcription of the paper, and by training."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog, DatasetMapper
from detectron2.data import transforms as T

from fcos_d2.analysis import Objects, Rule, assign, paper_table, read_objects
from fcos_d2.analysis.rules import rule_of
from fcos_d2.analysis.tables import PAPER
from fcos_d2.data import find_dataset, register
from fcos_d2.modeling import LocationGrid
from fcos_d2.modeling.inputs import ground_truth
from fcos_d2.zoo import get_config

ONE_LEVEL = Rule(strides=(8,), size_ranges=((-1.0, math.inf),), center_radius=0.0)
RULES = (
    *dict.fromkeys(row.rule for row in PAPER),
    Rule(area="plus_one", range_ends="open", center_radius=1.0, origin="corner"),
    Rule(strides=(4, 8, 16), size_ranges=((-1.0, 32.0), (32.0, 64.0), (64.0, math.inf)), center_radius=0.4),
)


def one_image(boxes: list, labels: list[int], rule: Rule = ONE_LEVEL):
    return assign(np.array(boxes, float), np.zeros(len(boxes), int), np.array(labels), rule)


# ------------------------------------------------------------------------------------------------------------- by hand
def test_two_boxes_that_overlap() -> None:
    """Columns and rows lie at 4, 12, 20, 28: the large box claims 16 locations, the small one 4 of them."""
    found = one_image([[0, 0, 32, 32], [8, 8, 24, 24]], [0, 1])
    assert found.won.tolist() == [[12], [4]]
    assert (found.positives[0], found.ambiguous[0], found.across[0]) == (16, 4, 4)
    assert found.best_possible_recall == 1 and found.ambiguous_share == found.across_share == 0.25
    assert one_image([[0, 0, 32, 32], [8, 8, 24, 24]], [1, 1]).across_share == 0


def test_boxes_of_different_levels_do_not_compete() -> None:
    ranges = ((-1.0, 16.0), (16.0, math.inf))
    rule = Rule(strides=(8, 16), size_ranges=ranges, center_radius=0.0)
    found = one_image([[0, 0, 64, 64], [24, 24, 40, 40]], [0, 1], rule)
    assert found.won[0, 1] == 16 and found.won[1].tolist() == [4, 0]
    # Of the large box, p3 claims no location: each has a side farther than 16 pixels.
    assert found.won[0, 0] == 0 and found.ambiguous.tolist() == [0, 0]


def test_of_three_boxes_two_classes_are_enough() -> None:
    found = one_image([[0, 0, 16, 16], [0, 0, 16, 15], [0, 0, 15, 15]], [2, 2, 0])
    assert found.won.tolist() == [[0], [0], [4]] and found.alone.all()
    assert found.best_possible_recall == pytest.approx(1 / 3)
    assert found.ambiguous[0] == found.across[0] == 4


def test_equal_boxes_go_to_the_first() -> None:
    assert one_image([[0, 0, 16, 16]] * 2, [0, 0]).won.tolist() == [[4], [0]]


def test_no_boxes() -> None:
    found = assign(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0, int), Rule())
    assert found.won.shape == (0, 5) and math.isnan(found.best_possible_recall) and math.isnan(found.ambiguous_share)


# ------------------------------------------------------------------------------------------ a slow transcription
def transcription(boxes: np.ndarray, label: np.ndarray, rule: Rule, width: int, height: int):
    """One image, by the full matrix of locations and boxes; float32, as in training."""
    won, alone, counts = np.zeros((len(boxes), len(rule.strides)), int), np.zeros(len(boxes), bool), []
    area = [
        (float(x1) - float(x0) + (rule.area == "plus_one")) * (float(y1) - float(y0) + (rule.area == "plus_one"))
        for x0, y0, x1, y1 in boxes
    ]
    for level, (stride, (low, high)) in enumerate(zip(rule.strides, rule.size_ranges)):
        start = stride // 2 if rule.origin == "center" else 0
        x, y = (np.arange(start, side + stride, stride, dtype=np.float32) for side in (width, height))
        x, y = (at.reshape(-1, 1) for at in np.meshgrid(x, y))  # (R, 1)
        sides = np.stack((x - boxes[:, 0], y - boxes[:, 1], boxes[:, 2] - x, boxes[:, 3] - y))  # (4, R, M)
        far = sides.max(0)
        claims = sides.min(0) > 0
        claims &= (far >= low) & (far <= high) if rule.range_ends == "closed" else (far > low) & (far < high)
        if rule.center_radius:
            reach = np.float32(rule.center_radius * stride)
            middle = (boxes[:, :2] + boxes[:, 2:]) / 2
            claims &= (np.abs(x - middle[:, 0]) < reach) & (np.abs(y - middle[:, 1]) < reach)
        positives = ambiguous = across = 0
        for claimed in claims[claims.any(1)]:
            those = np.flatnonzero(claimed)
            alone[those] = True
            won[min(those, key=lambda row: (area[row], row)), level] += 1
            positives += 1
            ambiguous += len(those) > 1
            across += len(set(label[those].tolist())) > 1
        counts.append((positives, ambiguous, across))
    return won, alone, np.array(counts).T


def scenes(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, int, int]:
    """Boxes of images of 160 x 128: of all sizes, some on whole numbers, some flat, some twice; none in some images."""
    rng = np.random.default_rng(seed)
    width, height, boxes, image, label = 160, 128, [], [], []
    for number in range(count):
        many = int(rng.integers(0, 9))
        side = np.exp(rng.uniform(np.log(1.5), np.log(150), (many, 2)))
        low = rng.uniform(-0.2, 0.9, (many, 2)) * (width, height)
        each = np.concatenate((low, low + side), 1)
        each = each.round() if number % 2 else each
        if many > 2 and number % 3 == 0:
            each[1] = each[0]
        each = np.clip(each, 0, [width, height] * 2)
        boxes.append(each)
        image += [number] * many
        label.append(rng.integers(0, 3, many))
    return np.concatenate(boxes).astype(np.float32), np.array(image), np.concatenate(label), width, height


@pytest.mark.parametrize("number", range(len(RULES)))
def test_a_thousand_scenes_are_those_of_the_transcription(number: int) -> None:
    """Box by box and level by level, under the paper's four rules and two others; 1,000 scenes in all."""
    rule, count = RULES[number], 170
    boxes, image, label, width, height = scenes(count, number)
    found = assign(boxes, image, label, rule)
    expected = [transcription(boxes[image == one], label[image == one], rule, width, height) for one in range(count)]
    assert found.won.tolist() == np.concatenate([one[0] for one in expected]).tolist()
    assert found.alone.tolist() == np.concatenate([one[1] for one in expected]).tolist()
    counts = sum(one[2] for one in expected)
    assert [found.positives.tolist(), found.ambiguous.tolist(), found.across.tolist()] == counts.tolist()
    assert found.ambiguous.sum() > found.across.sum() > 0 and 0 < found.best_possible_recall < 1


def test_blocks_of_images_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes, image, label, *_ = scenes(60, 9)
    whole = assign(boxes, image, label, Rule())
    monkeypatch.setattr("fcos_d2.analysis.assignment._CLAIMS", 50)
    monkeypatch.setattr("fcos_d2.data.audit.reach._CELLS", 64)
    parts = assign(boxes, image, label, Rule())
    assert all(np.array_equal(a, b) for a, b in zip(list(vars(whole).values())[1:], list(vars(parts).values())[1:]))


# ------------------------------------------------------------------------------------------------------ in training
@pytest.mark.parametrize("name", ["fcos_R_50_FPN_1x", "fcos_imprv_R_50_FPN_1x", "detectron2/fcos_R_50_FPN_1x"])
def test_what_training_assigns(name: str, shared: Path) -> None:
    """Real annotations through Detectron2's own mapper, and the detector's own assigner at the size it evaluates."""
    cfg, layout = get_config(name), find_dataset(shared / "data" / "bccd")
    rule = rule_of(cfg)
    objects = read_objects(layout, ("val",))["val"]
    found = objects.assign(rule)
    records = DatasetCatalog.get(register(layout, f"analysis_{name.replace('/', '_')}", need=("val",)).val)
    resize = T.ResizeShortestEdge(rule.image_size, rule.max_size)
    mapper = DatasetMapper(is_train=True, augmentations=[resize], image_format="BGR")
    assigner = instantiate(cfg.model.dense.assigner)
    identity = np.array([image["id"] for image in objects.table.images])[objects.image]
    compared = 0
    for record in records[:12]:
        inputs = mapper(record)
        truth = ground_truth([inputs], 3, torch.device("cpu"), bool(cfg.model.get("inclusive_far_corner")))
        height, width = (-(-side // 128) * 128 for side in inputs["image"].shape[1:])
        sizes = [(height // stride, width // stride) for stride in rule.strides]
        locations = LocationGrid()(sizes, rule.strides, (height, width), torch.device("cpu"))
        (index,) = assigner(locations, truth.boxes, truth.image, 1)
        levels = [index[there.start : there.end] for there in locations.levels]
        won = [torch.bincount(taken[taken >= 0], minlength=len(truth.boxes)).tolist() for taken in levels]
        assert found.won[identity == record["image_id"]].T.tolist() == won
        compared += len(truth.boxes)
    assert compared > 100


def test_the_papers_quantities_of_a_slice_of_coco(shared: Path) -> None:
    """A box without a location, and ambiguity, are less frequent with the pyramid, as in the paper."""
    parts = read_objects(find_dataset(shared / "data" / "coco"))
    rows = paper_table(parts)
    assert [row["published"] for row in rows[:6]] == [0.9555, 0.984, 0.2316, 0.0714, 0.1784, 0.0375]
    assert {row["published"] for row in rows[6:]} == {None}
    for part in parts:
        recall_4, recall, ambiguous_4, ambiguous, across_4, across = (row[part] for row in rows[:6])
        assert recall > recall_4 > 0.9
        assert ambiguous_4 > ambiguous > across and ambiguous_4 > across_4 > across
        centred = [row[part] for row in rows[6:]]
        assert centred[2] < ambiguous_4 and centred[3] < ambiguous


def test_what_the_page_says_of_coco(shared: Path) -> None:
    """Its table, and best possible recall where boxes end a pixel earlier, as in the program of the paper."""
    parts = read_objects(find_dataset(shared / "data" / "coco"))
    page = (Path(__file__).resolve().parents[2] / "docs" / "analyzing.md").read_text(encoding="utf-8")
    there = [line.split("|")[3:6] for line in re.findall(r"^\|.*\| P(?:4 alone|3 to P7) \|.*$", page, re.MULTILINE)]
    expected = [
        tuple("" if share is None else f"{100 * share:.2f}" for share in (row["published"], row["train"], row["val"]))
        for row in paper_table(parts)
    ]
    assert [tuple(cell.strip() for cell in row) for row in there] == expected
    rule = replace(rule_of(get_config("fcos_R_50_FPN_1x")), center_radius=0.0)
    recall = [f"{100 * parts[part].assign(rule).best_possible_recall:.2f}" for part in ("train", "val")]
    assert " and ".join(recall) in page


def test_a_part_without_boxes_has_no_shares(shared: Path) -> None:
    objects = read_objects(find_dataset(shared / "data" / "bccd"), ("val",))["val"]
    empty = Objects.of(objects.split, objects.table, objects.row[:0])
    assert {row["val"] for row in paper_table({"val": empty})} == {None}

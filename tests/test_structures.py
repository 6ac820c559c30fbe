"""What travels between the parts."""

from __future__ import annotations

import pytest
import reference
import torch
from detectron2.structures import Boxes, Instances
from scenes import CPU, instances, locations, random_predictions

from fcos_d2.modeling import LocationGrid
from fcos_d2.structures import Detections, GroundTruth, Positives


@pytest.mark.parametrize("points", [1, 4, 5])
def test_gather_reads_each_location_of_each_map(points: int) -> None:
    at = locations((96, 160), grid=LocationGrid(points_per_cell=points))
    predictions = random_predictions(at, num_images=2)
    image = torch.arange(2).repeat_interleave(len(at))
    location = torch.arange(len(at)).repeat(2)
    for maps in (predictions.raw_ltrb, predictions.quality, predictions.logits):
        everything = reference.flatten(maps, points).flatten(0, 1)
        assert torch.equal(predictions.gather(maps, image, location).double(), everything)


def test_gather_of_a_channels_last_map_of_half_precision() -> None:
    predictions = random_predictions(locations((64, 64)))
    halves = [v.detach().half().contiguous(memory_format=torch.channels_last) for v in predictions.raw_ltrb]
    pick = torch.tensor([0, 1]), torch.tensor([5, len(predictions.locations) - 1])
    out = predictions.gather(halves, *pick)
    assert out.dtype == torch.float32
    assert torch.equal(out, predictions.gather([v.detach().half().float() for v in predictions.raw_ltrb], *pick))


def test_gather_sends_the_gradient_where_it_read() -> None:
    """A pair that is read twice gets both gradients, everything else none."""
    predictions = random_predictions(locations((64, 64)), num_images=1)
    location = torch.tensor([3, 3, 70])  # 70 is on the second level
    picked = predictions.gather(predictions.raw_ltrb, torch.zeros(3, dtype=torch.int64), location)
    picked.sum().backward()
    grads = reference.flatten([v.grad for v in predictions.raw_ltrb], 1)[0]
    assert grads[3].tolist() == [2] * 4
    assert grads[70].tolist() == [1] * 4
    assert grads.sum() == 12


def test_numbers_of_the_maps() -> None:
    predictions = random_predictions(locations(grid=LocationGrid(points_per_cell=4)), num_images=3, num_classes=7)
    assert (predictions.num_images, predictions.num_classes) == (3, 7)


def test_ground_truth_of_instances() -> None:
    batch = [
        instances((9, 9), torch.tensor([[0.0, 1, 2, 3], [4, 5, 6, 7]]), torch.tensor([4, 2])),
        Instances((9, 9), gt_boxes=Boxes(torch.empty(0)), gt_classes=torch.empty(0, dtype=torch.int64)),
        instances((9, 9), torch.tensor([[8.0, 8, 9, 9]]).double(), torch.tensor([1], dtype=torch.int32)),
    ]
    truth = GroundTruth.from_instances(batch, CPU)
    assert truth.boxes.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 8, 9, 9]]
    assert truth.classes.tolist() == [4, 2, 1]
    assert truth.image.tolist() == [0, 0, 2]
    assert truth.num_images == 3
    assert (truth.boxes.dtype, truth.classes.dtype, truth.image.dtype) == (torch.float32, torch.int64, torch.int64)


def test_positives_are_counted_on_the_device() -> None:
    row = torch.zeros(3, dtype=torch.int64)
    assert Positives(row, row, row).count == 3
    assert Positives(row, row, row, torch.tensor([1.0, 0, 1])).count == 2
    assert Positives(row[:0], row[:0], row[:0]).count == 0


def test_detections_are_picked_together() -> None:
    found = Detections(torch.arange(3), torch.rand(3, 4), torch.rand(3), torch.arange(3) + 5, torch.arange(3) + 9)
    picked = found[torch.tensor([2, 0])]
    assert len(picked) == 2
    assert torch.equal(picked.boxes, found.boxes[[2, 0]])
    assert torch.equal(picked.scores, found.scores[[2, 0]])
    assert (picked.image.tolist(), picked.classes.tolist(), picked.location.tolist()) == ([2, 0], [7, 5], [11, 9])

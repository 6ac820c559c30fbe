"""Memory formats and compiled losses change nothing; ties with the last detection are kept."""

from __future__ import annotations

import pytest
import torch
from scenes import CPU, relative

from fcos_d2.modeling import LocationGrid, LTRBCoder, Selector
from fcos_d2.structures import GroundTruth, Predictions
from projects_tools.bench import workload
from projects_tools.bench.peers import Ours, as_gt_instances
from projects_tools.bench.workload import STRIDES, Maps, Setting

SIZE = (192, 256)


def predictions(maps: Maps) -> Predictions:
    at = LocationGrid()([tuple(x.shape[2:]) for x in maps.logits], STRIDES, SIZE, CPU)
    return Predictions(maps.logits, maps.raw_ltrb, maps.quality, at)


def test_ties_with_the_last_detection() -> None:
    """Sixty equal scores apart from each other: all of them tie with the tenth, and all are kept."""
    maps = workload.detection_maps(Setting("decode", 1, *SIZE, scores="sparse"))
    for logits, raw_ltrb, quality in zip(maps.logits, maps.raw_ltrb, maps.quality):
        logits.fill_(-20.0)
        raw_ltrb.fill_(0.4)
        quality.fill_(3.0)
    maps.logits[0].view(-1)[:60] = 1.0
    kept = Selector(max_detections=10, max_detections_ties="keep")(predictions(maps), LTRBCoder(), [SIZE])
    assert len(kept) == 60
    kept = Selector(max_detections=10, max_detections_ties="cut")(predictions(maps), LTRBCoder(), [SIZE])
    assert len(kept) == 10


@pytest.mark.parametrize("scores", ["heavy", "trained"])
def test_decoding_of_channels_last_maps(scores: str) -> None:
    selector, coder = Selector(topk=50), LTRBCoder()
    one, other = (
        selector(
            predictions(workload.detection_maps(Setting("decode", 2, *SIZE, scores=scores, mode=mode))),
            coder,
            [SIZE] * 2,
        )
        for mode in ("eager", "channels_last")
    )
    assert torch.equal(one.location, other.location)
    assert torch.allclose(one.scores, other.scores, atol=1e-6)


def test_assignment_and_losses_compile_without_graph_breaks() -> None:
    setting = Setting("loss", 2, 128, 160, 5)
    ours = Ours("adelaidet")
    dense, maps = ours._dense(), workload.training_maps(setting)
    leaves = maps.leaves()
    truth = GroundTruth.from_instances(as_gt_instances(workload.truths(setting), setting), CPU)
    plain = ours._predictions(dense, maps, setting)

    def losses(logits, raw_ltrb, quality, boxes, classes, image):
        found = Predictions(logits, raw_ltrb, quality, plain.locations)
        return dense.losses(found, GroundTruth(boxes, classes, image, 2))

    arguments = (maps.logits, maps.raw_ltrb, maps.quality, truth.boxes, truth.classes, truth.image)
    compiled = torch.compile(losses, fullgraph=True, backend="aot_eager")(*arguments)
    expected = losses(*arguments)
    assert {k: v.item() for k, v in compiled.items()} == pytest.approx(
        {k: v.item() for k, v in expected.items()}, rel=1e-5
    )
    grads = torch.autograd.grad(sum(compiled.values()), leaves)
    assert relative(grads, torch.autograd.grad(sum(expected.values()), leaves)) < 1e-5

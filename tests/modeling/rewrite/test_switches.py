"""Every pair of values of every two switches: the gradients and the detections are those of the plain model."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from detectron2.config import instantiate
from detectron2.layers import FrozenBatchNorm2d
from detectron2.structures import Instances
from scenes import image_inputs, random_boxes, relative
from torch import Tensor

from fcos_d2.config.compose import compose
from fcos_d2.modeling import FCOS
from fcos_d2.modeling.rewrite import PARTS, prepare_training

SWITCHES: dict[str, Sequence[Any]] = {
    "recompute": (False, True),  # of the head's norms
    "gradient_checkpointing": PARTS,
    "amp": (False, True),
    "copied": (False, True),
    "optimize": (False, True),
    "batch_invariant": (False, True),
    "channels_last": (False, True),
    "accumulation": (1, 3),
    "precision": ("fp32", "bf16"),
}
# Whole cells of the coarsest stride of the backbone: alone, none of these images is padded.
SIZES = ((64, 96), (96, 64), (32, 128))


def pairs_of(switches: dict[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Combinations in which every two values of two switches meet, few of them: each takes what covers most."""
    names = list(switches)
    open_pairs = {
        frozenset(((a, x), (b, y)))
        for a, b in itertools.combinations(names, 2)
        for x, y in itertools.product(switches[a], switches[b])
    }
    every = [dict(zip(names, values)) for values in itertools.product(*switches.values())]
    chosen = []
    while open_pairs:
        covered = [{frozenset(pair) for pair in itertools.combinations(row.items(), 2)} & open_pairs for row in every]
        best = max(range(len(every)), key=lambda i: len(covered[i]))
        chosen.append(every[best])
        open_pairs -= covered[best]
    return chosen


COMBINATIONS = pairs_of(SWITCHES)
# What failed silently before, each by itself.
COMBINATIONS += [
    dict.fromkeys(SWITCHES, False) | {"accumulation": 1, "precision": "fp32", "gradient_checkpointing": "none"} | more
    for more in (
        {"gradient_checkpointing": "backbone", "optimize": True},
        {"amp": True, "optimize": True},
        {"batch_invariant": True},
    )
]
QUICK = [*COMBINATIONS[:-3:4], *COMBINATIONS[-3:]]


def build(recompute: bool) -> FCOS:
    """Float64; frozen norms that do something; scores on both sides of the threshold."""
    node = compose("improved", "R_18_slim_FPN", "1x").model
    node.num_classes = 3
    node.backbone.bottom_up.norm = "FrozenBN"
    node.dense.head.recompute = recompute
    torch.manual_seed(0)
    model = instantiate(node).double()
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, FrozenBatchNorm2d):
                part.running_mean.normal_(0, 0.2), part.running_var.uniform_(0.5, 1.5)
                part.weight.uniform_(0.5, 1), part.bias.normal_(0, 0.2)
        model.dense.head.cls_logits.weight.mul_(10)
        model.dense.head.cls_logits.bias.fill_(-2)
        model.dense.head.bbox_pred.bias.fill_(1)
    return model


def batch_of() -> list[dict[str, Any]]:
    torch.manual_seed(1)
    return [image_inputs(s, random_boxes(n, s), torch.randint(0, 3, (n,))) for n, s in zip((4, 3, 2), SIZES)]


def gradients(model: FCOS, batch: list[dict[str, Any]], parts: int, amp: bool) -> dict[str, Tensor]:
    """Of the sum of all losses, which stands under "loss"; `parts` as in `train.grad_accumulation`."""
    model.train().zero_grad()
    whole = {"whole": model.whole_batch(batch)} if parts > 1 else {}
    total = 0.0
    for part in [batch[i::parts] for i in range(parts)]:
        with torch.autocast("cpu", torch.bfloat16, enabled=amp):
            loss = sum(model(part, **whole).values())
        loss.backward()
        total += loss.detach()
    return {name: p.grad for name, p in model.named_parameters() if p.requires_grad} | {"loss": total}


@torch.no_grad()
def maps(model: FCOS, batch: list[dict[str, Any]]) -> list[Tensor]:
    """Head outputs of each image alone."""
    found = []
    for inputs in batch:
        images = model.preprocess_image([inputs]).tensor
        features = model.backbone(images.contiguous(memory_format=torch.channels_last))
        outputs = model.dense.head([features[name] for name in model.head_in_features])
        found += [x.float() for values in outputs for x in values]
    return found


@torch.no_grad()
def detect(model: FCOS, batches: list[list[dict[str, Any]]]) -> list[Instances]:
    return [x["instances"] for batch in batches for x in model.eval()(batch)]


def same(ours: Instances, theirs: Instances) -> bool:
    """Equal detections, in the order of class and location: scores may tie."""

    def rows(found: Instances) -> Tensor:
        table = torch.cat(
            [found.pred_classes[:, None].float(), found.locations, found.pred_boxes.tensor, found.scores[:, None]], 1
        )
        return table[sorted(range(len(table)), key=lambda i: table[i, :3].tolist())]

    return len(ours) == len(theirs) > 5 and bool((rows(ours) - rows(theirs)).abs().max() < 1e-2)


def test_every_pair_is_there() -> None:
    for a, b in itertools.combinations(SWITCHES, 2):
        met = {(row[a], row[b]) for row in COMBINATIONS}
        assert met >= set(itertools.product(SWITCHES[a], SWITCHES[b]))
    assert len(COMBINATIONS) < 16


@pytest.mark.parametrize(
    "chosen",
    [row if row in QUICK else pytest.param(row, marks=pytest.mark.slow) for row in COMBINATIONS],
    ids=lambda row: "-".join(str(value) for value in row.values()),
)
def test_gradients_and_detections_of_the_plain_model(chosen: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fcos_d2.modeling.head._LARGE", 1)  # small maps are computed twice, too
    batch, plain = batch_of(), build(recompute=False)
    model = prepare_training(
        build(chosen["recompute"]), device="cpu", amp=chosen["amp"], recompute=chosen["gradient_checkpointing"]
    )
    if chosen["channels_last"]:
        model.to(memory_format=torch.channels_last)
    if chosen["batch_invariant"]:
        model.batch_invariant, model.one_by_one = True, False
    if chosen["copied"]:
        model = copy.deepcopy(model)
    assert list(model.state_dict()) == list(plain.state_dict())

    expected = gradients(plain, batch, 1, chosen["amp"])
    found = gradients(model, batch, chosen["accumulation"], chosen["amp"])
    assert found.keys() == expected.keys()
    # Losses are float32 (2^-24); under autocast maps are rounded to 2^-9 in each of about 30 layers.
    bound = 30 * 2.0**-9 if chosen["amp"] else 1e-5
    assert relative(list(found.values()), list(expected.values())) < bound

    plain, model = plain.float().eval(), model.float().eval()
    if chosen["optimize"]:
        model = model.optimize(chosen["precision"])
    low = chosen["optimize"] and chosen["precision"] == "bf16"
    assert relative(maps(model, batch), maps(plain, batch)) < (30 * 2.0**-9 if low else 1e-4)
    if not low:
        # Without padding each image has what it has alone; with it, what it has in this batch.
        reference = detect(plain, [[x] for x in batch] if chosen["batch_invariant"] else [batch])
        assert all(same(a, b) for a, b in zip(detect(model, [batch]), reference))


def test_the_padding_matters() -> None:
    """So that the test above can fail."""
    batch, plain = batch_of(), build(recompute=False).float().eval()
    together, alone = detect(plain, [batch]), detect(plain, [[x] for x in batch])
    assert not all(same(a, b) for a, b in zip(together, alone))

"""Gradient checkpointing changes neither gradients nor statistics, and keeps less."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import warm
from detectron2.config import instantiate
from scenes import detector, image_inputs, random_boxes, total
from torch import nn

from fcos_d2.config.compose import compose
from fcos_d2.errors import FcosError
from fcos_d2.modeling.rewrite import PARTS, rewrite, rewrites_of
from fcos_d2.modeling.rewrite.recompute import Recomputed
from fcos_d2.train.settings import without_denormals

SIZE = (64, 96)
# A row for each kind of block, with norms that train where the row can have them.
ROWS: dict[str, dict[str, Any]] = {
    "R_18_slim_FPN": {"norm": "BN", "freeze_at": 0},
    "R_50_dcnv2_FPN": {"freeze_at": 3},
    "MNV2_FPN": {"norm": "BN"},
    "DLA_34_FPN": {"norm": "BN"},
    "V_19_slim_eSE_FPN": {"norm": "BN", "freeze_at": 1},
    "HRNet_W18_HRFPN": {"norm": "BN"},
}
QUICK = ("R_18_slim_FPN", "DLA_34_FPN", "V_19_slim_eSE_FPN")  # blocks in a row, in a tree, and with an attention


@pytest.fixture(autouse=True)
def _fast() -> Iterator[None]:
    with without_denormals():
        yield


def model_of(row: str) -> nn.Module:
    node = compose("improved", row, "1x").model
    node.num_classes = 3
    for key, value in ROWS[row].items():
        node.backbone.bottom_up[key] = value
    return instantiate(node).train()


def batch_of() -> list[dict[str, Any]]:
    return [image_inputs(SIZE, random_boxes(n, SIZE), torch.randint(0, 3, (n,))) for n in (4, 2)]


def blocks_of(model: nn.Module) -> int:
    return sum(isinstance(part, Recomputed) for part in model.modules())


class Kept:
    """Counts what the graph keeps for the backward pass."""

    def __init__(self) -> None:
        self.storages: dict[int, torch.UntypedStorage] = {}

    def pack(self, tensor: torch.Tensor) -> torch.Tensor:
        self.storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    def bytes_besides(self, model: nn.Module) -> int:
        own = {p.untyped_storage().data_ptr() for p in [*model.parameters(), *model.buffers()]}
        return sum(storage.nbytes() for pointer, storage in self.storages.items() if pointer not in own)


def step(model: nn.Module, batch: list[dict[str, Any]]) -> tuple[dict[str, torch.Tensor], int]:
    kept = Kept()
    with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda tensor: tensor):
        losses = model(batch)
    count = kept.bytes_besides(model)
    del kept
    total(losses).backward()
    return losses, count


@pytest.mark.parametrize("row", [row if row in QUICK else pytest.param(row, marks=pytest.mark.slow) for row in ROWS])
def test_gradients_and_statistics_are_equal_to_the_bit(row: str) -> None:
    plain, batch = model_of(row), batch_of()
    models = {parts: rewrite(plain, recompute=parts) for parts in PARTS[1:]}
    losses, most = step(plain, batch)
    expected = {name: p.grad for name, p in plain.named_parameters() if p.requires_grad}
    for parts, model in models.items():
        assert rewrites_of(model) == (f"recompute: {parts}",)
        assert blocks_of(model) > 2
        again, count = step(model, batch)
        assert all(torch.equal(losses[name], again[name]) for name in losses)
        found = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
        assert all(torch.equal(found[name], value) for name, value in expected.items())
        assert list(model.state_dict()) == list(plain.state_dict())
        buffers = dict(model.named_buffers())
        assert all(torch.equal(buffers[name], value) for name, value in plain.named_buffers())
        assert count < 0.9 * most
        most = count  # the head, too: still less


def test_under_autocast() -> None:
    plain, batch = model_of("R_18_slim_FPN"), batch_of()
    model = rewrite(plain, recompute="all")
    gradients = []
    for one in (plain, model):
        with torch.autocast("cpu", torch.bfloat16):
            losses = one(batch)
        assert all(value.dtype == torch.float32 for value in losses.values())
        total(losses).backward()
        gradients.append([p.grad for p in one.parameters()])
    assert all(g.dtype == torch.float32 for g in gradients[0])
    assert all(torch.equal(a, b) for a, b in zip(*gradients))


def test_nothing_is_computed_twice_without_gradients() -> None:
    model, batch = model_of("R_18_slim_FPN"), batch_of()
    calls = []
    model.backbone.bottom_up.res5[0].conv1.register_forward_hook(lambda *_: calls.append(1))
    model = rewrite(model, recompute="backbone")
    with torch.no_grad():
        model(batch)
    model.eval()
    model(batch)
    assert len(calls) == 2
    step(model.train(), batch)
    assert len(calls) == 4


def test_frozen_blocks_are_left_alone() -> None:
    """The stem, four stages of two blocks, and two towers."""
    counts = [blocks_of(rewrite(detector(norm="BN", freeze_at=stages), recompute="all")) for stages in range(6)]
    assert counts == [11, 10, 8, 6, 4, 2]


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 1)), "Sequential has not"),
        (nn.ModuleDict({"backbone": nn.Sequential(nn.Conv2d(3, 4, 1))}), "no blocks of Sequential"),
    ],
)
def test_what_has_no_blocks(model: nn.Module, words: str) -> None:
    if isinstance(model, nn.ModuleDict):
        holder = nn.Module()
        holder.backbone = model["backbone"]
        model = holder
    with pytest.raises(FcosError, match=words):
        rewrite(model, recompute="backbone")


def test_asking_twice_is_asking_once() -> None:
    plain = detector(norm="BN", freeze_at=0)
    once, more = (rewrite(rewrite(plain, recompute="backbone"), recompute=parts) for parts in ("backbone", "all"))
    assert (blocks_of(once), blocks_of(more)) == (9, 11)
    assert rewrites_of(more) == ("recompute: all",)
    assert blocks_of(plain) == 0


@pytest.mark.slow  # in one process above, and without gradient checkpointing in tests/e2e/test_distributed.py
def test_two_processes(tmp_path: Path) -> None:
    warm.processes("checkpoint", 2, str(tmp_path))
    for rank in range(2):
        results = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for parts in PARTS[1:]:
            for kind, expected in results["none"].items():
                found = results[parts][kind]
                assert found.keys() == expected.keys()
                assert all(torch.equal(found[name], value) for name, value in expected.items())

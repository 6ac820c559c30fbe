"""Parts that do not train, and SyncBN on the CPU."""

from __future__ import annotations

import logging

import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d
from scenes import detector
from torch import nn

from fcos_d2.modeling.exact_norm import BatchNorm2d
from fcos_d2.modeling.rewrite import prepare_training, rewrite, rewrites_of


def test_sync_bn_becomes_bn_on_the_cpu(caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Sequential(nn.SyncBatchNorm(2, eps=0.5, momentum=0.3))).double()
    norm = model[1][0]
    norm.running_mean.fill_(3.0)
    norm.weight.requires_grad_(False)
    norm.eval()
    with caplog.at_level(logging.WARNING, "fcos_d2"):
        new = prepare_training(model, device="cpu", amp=False)
    found = new[1][0]
    assert type(found) is BatchNorm2d
    assert type(norm) is nn.SyncBatchNorm
    assert float(found.running_mean[0]) == 3.0
    assert (found.eps, found.momentum, found.training, found.weight.dtype) == (0.5, 0.3, False, torch.float64)
    assert (found.weight.requires_grad, found.bias.requires_grad) == (False, True)
    assert found.weight is norm.weight  # an optimizer of the given model steps the new one
    assert len(caplog.records) == 1
    assert "1 SyncBN layers became BN layers" in caplog.text
    assert rewrites_of(new) == ("freeze: 1 SyncBN layers became BN layers",)
    assert rewrites_of(prepare_training(model, device="meta", amp=True)) == ()


def test_frozen_parts_keep_their_numbers_and_do_not_learn() -> None:
    model = detector(norm="BN", freeze_at=0).eval()
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_var.uniform_(0.5, 2)
                part.running_mean.normal_()
                part.weight.normal_()
    new = rewrite(model, freeze=("backbone.bottom_up.stem", "backbone.bottom_up.res2"))
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        for name, value in model.backbone(x).items():
            assert torch.allclose(new.backbone(x)[name], value, rtol=1e-4, atol=1e-4)
    learn = {name for name, p in new.named_parameters() if p.requires_grad}
    assert not [name for name in learn if ".stem." in name or ".res2." in name]
    assert "backbone.bottom_up.res3.0.conv1.weight" in learn
    assert all(p.requires_grad for p in model.parameters())
    kinds = {type(part.norm) for part in new.backbone.bottom_up.res2.modules() if hasattr(part, "norm")}
    assert kinds == {FrozenBatchNorm2d}
    new.train()
    before = new.backbone.bottom_up.stem.conv1.norm.running_mean.clone()
    new.backbone(x)
    assert torch.equal(new.backbone.bottom_up.stem.conv1.norm.running_mean, before)

"""Norms by name, batch norm with fixed statistics, and freezing."""

from __future__ import annotations

import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d
from torch import nn

from fcos_d2.modeling.norm import EvalBatchNorm2d, freeze, get_norm, norm_layer


def loaded(norm: nn.Module) -> nn.Module:
    """The norm with tensors as if from a checkpoint."""
    with torch.no_grad():
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2.0)
        norm.weight.uniform_(0.5, 2.0)
        norm.bias.normal_()
    return norm


def test_eval_norm_trains_its_weight_and_bias_and_nothing_else():
    norm = loaded(EvalBatchNorm2d(6))
    model = nn.Sequential(norm).train()
    before = {name: buffer.clone() for name, buffer in norm.named_buffers()}
    x = torch.randn(4, 6, 5, 5, requires_grad=True)
    y = model(x)
    y.square().sum().backward()
    for name, buffer in norm.named_buffers():
        assert torch.equal(buffer, before[name]), name
    assert not norm.training
    assert norm.weight.grad.abs().min() > 0 and norm.bias.grad.abs().min() > 0
    shape = (1, 6, 1, 1)
    scale = (norm.weight / (norm.running_var + 1e-5).sqrt()).view(shape)
    assert torch.allclose(y, (x - norm.running_mean.view(shape)) * scale + norm.bias.view(shape), atol=1e-5)


def test_eval_norm_has_the_tensors_of_batch_norm():
    source = loaded(nn.BatchNorm2d(6))
    norm = EvalBatchNorm2d(6)
    norm.load_state_dict(source.state_dict())
    x = torch.randn(2, 6, 4, 4)
    assert torch.equal(norm.train()(x), source.eval()(x))
    assert list(norm.state_dict()) == ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]


def test_names():
    assert isinstance(get_norm("EvalBN", 8), EvalBatchNorm2d)
    assert isinstance(get_norm("FrozenBN", 8), FrozenBatchNorm2d)
    assert isinstance(get_norm("SyncBN", 8), nn.SyncBatchNorm)
    assert get_norm("", 8) is None
    assert norm_layer("EvalBN")(8).num_features == 8
    with pytest.raises(ValueError, match=r"norm is 'BatchNorm', but it must be one of: .*'EvalBN'"):
        get_norm("BatchNorm", 8)


@pytest.mark.parametrize("name", ["BN", "EvalBN", "SyncBN"])
def test_freeze_keeps_the_output_and_stops_training(name):
    model = nn.Sequential(
        nn.Conv2d(3, 6, 1), loaded(get_norm(name, 6)), nn.Sequential(loaded(get_norm(name, 6)))
    ).eval()
    x = torch.randn(2, 3, 4, 4)
    before = model(x)
    freeze(model)
    assert torch.allclose(model.train()(x), before, atol=1e-5)
    assert not any(p.requires_grad for p in model.parameters())
    assert [type(m) for m in (model[1], model[2][0])] == [FrozenBatchNorm2d] * 2

"""In which type of numbers parts compute."""

from __future__ import annotations

import pytest
import torch
from detectron2.layers import Conv2d
from torch import nn

from fcos_d2.modeling.rewrite import rewrite
from fcos_d2.modeling.rewrite.precision import Guarded


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (5, 1)])
def test_bfloat16_gradients_of_narrow_maps(size: tuple[int, int]) -> None:
    """PyTorch's own are garbage now and then; what they are is what the memory held before."""
    for _ in range(10):
        garbage = torch.full((64 * 64 * 9 * 4,), float("nan"))
        del garbage
        conv = nn.Conv2d(64, 64, 3, stride=2, padding=1)
        x = torch.randn(2, 64, *size)
        expected = torch.autograd.grad(conv(x).square().sum(), conv.weight)[0]
        guarded = rewrite(conv, precision="autocast", share_tensors=True)
        with torch.autocast("cpu", torch.bfloat16):
            found = torch.autograd.grad(guarded(x).square().sum(), conv.weight)[0]
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_others_stay_as_they_are() -> None:
    kinds = [
        nn.Conv2d(4, 4, 3, padding=1),
        nn.Conv2d(4, 4, 1, stride=2),
        nn.Conv2d(4, 4, 3, stride=2),
        Conv2d(4, 4, 3, stride=2, norm=nn.BatchNorm2d(4)),
    ]
    new = rewrite(nn.Sequential(*kinds), precision="autocast")
    assert [isinstance(m, Guarded) for m in new] == [False, False, True, True]
    assert isinstance(new[3], Conv2d)
    assert type(new[0]) is nn.Conv2d
    with torch.autocast("cpu", torch.bfloat16):
        assert new(torch.rand(1, 4, 40, 40)).dtype == torch.bfloat16

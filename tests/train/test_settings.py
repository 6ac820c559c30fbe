"""Denormal numbers count as 0 while training on the CPU, and only then."""

from __future__ import annotations

import pytest
import torch

from fcos_d2.train.settings import without_denormals


def smallest_half() -> float:
    """Half of the smallest normal float32, computed by the processor."""
    return float(torch.tensor(torch.finfo(torch.float32).tiny) * 0.5)


@pytest.mark.skipif(not torch.set_flush_denormal(False), reason="this processor cannot flush denormal numbers")
def test_denormals_are_flushed_within_the_block_alone():
    assert smallest_half() > 0
    with without_denormals():
        assert smallest_half() == 0
    assert smallest_half() > 0


def test_the_setting_ends_with_an_error():
    with pytest.raises(RuntimeError), without_denormals():
        raise RuntimeError
    assert smallest_half() > 0

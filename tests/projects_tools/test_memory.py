"""Memory of a step: what the figures say, and what they are for a small detector."""

from __future__ import annotations

from pathlib import Path

import pytest

from fcos_d2.errors import FcosError
from projects_tools.bench.memory import Memory, measure, table

MiB = 1 << 20


def test_figures_of_two_steps() -> None:
    row = Memory(512, 1024, "plain", 700 * MiB, 1212 * MiB)
    assert (row.per_image, row.fixed) == (512 * MiB, 188 * MiB)
    assert row.pixels_per_gib == 2 * 512 * 1024
    assert table([row]).splitlines()[-1] == "| 512x1024 | plain | 188 MiB | 512 MiB | 1024 | 1024x1024 |"


def test_unknown_way() -> None:
    with pytest.raises(FcosError, match="no way fp8 to run; there are plain, bf16"):
        measure("fcos_R_18_slim_FPN_small", 64, 64, "fp8+all")


@pytest.mark.slow
def test_unknown_variant() -> None:
    with pytest.raises(FcosError, match=r"Measuring fcos_R_51 at 64x64 .* failed: .*fcos_R_51"):
        measure("fcos_R_51", 64, 64, "plain")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads peak memory from /proc/self")
def test_gradient_checkpointing_needs_less() -> None:
    plain, checkpointed, inference = (
        measure("fcos_R_18_slim_FPN_small", 384, 384, way) for way in ("plain", "backbone", "inference")
    )
    assert 0 < inference.per_image < checkpointed.per_image < 0.8 * plain.per_image
    assert inference.one < checkpointed.one < plain.one

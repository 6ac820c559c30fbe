"""Length of training, batch and image sizes, as published."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["SCHEDULES", "Schedule"]


@dataclass(frozen=True)
class Schedule:
    """Length of training, batch and image sizes.

    Attributes:
        max_iter: iterations.
        batch_size: images of an iteration, all workers together.
        steps: where the learning rate falls to a tenth.
        train_sizes: shorter sides to draw from while training, pixels; with `sampling` "range" the two ends of it.
        sampling: "choice" or "range".
        max_train_size: limit of the longer side while training.
        test_size, max_test_size: the same in inference.
        jitter: smallest and largest scale and crop size of large-scale jittering, instead of the sizes; yacs has no key
            for it, so the YAML twin trains at `train_sizes`.
        source: where the numbers come from.
    """

    max_iter: int
    steps: tuple[int, ...]
    source: str
    batch_size: int = 16
    train_sizes: tuple[int, ...] = (800,)
    sampling: str = "choice"
    max_train_size: int = 1333
    test_size: int = 800
    max_test_size: int = 1333
    jitter: tuple[float, float, int] | None = None


_ANY_SIZE: dict[str, Any] = {"train_sizes": (640, 800), "sampling": "range"}
_SIX_SIZES: dict[str, Any] = {"train_sizes": (640, 672, 704, 736, 768, 800)}
_T = "tianzhi0549/FCOS, configs/fcos"
_A = "aim-uofa/AdelaiDet, configs/FCOS-Detection"
_M = "open-mmlab/mmdetection, configs/fcos (7,330 iterations of 16 images an epoch)"

# fmt: off
SCHEDULES = {
    "1x": Schedule(90_000, (60_000, 80_000), f"{_T}: 1x at 800 pixels"),
    "1x_bs32": Schedule(90_000, (60_000, 80_000), f"{_T}/fcos_syncbn_bs32_MNV2_FPN_1x.yaml", batch_size=32),
    "1x_bs32_ms": Schedule(
        90_000, (60_000, 80_000), f"{_T}/fcos_syncbn_bs32_c128_ms_MNV2_FPN_1x.yaml", batch_size=32, **_ANY_SIZE,
    ),
    "1x_bs64_ms": Schedule(
        90_000, (60_000, 80_000), f"{_T}/fcos_syncbn_bs64_c128_ms_MNV2_FPN_1x.yaml", batch_size=64, **_ANY_SIZE,
    ),
    "1x_ms": Schedule(
        90_000, (60_000, 80_000), "vov-net/VoVNet-FCOS, configs/vovnet/fcos_V_39_FPN_1x.yaml", **_ANY_SIZE,
    ),
    "2x": Schedule(180_000, (120_000, 160_000), f"{_T}: 2x at any size in 640..800", **_ANY_SIZE),
    "2x_single": Schedule(180_000, (120_000, 160_000), "HRNet/HRNet-FCOS, configs/fcos/fcos_hrnet_w18_5l_2x.yaml"),
    "3x": Schedule(
        270_000, (180_000, 240_000), "HRNet/HRNet-FCOS, configs/fcos/fcos_hrnet_w40_6l_3x.yaml", **_ANY_SIZE,
    ),
    "1x_choice": Schedule(
        90_000, (60_000, 80_000), "facebookresearch/detectron2, configs/COCO-Detection/fcos_R_50_FPN_1x.py",
        **_SIX_SIZES,
    ),
    "2x_choice": Schedule(180_000, (120_000, 160_000), f"{_A}/MS_R_50_2x.yaml", **_SIX_SIZES),
    "3x_choice": Schedule(270_000, (210_000, 250_000), f"{_A}/vovnet/MS_V_39_3x.yaml", **_SIX_SIZES),
    "4x_realtime": Schedule(
        360_000, (300_000, 340_000), f"{_A}/FCOS_RT/Base-FCOS_RT.yaml", train_sizes=tuple(range(256, 609, 32)),
        max_train_size=900, test_size=512, max_test_size=736,
    ),
    "26_epochs": Schedule(
        190_580, (117_280, 161_260), "pytorch/vision, references/detection (7,330 iterations of 16 images an epoch)",
    ),
    "12_epochs": Schedule(87_960, (58_640, 80_630), _M),
    "24_epochs": Schedule(175_920, (117_280, 161_260), _M),
    "24_epochs_ms": Schedule(175_920, (117_280, 161_260), _M, train_sizes=(640, 800)),
    "200_epochs_lsj": Schedule(
        366_450, (322_476, 351_792),
        "open-mmlab/mmdetection, configs/common/lsj-200e_coco-detection.py (25 epochs of the data set taken 8 times)",
        batch_size=64, jitter=(0.1, 2.0, 1024),
    ),
    "small": Schedule(
        10_000, (7_000, 9_000), "fcos_d2: a start for small data sets and machines", batch_size=8,
        train_sizes=(256, 288, 320), max_train_size=640, test_size=320, max_test_size=640,
    ),
}
# fmt: on

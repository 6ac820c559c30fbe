"""Train options: one strict tree of dataclasses."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from fcos_d2.config.load import load_config
from fcos_d2.config.train_options import TRAIN_OPTIONS, TrainOptions
from fcos_d2.errors import FcosError


def test_defaults_and_back():
    assert TrainOptions.of({}) == TrainOptions() and TrainOptions().as_dict() == TRAIN_OPTIONS
    given = TrainOptions.of(
        {"amp": {"enabled": True}, "clip_grad": 1, "max_iter": 5.0, "ddp": {"device_ids": [0]}, "init_checkpoint": None}
    )
    assert given.amp.enabled and given.amp.dtype == "auto" and given.clip_grad == 1.0 and given.ddp.device_ids == (0,)
    assert type(given.max_iter) is int and given.init_checkpoint == ""
    assert TrainOptions.of(given.as_dict()) == given
    assert "cudnn_benchmark" not in TRAIN_OPTIONS and "device_ids" not in TRAIN_OPTIONS["ddp"]


def test_detectron2s_own_options_are_known():
    """configs/common/train.py of Detectron2, what its projects set, and what `default_setup` reads."""
    node = dict(
        output_dir="./output", init_checkpoint="", max_iter=90000, amp=dict(enabled=True),
        ddp=dict(broadcast_buffers=False, find_unused_parameters=False, fp16_compression=True, device_ids=None),
        checkpointer=dict(period=5000, max_to_keep=100), eval_period=5000, log_period=20, device="cuda",
        cudnn_benchmark=True, float32_precision="high", seed=3,
    )  # fmt: skip
    assert TrainOptions.of(OmegaConf.create(node)).cudnn_benchmark


def test_references_are_followed():
    node = OmegaConf.create({"train": {"max_iter": 8, "eval_period": "${.max_iter}"}}).train
    assert TrainOptions.of(node).eval_period == 8
    with pytest.raises(FcosError, match="eval_period"):
        TrainOptions.of(OmegaConf.create({"eval_period": "${.gone}"}))


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ({"max_itr": 3}, "train.max_itr; did you mean 'train.max_iter'?"),
        ({"ema": {"decai": 0.5}}, "train.ema.decai; did you mean 'train.ema.decay'?"),
        ({"qqqqqqqqqq": 1}, "The config has the unknown key train.qqqqqqqqqq."),
        ({"ema": True}, "train.ema is True; it must be a node"),
        ({"max_iter": 0}, "train.max_iter is 0; it must be 1 or more"),
        ({"max_iter": True}, "train.max_iter is True"),
        ({"max_iter": "3"}, "train.max_iter is '3'"),
        ({"grad_accumulation": 1.5}, "train.grad_accumulation is 1.5; it must be 1 or more"),
        ({"amp": {"enabled": "yes"}}, "train.amp.enabled is 'yes'; it must be true or false"),
        ({"amp": {"enabled": 1}}, "train.amp.enabled is 1; it must be true or false"),
        ({"amp": {"dtype": "fp8"}}, "train.amp.dtype is 'fp8'; it must be one of: auto, fp16, bf16"),
        ({"ema": {"decay": 1.0}}, "train.ema.decay is 1.0; it must be at least 0 and less than 1"),
        ({"clip_grad": float("nan")}, "train.clip_grad is nan"),
        ({"checkpointer": {"period": 0}}, "train.checkpointer.period is 0; it must be 1 or more"),
        ({"checkpointer": {"max_to_keep": 0}}, "1 or more, a whole number or null"),
        ({"ddp": {"device_ids": 3}}, "train.ddp.device_ids is 3; it must be a list"),
        ({"device": None}, "train.device is None; it must be a string"),
        (3, "train is 3; it must be a node"),
    ],
)
def test_wrong_option_is_one_sentence(node, words):
    with pytest.raises(FcosError) as error:
        TrainOptions.of(node)
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("train.ema.decai = 0.5", "train.ema.decai; did you mean 'train.ema.decay'?"),
        ("train.max_itr = 5", "train.max_itr"),
        ("train.eval_period = -1", "train.eval_period is -1"),
        ("train.ema = 3", "train.ema is 3"),
    ],
)
def test_files_are_checked_too(tmp_path, line, words):
    path = tmp_path / "mine.py"
    path.write_text(
        "from fcos_d2.config import compose\n"
        "model, dataloader, optimizer, lr_multiplier, train = compose('small', 'R_18_FPN', 'small')\n"
        f"train.ema = {{}}\n{line}\n"
    )
    with pytest.raises(FcosError) as error:
        load_config(path)
    assert words in str(error.value)

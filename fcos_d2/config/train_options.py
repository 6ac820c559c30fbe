"""The options of training."""

from __future__ import annotations

from typing import Any

__all__ = ["TRAIN_OPTIONS"]

# `cfg.train` as `LazyTrainer` reads it; a config states what it wants otherwise. Those with a * are not Detectron2's.
TRAIN_OPTIONS: dict[str, Any] = {
    "output_dir": "./output",
    "init_checkpoint": "",  # a detector to fine-tune, or ImageNet weights; empty: from scratch
    "init_classes": "check",  # * of another detector's class layer: "check" the names, "drop" the layer, "keep" it
    "max_iter": 90000,
    "eval_period": 5000,  # iterations; 0: at the end only
    "log_period": 20,
    "checkpointer": {"period": 5000, "max_to_keep": 100},
    "device": "cpu",
    "seed": -1,  # negative: another one each time
    "amp": {"enabled": False, "dtype": "auto"},  # * dtype "fp16", "bf16", or "auto": fp16 on CUDA, bf16 on the CPU
    "ema": {"enabled": False, "decay": 0.9998},  # * moving average of the weights, used for evaluation
    "grad_accumulation": 1,  # * parts that each batch is computed in, one after the other; the result is the same
    "gradient_checkpointing": "none",  # * what is computed twice to save memory: "backbone", or "all" with the head
    "channels_last": False,  # * memory format of weights and maps: channels beside each other; on the CPU always
    "clip_grad": 0.0,  # * largest norm of the gradient; 0: not clipped
    "early_stop": {"patience": 0},  # * evaluations without improvement after which training ends; 0: never
    "best_metric": "bbox/AP",  # * decides which weights are model_best.pth
    "ddp": {"broadcast_buffers": False, "find_unused_parameters": False, "fp16_compression": False},
}

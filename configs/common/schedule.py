"""Stochastic gradient descent; `compose` fills in what the recipes disagree on."""

import torch
from detectron2.config import LazyCall as L
from detectron2.solver.build import get_default_optimizer_params

optimizer = L(torch.optim.SGD)(
    params=L(get_default_optimizer_params)(base_lr="${..lr}"),  # the training loop sets params.model
    lr=0.01,
    momentum=0.9,
    weight_decay=0.0001,
)

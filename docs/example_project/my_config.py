"""The detector as a LazyConfig: a published one with three parts exchanged."""

from detectron2.config import LazyCall as L
from my_parts import CentreAssigner, SmoothLoss, TinyNet

from fcos_d2.config import compose

model, dataloader, optimizer, lr_multiplier, train = compose(recipe="small", backbone="R_18_slim_FPN", schedule="small")
model.backbone.bottom_up = L(TinyNet)(width=16)
model.backbone.in_features = ["c3", "c4", "c5"]
model.dense.loss = L(SmoothLoss)(smooth_weight=0.1)
model.dense.assigner = L(CentreAssigner)(cells=1.0)

from fcos_d2.config import compose

model, dataloader, optimizer, lr_multiplier, train = compose(
    recipe="mmdet_rgb", backbone="X_101_64x4d_torch_FPN", schedule="24_epochs_ms"
)

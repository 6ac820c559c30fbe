from fcos_d2.config import compose

model, dataloader, optimizer, lr_multiplier, train = compose(
    recipe="mmdet", backbone="R_50_FPN", schedule="24_epochs_ms"
)

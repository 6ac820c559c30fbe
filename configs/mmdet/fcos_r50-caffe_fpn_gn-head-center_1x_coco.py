from fcos_d2.config import compose

model, dataloader, optimizer, lr_multiplier, train = compose(
    recipe="mmdet_center", backbone="R_50_FPN", schedule="12_epochs"
)

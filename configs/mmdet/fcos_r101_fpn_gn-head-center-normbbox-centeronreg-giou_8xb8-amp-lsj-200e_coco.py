from fcos_d2.config import compose

model, dataloader, optimizer, lr_multiplier, train = compose(
    recipe="mmdet_lsj", backbone="R_101_torch_FPN", schedule="200_epochs_lsj"
)

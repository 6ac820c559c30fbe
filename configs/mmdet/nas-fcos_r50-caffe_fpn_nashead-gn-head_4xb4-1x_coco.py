from fcos_d2.config import compose

model, dataloader, optimizer, lr_multiplier, train = compose(
    recipe="mmdet_nas_fcos_head", backbone="R_50_NASFPN_nearest", schedule="12_epochs"
)

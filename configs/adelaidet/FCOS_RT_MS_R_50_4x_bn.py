from fcos_d2.config import compose

model, dataloader, optimizer, lr_multiplier, train = compose(
    recipe="realtime_bn", backbone="R_50_syncbn_FPN", schedule="4x_realtime"
)

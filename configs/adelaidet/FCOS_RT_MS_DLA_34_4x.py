from fcos_d2.config import compose

model, dataloader, optimizer, lr_multiplier, train = compose(
    recipe="realtime", backbone="DLA_34_FPN", schedule="4x_realtime"
)

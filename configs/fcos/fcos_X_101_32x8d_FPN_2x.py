from fcos_d2.config import compose

model, dataloader, optimizer, lr_multiplier, train = compose(
    recipe="original", backbone="X_101_32x8d_FPN", schedule="2x"
)

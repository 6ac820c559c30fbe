from fcos_d2.config import compose

model, dataloader, optimizer, lr_multiplier, train = compose(
    recipe="fad_c128", backbone="X_101_64x4d_FPN", schedule="2x"
)

from fcos_d2.config import compose

model, dataloader, optimizer, lr_multiplier, train = compose(
    recipe="nas_fcos_2x", backbone="X_101_32x8d_NASFPN", schedule="2x"
)

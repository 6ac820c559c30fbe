from fcos_d2.config import compose

model, dataloader, optimizer, lr_multiplier, train = compose(
    recipe="nas_fcos_2x", backbone="R_101_NASFPN", schedule="2x"
)

from fcos_d2.config import compose

model, dataloader, optimizer, lr_multiplier, train = compose(
    recipe="improved_dcnv2", backbone="X_101_32x8d_dcnv2_FPN", schedule="2x"
)

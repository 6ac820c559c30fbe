from fcos_d2.config import compose

model, dataloader, optimizer, lr_multiplier, train = compose(
    recipe="adelaidet_dcnv2", backbone="X_101_32x8d_std_dcnv2_zero_FPN", schedule="2x_choice"
)

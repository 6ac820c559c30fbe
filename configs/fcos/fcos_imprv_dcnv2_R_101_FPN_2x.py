from fcos_d2.config import compose

model, dataloader, optimizer, lr_multiplier, train = compose(
    recipe="improved_dcnv2", backbone="R_101_dcnv2_FPN", schedule="2x"
)

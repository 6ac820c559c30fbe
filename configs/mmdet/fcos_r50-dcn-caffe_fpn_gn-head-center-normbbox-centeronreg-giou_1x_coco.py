from fcos_d2.config import compose

model, dataloader, optimizer, lr_multiplier, train = compose(
    recipe="mmdet_tricks_dcnv2", backbone="R_50_dcnv2_zero_FPN", schedule="12_epochs"
)

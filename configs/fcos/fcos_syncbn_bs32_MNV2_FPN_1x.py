from fcos_d2.config import compose

model, dataloader, optimizer, lr_multiplier, train = compose(
    recipe="original", backbone="MNV2_syncbn_FPN", schedule="1x_bs32"
)

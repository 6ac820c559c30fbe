from fcos_d2.config import compose

model, dataloader, optimizer, lr_multiplier, train = compose(
    recipe="fcos_plus_center_liou", backbone="R_50_FPN", schedule="1x"
)

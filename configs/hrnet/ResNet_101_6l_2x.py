from fcos_d2.config import compose

model, dataloader, optimizer, lr_multiplier, train = compose(
    recipe="fcos_hrnet_6l", backbone="R_101_FPN_6l", schedule="2x"
)

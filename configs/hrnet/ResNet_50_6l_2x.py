from fcos_d2.config import compose

model, dataloader, optimizer, lr_multiplier, train = compose(
    recipe="fcos_hrnet_6l", backbone="R_50_FPN_6l", schedule="2x_single"
)

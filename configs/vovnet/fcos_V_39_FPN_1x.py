from fcos_d2.config import compose

model, dataloader, optimizer, lr_multiplier, train = compose(
    recipe="fcos_vovnet", backbone="V_39_FPN", schedule="1x_ms"
)

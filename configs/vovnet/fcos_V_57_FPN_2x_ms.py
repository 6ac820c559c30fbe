from fcos_d2.config import compose

model, dataloader, optimizer, lr_multiplier, train = compose(
    recipe="fcos_vovnet_2x", backbone="V_57_FPN", schedule="2x"
)

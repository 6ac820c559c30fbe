from fcos_d2.config import compose

model, dataloader, optimizer, lr_multiplier, train = compose(
    recipe="adelaidet", backbone="V_99_eSE_FPN", schedule="3x_choice"
)

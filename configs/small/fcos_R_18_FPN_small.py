from fcos_d2.config import compose

model, dataloader, optimizer, lr_multiplier, train = compose(recipe="small", backbone="R_18_FPN", schedule="small")

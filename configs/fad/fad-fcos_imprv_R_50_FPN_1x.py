from fcos_d2.config import compose

model, dataloader, optimizer, lr_multiplier, train = compose(recipe="fad", backbone="R_50_FPN", schedule="1x")

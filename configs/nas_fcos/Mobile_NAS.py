from fcos_d2.config import compose

model, dataloader, optimizer, lr_multiplier, train = compose(recipe="nas_fcos", backbone="MNV2_NASFPN", schedule="1x")

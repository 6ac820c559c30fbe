from fcos_d2.config import compose

model, dataloader, optimizer, lr_multiplier, train = compose(
    recipe="fcos_hrnet", backbone="HRNet_W18_HRFPN", schedule="2x_single"
)

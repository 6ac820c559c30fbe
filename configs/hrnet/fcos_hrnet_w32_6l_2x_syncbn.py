from fcos_d2.config import compose

model, dataloader, optimizer, lr_multiplier, train = compose(
    recipe="fcos_hrnet_6l", backbone="HRNet_W32_syncbn_HRFPN_6l", schedule="2x"
)

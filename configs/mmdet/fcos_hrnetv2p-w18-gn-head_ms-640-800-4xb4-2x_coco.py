from fcos_d2.config import compose

model, dataloader, optimizer, lr_multiplier, train = compose(
    recipe="mmdet_hrnet_2x", backbone="HRNet_W18_HRFPN", schedule="24_epochs_ms"
)

from fcos_d2.config import compose

model, dataloader, optimizer, lr_multiplier, train = compose(
    recipe="torchvision", backbone="R_50_torch_frozen_FPN", schedule="26_epochs"
)

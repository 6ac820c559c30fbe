from fcos_d2.config import compose_proposals

model, dataloader, optimizer, lr_multiplier, train = compose_proposals(
    architecture="GeneralizedRCNN",
    generator="FCOSProposals",
    recipe="proposals_towers",
    backbone="R_50_FPN",
    schedule="1x_choice",
)

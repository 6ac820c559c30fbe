from fcos_d2.config import compose_proposals

model, dataloader, optimizer, lr_multiplier, train = compose_proposals(
    architecture="ProposalNetwork",
    generator="FCOSProposals",
    recipe="proposals_no_centerness",
    backbone="R_50_FPN_6l",
    schedule="1x_choice",
)

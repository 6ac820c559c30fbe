from fcos_d2.config import compose_proposals

model, dataloader, optimizer, lr_multiplier, train = compose_proposals(
    architecture="ProposalNetwork",
    generator="FCOSProposals",
    recipe="proposals_no_centerness",
    backbone="R_18_FPN_6l",
    schedule="small",
    fc_dim=256,
    rois=128,
)

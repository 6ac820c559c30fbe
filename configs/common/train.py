"""Options of the training loop, as Detectron2's `tools/lazyconfig_train_net.py` reads them."""

import torch

_cuda = torch.cuda.is_available()

train = dict(
    output_dir="./output",
    init_checkpoint="",
    max_iter=90000,
    amp=dict(enabled=False),
    # On the CPU a process has no device of its own.
    ddp=dict(broadcast_buffers=False, find_unused_parameters=False, fp16_compression=False)
    | ({} if _cuda else dict(device_ids=None)),
    checkpointer=dict(period=5000, max_to_keep=100),
    eval_period=5000,
    log_period=20,
    device="cuda" if _cuda else "cpu",
    seed=-1,
)

"""What `projects_tools/train_net.py` and `lazyconfig_train_net.py` do: train or evaluate one config."""

from __future__ import annotations

from argparse import Namespace

from ..config.load import load_config
from .cpu import start_threads, without_denormals
from .distributed import run
from .trainer import LazyTrainer

__all__ = ["launch"]


def main(args: Namespace) -> None:
    """Train or evaluate, in each process.

    Args:
        args: of Detectron2's `default_argument_parser`.
    """
    with without_denormals():
        start_threads()
    cfg = load_config(args.config_file, args.opts)
    trainer = LazyTrainer(cfg, resume=args.resume, eval_only=args.eval_only)
    trainer.test() if args.eval_only else trainer.train()


def launch() -> None:
    """Read the command line, as Detectron2's scripts do, and start the processes."""
    from detectron2.engine import default_argument_parser

    args = default_argument_parser().parse_args()
    run(main, args.num_gpus, args.num_machines, args.machine_rank, args.dist_url, (args,))

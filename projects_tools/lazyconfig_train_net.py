"""Train or evaluate a LazyConfig: takes what Detectron2's script of that name takes; on GPUs or CPU, under torchrun.

python projects_tools/lazyconfig_train_net.py --config-file configs/fcos/fcos_imprv_R_50_FPN_1x.py train.device=cpu

One loop trains both kinds of config, so either script takes either.
"""

from __future__ import annotations

from argparse import Namespace

from fcos_d2.config.load import load_config
from fcos_d2.train import LazyTrainer
from fcos_d2.train.distributed import main_of_script, run
from fcos_d2.train.settings import start_threads, without_denormals


def main(args: Namespace) -> None:
    with without_denormals():
        start_threads()
    trainer = LazyTrainer(load_config(args.config_file, args.opts), resume=args.resume, eval_only=args.eval_only)
    trainer.test() if args.eval_only else trainer.train()


def launch() -> None:
    from detectron2.engine import default_argument_parser

    args = default_argument_parser().parse_args()
    run(main, args.num_gpus, args.num_machines, args.machine_rank, args.dist_url, (args,))


if __name__ == "__main__":
    main_of_script(launch)

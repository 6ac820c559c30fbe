"""Train or evaluate a YAML config: takes what Detectron2's script of that name takes; on GPUs or CPU, under torchrun.

python projects_tools/train_net.py --config-file configs/yaml/fcos/fcos_imprv_R_50_FPN_1x.yaml MODEL.DEVICE cpu
"""

from __future__ import annotations

from argparse import Namespace

from fcos_d2.config.load import load_config
from fcos_d2.train.distributed import main_of_script, run
from fcos_d2.train.yaml_trainer import YamlTrainer


def main(args: Namespace) -> None:
    from detectron2.engine import default_setup

    cfg = load_config(args.config_file, args.opts)
    default_setup(cfg, args)
    if args.eval_only:
        YamlTrainer.evaluate(cfg, args.resume)
        return
    trainer = YamlTrainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    trainer.train()


def launch() -> None:
    from detectron2.engine import default_argument_parser

    args = default_argument_parser().parse_args()
    run(main, args.num_gpus, args.num_machines, args.machine_rank, args.dist_url, (args,))


if __name__ == "__main__":
    main_of_script(launch)

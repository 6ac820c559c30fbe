"""Train or evaluate a LazyConfig: takes what Detectron2's script of that name takes; on GPUs or CPU, under torchrun.

python projects_tools/lazyconfig_train_net.py --config-file configs/fcos/fcos_imprv_R_50_FPN_1x.py train.device=cpu
"""

from __future__ import annotations

from fcos_d2.train.distributed import main_of_script
from fcos_d2.train.script import launch

if __name__ == "__main__":
    main_of_script(launch)

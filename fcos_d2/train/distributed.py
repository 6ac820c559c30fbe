"""Starts training in one process or several, which communicate over NCCL on GPUs, and over gloo without a GPU.

A user's error is printed as one sentence, whichever process raised it, and the command exits with code 1.
"""

from __future__ import annotations

import functools
import logging
import multiprocessing
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.utils import comm

from .._compat import create_local_process_group
from ..errors import FcosError
from .interrupt import TrainingInterrupted, handling

__all__ = ["main_of_script", "run"]

_TIMEOUT = timedelta(minutes=30)
_FAILED = 1


def run(
    main: Callable[..., Any], num_gpus: int = 1, num_machines: int = 1, machine_rank: int = 0, dist_url: str = "auto",
    args: tuple = (),
) -> Any:  # fmt: skip
    """Call `main(*args)` in every process of a training.

    torchrun starts the processes itself: then this process joins them, and `num_gpus` and the arguments after it are
    ignored. Otherwise `num_gpus` processes are started on this machine, or none if one process is enough.

    Args:
        main: a function that other processes can import by its name.
        num_gpus: number of processes on this machine. Without CUDA they share the CPU.
        num_machines, machine_rank, dist_url: as in Detectron2's `launch`. "auto" finds a free port on one machine.
        args: arguments of `main`.
    Returns:
        The result of `main` if it ran in this process, else None.
    Raises:
        FcosError: the arguments do not fit this machine, or a process raised this error.
        TrainingInterrupted: a process was interrupted and has saved its state.
    """
    if {"RANK", "WORLD_SIZE", "LOCAL_RANK"} <= os.environ.keys():
        rank, processes, device = (int(os.environ[key]) for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        here = int(os.environ.get("LOCAL_WORLD_SIZE", processes))
        return _joined(main, args, "env://", processes, here, rank - device, device)
    if num_gpus * num_machines == 1:
        return main(*args)
    if num_gpus < 1 or not 0 <= machine_rank < num_machines:
        raise FcosError(
            f"--num-gpus is {num_gpus}, --num-machines {num_machines} and --machine-rank {machine_rank}; the first "
            "must be 1 or more, the last from 0 to the number of machines less 1."
        )
    if not torch.cuda.is_available():
        print(f"This machine has no GPU: {num_gpus} processes share the CPU and talk over gloo.", flush=True)
    elif num_gpus > torch.cuda.device_count():
        raise FcosError(f"--num-gpus is {num_gpus}, but this machine has {torch.cuda.device_count()}.")
    if dist_url == "auto":
        if num_machines > 1:
            raise FcosError("--dist-url must be given with several machines, for example tcp://10.0.0.1:29500.")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            dist_url = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    processes, first = num_machines * num_gpus, machine_rank * num_gpus
    return _start(functools.partial(_joined, main, args, dist_url, processes, num_gpus, first), num_gpus)


def _joined(main: Callable, args: tuple, url: str, processes: int, here: int, first: int, index: int) -> Any:
    """Call `main` in this process, number `first + index` of all and `index` of those `here`, when all have met."""
    if not dist.is_initialized():
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, init_method=url, rank=first + index, world_size=processes, timeout=_TIMEOUT)
        create_local_process_group(here)
    if torch.cuda.is_available():
        torch.cuda.set_device(index)
    comm.synchronize()
    result = main(*args)
    comm.synchronize()  # the first process hosts the rendezvous, so none may leave early
    dist.destroy_process_group()
    return result


def _start(work: Callable[[int], Any], count: int) -> None:
    """Call `work` in processes of this machine, each with its number."""
    outcomes = mp.get_context("spawn").SimpleQueue()
    context = mp.start_processes(_process, (outcomes, multiprocessing.get_start_method(), work), count, join=False)

    def pass_on(number: int, frame: Any) -> None:
        for process in context.processes:
            if number == signal.SIGTERM and process.is_alive():  # Ctrl-C reaches the processes directly
                process.terminate()

    log = logging.getLogger("torch.multiprocessing.spawn")  # prints a warning for each process that it terminates
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with handling(pass_on):  # and wait until the others have saved their state and ended
            while not context.join():
                pass
    except (mp.ProcessExitedException, mp.ProcessRaisedException):
        if outcomes.empty():
            raise
        message, code = outcomes.get()
        raise (FcosError(message) if code == _FAILED else TrainingInterrupted(message, code)) from None
    finally:
        log.setLevel(level)


def _process(index: int, outcomes: Any, start_method: str, work: Callable[[int], Any]) -> None:
    """Do the work of a started process. If it fails, put the message and the exit code into `outcomes`."""
    # Data loaders start their processes as the parent does: spawned ones would import everything again.
    multiprocessing.set_start_method(start_method, force=True)
    try:
        work(index)
    except (FcosError, KeyboardInterrupt) as error:
        outcomes.put(_outcome(error))
        sys.stdout.flush()
        sys.stderr.flush()
        time.sleep(0.2)  # the parent stops all processes when one exits: let the others report the same error first
        os._exit(_outcome(error)[1])


def _outcome(error: BaseException) -> tuple[str, int]:
    """What to say about an error that ends a process, and the exit code."""
    interrupted = isinstance(error, KeyboardInterrupt)
    return str(error) or "Interrupted.", getattr(error, "code", 130) if interrupted else _FAILED


def main_of_script(main: Callable[[], Any]) -> None:
    """Run a script, and exit with code 1 and one sentence after a user's error, or with the code of a signal.

    A `ValueError` that this package raises counts as a user's error; other exceptions keep their traceback.
    """
    try:
        main()
    except (ValueError, FileNotFoundError, KeyboardInterrupt) as error:
        raised_in = Path([frame for frame, _ in traceback.walk_tb(error.__traceback__)][-1].f_code.co_filename)
        ours = Path(__file__).resolve().parent.parent in raised_in.resolve().parents
        if isinstance(error, ValueError) and not (ours or isinstance(error, FcosError)):
            raise
        message, code = _outcome(error)
        rank = os.environ.get("RANK", "0")
        source = "" if rank == "0" else f"[process {rank}] "
        print(f"{source}{'error: ' if code == _FAILED else ''}{message}", file=sys.stderr, flush=True)
        sys.exit(code)

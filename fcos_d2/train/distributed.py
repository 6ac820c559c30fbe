"""Starts training in one process or several.

`run` calls a function in this process, starts processes on this machine and calls it in each, or joins the processes
that torchrun has started. The processes communicate over NCCL on GPUs, and over gloo without a GPU. A user's error is
printed as one sentence, whichever process raised it, and the command exits with code 1.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import sys
import time
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
    main: Callable[..., Any],
    num_gpus: int = 1,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str = "auto",
    args: tuple = (),
) -> Any:
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
        return _joined(main, args)
    if num_gpus * num_machines == 1:
        return main(*args)
    if num_gpus < 1 or not 0 <= machine_rank < num_machines:
        raise FcosError(
            f"--num-gpus is {num_gpus}, --num-machines {num_machines} and --machine-rank {machine_rank}; the first "
            "must be 1 or more, the last from 0 to the number of machines less 1."
        )
    if torch.cuda.is_available():
        if num_gpus > torch.cuda.device_count():
            raise FcosError(f"--num-gpus is {num_gpus}, but this machine has {torch.cuda.device_count()}.")
    else:
        print(f"This machine has no GPU: {num_gpus} processes share the CPU and talk over gloo.", flush=True)
    if dist_url == "auto":
        if num_machines > 1:
            raise FcosError("--dist-url must be given with several machines, for example tcp://10.0.0.1:29500.")
        dist_url = f"tcp://127.0.0.1:{_free_port()}"
    return _start(main, args, num_gpus, num_machines, machine_rank, dist_url)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _joined(main: Callable[..., Any], args: tuple) -> Any:
    """Call `main` in this process, which torchrun has started along with others."""
    if not dist.is_initialized():
        _join("env://", int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
        create_local_process_group(int(os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"])))
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    comm.synchronize()
    try:
        return main(*args)
    finally:
        if sys.exc_info()[0] is None:  # after an error the other processes may never reach this line
            comm.synchronize()  # the first process hosts the rendezvous, so none may leave early
            dist.destroy_process_group()


def _join(url: str, rank: int, processes: int) -> None:
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, init_method=url, rank=rank, world_size=processes, timeout=_TIMEOUT)


def _start(main: Callable, args: tuple, num_gpus: int, num_machines: int, machine_rank: int, dist_url: str) -> None:
    outcomes = mp.get_context("spawn").SimpleQueue()
    shared = (outcomes, multiprocessing.get_start_method(), main, args, num_gpus, num_machines, machine_rank, dist_url)
    context = mp.start_processes(_process, shared, nprocs=num_gpus, join=False, start_method="spawn")
    log = logging.getLogger("torch.multiprocessing.spawn")  # prints a warning for each process that it terminates
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        # Ctrl-C reaches all processes. This one ignores it and waits until the others have saved their state and ended.
        with handling(_pass_on(context)):
            while not context.join():
                pass
    except (mp.ProcessExitedException, mp.ProcessRaisedException):
        if outcomes.empty():
            raise
        message, code = outcomes.get()
        if code == _FAILED:
            raise FcosError(message) from None
        raise TrainingInterrupted(message, code) from None
    finally:
        log.setLevel(level)


def _pass_on(context: Any) -> Callable[[int, Any], None]:
    """A signal handler that sends SIGTERM on to the processes. It ignores Ctrl-C, which reaches them directly."""

    def handle(number: int, frame: Any) -> None:
        if number == signal.SIGTERM:
            for process in context.processes:
                if process.is_alive():
                    process.terminate()

    return handle


def _process(
    index: int, outcomes: Any, start_method: str, main: Callable, args: tuple, num_gpus: int, num_machines: int,
    machine_rank: int, dist_url: str,
) -> None:  # fmt: skip
    """Run `main` in a started process. If it fails, put the message and the exit code into `outcomes`."""
    # Data loaders start their processes as the parent does: spawned ones would import everything again.
    multiprocessing.set_start_method(start_method, force=True)
    try:
        _join(dist_url, machine_rank * num_gpus + index, num_machines * num_gpus)
        create_local_process_group(num_gpus)
        if torch.cuda.is_available():
            torch.cuda.set_device(index)
        comm.synchronize()
        main(*args)
        comm.synchronize()
        dist.destroy_process_group()
    except FcosError as error:
        _tell(outcomes, str(error), _FAILED)
    except TrainingInterrupted as error:
        _tell(outcomes, str(error), error.code)
    except KeyboardInterrupt:
        _tell(outcomes, "Interrupted.", 130)


def _tell(outcomes: Any, message: str, code: int) -> None:
    outcomes.put((message, code))
    sys.stdout.flush()
    sys.stderr.flush()
    time.sleep(0.2)  # the parent stops all processes when one exits: let the others report the same error first
    os._exit(code)


def main_of_script(main: Callable[[], Any]) -> None:
    """Run a script, and exit with code 1 and one sentence after a user's error, or with the code of a signal.

    Args:
        main: a function without arguments. A `ValueError` that this package raises counts as a user's error; other
            exceptions keep their traceback.
    """
    try:
        main()
    except (ValueError, FileNotFoundError) as error:
        if not (isinstance(error, (FcosError, FileNotFoundError)) or _is_ours(error)):
            raise
        _leave(f"error: {error}", _FAILED)
    except TrainingInterrupted as error:
        _leave(str(error), error.code)
    except KeyboardInterrupt:
        _leave("Interrupted.", 130)


def _is_ours(error: BaseException) -> bool:
    """Whether the exception was raised in this package, for example because of a wrong option."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    package = Path(__file__).resolve().parent.parent
    return trace is not None and package in Path(trace.tb_frame.f_code.co_filename).resolve().parents


def _leave(message: str, code: int) -> None:
    rank = os.environ.get("RANK", "0")
    print(message if rank == "0" else f"[process {rank}] {message}", file=sys.stderr, flush=True)
    sys.exit(code)

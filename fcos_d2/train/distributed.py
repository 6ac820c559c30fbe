"""Runs a function in one process, in several of this machine, or as one of those that torchrun has started.

Several processes need no GPU: with CUDA they talk over NCCL, without it over gloo. What a user did wrong, in whichever
process it shows, is one sentence on stderr and an exit code.
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
from .interrupt import TrainingInterrupted

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
    """Call `main(*args)` in every process.

    Under torchrun, which has chosen the processes, this is one of them and the numbers here do not count. Otherwise
    `num_gpus` processes are started on this machine; one process with one machine is this one.

    Args:
        main: importable by name where it runs in other processes.
        num_gpus: processes on this machine; without CUDA they share the CPU.
        num_machines, machine_rank, dist_url: as in Detectron2's `launch`; "auto" finds a free port on one machine.
        args: of `main`.
    Returns:
        What `main` returns; None if it ran in other processes.
    Raises:
        FcosError: the numbers do not fit this machine, or what the first failing process raised.
        TrainingInterrupted: training was asked to end, and did.
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


# Under torchrun


def _joined(main: Callable[..., Any], args: tuple) -> Any:
    """`main` in this process, as one of those that torchrun has started."""
    if not dist.is_initialized():
        _join("env://", int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
        create_local_process_group(int(os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"])))
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    comm.synchronize()
    try:
        return main(*args)
    finally:
        if sys.exc_info()[0] is None:  # the others may still wait for one that failed
            comm.synchronize()  # who leaves first takes the meeting point along
            dist.destroy_process_group()


def _join(url: str, rank: int, processes: int) -> None:
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, init_method=url, rank=rank, world_size=processes, timeout=_TIMEOUT)


# Processes of our own


def _start(main: Callable, args: tuple, num_gpus: int, num_machines: int, machine_rank: int, dist_url: str) -> None:
    outcomes = mp.get_context("spawn").SimpleQueue()
    usual = multiprocessing.get_start_method()
    spread = (outcomes, usual, main, args, num_gpus, num_machines, machine_rank, dist_url)
    context = mp.start_processes(_process, spread, nprocs=num_gpus, join=False, start_method="spawn")
    # Ctrl-C reaches all processes; this one waits until the others have ended in their own way.
    before = {number: signal.signal(number, _pass_on(context)) for number in (signal.SIGINT, signal.SIGTERM)}
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)  # it tells of each process that it ends
    try:
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
        for number, handler in before.items():
            signal.signal(number, handler)


def _pass_on(context: Any) -> Callable[[int, Any], None]:
    """A handler that gives SIGTERM to the processes; Ctrl-C they get themselves."""

    def handle(number: int, frame: Any) -> None:
        if number == signal.SIGTERM:
            for process in context.processes:
                if process.is_alive():
                    process.terminate()

    return handle


def _process(
    index: int,
    outcomes: Any,
    start_method: str,
    main: Callable,
    args: tuple,
    num_gpus: int,
    num_machines: int,
    machine_rank: int,
    dist_url: str,
) -> None:
    """One of the processes: joins the others, runs `main`, and tells how it ended if that was not as planned."""
    # A spawned process would spawn its data loaders, too, each of which imports everything anew.
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
    time.sleep(0.2)  # the others fail because of the same, and say so before this end takes them along
    os._exit(code)


# Scripts


def main_of_script(main: Callable[[], Any]) -> None:
    """Run a script and exit: 0, or 1 after one sentence about a user's error, or what a signal asks for.

    Args:
        main: without arguments; a `ValueError` of this package is a user's error, any other keeps its traceback.
    """
    try:
        main()
    except (FcosError, FileNotFoundError) as error:
        _leave(f"error: {error}", _FAILED)
    except ValueError as error:
        if not _is_ours(error):
            raise
        _leave(f"error: {error}", _FAILED)
    except TrainingInterrupted as error:
        _leave(str(error), error.code)
    except KeyboardInterrupt:
        _leave("Interrupted.", 130)


def _is_ours(error: BaseException) -> bool:
    """Whether this package raised it: a part that was given a wrong option, say."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    package = Path(__file__).resolve().parent.parent
    return trace is not None and package in Path(trace.tb_frame.f_code.co_filename).resolve().parents


def _leave(message: str, code: int) -> None:
    rank = os.environ.get("RANK", "0")
    print(message if rank == "0" else f"[process {rank}] {message}", file=sys.stderr, flush=True)
    sys.exit(code)

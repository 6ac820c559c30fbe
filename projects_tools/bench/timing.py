"""Times and memory of jobs, and how far from the limit of the memory bus they are."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from projects_tools.bench.peers import Job, get_peer
from projects_tools.bench.workload import Setting

# A measured run lasts at least this long, in seconds; short work is repeated until it does.
_LEAST = 0.01


@dataclass(frozen=True)
class Times:
    """Seconds of a job, one for each round.

    Attributes:
        seconds: in the order of the rounds, so that those of several jobs belong together.
    """

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def ratio(self, other: Times) -> float:
        """How many times longer this took: the median of the ratios of neighbouring runs."""
        return statistics.median(a / b for a, b in zip(self.seconds, other.seconds))


def alternate(jobs: Sequence[Job], budget: float, most: int = 25) -> list[Times]:
    """Run jobs in turn, so that what disturbs the machine disturbs all of them.

    Args:
        jobs: already run once each, so that nothing is built for the first time here.
        budget: seconds to spend, roughly; three rounds are run in any case, two of jobs that take that long together.
        most: rounds of fast jobs.
    """
    seconds: list[list[float]] = [[_time(job, 1)] for job in jobs]
    spent = sum(found[0] for found in seconds)
    repeats = [1] * len(jobs)
    if spent < budget:  # else the first round counts, too
        repeats = [max(1, round(_LEAST / found[0])) for found in seconds]
        spent = sum(found[0] * count for found, count in zip(seconds, repeats))
        seconds = [[] for _ in jobs]
    rounds = 1 if seconds[0] else min(max(int(budget / spent), 3), most)
    collecting = gc.isenabled()
    gc.collect()
    gc.freeze()  # what is there is not looked through again, so that collecting between the rounds costs nothing
    gc.disable()
    try:
        for _ in range(rounds):
            for found, job, count in zip(seconds, jobs, repeats):
                found.append(_time(job, count))
            gc.collect()
    finally:
        gc.unfreeze()
        if collecting:
            gc.enable()
    return [Times(tuple(found)) for found in seconds]


def _time(job: Job, count: int) -> float:
    return sum(_seconds(job.run, job.before) for _ in range(count)) / count


def _seconds(run: Callable[[], Any], before: Callable[[], None] = lambda: None) -> float:
    """How long one run takes; on CUDA from the first kernel's turn to the end of the last, by events."""
    before()
    if not torch.cuda.is_initialized():
        start = time.perf_counter()
        run()
        return time.perf_counter() - start
    torch.cuda.synchronize()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def copy_bandwidth(num_bytes: int = 1 << 28, runs: int = 9, device: str = "cpu") -> float:
    """Bytes per second that a large copy reads and writes, the best of some runs."""
    source = torch.ones(num_bytes // 4, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    return 2 * num_bytes / min(_seconds(lambda: target.copy_(source)) for _ in range(runs))


def peak_memory(peer: str, setting: Setting, threads: int) -> int | None:
    """Bytes that one run of a job needs above its inputs, measured in a process of its own.

    Args:
        peer: as for `peers.get_peer`.
        setting: the work.
        threads: of PyTorch.
    Returns:
        highest memory during the run minus memory before it, of PyTorch's allocator on CUDA, resident memory on the
        CPU; `None` where the system does not tell.
    """
    if setting.device == "cpu" and not Path("/proc/self/clear_refs").exists():
        return None
    request = json.dumps({"peer": peer, "setting": setting.as_dict(), "threads": threads})
    done = subprocess.run(
        [sys.executable, "-m", __name__, request], capture_output=True, text=True, env={**os.environ}, check=False
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"measuring the memory of {peer} in {setting.suite} failed: {last}")
    return int(done.stdout.split()[-1])


def resident(field: str) -> int:
    """A line of /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def start_anew() -> None:
    """Give back what is free, so that a run has to ask for it again, and let the highest resident memory start anew."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
    if trim is not None:
        trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def _measure(peer: str, setting: Setting) -> int:
    job = getattr(get_peer(peer), setting.suite)(setting)
    job.before()
    job.run()  # libraries load and caches fill
    job.before()
    if setting.device != "cpu":
        gc.collect()
        torch.cuda.reset_peak_memory_stats()
        used = torch.cuda.memory_allocated()
        result = job.run()
        return torch.cuda.max_memory_allocated() - used
    start_anew()
    before = resident("VmRSS")
    result = job.run()
    peak = resident("VmHWM")
    del result
    return max(peak - before, 0)


def main() -> None:
    """Measure what the one argument, a JSON object, asks for; the last word on standard output is the answer."""
    import fcos_d2

    fcos_d2.register()
    request = json.loads(sys.argv[1])
    torch.set_num_threads(request["threads"])
    print(_measure(request["peer"], Setting.from_dict(request["setting"])))


if __name__ == "__main__":
    main()

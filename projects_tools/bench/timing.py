"""Times and memory of jobs, and how far from the limit of the memory bus they are."""

from __future__ import annotations

import gc
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from fcos_d2.evaluation import speed
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
    total = 0.0
    for _ in range(count):
        job.before()
        total += speed.seconds_of(job.run)
    return total / count


def copy_bandwidth(num_bytes: int = 1 << 28, runs: int = 9, device: str = "cpu") -> float:
    """Bytes per second that a large copy reads and writes, the best of some runs."""
    source = torch.ones(num_bytes // 4, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    return 2 * num_bytes / min(speed.seconds_of(lambda: target.copy_(source)) for _ in range(runs))


def peak_memory(peer: str, setting: Setting, threads: int) -> int | None:
    """Bytes that one run of a job on the CPU needs above its inputs, measured in a process of its own.

    Args:
        peer: as for `peers.get_peer`.
        setting: the work.
        threads: of PyTorch.
    Returns:
        highest resident memory during the run minus that before it; `None` where the system does not tell.
    """
    if not Path("/proc/self/clear_refs").exists():
        return None
    request = json.dumps({"peer": peer, "setting": setting.as_dict(), "threads": threads})
    done = subprocess.run(
        [sys.executable, "-m", __name__, request],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ},
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"measuring the memory of {peer} in {setting.suite} failed: {last}")
    return int(done.stdout.split()[-1])


def _measure(peer: str, setting: Setting) -> int | None:
    job = getattr(get_peer(peer), setting.suite)(setting)
    job.before()
    job.run()  # libraries load and caches fill
    job.before()
    return speed.peak_memory(job.run, torch.device("cpu"))


def main() -> None:
    """Measure what the one argument, a JSON object, asks for; the last word on standard output is the answer."""
    request = json.loads(sys.argv[1])
    torch.set_num_threads(request["threads"])
    print(_measure(request["peer"], Setting.from_dict(request["setting"])))


if __name__ == "__main__":
    main()

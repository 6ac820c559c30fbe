"""The limit of the memory bus, and the memory of jobs in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from fcos_d2.evaluation import speed
from projects_tools.bench.peers import get_peer
from projects_tools.bench.workload import Setting


def copy_bandwidth(num_bytes: int = 1 << 28, runs: int = 9, device: str = "cpu") -> float:
    """Bytes per second that a large copy reads and writes, the best of some runs."""
    source = torch.ones(num_bytes // 4, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    return 2 * num_bytes / min(speed.seconds_of(lambda: target.copy_(source)) for _ in range(runs))


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


def _measure(peer: str, setting: Setting) -> int | None:
    job = getattr(get_peer(peer), setting.suite)(setting)
    job.before()
    job.run()  # libraries load and caches fill
    job.before()
    return speed.peak_memory(job.run, torch.device(setting.device))


def main() -> None:
    """Measure what the one argument, a JSON object, asks for; the last word on standard output is the answer."""
    request = json.loads(sys.argv[1])
    torch.set_num_threads(request["threads"])
    print(_measure(request["peer"], Setting.from_dict(request["setting"])))


if __name__ == "__main__":
    main()

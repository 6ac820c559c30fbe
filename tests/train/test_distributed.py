"""Several processes: torchrun, and those of our own; errors of theirs as one sentence."""

from __future__ import annotations

import os
import re
import sys
import textwrap
from pathlib import Path

import pytest
import torch
import warm

from fcos_d2.errors import FcosError
from fcos_d2.train.distributed import run

SCRIPT = """
    import os
    import sys
    from fcos_d2.engine import main_of_script, run
    from fcos_d2.errors import FcosError

    def work(mode):
        import torch
        from detectron2.utils import comm
        total = torch.ones(())
        if comm.get_world_size() > 1:
            torch.distributed.all_reduce(total)
        if mode == "fail" and comm.get_rank() == 1:
            raise FcosError("The second process has a reason.")
        if mode == "bug":
            raise RuntimeError("a bug")
        parts = comm.get_rank(), comm.get_local_rank(), comm.get_local_size(), comm.get_world_size(), int(total)
        os.write(1, ("RESULT " + " ".join(map(str, parts)) + "\\n").encode())  # in one piece, whoever else writes

    if __name__ == "__main__":
        main_of_script(lambda: run(work, int(sys.argv[2]), args=(sys.argv[1],)))
"""

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="counts processes that share the CPU")


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(SCRIPT))
    return path


def call(*words):
    return warm.run([sys.executable, *words], cwd=Path.cwd(), env={**os.environ, "OMP_NUM_THREADS": "1"})


def results(done):
    assert done.returncode == 0, done.stderr
    return sorted(tuple(map(int, row)) for row in re.findall(r"RESULT (\d) (\d) (\d) (\d) (\d)", done.stdout))


def test_one_process_is_this_one():
    assert run(os.getpid) == os.getpid()


@pytest.mark.slow  # the first process of those below tells the same
def test_processes_of_our_own(script):
    done = call(script, "ok", 2)
    assert results(done) == [(0, 0, 2, 2, 2), (1, 1, 2, 2, 2)]
    assert "2 processes share the CPU and talk over gloo" in done.stdout


def test_torchrun(script):
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    assert results(call(*torchrun, script, "ok", 1)) == [(0, 0, 2, 2, 2), (1, 1, 2, 2, 2)]


@pytest.mark.slow
def test_error_of_a_process_is_one_sentence(script):
    """Of two of our own, which share the CPU; they have summed up by then, and the other tells what it has."""
    done = call(script, "fail", 2)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1] == "error: The second process has a reason."
    assert "Traceback" not in done.stderr
    assert "2 processes share the CPU and talk over gloo" in done.stdout


@pytest.mark.slow
def test_bug_keeps_its_traceback(script):
    done = call(script, "bug", 2)
    assert done.returncode == 1 and "RuntimeError: a bug" in done.stderr and "in work" in done.stderr


def test_wrong_numbers():
    with pytest.raises(FcosError, match="--machine-rank 3"):
        run(os.getpid, 1, 2, 3)
    with pytest.raises(FcosError, match="--num-gpus is 0"):
        run(os.getpid, 0)
    with pytest.raises(FcosError, match="--dist-url"):
        run(os.getpid, 2, 2, 0)

"""Commands in processes of their own that need not import PyTorch: one that has imported it forks for each of them.

The import takes five seconds of CPU. What a command does, prints and leaves behind is tested here; what Python does at
its start (what is imported when, environment variables that are read then, signals) is tested with `subprocess`.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).resolve()
# What commands import when they come to need it takes a second of each, too.
IMPORTED = (
    "fcos_d2", "fcos_d2.cli.train", "fcos_d2.cli.evaluate", "fcos_d2.cli.detect", "workers",
    "matplotlib.backends.backend_agg", "matplotlib.figure", "torch.utils.tensorboard",
)  # fmt: skip


def run(
    words: Sequence[object], *, cwd: object, env: Mapping[str, str] | None = None, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run(words, cwd=cwd, env=env, text=True, capture_output=True)`; the first word is this Python.

    Args:
        words: Python, then a script, `-c` and a program, or `-m` and a module; then arguments.
        cwd: working directory.
        env: environment variables; those of this process are the default.
        timeout: seconds after which the process is killed.
    """
    words = list(map(str, words))
    assert words[0] == sys.executable, words
    ours, theirs = socket.socketpair()
    with ours, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, open(os.devnull, "rb") as empty:
        with theirs:
            files = [empty.fileno(), out.fileno(), err.fileno(), theirs.fileno()]
            socket.send_fds(_server()[0], [b"."], files)
        ours.sendall(json.dumps([words[1:], str(cwd), dict(os.environ if env is None else env)]).encode() + b"\n")
        ours.settimeout(timeout)
        answers = ours.makefile()
        child = int(answers.readline() or "-1")
        assert child > 0, "The process that forks for commands has ended: its message stands above."
        try:
            status = int(answers.readline())
        except BaseException:
            os.kill(child, signal.SIGKILL)
            raise
        said = []
        for file in (out, err):
            file.seek(0)
            said.append(file.read().decode())
    return subprocess.CompletedProcess(words, status, *said)


def processes(work: str, count: int, *arguments: object) -> None:
    """`workers.<work>(rank, count, *arguments)` in so many processes beside each other; what repr writes is handed on.

    Raises:
        AssertionError: one of them failed.
    """
    start = f"start_processes(workers.{work}, {(count, *arguments)!r}, {count}, start_method='fork')"
    program = f"import workers\nfrom torch.multiprocessing import start_processes\n{start}"
    done = run([sys.executable, "-c", program], cwd=HERE.parent)
    assert done.returncode == 0, done.stderr


@functools.cache
def _server() -> tuple[socket.socket, subprocess.Popen]:
    """The end of a pair of sockets, and the process that waits at the other; it ends when this end is closed."""
    ours, theirs = socket.socketpair()
    paths = os.pathsep.join([str(HERE.parent.parent), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    command = [sys.executable, str(HERE), str(theirs.fileno())]
    process = subprocess.Popen(
        command, pass_fds=[theirs.fileno()], cwd=HERE.parent, env=environment, stdin=subprocess.DEVNULL
    )
    theirs.close()
    return ours, process


def _wait_and_fork(orders: socket.socket) -> list[str]:
    """The words of a command, in a process of its own with the files, folder and environment that were asked for."""
    for name in IMPORTED:
        importlib.import_module(name)
    os.fsync = lambda descriptor: None  # as in tests/conftest.py
    gc.freeze()  # so that a collection in a child copies no pages of this process
    while True:
        order, files, *_ = socket.recv_fds(orders, 1, 4)
        if not order:
            os._exit(0)
        first = os.fork()
        if not first and not os.fork():  # the process between ends at once, so that nobody waits for what it started
            break
        if not first:
            os._exit(0)
        os.waitpid(first, 0)
        for file in files:
            os.close(file)
    orders.close()
    *standard, talk = files
    with socket.socket(fileno=talk) as told:
        words, cwd, environment = json.loads(told.makefile().readline())
        child = os.fork()
        if child:
            told.sendall(f"{child}\n".encode())
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            with contextlib.suppress(BrokenPipeError):  # nobody waits for it any more
                told.sendall(f"{status}\n".encode())
            os._exit(0)
    for number, file in enumerate(standard):
        os.dup2(file, number)
        os.close(file)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    return words


def _main() -> None:
    ended = {"status": 0}
    atexit.register(_leave, ended)  # before all that is imported, so it comes last
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started it ends it
    words = _wait_and_fork(socket.socket(fileno=int(sys.argv[1])))
    try:
        _become(words)
    except SystemExit as end:
        ended["status"] = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        ended["status"] = 1


def _leave(ended: dict[str, int]) -> None:
    """End without taking apart what was imported, which takes a second."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(ended["status"])


def _become(words: list[str]) -> None:
    """Run what Python would run for these words."""
    how = words[0]
    sys.argv = words[1:] if how in ("-c", "-m") else words
    sys.path[0] = "" if how in ("-c", "-m") else str(Path(how).parent)
    if how == "-c":
        sys.argv[0] = "-c"
        exec(compile(words[1], "<string>", "exec"), {"__name__": "__main__"})
    elif how == "-m":
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(how, run_name="__main__")


if __name__ == "__main__":
    _main()

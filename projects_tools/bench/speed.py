"""The benchmark: this package beside its peers, suite by suite.

Every pair runs in turns in this process, on the same inputs and with the same choices (the peer's recipe), and gets a
ratio only if both gave the same answer.
"""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from fcos_d2.errors import FcosError
from fcos_d2.evaluation import speed as evaluation_speed
from projects_tools.bench import workload
from projects_tools.bench.agreement import Agreement, compare
from projects_tools.bench.peers import SUITES, Job, Ours, get_peer
from projects_tools.bench.timing import Times, alternate, copy_bandwidth, peak_memory
from projects_tools.bench.workload import Setting

__all__ = ["Case", "Growth", "Report", "Row", "cases", "run"]


@dataclass(frozen=True)
class Case:
    """A setting, and what is to be known about it.

    Attributes:
        setting: the work.
        memory: whether memory is measured, too.
        growth: axis along which this is a point: "boxes" or "area"; empty for neither.
        peer_mode: mode of the peers, where it is not that of the setting.
        peers: names of the peers that take part; all if empty.
    """

    setting: Setting
    memory: bool = False
    growth: tuple[str, ...] = ()
    peer_mode: str = ""
    peers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """This package and one peer in one setting.

    Attributes:
        case: what was done.
        peer: its name.
        ours, theirs: seconds.
        agreement: whether the answers are the same.
        ratio: how many times faster this package is; `None` unless the answers agree.
        our_memory, their_memory: bytes above the inputs; `None` if not measured.
        floor: seconds that the bytes that must move take at the measured bandwidth; `None` if that is not the limit.
    """

    case: Case
    peer: str
    ours: Times
    theirs: Times
    agreement: Agreement
    our_memory: int | None = None
    their_memory: int | None = None
    floor: float | None = None

    @property
    def ratio(self) -> float | None:
        return self.theirs.ratio(self.ours) if self.agreement.agrees else None

    @property
    def images_per_second(self) -> tuple[float, float] | None:
        """Of this package and of the peer; `None` where the work is not reading images."""
        setting = self.case.setting
        if setting.suite != "data":
            return None
        return setting.batch / self.ours.median, setting.batch / self.theirs.median

    @property
    def memory_ratio(self) -> float | None:
        if not self.agreement.agrees or self.our_memory is None or self.their_memory is None:
            return None
        return self.their_memory / max(self.our_memory, 1)

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain data; times in milliseconds, memory in bytes."""
        return {
            **self.case.setting.as_dict(),
            "label": self.case.setting.label,
            "peer": self.peer,
            "peer_mode": self.case.peer_mode or self.case.setting.mode,
            "ours_ms": self.ours.median * 1e3,
            "peer_ms": self.theirs.median * 1e3,
            **dict(zip(("ours_images_per_s", "peer_images_per_s"), self.images_per_second or ())),
            "rounds": len(self.ours.seconds),
            "ours_all_ms": [s * 1e3 for s in self.ours.seconds],
            "peer_all_ms": [s * 1e3 for s in self.theirs.seconds],
            "ratio": self.ratio,
            "agrees": self.agreement.agrees,
            "difference": self.agreement.text,
            "ours_bytes": self.our_memory,
            "peer_bytes": self.their_memory,
            "memory_ratio": self.memory_ratio,
            "floor_ms": None if self.floor is None else self.floor * 1e3,
            "ours_over_floor": None if self.floor is None else self.ours.median / self.floor,
            "peer_over_floor": None if self.floor is None else self.theirs.median / self.floor,
        }


@dataclass(frozen=True)
class Growth:
    """How time grows: t ~ size^exponent, fitted through all points.

    Attributes:
        suite: its name.
        axis: "boxes" (of an image) or "area" (of the image).
        who: the implementation.
        sizes: of the points.
        seconds: medians.
    """

    suite: str
    axis: str
    who: str
    sizes: tuple[float, ...]
    seconds: tuple[float, ...]

    @property
    def exponent(self) -> float:
        """Slope of the least-squares line through the logarithms."""
        x, y = [math.log(s) for s in self.sizes], [math.log(s) for s in self.seconds]
        mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
        return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y)) / sum((a - mean_x) ** 2 for a in x)


@dataclass
class Report:
    """All that a run found.

    Attributes:
        machine: hardware and versions, in the order to print.
        rows, growth: results.
        skipped: what was not measured, and why.
    """

    machine: dict[str, str]
    rows: list[Row] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    @property
    def growth(self) -> list[Growth]:
        """Where the rows are points along an axis, for every implementation once."""
        found = []
        for axis in ("boxes", "area"):
            points: dict[tuple[str, str], dict[float, float]] = {}
            for row in self.rows:
                if axis in row.case.growth:
                    setting = row.case.setting
                    size = float(setting.boxes if axis == "boxes" else setting.height * setting.width)
                    for who, times in ((f"fcos_d2 (as {row.peer})", row.ours), (row.peer, row.theirs)):
                        points.setdefault((setting.suite, who), {})[size] = times.median
            for (suite, who), at in points.items():
                if len(at) > 1:
                    sizes = tuple(sorted(at))
                    found.append(Growth(suite, axis, who, sizes, tuple(at[s] for s in sizes)))
        return found

    def as_dict(self) -> dict[str, Any]:
        return {
            "machine": self.machine,
            "rows": [row.as_dict() for row in self.rows],
            "growth": [{**vars(g), "exponent": g.exponent} for g in self.growth],
            "skipped": self.skipped,
        }


KNOWN_PEERS = ("detectron2", "torchvision")
_DETECTRON2 = KNOWN_PEERS[:1]


def cases(suite: str, quick: bool = False, data: str = "", device: str = "cpu") -> list[Case]:
    """The lines of a suite; with `quick` a few small ones.

    Raises:
        FcosError: there is no such suite.
    """
    if suite not in SUITES:
        raise FcosError(f"There is no suite {suite!r}; there are {', '.join(SUITES)}.")
    found = _QUICK[suite](data) if quick else _FULL[suite](data)
    if device != "cpu" and suite == "train" and not quick:
        found = _train_on_gpu()
    return [replace(case, setting=replace(case.setting, device=device)) for case in found]


def _assign(data: str) -> list[Case]:
    found = [
        Case(
            Setting("assign", batch, boxes=boxes),
            memory=batch == 8 and boxes in (50, 1000),
            growth=(("boxes",) if batch == 8 else ()) + (("area",) if (batch, boxes) == (8, 50) else ()),
            peers=() if batch == 8 else _DETECTRON2,
        )
        for batch in (2, 8, 16)
        for boxes in (7, 50, 300, 1000)
    ]
    return found + [
        Case(Setting("assign", 8, height, width, 50), growth=("area",), peers=_DETECTRON2)
        for height, width in ((400, 608), (1600, 2432))
    ]


def _loss(data: str) -> list[Case]:
    return [
        Case(Setting("loss", 2, boxes=50)),
        Case(Setting("loss", 8, boxes=50), memory=True),
        Case(Setting("loss", 8, boxes=50, mode="channels_last"), peers=_DETECTRON2),
    ]


def _decode(data: str) -> list[Case]:
    return [
        Case(Setting("decode", batch, scores=scores), memory=(batch, scores) == (8, "heavy"))
        for batch in (1, 8)
        for scores in ("heavy", "trained", "sparse")
    ] + [Case(Setting("decode", 8, scores="heavy", mode="channels_last"), peers=_DETECTRON2)]


def _forward(data: str) -> list[Case]:
    found = []
    for height, width in ((800, 1216), (512, 512)):
        found += [
            Case(Setting("forward", 1, height, width), memory=height == 800),
            Case(Setting("forward", 1, height, width, mode="channels_last"), peers=_DETECTRON2),
            Case(Setting("forward", 1, height, width, mode="bf16 channels_last"), peers=_DETECTRON2),
        ]
        for mode in ("optimized", "optimized, bf16 backbone", "optimized, bf16"):
            found.append(Case(Setting("forward", 1, height, width, mode=mode), height == 800, peer_mode="eager"))
    return found + [Case(Setting("forward", 1, mode="compiled"), peer_mode="eager", peers=_DETECTRON2)]


def _train(data: str) -> list[Case]:
    return [
        Case(Setting("train", 2, 512, 640, 7), memory=True),
        Case(Setting("train", 2, 512, 640, 7, mode="channels_last"), peers=_DETECTRON2),
        Case(Setting("train", 1, 256, 320, 7, mode="bf16 channels_last"), True, peer_mode="eager", peers=_DETECTRON2),
    ]


def _train_on_gpu() -> list[Case]:
    """Detectron2's FCOS fails under autocast, so bfloat16 stands beside its float32."""
    setting = Setting("train", 2, 800, 1344, 7)
    return [
        case
        for batch in (2, 8, 16)
        for case in (
            Case(replace(setting, batch=batch), memory=True),
            Case(replace(setting, batch=batch, mode="bf16 channels_last"), True, peer_mode="eager", peers=_DETECTRON2),
        )
    ]


def _data(data: str) -> list[Case]:
    return [
        Case(Setting("data", 16, data=data), peers=_DETECTRON2),
        Case(Setting("data", 16, data=data, mode="close"), peer_mode="eager", peers=_DETECTRON2),
    ]


_FULL: dict[str, Callable[[str], list[Case]]] = {
    "assign": _assign,
    "loss": _loss,
    "decode": _decode,
    "forward": _forward,
    "train": _train,
    "data": _data,
}
_QUICK: dict[str, Callable[[str], list[Case]]] = {
    "assign": lambda data: [Case(Setting("assign", 2, 256, 320, boxes), growth=("boxes",)) for boxes in (7, 50)],
    "loss": lambda data: [Case(Setting("loss", 2, 256, 320, 7))],
    "decode": lambda data: [Case(Setting("decode", 2, 256, 320, scores="trained"))],
    "forward": lambda data: [
        Case(Setting("forward", 1, 128, 160)),
        Case(Setting("forward", 1, 128, 160, mode="optimized"), peer_mode="eager"),
    ],
    "train": lambda data: [Case(Setting("train", 1, 128, 160, 3))],
    "data": lambda data: [Case(Setting("data", 2, data=data, mode=m), peers=_DETECTRON2) for m in ("eager", "close")],
}


def run(
    suites: Sequence[str],
    peers: Sequence[str] = KNOWN_PEERS,
    threads: int = 2,
    quick: bool = False,
    data: str = "",
    budget: float = 4.0,
    device: str = "cpu",
    tell: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> Report:
    """Measure suites.

    Args:
        suites: names among `peers.SUITES`.
        peers: names or paths, see `peers.get_peer`.
        threads: of PyTorch, in this process and in those that measure memory.
        quick: a few small settings, and no memory.
        data: folder of a data set for the suite "data", which is left out without one.
        budget: seconds for a pair in a setting, roughly; the slowest take longer.
        device: "cpu" or "cuda".
        tell: called with rows done, rows in all, and what comes next.
    Raises:
        FcosError: the device is missing, or the folder holds no data set; before anything is measured.
    """
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise FcosError(f"device is {device!r}, but PyTorch finds no CUDA device here: leave --device out.")
    torch.set_num_threads(threads)
    names = {name.partition("=")[0]: name for name in peers}
    work = []
    report = Report({})
    for suite in suites:
        if suite == "data" and not data:
            report.skipped.append("data: no data set was given (--data DIR)")
            continue
        for case in cases(suite, quick, data, device):
            if suite == "data":
                workload.records(case.setting)  # what is wrong with it is told now
            taking_part = [name for name in names if not case.peers or name in case.peers or name not in KNOWN_PEERS]
            work += [(case, name) for name in taking_part if hasattr(get_peer(names[name]), suite)]
    bandwidth = copy_bandwidth(1 << 26 if quick else 1 << 28, device=device)
    report.machine = machine(threads, bandwidth, device)
    started = time.monotonic()
    for done, (case, name) in enumerate(work):
        tell(done, len(work), f"{case.setting.suite}: {case.setting.label}, {name}")
        report.rows.append(_row(case, names[name], threads, 0.2 if quick else budget, bandwidth, not quick))
    tell(len(work), len(work), "")
    report.machine["load at the end"] = _load()
    report.machine["duration"] = f"{(time.monotonic() - started) / 60:.1f} min"
    return report


def _row(case: Case, name: str, threads: int, budget: float, bandwidth: float, with_memory: bool) -> Row:
    peer, setting = get_peer(name), case.setting
    their_setting = replace(setting, mode=case.peer_mode) if case.peer_mode else setting
    jobs = [getattr(Ours(peer.recipe), setting.suite)(setting), getattr(peer, setting.suite)(their_setting)]
    answers = []
    for job in jobs:
        job.before()
        with _all_digits():
            answers.append(job.answer(job.run()))
        if setting.device != "cpu":  # kernels of the other kind are looked for now, not in the first round
            job.before()
            job.run()
    agreement = compare(setting, *answers)
    del answers
    ours, theirs = alternate(jobs, budget)
    memory: list[int | None] = [None, None]
    if case.memory and with_memory and setting.device != "cpu":
        memory = [_allocated(job, torch.device(setting.device)) for job in jobs]
    del jobs
    if case.memory and with_memory and setting.device == "cpu":
        memory = [
            peak_memory(f"fcos_d2:{peer.recipe}", setting, threads),
            peak_memory(name, their_setting, threads),
        ]
    num_bytes = least_bytes(setting)
    floor = None if num_bytes is None else num_bytes / bandwidth
    return Row(case, peer.name, ours, theirs, agreement, *memory, floor)


@contextmanager
def _all_digits() -> Iterator[None]:
    """Convolutions on a GPU multiply all digits of float32 here, not those of TF32, which are PyTorch's default."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def _allocated(job: Job, device: torch.device) -> int | None:
    """Bytes of PyTorch's allocator that one more run needs above the inputs."""
    job.before()
    return evaluation_speed.peak_memory(job.run, device)


def least_bytes(setting: Setting) -> int | None:
    """Bytes that any implementation must read or write once: inputs of unknown use and results, float32 and int64.

    Returns:
        for "assign" the result; for "loss" the logits and the gradients of all maps; for "decode" the logits; else
        `None`.
    """
    sizes = workload.feature_sizes(setting.height, setting.width)
    places = setting.batch * sum(height * width for height, width in sizes)
    classes = workload.NUM_CLASSES
    per_place = {"assign": 8, "loss": 4 * (classes + classes + 4 + 1), "decode": 4 * classes}
    return places * per_place[setting.suite] if setting.suite in per_place else None


def machine(threads: int, bandwidth: float, device: str = "cpu") -> dict[str, str]:
    """What the numbers depend on."""
    from fcos_d2._compat import DETECTRON2_FLAVOUR

    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        **({} if device == "cpu" else {"GPU": f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"}),
        "threads": str(threads),
        "copy bandwidth": f"{bandwidth / 1e9:.1f} GB/s (read and written, best of 9)",
        "load before": _load(),
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "versions": f"fcos_d2 {_version('fcos_d2')}, torch {torch.__version__}, torchvision {_version('torchvision')}, "
        f"Detectron2 {DETECTRON2_FLAVOUR}",
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "memory allocation": "huge pages (THP_MEM_ALLOC_ENABLE)"
        if os.environ.get("THP_MEM_ALLOC_ENABLE", "0") not in ("", "0")
        else "PyTorch's default",
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _load() -> str:
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"

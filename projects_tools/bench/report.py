"""What the benchmark found, as Markdown, JSON and a chart."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from projects_tools.bench.agreement import TOLERANCES
from projects_tools.bench.peers import SUITES
from projects_tools.bench.speed import Report, Row
from projects_tools.bench.workload import SCORES

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"

_TITLES = {
    "assign": "Assignment",
    "loss": "Assignment and losses, forward and backward",
    "decode": "Decoding: scores, top-k, boxes, NMS",
    "forward": "Whole model in inference (R-50-FPN)",
    "train": "One training step (R-50-FPN)",
    "data": "Reading and resizing images",
}


def markdown(report: Report, command: str = "") -> str:
    """The tables of a report.

    Args:
        command: that made it, shown above the tables.
    """
    lines = []
    if command:
        lines += ["```", command, "```", ""]
    lines += [f"- {name}: {value}" for name, value in report.machine.items()]
    lines += [
        "",
        "Times are medians of alternating runs; a ratio is the median of the ratios of neighbouring runs (peer / "
        "fcos_d2). Memory is the peak above the inputs, of a process of its own. The limit is the time that the bytes "
        "that must move once take at the copy bandwidth.",
    ]
    for suite in SUITES:
        rows = [row for row in report.rows if row.case.setting.suite == suite]
        if rows:
            lines += ["", f"### {_TITLES[suite]} (`{suite}`)", ""]
            if suite in TOLERANCES:
                lines += [f"Same answer: {TOLERANCES[suite]}.", ""]
            named = [f"{name}: {SCORES[name]}" for name in SCORES if any(r.case.setting.scores == name for r in rows)]
            if named:
                lines += ["Scores, " + "; ".join(named) + ".", ""]
            lines += _table(rows)
    growth = report.growth
    if growth:
        lines += ["", "### Growth", "", "Time ~ size^exponent, fitted through the rows above.", ""]
        lines += ["| suite | along | implementation | sizes | exponent |", "|---|---|---|---|---:|"]
        for g in growth:
            sizes = ", ".join(f"{s:,.0f}" for s in g.sizes)
            lines.append(f"| {g.suite} | {g.axis} | {g.who} | {sizes} | {g.exponent:.2f} |")
    if report.skipped:
        lines += ["", *(f"Not measured: {text}." for text in report.skipped)]
    return "\n".join(lines) + "\n"


def _table(rows: list[Row]) -> list[str]:
    memory, floor = any(r.our_memory is not None for r in rows), any(r.floor is not None for r in rows)
    reading = any(r.images_per_second for r in rows)
    head = ["setting", "peer", "peer ms", "fcos_d2 ms", "ratio"]
    head += ["peer images/s", "fcos_d2 images/s"] if reading else []
    head += ["peer MiB", "fcos_d2 MiB", "memory ratio"] if memory else []
    head += ["peer / limit", "fcos_d2 / limit"] if floor else []
    head.append("difference of the answers")
    lines = ["| " + " | ".join(head) + " |", "|---|---|" + "---:|" * (len(head) - 3) + "---|"]
    for row in rows:
        mode = f" ({row.case.peer_mode})" if row.case.peer_mode else ""
        cells = [row.case.setting.label, row.peer + mode, _number(row.theirs.median * 1e3)]
        cells += [
            _number(row.ours.median * 1e3),
            "**not equal**" if row.ratio is None else f"**{_number(row.ratio)}x**",
        ]
        if reading:
            ours, theirs = row.images_per_second
            cells += [_number(theirs), _number(ours)]
        if memory:
            cells += [_mib(row.their_memory), _mib(row.our_memory)]
            cells.append("" if row.memory_ratio is None else f"{_number(row.memory_ratio)}x")
        if floor:
            over = [None if row.floor is None else t.median / row.floor for t in (row.theirs, row.ours)]
            cells += ["" if value is None else f"{_number(value)}x" for value in over]
        lines.append("| " + " | ".join([*cells, row.agreement.text]) + " |")
    return lines


def _number(value: float) -> str:
    """Three digits, or all those before the point."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _mib(num_bytes: int | None) -> str:
    return "" if num_bytes is None else _number(num_bytes / 2**20)


def write_markdown(path: Path, report: Report, command: str = "") -> None:
    """Write the tables into a file: between its marks `BEGIN` and `END` if it has them, else as the whole file."""
    text = markdown(report, command)
    if path.is_file():
        old = path.read_text(encoding="utf-8")
        if BEGIN in old and END in old:
            before, after = old.split(BEGIN)[0], old.split(END)[1]
            text = f"{before}{BEGIN}\n{text}{END}{after}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def write_json(path: Path, report: Report, command: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = {"command": command, **report.as_dict()}
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def draw_chart(path: Path, report: Report) -> None:
    """Draw the ratios of a report, see `draw_bars`; rows without one are left out."""
    rows = [(row.case.setting, row.peer.replace("detectron", "Detectron"), row.ratio) for row in report.rows]
    bars = [(setting.suite, setting.label, peer, ratio) for setting, peer, ratio in rows if ratio is not None]
    draw_bars(path, bars, report.machine)


def draw_bars(path: Path, bars: Sequence[tuple[str, str, str, float]], machine: Mapping[str, str]) -> None:
    """Bars of how many times faster we are, one colour for each peer, under the titles of the suites.

    Args:
        bars: suite, label, peer and ratio of each.
        machine: what the figures are of; its processor, threads, versions and date are shown.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    peers = list(dict.fromkeys(peer for _, _, peer, _ in bars))
    lines: list[tuple[str, str | None]] = []  # suite and label; None: the suite's title
    for suite, label, *_ in bars:
        if (suite, None) not in lines:
            lines.append((suite, None))
        if (suite, label) not in lines:
            lines.append((suite, label))
    figure = Figure(figsize=(10, 2.4 + 0.29 * len(lines)), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    height = 0.82 / max(len(peers), 1)
    for i, peer in enumerate(peers):
        mine = [(lines.index((suite, label)), ratio) for suite, label, name, ratio in bars if name == peer]
        at = [line + (i - (len(peers) - 1) / 2) * height for line, _ in mine]
        drawn = axes.barh(at, [ratio - 1 for _, ratio in mine], height, left=1, label=f"beside {peer}'s FCOS")
        axes.bar_label(drawn, [f"{_number(ratio)}x" for _, ratio in mine], padding=2, fontsize=7)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    highest = max((ratio for *_, ratio in bars), default=1.0)
    lowest = min((ratio for *_, ratio in bars), default=1.0)
    ends = min(0.8, 0.6 * lowest), 2 * highest  # with room for the numbers
    axes.set_xlim(*ends)
    ticks = [tick for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if ends[0] <= tick <= ends[1]]
    axes.set_xticks(ticks, [f"{tick:g}x" for tick in ticks], fontsize=8)
    axes.minorticks_off()
    names = [_TITLES[suite] if label is None else label for suite, label in lines]
    axes.set_yticks(range(len(lines)), names, fontsize=8)
    for (_, label), text in zip(lines, axes.get_yticklabels()):
        text.set_fontweight("bold" if label is None else "normal")
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.grid(axis="x", color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(left=False)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_xlabel("the peer's time over ours, logarithmic; 1x: as fast", fontsize=9)
    threads = [f"{machine['threads']} threads"] if "threads" in machine else []
    known = [*(machine[key] for key in ("date", "processor") if key in machine), *threads]
    notes = [", ".join(known), machine.get("versions", "")]
    notes.append("settings: height x width in pixels, images of a batch, boxes of an image")
    notes += [f"{name}: {text}" for name, text in SCORES.items() if any(name in label for _, label, *_ in bars)]
    axes.set_title("\n".join(notes), fontsize=8, loc="left")
    figure.suptitle("How many times faster fcos_d2 is", fontsize=13, fontweight="bold", x=0.01, ha="left")
    if peers:
        figure.legend(loc="outside upper right", ncols=len(peers), frameon=False, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)

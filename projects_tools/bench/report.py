"""What the benchmark found, as Markdown, JSON and a chart."""

from __future__ import annotations

import json
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
    """Bars of the ratios, one colour for each peer; 1 is equal speed. Rows without a ratio are left out."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = [row for row in report.rows if row.ratio is not None]
    labels = list(dict.fromkeys((row.case.setting.suite, row.case.setting.label) for row in rows))
    peers = list(dict.fromkeys(row.peer for row in rows))
    figure, axes = plt.subplots(figsize=(9, 1.2 + 0.32 * max(len(labels), 1)), layout="constrained")
    height = 0.8 / max(len(peers), 1)
    for i, peer in enumerate(peers):
        mine = [row for row in rows if row.peer == peer]
        at = [labels.index((row.case.setting.suite, row.case.setting.label)) + i * height for row in mine]
        bars = axes.barh(at, [row.ratio for row in mine], height, left=0, label=peer)
        axes.bar_label(bars, [f"{_number(row.ratio)}x" for row in mine], padding=2, fontsize=7)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.margins(x=0.12)
    axes.set_yticks([i + height * (len(peers) - 1) / 2 for i in range(len(labels))])
    axes.set_yticklabels([f"{suite}: {label}" for suite, label in labels], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("times faster than the peer (1 is equal)")
    if peers:
        axes.legend(loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)

"""Charts take the page's colors, stay apart from each other, and load nothing; maps over pictures."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from fcos_d2.visualize.charts import (
    SCHEMES,
    Bars,
    Line,
    alone,
    bar_chart,
    calibration_chart,
    line_chart,
    scatter_chart,
)
from fcos_d2.visualize.heat import draw_heat, heat_scale

X = np.linspace(0, 1, 30)
BINS = np.random.default_rng(0).uniform(1, 9, (2, 3, 15))
CHARTS = {
    "lines": lambda title: line_chart([Line("a", X, X**2), Line("b", X, 1 - X)], "x", "y", title, marks=[(0.3, "m")]),
    "bars": lambda title: bar_chart(["one", "猫 <b>"], [Bars("AP", [0.4, None]), Bars("AP50", [0.5, 0.9])], "", title),
    "points": lambda title: scatter_chart(X, X**2, "score", "IoU", title),
    "calibration": lambda title: calibration_chart(BINS, ["scores", "temperature"], title),
    "nothing": lambda title: line_chart([Line("a", X, np.full(30, np.nan))], "x", "y", title, xlim=None, ylim=None),
}


@pytest.mark.parametrize("kind", CHARTS)
def test_a_chart_is_sound_and_takes_the_colors_of_its_page(kind: str) -> None:
    svg = CHARTS[kind]('A <script> & "title" $x_1$')
    assert re.search(r"<script|http|#0b0c|<metadata|<\?xml", svg) is None
    names = {name for name in SCHEMES if f"var(--{name})" in svg}
    assert {"ink", "dim", "grid"} <= names
    assert re.match(r'<svg viewBox="0 0 [\d.]+ [\d.]+" role="img" aria-label="A [^"<>]+">', svg)
    ET.fromstring(alone(svg))
    assert all(f"--{name}:" in alone(svg) for name in SCHEMES)
    assert CHARTS[kind]('A <script> & "title" $x_1$') == svg


def test_charts_of_a_page_share_no_name() -> None:
    charts = [make(kind) for kind, make in CHARTS.items()]
    names = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg in charts]
    assert all(names) and sum(map(len, names)) == len(set().union(*names))
    for svg, own in zip(charts, names):
        used = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', svg)
        assert {a or b for a, b in used} <= own


def test_thousands_of_points_take_no_room() -> None:
    many = np.random.default_rng(0).random((2, 20_000))
    svg = scatter_chart(*many, "score", "IoU", "many")
    assert "data:image/png;base64," in svg and len(svg) < 450_000


def test_heat_is_gray_where_nothing_is_seen() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    values = np.tile(np.linspace(0, 1, 30, dtype=np.float32), (20, 1))
    assert (np.ptp(draw_heat(image, values, np.zeros((20, 30))), axis=2) <= 1).all()
    drawn = draw_heat(image, values, np.ones((20, 30)))
    assert drawn.shape == image.shape and drawn.dtype == np.uint8
    assert drawn[:, 5, 2].mean() > drawn[:, 5, 0].mean() and drawn[:, -4, 0].mean() > drawn[:, -4, 2].mean()
    scale = heat_scale(100, 4)
    assert scale.shape == (4, 100, 3) and (scale[0] == scale[3]).all() and scale[0, 20, 2] > scale[0, 90, 2]

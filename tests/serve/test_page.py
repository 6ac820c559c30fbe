"""The page in a real browser: a picture is dropped on it, boxes are seen, and nothing goes elsewhere."""

from __future__ import annotations

import io
from pathlib import Path

import chromium
import httpx
from PIL import Image
from served import picture

COUNT = "$('objects').children.length"


# How many pixels of the canvas have the color of the class of the best object.
DRAWN = """(() => {
    const want = model.classes[shown.found.detections[0].label].color, canvas = $('canvas');
    const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    let count = 0;
    for (let i = 0; i < data.length; i += 4) count += want.every((value, k) => data[i + k] === value);
    return count;
})()"""


def test_a_picture_is_dropped_and_its_boxes_are_seen(client: httpx.Client, tmp_path: Path) -> None:
    Image.open(io.BytesIO(picture(200, 150))).save(tmp_path / "one.png")
    Image.open(io.BytesIO(picture(160, 150, seed=1))).save(tmp_path / "two.tif")  # no browser shows these
    (tmp_path / "three.jpg").write_bytes(b"hello")
    wanted = client.post("/detect", content=(tmp_path / "one.png").read_bytes()).json()
    with chromium.tab() as tab:
        tab.window(1280, 900, dark=False)
        tab.open(str(client.base_url))
        tab.until("model.classes.length === 3")
        tab.drop(tmp_path / "one.png", 300, 400)
        tab.until("shown && shown.found")
        assert tab.eval("shown.found.detections") == wanted["detections"] and tab.eval(COUNT) == len(
            wanted["detections"]
        )
        assert tab.eval("getComputedStyle($('canvas')).display") == "block" and tab.eval("$('told').hidden")
        assert tab.eval("$('canvas').width") > 300 and tab.eval(DRAWN) > 300
        # The slider and the classes choose; nothing is asked for again.
        middle = sorted(row["score"] for row in wanted["detections"])[1]
        tab.eval(f"$('least').value = {middle + 0.005}; $('least').oninput()")
        assert 0 < tab.eval(COUNT) < len(wanted["detections"])
        tab.eval("$('least').value = 0; $('least').oninput(); $('classes').querySelector('button').click()")
        assert tab.eval(COUNT) < len(wanted["detections"]) and tab.eval("off.size") == 1
        tab.eval("$('least').value = 0.99; $('least').oninput()")
        assert tab.eval(COUNT) == tab.eval(DRAWN) == 0
        tab.drop(tmp_path / "two.tif", 300, 400)
        tab.until("items.length === 2 && shown.found && !$('drawn').hidden && $('drawn').naturalWidth === 160")
        tab.drop(tmp_path / "three.jpg", 300, 400)
        tab.until("items.length === 3 && shown.error")
        assert "not a picture" in tab.eval("$('told').textContent") and not tab.eval("$('told').hidden")
        # On a telephone in the dark: nothing is wider than the window, and the page is dark.
        tab.window(390, 844, dark=True)
        assert tab.eval("document.documentElement.scrollWidth") <= 390
        assert tab.eval("getComputedStyle(document.body).backgroundColor") == "rgb(14, 18, 22)"
        loaded = tab.eval("performance.getEntriesByType('resource').map(entry => entry.name)")
        assert all(name.startswith((str(client.base_url), "data:", "blob:")) for name in loaded)
        assert [line for line in tab.log if "status of 422" not in line] == []

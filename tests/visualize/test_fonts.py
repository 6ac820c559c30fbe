"""Names in any script: letters where a font has them, else their numbers; never boxes."""

from __future__ import annotations

import unicodedata
import warnings
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen

import fcos_d2  # noqa: F401  makes every Detectron2 build importable
from fcos_d2.visualize import draw_boxes, draw_comparison, draw_curves, fonts
from fcos_d2.visualize.style import class_name

SCRIPTS = {"zh": "猫", "ja": "ねこ", "ko": "고양이", "hi": "बिल्ली", "th": "แมวน้ำ"}


def font_file(path: Path, letters: str) -> Path:
    """A font whose letters are triangles of different heights; what it lacks is an empty box, as usual."""
    letters = "".join(dict.fromkeys(letters))
    names = [".notdef", *(f"u{ord(letter):04X}" for letter in letters)]
    glyphs = {}
    for number, name in enumerate(names):
        pen = TTGlyphPen(None)
        points = (
            [(100, 0), (900, 0), (500, 300 + 60 * number)] if number else [(100, 0), (900, 0), (900, 900), (100, 900)]
        )
        pen.moveTo(points[0])
        for point in points[1:]:
            pen.lineTo(point)
        pen.closePath()
        glyphs[name] = pen.glyph()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(letter): f"u{ord(letter):04X}" for letter in letters})
    builder.setupGlyf(glyphs)
    builder.setupHorizontalMetrics(dict.fromkeys(names, (1000, 0)))
    builder.setupHorizontalHeader(ascent=900, descent=-200)
    builder.setupNameTable({"familyName": path.stem, "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=900)
    builder.setupPost()
    builder.save(path)
    return path


@pytest.fixture
def system(monkeypatch):
    """`system(*files)`: let these be all fonts of the system."""

    def use(*files: Path) -> None:
        for cached in (fonts._spelled, fonts._path_of, fonts._has):
            cached.cache_clear()
        fonts._used.clear()
        monkeypatch.setattr(fonts, "_system_fonts", lambda: tuple(map(str, files)))

    use()
    yield use
    use()


def picture(name: str) -> np.ndarray:
    return draw_boxes(np.full((120, 300, 3), 128, np.uint8), [[20, 40, 200, 100]], [0], [0.5], [name])


@pytest.mark.parametrize("name", SCRIPTS.values(), ids=SCRIPTS)
def test_without_a_font_names_are_escaped(system, name):
    escaped = name.encode("unicode_escape").decode()
    assert fonts.legible(name) == escaped and name.isprintable()
    assert (picture(name) == picture(escaped)).all()
    assert class_name(0, [name]).isascii() or class_name(0, [name]).endswith("…")


@pytest.mark.parametrize("name", SCRIPTS.values(), ids=SCRIPTS)
def test_with_a_font_names_are_written_in_it(system, tmp_path, name):
    path = font_file(tmp_path / "Own.ttf", name)
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    system(tmp_path / "broken.ttf", path)
    assert fonts.legible(name) == name == class_name(0, [name])
    font = fonts.load_font(20)
    mixed = f"{name} cat"
    runs = fonts._runs(mixed, font)
    assert "".join(piece for piece, _ in runs) == mixed
    assert [face.path == str(path) for _, face in runs] == [True, False]  # Latin letters are DejaVu's
    assert fonts.text_length(name, font) > 0
    assert (picture(name) != picture(name.encode("unicode_escape").decode())).any()
    assert (picture(name) != picture(name + name[0])).any()


def test_letters_of_several_fonts_and_of_none(system, tmp_path):
    system(font_file(tmp_path / "A.ttf", "猫"), font_file(tmp_path / "B.ttf", "犬"))
    assert fonts.legible("猫犬兎") == "猫犬\\u514e"
    assert [piece for piece, _ in fonts._runs("猫犬 x", fonts.load_font(20))] == ["猫", "犬", " x"]
    text, file = fonts.font_for("猫")
    assert (text, file) == ("猫", str(tmp_path / "A.ttf"))
    assert fonts.font_for("猫犬") == ("\\u732b\\u72ac", None)  # no font has both
    assert fonts.font_for("x") == ("x", None)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\nb\tc\x07", "a\\nb\\tc\\x07"),
        ("a\u2028b\x00", "a\\u2028b\\x00"),
        ("\u202egpj.cat", "gpj.cat"),
        ("\ud800", "\\ud800"),
        ("\ue000", "\\ue000"),
        ("\U0001f9a5", "\\U0001f9a5"),
        (unicodedata.normalize("NFD", "é"), "é"),
        ("soft\u00adhyphen\ufeff", "softhyphen"),
        ("\u732b\u200d\u732b", "\\u732b\\u732b"),
        ("plain $x$ \\n", "plain $x$ \\n"),
        ("", ""),
    ],
)
def test_what_no_font_shows(system, name, shown):
    assert fonts.legible(name) == shown
    assert picture(name).shape == (120, 300, 3)


def test_latin_letters_are_those_that_the_font_has(system):
    """So the font is not opened for them; what is between the first and the last but no letter is told before."""
    face = fonts._face(fonts._dejavu())
    letters = [chr(code) for code in range(ord(fonts._LATIN[0]), ord(fonts._LATIN[1]) + 1)]
    assert [x for x in letters if unicodedata.category(x) != "Cc" and face.get_char_index(ord(x)) == 0] == []
    assert fonts._dejavu() == f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf"
    fonts._face.cache_clear()
    assert fonts.legible("Crème brûlée \x85 Øł") == "Crème brûlée \\x85 Øł" and fonts._face.cache_info().misses == 0
    assert fonts.legible("кот") == "кот" and fonts._face.cache_info().misses == 1


def test_right_to_left(system, monkeypatch):
    """Joined and turned where Pillow can; else letters in the wrong order would be no name."""
    for can, shown in ((True, "قطة"), (False, "\\u0642\\u0637\\u0629")):
        fonts._spelled.cache_clear()
        monkeypatch.setattr(fonts, "_shapes", lambda can=can: can)
        assert fonts.legible("قطة") == shown


def test_long_names_are_cut_between_letters(system):
    assert class_name(0, ["x" * 24]) == "x" * 24 and class_name(0, ["x" * 25]) == "x" * 23 + "…"
    assert class_name(0, ["猫" * 9]) == "\\u732b" * 3 + "…"
    assert class_name(5, ["a"]) == "class 5"


def test_titles_of_pages_and_curves(system, tmp_path):
    """A title is a folder's name: neither boxes and warnings, nor formulas."""
    rows = [{"iteration": step, "total_loss": 1.0} for step in range(3)]
    image = np.zeros((40, 60, 3), np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        curves = [
            draw_curves(rows, tmp_path / f"{n}.png", title).read_bytes() for n, title in enumerate(("猫", "\\u732b"))
        ]
        draw_curves(rows, tmp_path / "x.png", "100 $ and $x_{")
    assert curves[0] == curves[1]
    pages = [
        draw_comparison([(image, ([], []), ([], [], []))], ["a"], tmp_path / f"{n}.png", title).read_bytes()
        for n, title in enumerate(("猫", "\\u732b"))
    ]
    assert pages[0] == pages[1]
    system(font_file(tmp_path / "Own.ttf", "猫"))
    assert draw_curves(rows, tmp_path / "f.png", "猫").read_bytes() != curves[0]

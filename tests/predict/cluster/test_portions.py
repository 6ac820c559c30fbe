"""What is to be looked at is divided so that each picture is in one portion, and none that is done."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from fcos_d2.data.images import read_image
from fcos_d2.data.sources import Source, expand
from fcos_d2.errors import FcosError
from fcos_d2.predict.cluster import FilePortion, ParquetPortion, count_of, portions_of


class Reading:
    """As a `Look` reads: files by their place, arrays as they are."""

    def read(self, source: Source) -> np.ndarray:
        return read_image(source.where)

    def frame(self, pixels: np.ndarray) -> np.ndarray:
        return pixels


def png(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (5, 4), (shade, 0, 0)).save(file, "PNG")
    return file.getvalue()


def table(path: Path, column: str, values: Iterable, rows: int = 2) -> Source:
    parquet.write_table(pa.table({"id": range(len(list(values))), column: list(values)}), path, row_group_size=rows)
    return Source(str(path))


def names(portions: Iterable) -> list[str]:
    return [picture.where for portion in portions for picture in portion.pictures()]


def test_files_are_divided_in_order_and_what_is_done_is_left_out():
    sources = [Source(f"{i}.jpg") for i in range(7)] + [Source("0.jpg")]
    portions = list(portions_of(sources, Counter(), 3))
    assert [len(portion.places) for portion in portions] == [3, 3, 2] and len({one.number for one in portions}) == 3
    assert names(portions) == [f"{i}.jpg" for i in range(7)] + ["0.jpg"]
    done = Counter(["0.jpg", "3.jpg"])
    assert names(portions_of(sources, done, 3)) == ["1.jpg", "2.jpg", "4.jpg", "5.jpg", "6.jpg", "0.jpg"]
    assert done == Counter(["0.jpg", "3.jpg"])
    drawn = portions_of(sources[:2], Counter(), 3, lambda source: f"out/{source.stem}")
    assert [one.places for one in drawn] == [(("0.jpg", "out/0"), ("1.jpg", "out/1"))]


def test_videos_are_for_one_process():
    with pytest.raises(FcosError, match=r"a\.mp4 is a video, which one process looks at"):
        list(portions_of([Source("a.mp4")], Counter(), 3))


@pytest.mark.parametrize("column", ["image", "bytes", "path"])
def test_rows_of_a_table_are_pictures(tmp_path, column):
    for shade in range(5):
        (tmp_path / f"{shade}.png").write_bytes(png(shade))
    values = [f"{shade}.png" if column == "path" else png(shade) for shade in range(5)]
    if column == "image":  # of the Hugging Face libraries; the last lies beside the table
        values = [{"bytes": value, "path": f"{i}.png"} for i, value in enumerate(values)]
        values[4] = {"bytes": None, "path": "4.png"}
    source = table(tmp_path / "t.parquet", column, values)
    portions = list(portions_of([source, Source("x.jpg")], Counter([f"{source.where}#1"]), 3))
    assert [type(one) for one in portions] == [ParquetPortion] * 3 + [FilePortion] and count_of([source]) == 5
    pictures = [picture for one in portions[:3] for picture in one.pictures()]
    assert [picture.where for picture in pictures] == [f"{source.where}#{row}" for row in (0, 2, 3, 4)]
    assert [picture.read(Reading())[0, 0, 0] for picture in pictures] == [0, 2, 3, 4]
    done = Counter(name for one in portions[:2] for name in one.names())
    assert names(portions_of([source], done + Counter([f"{source.where}#1"]), 3)) == [f"{source.where}#4"]


def test_what_holds_no_picture_says_so(tmp_path):
    source = table(tmp_path / "t.parquet", "image", [b"no picture", None, b""])
    (first, second), (third,) = (list(one.pictures()) for one in portions_of([source], Counter(), 3))
    for picture, words in ((first, "t.parquet#0"), (second, "#1 holds no picture"), (third, "t.parquet#2")):
        with pytest.raises(FcosError, match=words):
            picture.read(Reading())


def test_what_is_no_table_says_so(tmp_path):
    other = table(tmp_path / "other.parquet", "label", ["a"])
    (tmp_path / "text.parquet").write_text("id,image")
    for source, words in (
        (other, r"no column of pictures \(image, .*but id, label\."),
        (Source(str(tmp_path / "text.parquet")), "cannot be read as a Parquet file"),
        (Source(str(tmp_path / "none.parquet")), "does not exist"),
    ):
        for read in (count_of, lambda sources: list(portions_of(sources, Counter(), 3))):
            with pytest.raises(FcosError, match=words):
                read([source])


def test_tables_are_found_by_pattern_and_in_folders_without_images(tmp_path):
    tables = [table(tmp_path / name, "image", [png(1)]) for name in ("a.parquet", "b.pq")]
    assert expand([str(tmp_path)]) == tables and expand([str(tmp_path / "*.parquet")]) == tables[:1]
    (tmp_path / "c.png").write_bytes(png(1))
    assert expand([str(tmp_path)]) == [Source(str(tmp_path / "c.png"))]

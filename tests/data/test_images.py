"""Files of all kinds become the same pixels for training, evaluation, detection and drawing."""

from __future__ import annotations

import io
import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from fcos_d2.data.images import decode, frame_sizes, open_image, orientation, read_image, to_array
from fcos_d2.data.mapper import FastMapper, read_rgb
from fcos_d2.errors import FcosError

DEEP = np.arange(0, 65536, 1024, dtype=np.uint16).reshape(4, 16)
COLORS = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)


def turned(path, number, array=COLORS):
    exif = Image.Exif()
    exif[274] = number
    Image.fromarray(array).save(path, exif=exif)
    return path


def trained_on(path):
    """What training and evaluation see, as (H, W, 3)."""
    mapper = FastMapper(is_train=False, augmentations=[], image_format="RGB")
    return mapper({"file_name": str(path)})["image"].permute(1, 2, 0).numpy()


@pytest.mark.parametrize(
    ("suffix", "dtype"), [("png", np.uint16), ("tif", np.uint16), ("tif", np.int16), ("tif", np.int32)]
)
@pytest.mark.parametrize("most", [65535, 4095, 200])
def test_16_bits_have_one_scale_everywhere(tmp_path, suffix, dtype, most):
    numbers = (DEEP.astype(np.int64) * most // 65535).clip(max=np.iinfo(dtype).max).astype(dtype)
    path = tmp_path / f"x.{suffix}"
    assert cv2.imwrite(str(path), numbers)
    found = read_image(path)
    eight = dtype == np.int32 and most == 200  # four bytes may hold anything: what fits into one is of one
    expected = numbers if eight else (numbers.astype(np.float64) / 257).round()
    assert found.dtype == np.uint8 and (found == expected[:, :, None]).all()
    assert (trained_on(path) == found).all() and (np.asarray(read_rgb(str(path))) == found).all()
    if not eight and dtype == np.uint16:
        assert (to_array(numbers) == found).all()  # an array of these numbers


def test_12_bits_of_16_are_told_once(tmp_path, caplog):
    for name in "ab":
        cv2.imwrite(str(tmp_path / f"{name}.png"), DEEP // 16)
        assert read_image(tmp_path / f"{name}.png").max() == 16
    assert [row.getMessage().count("Multiply") for row in caplog.records if row.name == "fcos_d2"] in ([1], [])


def test_a_tiff_that_says_12_bits_uses_all_of_them(tmp_path):
    pairs = np.array([[0, 4095], [2048, 1024]], np.uint16)
    packed = b"".join(bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in pairs.tolist())
    tags = {256: 2, 257: 2, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 2, 279: 6}
    rows = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    head = b"II*\0" + struct.pack("<I", 8 + len(packed)) + packed
    (tmp_path / "x.tif").write_bytes(head + struct.pack("<H", len(tags)) + rows + bytes(4))
    with Image.open(tmp_path / "x.tif") as image:
        assert image.mode == "I;16"
    assert read_image(tmp_path / "x.tif")[:, :, 0].tolist() == [[0, 255], [128, 64]]


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        (np.array([[-5, 7]], np.int16), "holds whole numbers from -5"),
        (np.array([[-5, 7]], np.int32), "holds whole numbers from -5 to 7"),
        (np.array([[0, 70000]], np.int32), "from 0 to 70000"),
        (np.array([[0, 0.5, 1]], np.float32), "holds floats from 0 to 1; numbers in 0..255 are needed"),
        (np.array([[0, 256]], np.float32), "holds floats from 0 to 256"),
        (np.array([[0, np.nan]], np.float32), "holds floats from nan"),
    ],
)
def test_numbers_that_are_no_colors_are_refused_everywhere(tmp_path, numbers, words):
    path = tmp_path / "x.tif"
    assert cv2.imwrite(str(path), numbers)
    for reader in (read_image, trained_on):
        with pytest.raises(FcosError, match=words) as error:
            reader(path)
        assert str(error.value).startswith(f"The image {path} holds") and "\n" not in str(error.value)


def test_floats_in_range_are_rounded(tmp_path):
    cv2.imwrite(str(tmp_path / "x.tif"), np.array([[0, 1.4, 254.6]], np.float32))
    assert (
        read_image(tmp_path / "x.tif")[0, :, 0].tolist()
        == [0, 1, 255]
        == trained_on(tmp_path / "x.tif")[0, :, 0].tolist()
    )


def kinds(folder):
    """A file of each kind that people have."""
    color, grey = Image.fromarray(COLORS), Image.fromarray(COLORS).convert("L")
    palette, other = color.quantize(8), color.transpose(Image.Transpose.ROTATE_180)
    color.convert("1").save(folder / "bits.png")
    palette.save(folder / "transparent.png", transparency=3)
    palette.save(folder / "transparent.gif", transparency=3)
    color.save(folder / "key.png", transparency=tuple(COLORS[0, 0].tolist()))
    grey.convert("LA").save(folder / "la.png")
    color.convert("RGBA").save(folder / "rgba.webp", lossless=True)
    color.convert("CMYK").save(folder / "cmyk.jpg")
    color.convert("CMYK").save(folder / "cmyk.tif")
    for name in ("pages.tif", "animated.gif", "animated.webp", "animated.png"):
        color.save(folder / name, save_all=True, append_images=[other])
    cv2.imwrite(str(folder / "deep.png"), COLORS.astype(np.uint16)[:, :, ::-1] * 257)
    cv2.imwrite(str(folder / "deep.tif"), COLORS.astype(np.uint16)[:, :, ::-1] * 257)
    return sorted(folder.iterdir())


def test_every_kind_is_the_same_for_all_readers(tmp_path):
    for path in kinds(tmp_path):
        found = read_image(path)
        assert found.shape == COLORS.shape and (trained_on(path) == found).all(), path.name
        if path.name in ("key.png", "rgba.webp", "pages.tif", "animated.png", "deep.png", "deep.tif"):
            assert (found == COLORS).all(), path.name  # the first of several frames
        if path.name == "transparent.png":
            assert (found == np.asarray(Image.fromarray(COLORS).quantize(8).convert("RGB"))).all()


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("number", range(1, 9))
def test_exif_turns_once(tmp_path, suffix, number):
    flat = np.zeros((16, 32, 3), np.uint8)
    flat[:8, :16] = 255  # the first quarter is white
    path = turned(tmp_path / f"x.{suffix}", number, flat)
    row, column = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}[
        number
    ]
    found = read_image(path)
    assert found.shape == ((16, 32, 3) if number < 5 else (32, 16, 3))
    white = {(y, x): found[y, x, 0] > 128 for y in (0, -1) for x in (0, -1)}
    assert [place for place, is_white in white.items() if is_white] == [(row, column)]
    assert (trained_on(path) == found).all()
    with open_image(path) as image:
        assert frame_sizes(image) == ((32, 16), found.shape[1::-1])


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize(
    "entry",
    [(3, 1, b"\0"), (3, 1, b"\x09"), (3, 1, b"\xff\xff"), (2, 2, b"6"), (2, 3, b"a\xff"), (7, 4, b"rot"), (5, 1, b"")],
)
def test_damaged_orientation_turns_nothing(tmp_path, suffix, entry):
    """0, 9 and 65535; text, bytes, and a fraction that is not there."""
    path = tmp_path / f"x.{suffix}"
    kind, count, value = entry
    ifd = struct.pack("<HHHI4s", 1, 274, kind, count, value) + bytes(4)
    Image.new("RGB", (32, 24)).save(path, **({} if suffix == "tif" else {"exif": b"Exif\0\0II*\0\x08\0\0\0" + ifd}))
    if suffix == "tif" and kind == 3:
        turned(path, int.from_bytes(value, "little"), np.zeros((24, 32, 3), np.uint8))
    with open_image(path) as image:
        assert orientation(image) == 1 and frame_sizes(image) == ((32, 24), (32, 24))
    assert read_image(path).shape == (24, 32, 3) == trained_on(path).shape


def test_files_that_are_no_image_say_what_they_are(tmp_path):
    whole = io.BytesIO()
    Image.fromarray(COLORS).save(whole, "JPEG")
    contents = {
        "cut.jpg": (whole.getvalue()[:-300], "truncated"),
        "empty.jpg": (b"", "it is not an image but an empty file"),
        "text.jpg": (b"<html>", "it is not an image"),
        "zip.jpg": (b"PK\3\4 and more", "it is an archive: unpack it and give the folder"),
        "phone.heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "Pillow reads no HEIC or AVIF here: convert it"),
    }
    for name, (content, words) in contents.items():
        (tmp_path / name).write_bytes(content)
        for read in (read_image, lambda path: decode(io.BytesIO(path.read_bytes()), f"The image {path}")):
            with pytest.raises(FcosError, match=words) as error:
                read(tmp_path / name)
            assert f"The image {tmp_path / name} cannot be read" in str(error.value) and "\n" not in str(error.value)


def test_a_large_picture_is_read_and_the_limit_is_the_users(tmp_path, monkeypatch):
    path = tmp_path / "large.png"
    Image.new("1", (13400, 13400)).save(path)
    before = Image.MAX_IMAGE_PIXELS
    with open_image(path) as image:  # Pillow refuses it
        assert image.size == (13400, 13400)
    assert before == Image.MAX_IMAGE_PIXELS
    Image.new("RGB", (40, 30)).save(tmp_path / "x.png")
    monkeypatch.setenv("FCOS_D2_MAX_PIXELS", "1199")
    for read in (read_image, trained_on):
        with pytest.raises(FcosError, match=r"x\.png has 40x30 pixels, and 1199 are the limit.*--max-pixels 1200"):
            read(tmp_path / "x.png")
    assert read_image(tmp_path / "x.png", 1200).shape == (30, 40, 3)
    monkeypatch.setenv("FCOS_D2_MAX_PIXELS", "1200")
    assert trained_on(tmp_path / "x.png").shape == (30, 40, 3)
    monkeypatch.setenv("FCOS_D2_MAX_PIXELS", "many")
    with pytest.raises(FcosError, match="FCOS_D2_MAX_PIXELS in the environment is 'many'"):
        read_image(tmp_path / "x.png")

"""Parts of an image are what `read_image` would give, cut; whatever its mode and its orientation are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fcos_d2.data.images import read_image
from fcos_d2.data.regions import Regions
from fcos_d2.data.sources import Source
from fcos_d2.errors import FcosError
from fcos_d2.evaluation.speed import peak_memory

BOXES = ((0, 0, 20, 10), (5, 3, 17, 9), (30, 20, 60, 40), (0, 0, 60, 40))


@pytest.fixture
def picture():
    image = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    image[10:30, 20:40] = (250, 20, 60)
    return Image.fromarray(image)


def opened(path):
    return Regions.from_source(Source(str(path)), 1 << 20, 5.0)


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations(picture, tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"x.{suffix}"
    picture.save(path, exif=exif)
    whole, regions = read_image(path), opened(path)
    assert (regions.height, regions.width) == whole.shape[:2]
    for x0, y0, x1, y1 in BOXES:
        box = (x0, y0, min(x1, regions.width), min(y1, regions.height))
        assert np.array_equal(regions.part(box), whole[box[1] : box[3], box[0] : box[2]]), box
    small = regions.reduced(30)
    assert max(small.shape) == 30
    expected = np.asarray(Image.fromarray(whole).resize(small.shape[1::-1], Image.Resampling.BILINEAR))
    assert np.abs(small.astype(int) - expected).mean() < 12


@pytest.mark.parametrize("orientation", [1, 6, 8])
def test_bands_of_a_reduced_image_have_no_seams(tmp_path, orientation):
    noise = np.random.default_rng(0).integers(0, 255, (1300, 1470, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(noise).save(tmp_path / "x.png", exif=exif)
    whole, small = read_image(tmp_path / "x.png"), opened(tmp_path / "x.png").reduced(700)
    assert small.shape[0] > 2 * 256  # three bands
    expected = np.asarray(Image.fromarray(whole).resize(small.shape[1::-1], Image.Resampling.BILINEAR))
    assert np.abs(small.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_modes(picture, tmp_path, mode):
    path = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    grey = np.asarray(picture.convert("L")).astype(np.uint16) * 257
    (Image.fromarray(grey) if mode == "I;16" else picture.convert(mode)).save(path)
    whole, regions = read_image(path), opened(path)
    assert np.array_equal(regions.part((5, 3, 47, 39)), whole[3:39, 5:47])
    assert regions.part((5, 3, 47, 39), (21, 18)).shape == (18, 21, 3)


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg", "bmp"])
def test_only_the_head_is_read_until_something_is_asked_for(picture, tmp_path, suffix):
    """Also of a PNG, whose orientation may stand after its pixels."""
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / f"x.{suffix}", **({} if suffix == "bmp" else {"exif": exif}))
    regions = opened(tmp_path / f"x.{suffix}")
    assert regions.bytes_to_come == 60 * 40 * 4 and sorted(regions.stored) == [40, 60]
    assert (regions.width, regions.height) == ((60, 40) if suffix == "bmp" else (40, 60))
    assert regions.bytes_to_come == regions.bytes_of_decoding == 0


SIDE = 1200
KINDS = {
    "a.jpg": {}, "b.jpg": {"progressive": True}, "c.jpg": {"progressive": True, "subsampling": 0}, "d.png": {},
    "e.tif": {}, "f.tif": {"compression": "tiff_lzw"}, "g.tif": {"compression": "tiff_deflate", "strip_size": 1 << 30},
    "h.webp": {"method": 0, "lossless": True}, "i.jp2": {}, "j.avif": {"speed": 10}, "16.png": {}, "16.tif": {},
}  # fmt: skip


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="this system does not tell its memory")
@pytest.mark.parametrize("name", KINDS)
def test_what_decoding_takes_is_known_before(tmp_path, name):
    path, random = tmp_path / name, np.random.default_rng(0)
    coarse = Image.fromarray(random.integers(0, 255, (SIDE // 8, SIDE // 8, 3), dtype=np.uint8))
    photo = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) // 4 * 3
    photo = photo + random.integers(0, 64, photo.shape, dtype=np.uint8)
    picture = Image.fromarray(photo[:, :, 0].astype(np.uint16) * 257) if name[0] == "1" else Image.fromarray(photo)
    try:
        picture.save(path, **KINDS[name])
    except (OSError, KeyError) as error:
        pytest.skip(f"Pillow writes none here: {error}")
    took = []
    for _ in range(3):  # a decoder that is loaded, or threads that tests before have left, can only add to it
        regions = opened(path)
        told = regions.bytes_to_come + regions.bytes_of_decoding
        took.append(peak_memory(lambda regions=regions: regions.part((0, 0, 8, 8)), torch.device("cpu")))
        if took[-1] <= 1.1 * told + (3 << 20):
            break
    else:
        raise AssertionError((name, [x / SIDE**2 for x in took], told / SIDE**2))
    assert peak_memory(lambda: regions.reduced(300), torch.device("cpu")) < 6 * SIDE**2


def test_a_scaled_part_begins_between_pixels():
    """A ramp stays a ramp: half a pixel further is half a step more."""
    ramp = np.tile(np.arange(0, 240, 4, dtype=np.uint8)[None, :, None], (40, 1, 3))
    regions = Regions.of(ramp)
    one, other = (regions.part((x, 0, x + 20, 20), (40, 40)).astype(float)[20, 10:30, 0] for x in (10.0, 10.5))
    assert np.abs((other - one) - 2).max() <= 1


@pytest.mark.parametrize(
    ("name", "says"), [("gone.png", "does not exist"), ("text.png", "not an image"), ("cut.png", "cannot be read")]
)
def test_what_cannot_be_read(picture, tmp_path, name, says):
    (tmp_path / "text.png").write_text("no image")
    picture.save(tmp_path / "x.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "x.png").read_bytes()[:3000])
    with pytest.raises(FcosError, match=says) as error:
        opened(tmp_path / name).part((0, 0, 10, 10))
    assert name in str(error.value)


def test_too_many_pixels(picture, tmp_path, monkeypatch):
    picture.save(tmp_path / "x.png")
    monkeypatch.setenv("FCOS_D2_MAX_PIXELS", "100")
    with pytest.raises(FcosError, match="60x40 pixels, and 100 are the limit"):
        opened(tmp_path / "x.png")

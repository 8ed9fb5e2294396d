"""Folders of images as people have them: what cannot be read is named in one line, and the rest is done."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reid_attack_bench.attacks.noise import Noise
from reid_attack_bench.contracts import ThreatModel
from reid_attack_bench.errors import BenchError
from reid_attack_bench.jobs.folder import Crafted, ReadyAttack, craft_folder
from reid_attack_bench.jobs.pictures import LARGEST, find_pictures, read_picture, size_of

READY = ReadyAttack("noise", Noise(), ThreatModel(8), None, None)


def picture(height: int = 40, width: int = 20, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def encoded(kind: str, image: Image.Image | None = None, **settings: object) -> bytes:
    content = io.BytesIO()
    (image or picture()).save(content, kind, **settings)
    return content.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    rows = zlib.compress(bytes((3 * width + 1) * min(height, 4)))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def exif(orientation: bytes, kind: int, count: int) -> bytes:
    """EXIF with one entry, the orientation, of that type and count."""
    return b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack("<HHI", 0x0112, kind, count) + orientation + bytes(4)


DAMAGED = {
    "bomb.png": png(30_000, 30_000),
    "wide.png": png(LARGEST // 100, 101),
    "profile.png": png(20, 40, chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(1 << 26), 9))),
    "text.png": png(20, 40, chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(1 << 27), 9))),
    "cut.png": encoded("PNG")[:1500],
    "cut.jpg": encoded("JPEG")[:700],
    "cut.webp": encoded("WEBP")[:200],
    "cut.tif": encoded("TIFF")[:300],
    "cut.gif": encoded("GIF")[:100],
    "empty.png": b"",
    "page.jpg": b"<!DOCTYPE html><title>404</title>",
    "deep.png": encoded("PNG", picture().convert("I;16")),
    "float.tiff": encoded("TIFF", picture().convert("F")),
    "thin.png": encoded("PNG", picture(40, 5)),
}


def craft(folder: Path) -> Crafted:
    return craft_folder(READY, folder, folder.parent / "adv")


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_one_line_with_its_name_and_the_rest_is_done(tmp_path, name):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / name).write_bytes(DAMAGED[name])
    with pytest.raises(BenchError) as alone:
        craft(folder)
    (folder / "good.png").write_bytes(encoded("PNG"))
    made = craft(folder)
    assert list(made.table["image"]) == ["good.png"]
    assert len(made.failed) == 1
    for line in (str(alone.value), made.failed[0]):
        assert name in line
        assert "\n" not in line.strip()
    assert sorted(path.name for path in (tmp_path / "adv").iterdir()) == ["good.png", "measures.csv"]


@pytest.mark.parametrize("kind", ["BMP", "WEBP", "TIFF", "PPM", "GIF", "JPEG", "PNG", "JPEG2000"])
@pytest.mark.parametrize("upper", [False, True])
def test_every_common_kind_is_read(tmp_path, kind, upper):
    suffix = {"TIFF": ".tif", "JPEG2000": ".jp2", "JPEG": ".jpe"}.get(kind, f".{kind.lower()}")
    path = tmp_path / f"a{suffix.upper() if upper else suffix}"
    path.write_bytes(encoded(kind, **({"lossless": True} if kind == "WEBP" else {})))
    assert find_pictures(tmp_path).paths == [path]
    assert read_picture(path).shape == (40, 20, 3)
    if kind in ("BMP", "WEBP", "TIFF", "PPM", "PNG"):
        assert np.array_equal(read_picture(path), np.array(picture()))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "LA"])
def test_every_mode_of_8_bits_is_read(tmp_path, mode):
    picture(mode=mode).save(tmp_path / "a.tif")
    assert read_picture(tmp_path / "a.tif").shape == (40, 20, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_in_exif_is_applied_as_pillow_does(tmp_path, orientation):
    tag = Image.Exif()
    tag[0x0112] = orientation
    picture().save(tmp_path / "a.png", exif=tag)
    from PIL import ImageOps

    with Image.open(tmp_path / "a.png") as image:
        expected = np.array(ImageOps.exif_transpose(image))
    assert np.array_equal(read_picture(tmp_path / "a.png"), expected)
    assert size_of(tmp_path / "a.png") == expected.shape[:2]


@pytest.mark.parametrize(
    "content",
    [
        exif(b"6\0\0\0", 2, 2),
        exif(b"\xff\xff\0\0", 3, 1),
        exif(b"\0\0\0\0", 5, 9),
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"x",
    ],
)
def test_an_orientation_that_is_none_turns_no_image(tmp_path, content):
    (tmp_path / "a.jpg").write_bytes(encoded("JPEG", exif=content))
    assert read_picture(tmp_path / "a.jpg").shape == (40, 20, 3)
    assert size_of(tmp_path / "a.jpg") == (40, 20)


def test_what_is_no_image_is_counted_and_named(tmp_path):
    folder = tmp_path / "mine"
    (folder / "deeper").mkdir(parents=True)
    for name in ("a.png", "._a.png", ".hidden.jpg", "Thumbs.db", "notes.txt"):
        (folder / name).write_bytes(encoded("PNG"))
    (folder / "gone.png").symlink_to(tmp_path / "nowhere.png")
    made = craft(folder)
    assert set(made.notes) == {
        "not read: hidden files (2: ._a.png, .hidden.jpg)",
        "not read: files that are no images (2: Thumbs.db, notes.txt)",
        "not read: folders (1: deeper/)", "not read: broken links and the like (1: gone.png)",
    }  # fmt: skip
    assert made.failed == ()


def test_images_one_folder_deeper_are_pointed_to(tmp_path):
    (tmp_path / "mine" / "crops").mkdir(parents=True)
    (tmp_path / "mine" / "crops" / "a.png").write_bytes(encoded("PNG"))
    with pytest.raises(BenchError, match=r"holds no image, only folders \(1: crops/\)"):
        craft(tmp_path / "mine")


def test_a_name_of_bytes_is_read_and_shown(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in (b"caf\xe9.png", b"\x1b[2Ja.png", b"=1+1.png"):
        Path(os.fsdecode(os.path.join(os.fsencode(folder), name))).write_bytes(encoded("PNG"))
    assert len(craft(folder).table) == 3
    assert (tmp_path / "adv" / os.fsdecode(b"caf\xe9.png")).is_file()
    shown = (tmp_path / "adv" / "measures.csv").read_text(encoding="utf-8")
    assert [line.split(",")[0] for line in shown.splitlines()[1:]] == [r"\x1b[2Ja.png", "'=1+1.png", r"caf\xe9.png"]


class Picky(Noise):
    """Fails on dark images, as an attack on a model that divides by the deviation does."""

    def craft(self, source, batch, threat, generator):
        if (batch.images.amax((1, 2, 3)) == 0).any():
            raise ValueError("not finite")
        return super().craft(source, batch, threat, generator)


def test_an_image_on_which_the_attack_fails_is_the_one_that_is_named(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    for i in range(5):
        (folder / f"{i}.png").write_bytes(encoded("PNG"))
    Image.new("RGB", (20, 40)).save(folder / "3.png")
    made = craft_folder(ReadyAttack("picky", Picky(), ThreatModel(8), None, None), folder, tmp_path / "adv")
    assert list(made.table["image"]) == ["0.png", "1.png", "2.png", "4.png"]
    assert [line.split(": ")[0] for line in made.failed] == [str(folder / "3.png")]

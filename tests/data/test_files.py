"""Files of images: decoding, and the digest of a data set."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reid_attack_bench.contracts import ImageList, Listing
from reid_attack_bench.data.readers.content import content_of, read_listing
from reid_attack_bench.data.readers.files import content_digest, load_images
from reid_attack_bench.data.readers.market1501 import Market1501
from reid_attack_bench.errors import BenchError


def listed(data_root: Path) -> dict[str, ImageList]:
    return dict(read_listing(Market1501(), data_root / "market1501").splits)


def test_load_images_decodes_resizes_and_reports(tmp_path: Path) -> None:
    exact = np.random.default_rng(0).integers(0, 256, (8, 4, 3), dtype=np.uint8)
    Image.fromarray(exact).save(tmp_path / "same.png")
    Image.fromarray(exact.repeat(4, axis=0).repeat(4, axis=1)).save(tmp_path / "large.png")
    Image.fromarray(exact[..., 0]).save(tmp_path / "grey.png")
    ramp = np.arange(0, 256, 4, dtype=np.uint8)[:, None].repeat(32, axis=1)
    Image.fromarray(np.where(np.arange(64)[:, None] % 2 == 0, ramp, 0).astype(np.uint8)).save(tmp_path / "stripes.png")
    calls: list[tuple[int, int, str]] = []
    paths = [str(tmp_path / f"{name}.png") for name in ("same", "grey", "large", "stripes")] * 40
    images = load_images(paths, (8, 4), lambda *call: calls.append(call))
    assert images.shape == (160, 8, 4, 3)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images[0], exact)
    np.testing.assert_array_equal(images[1], exact[..., :1].repeat(3, axis=-1))
    np.testing.assert_array_equal(images[-4], exact)  # order is kept across batches
    # a triangle filter over twice the stride, not four neighbours: the stripes of one pixel are averaged away
    assert np.abs(images[3, 1:-1, 0, 0].astype(int) - (np.arange(1, 7) * 8 + 3.5) * 4 / 2).max() <= 3
    assert [call[:2] for call in calls] == [(100, 160), (160, 160)]


def test_load_images_writes_to_a_memory_map(market: Path, tmp_path: Path) -> None:
    paths = listed(market)["train"].paths
    out = np.lib.format.open_memmap(tmp_path / "images.npy", mode="w+", dtype=np.uint8, shape=(4, 16, 8, 3))
    assert load_images(paths, (16, 8), out=out) is out
    np.testing.assert_array_equal(np.load(tmp_path / "images.npy"), load_images(paths, (16, 8)))
    with pytest.raises(BenchError, match="out must be"):
        load_images(paths[:3], (16, 8), out=out)


def test_a_file_that_cannot_be_decoded_is_named(market: Path) -> None:
    path = Path(listed(market)["train"].paths[2])
    whole = path.read_bytes()
    for broken in (whole[: len(whole) // 2], b"", b"not an image"):
        path.write_bytes(broken)
        with pytest.raises(BenchError, match=rf"{path.name} cannot be decoded"):
            load_images([str(path)], (16, 8))
    path.unlink()
    with pytest.raises(BenchError, match=rf"{path.name} is missing"):
        load_images([str(path)], (16, 8))


def test_the_digest_follows_the_content_and_not_the_place(market: Path, tmp_path: Path) -> None:
    lists = listed(market)
    before = content_digest(lists)
    shutil.copytree(market / "market1501", tmp_path / "copy" / "market1501")
    copied = listed(tmp_path / "copy")
    assert content_digest(copied) == before
    assert len(before) == 64

    other_label = replace(copied["query"], identities=copied["query"].identities + 1)
    assert content_digest({**copied, "query": other_label}) != before
    swapped = {**copied, "query": copied["gallery"], "gallery": copied["query"]}
    assert content_digest(swapped) != before
    path = Path(copied["gallery"].paths[0])
    path.write_bytes(path.read_bytes() + b"\0")
    assert content_digest(copied) != before
    path.unlink()
    with pytest.raises(BenchError, match=path.name):
        content_digest(copied)


def test_clothes_are_part_of_the_digest(market: Path) -> None:
    lists = listed(market)
    worn = {part: replace(images, clothes=images.identities * 0) for part, images in lists.items()}
    other = {part: replace(images, clothes=images.identities * 0 + 1) for part, images in lists.items()}
    assert len({content_digest(each) for each in (lists, worn, other)}) == 3


@dataclass(frozen=True)
class Asked(Market1501):
    """Counts how often it is read."""

    asked: tuple[list[int], ...] = ()

    def read(self, root: Path) -> Listing:
        self.asked[0].append(1)
        return super().read(root)


def test_what_a_data_set_holds_is_remembered_until_a_file_changes(market: Path, tmp_path: Path) -> None:
    time.sleep(0.03)  # files as young as the clock's tick are not trusted
    memory, root = tmp_path / "memory", market / "market1501"
    data_set = Asked(asked=([],))
    first = content_of(data_set, root, "v1", memory)
    assert first == content_of(data_set, root, "v1", memory) == content_of(data_set, root, "v1", None)
    assert len(data_set.asked[0]) == 2, "once to remember, once because nothing was to be remembered"
    assert first.digest == content_digest(listed(market))
    assert first.skipped == {"junk images, identity -1": [
        "Market-1501-v15.09.15/bounding_box_test/-1_c3s2_068767_04.jpg"
    ]}  # fmt: skip
    assert first.counts["train"] == {"images": 4, "identities": 3, "cameras": 4}
    content_of(data_set, root, "v2", memory)
    assert len(data_set.asked[0]) == 3, "other code reads again"
    path = next(market.rglob("0001*.jpg"))
    about, content = path.stat(), path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert content_of(data_set, root, "v1", memory).digest != first.digest

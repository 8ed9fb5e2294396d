"""Real data sets in miniature, each in its published layout, read by torchreid's own readers."""

from __future__ import annotations

import glob
import json
import os
import shutil
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reid_attack_bench.contracts import ImageList
from reid_attack_bench.data.readers import torchreid as real
from reid_attack_bench.data.readers.export import write_market1501
from reid_attack_bench.data.readers.files import content_digest, load_images
from reid_attack_bench.data.readers.torchreid import REAL, content_of, protocol, read_real
from reid_attack_bench.errors import BenchError


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (16, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def described(images: ImageList) -> list[tuple[str, int, int]]:
    names = [Path(path).name for path in images.paths]
    return list(zip(names, images.identities.tolist(), images.cameras.tolist(), strict=True))


MARKET_FILES = {
    "bounding_box_train": ["0002_c1s1_000451_03.jpg", "0300_c6s1_000001_00.jpg", "0007_c3s3_077419_03.jpg",
                           "0002_c4s1_000001_00.jpg"],
    "query": ["0001_c1s1_001051_00.jpg"],
    "bounding_box_test": ["0001_c2s1_001976_01.jpg", "0000_c5s1_000151_01.jpg", "-1_c3s2_068767_04.jpg"],
}  # fmt: skip


@pytest.fixture
def market(tmp_path: Path) -> Path:
    seed = 0
    for folder, names in MARKET_FILES.items():
        for name in names:
            picture(tmp_path / "market1501" / "Market-1501-v15.09.15" / folder / name, seed := seed + 1)
    return tmp_path


def check_market(lists: dict[str, ImageList]) -> None:
    assert described(lists["train"]) == [
        ("0002_c1s1_000451_03.jpg", 0, 0),
        ("0002_c4s1_000001_00.jpg", 0, 3),
        ("0007_c3s3_077419_03.jpg", 1, 2),
        ("0300_c6s1_000001_00.jpg", 2, 5),
    ]
    assert described(lists["query"]) == [("0001_c1s1_001051_00.jpg", 1, 0)]
    # junk (-1) is gone, the distractor (0) stays
    assert described(lists["gallery"]) == [("0000_c5s1_000151_01.jpg", 0, 4), ("0001_c2s1_001976_01.jpg", 1, 1)]
    assert lists["train"].identities.dtype == lists["train"].cameras.dtype == np.int64


def test_market1501(market: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lists = read_real("market1501", market)
    check_market(lists)
    assert all(Path(path).is_absolute() and Path(path).is_file() for path in lists["train"].paths)
    assert capsys.readouterr() == ("", "")


def test_market1501_without_its_inner_folder(market: Path) -> None:
    outer = market / "market1501"
    for folder in (outer / "Market-1501-v15.09.15").iterdir():
        shutil.move(folder, outer / folder.name)
    (outer / "Market-1501-v15.09.15").rmdir()
    check_market(read_real("market1501", market))


@pytest.mark.parametrize("reverse", [False, True])
def test_the_order_of_the_file_system_does_not_matter(
    market: Path, monkeypatch: pytest.MonkeyPatch, reverse: bool
) -> None:
    original = glob.glob
    monkeypatch.setattr(glob, "glob", lambda pattern: sorted(original(pattern), reverse=reverse))
    check_market(read_real("market1501", market))


def test_dukemtmc_reid(tmp_path: Path) -> None:
    base = tmp_path / "dukemtmc-reid" / "DukeMTMC-reID"
    for name in ("bounding_box_train/0009_c8_f0051015.jpg", "bounding_box_train/0001_c2_f0046182.jpg",
                 "query/0005_c1_f0046985.jpg", "bounding_box_test/0005_c5_f0051781.jpg"):  # fmt: skip
        picture(base / name)
    lists = read_real("dukemtmc-reid", tmp_path)
    assert described(lists["train"]) == [("0001_c2_f0046182.jpg", 0, 1), ("0009_c8_f0051015.jpg", 1, 7)]
    assert described(lists["query"]) == [("0005_c1_f0046985.jpg", 5, 0)]
    assert described(lists["gallery"]) == [("0005_c5_f0051781.jpg", 5, 4)]


@pytest.mark.parametrize(
    ("version", "train", "test"), [("MSMT17_V1", "train", "test"), ("MSMT17_V2", "mask_train_v2", "mask_test_v2")]
)
def test_msmt17_trains_on_its_training_list_alone(tmp_path: Path, version: str, train: str, test: str) -> None:
    base = tmp_path / "msmt17" / version
    listed = {
        "list_train": (train, ["0001/0001_001_15_0302noon_1018_1.jpg 1", "0000/0000_000_01_0303morning_0015_0.jpg 0"]),
        "list_val": (train, ["0000/0000_009_14_0303morning_0020_2.jpg 0"]),
        "list_query": (test, ["0003/0003_003_05_0303morning_0030_0.jpg 3"]),
        "list_gallery": (test, ["0003/0003_004_07_0303noon_0040_0.jpg 3"]),
    }
    for name, (folder, lines) in listed.items():
        for line in lines:
            picture(base / folder / line.split(" ")[0])
        (base / f"{name}.txt").write_text("\n".join(lines) + "\n")
    lists = read_real("msmt17", tmp_path)
    assert described(lists["train"]) == [
        ("0000_000_01_0303morning_0015_0.jpg", 0, 0),
        ("0001_001_15_0302noon_1018_1.jpg", 1, 14),
    ]
    assert described(lists["query"]) == [("0003_003_05_0303morning_0030_0.jpg", 3, 4)]
    assert described(lists["gallery"]) == [("0003_004_07_0303noon_0040_0.jpg", 3, 6)]
    assert load_images(lists["gallery"].paths, (4, 2)).shape == (1, 4, 2, 3)
    (base / "list_val.txt").unlink()
    with pytest.raises(BenchError, match=rf"{version}/list_val\.txt is missing"):
        read_real("msmt17", tmp_path)


@pytest.fixture
def cuhk03(tmp_path: Path) -> Path:
    """CUHK03 once torchreid has extracted it."""
    base = tmp_path / "cuhk03"
    for name in ("cuhk03_release/cuhk-03.mat", "cuhk03_new_protocol_config_detected.mat",
                 "cuhk03_new_protocol_config_labeled.mat"):  # fmt: skip
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).touch()
    for boxes in ("detected", "labeled"):
        folder = base / f"images_{boxes}"
        names = ["1_002_1_01.png", "1_001_2_06.png", "5_100_1_02.png", "5_100_2_07.png"]
        for name in names:
            picture(folder / name)
        rows = [[str(folder / name), identity, camera] for name, identity, camera in
                zip(names, [1, 0, 1400, 1400], [0, 1, 0, 1], strict=True)]  # fmt: skip
        split = {"train": rows[:2], "query": rows[2:3], "gallery": rows[3:]}
        (base / f"splits_new_{boxes}.json").write_text(json.dumps([split]))
        classic = {"train": rows[:2], "query": rows[2:], "gallery": rows[2:]}
        (base / f"splits_classic_{boxes}.json").write_text(json.dumps([classic] * 20))
    return tmp_path


def test_cuhk03(cuhk03: Path) -> None:
    lists = read_real("cuhk03", cuhk03)
    assert described(lists["train"]) == [("1_001_2_06.png", 0, 1), ("1_002_1_01.png", 1, 0)]
    assert described(lists["query"]) == [("5_100_1_02.png", 1400, 0)]
    assert described(lists["gallery"]) == [("5_100_2_07.png", 1400, 1)]
    assert "images_detected" in lists["train"].paths[0]
    classic = read_real("cuhk03", cuhk03, cuhk03_labeled=True, cuhk03_classic_split=True, split_id=19)
    assert len(classic["query"].paths) == len(classic["gallery"].paths) == 2
    assert "images_labeled" in classic["train"].paths[0]
    with pytest.raises(BenchError, match="cannot read CUHK03"):
        read_real("cuhk03", cuhk03, split_id=1)


def test_what_the_extraction_of_cuhk03_needs_is_named(cuhk03: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cuhk03 / "cuhk03" / "splits_new_detected.json").unlink()
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(BenchError, match="pip install h5py"):
        read_real("cuhk03", cuhk03)


def test_cuhk03_moved_after_extraction_is_explained(cuhk03: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    shutil.move(cuhk03 / "cuhk03", tmp_path / "elsewhere" / "cuhk03")
    with pytest.raises(BenchError, match=r"delete the files splits_\*\.json"):
        read_real("cuhk03", tmp_path / "elsewhere")


def test_only_the_classic_split_of_cuhk03_is_single_shot() -> None:
    assert protocol("cuhk03", cuhk03_classic_split=True) == "cuhk03"
    assert {protocol(name, cuhk03_labeled=True) for name in REAL} == {"market1501"}


@pytest.mark.parametrize("name", REAL)
def test_a_missing_folder_is_named_and_nothing_is_downloaded(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torchreid.reid.data.datasets.dataset as module

    monkeypatch.setattr(module, "download_url", lambda *args: pytest.fail("downloads"))
    with pytest.raises(BenchError) as caught:
        read_real(name, tmp_path)
    message = str(caught.value)
    assert str(tmp_path / REAL[name].layouts[0][0]) in message
    assert REAL[name].url in message
    assert "\n" not in message
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_read_is_explained(market: Path) -> None:
    with pytest.raises(BenchError, match="did you mean 'market1501'"):
        read_real("market", market)
    with pytest.raises(BenchError, match="market1501_500k"):
        read_real("market1501", market, market1501_50k=True)
    for suffix in ("exp12_c3", "data[1]"):
        (market / suffix).mkdir()
        shutil.copytree(market / "market1501", market / suffix / "market1501")
        with pytest.raises(BenchError, match="move or link"):
            read_real("market1501", market / suffix)
    picture(market / "market1501" / "Market-1501-v15.09.15" / "query" / "0001_c9s1_000001_00.jpg")
    with pytest.raises(BenchError, match="cannot read Market-1501"):  # a ninth camera
        read_real("market1501", market)


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
    paths = read_real("market1501", market)["train"].paths
    out = np.lib.format.open_memmap(tmp_path / "images.npy", mode="w+", dtype=np.uint8, shape=(4, 16, 8, 3))
    assert load_images(paths, (16, 8), out=out) is out
    np.testing.assert_array_equal(np.load(tmp_path / "images.npy"), load_images(paths, (16, 8)))
    with pytest.raises(BenchError, match="out must be"):
        load_images(paths[:3], (16, 8), out=out)


def test_a_file_that_cannot_be_decoded_is_named(market: Path) -> None:
    path = Path(read_real("market1501", market)["train"].paths[2])
    whole = path.read_bytes()
    for broken in (whole[: len(whole) // 2], b"", b"not an image"):
        path.write_bytes(broken)
        with pytest.raises(BenchError, match=rf"{path.name} cannot be decoded"):
            load_images([str(path)], (16, 8))
    path.unlink()
    with pytest.raises(BenchError, match=rf"{path.name} is missing"):
        load_images([str(path)], (16, 8))


@dataclass(frozen=True)
class Split:
    images: np.ndarray
    identities: np.ndarray
    cameras: np.ndarray


def split(seed: int, count: int, identities: int, cameras: int = 6) -> Split:
    rng = np.random.default_rng(seed)
    smooth = rng.integers(0, 256, (count, 4, 2, 3), dtype=np.uint8)
    images = np.stack([np.asarray(Image.fromarray(image).resize((16, 32))) for image in smooth])
    return Split(images, np.arange(count) % identities, rng.integers(0, cameras, count))


def test_an_export_reads_back(tmp_path: Path) -> None:
    splits = {"train": split(0, 12, 5), "query": split(1, 4, 4), "gallery": split(2, 9, 4)}
    folder = write_market1501(splits, tmp_path)
    assert folder == tmp_path / "market1501" / "Market-1501-v15.09.15"
    lists = read_real("market1501", tmp_path)
    for name, written in splits.items():
        read = lists[name]
        order = [int(Path(path).stem.split("_")[2]) for path in read.paths]  # the running number
        assert sorted(order) == list(range(len(written.images)))
        np.testing.assert_array_equal(read.identities, written.identities[order])
        np.testing.assert_array_equal(read.cameras, written.cameras[order])
        difference = load_images(read.paths, (32, 16)).astype(int) - written.images[order]
        assert np.abs(difference).max() <= 6  # 4:2:0 or a lower quality would be far more
        assert np.abs(difference).mean() <= 1
    with pytest.raises(BenchError, match="not empty"):
        write_market1501(splits, tmp_path)


def test_an_export_refuses_what_market1501_cannot_express(tmp_path: Path) -> None:
    good = {"train": split(0, 6, 3), "query": split(1, 2, 2), "gallery": split(2, 4, 2)}
    for broken, message in (
        (replace(good["gallery"], identities=np.array([0, 1, 2, 1502])), r"identities to 0 … 1501, .* 0 … 1502"),
        (replace(good["gallery"], identities=np.array([-1, 1, 2, 3])), "identities"),
        (replace(good["gallery"], cameras=np.array([0, 1, 2, 6])), r"cameras to 0 … 5, .* 0 … 6"),
        (replace(good["gallery"], cameras=np.array([0, 1])), "4 images, but 2 cameras"),
        (replace(good["gallery"], images=good["gallery"].images[:0]), "'gallery' has no images"),
    ):
        with pytest.raises(BenchError, match=message):
            write_market1501({**good, "gallery": broken}, tmp_path)
    with pytest.raises(BenchError, match="'query' has no images"):
        write_market1501({"train": good["train"], "gallery": good["gallery"]}, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_digest_follows_the_content_and_not_the_place(market: Path, tmp_path: Path) -> None:
    lists = read_real("market1501", market)
    before = content_digest(lists)
    shutil.copytree(market / "market1501", tmp_path / "copy" / "market1501")
    copied = read_real("market1501", tmp_path / "copy")
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


def test_what_a_data_set_holds_is_remembered_until_a_file_changes(market: Path, tmp_path: Path, monkeypatch) -> None:
    asked: list[str] = []
    reader = real.read_real
    monkeypatch.setattr(real, "read_real", lambda name, root, **options: asked.append(name) or reader(name, root))
    time.sleep(0.03)  # files as young as the clock's tick are not trusted
    memory = tmp_path / "memory"
    first = content_of("market1501", market, {}, memory)
    assert first == content_of("market1501", market, {}, memory) == content_of("market1501", market, {}, None)
    assert len(asked) == 2, "once to remember, once because nothing was to be remembered"
    assert first[0] == content_digest(reader("market1501", market))
    path = next(market.rglob("*.jpg"))
    about, content = path.stat(), path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert content_of("market1501", market, {}, memory)[0] != first[0]

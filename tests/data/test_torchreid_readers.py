"""CUHK03 and MSMT17, read by torchreid."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from reid_attack_bench.contracts import ImageList
from reid_attack_bench.data.readers.content import read_listing
from reid_attack_bench.data.readers.cuhk03 import CUHK03
from reid_attack_bench.data.readers.files import load_images
from reid_attack_bench.data.readers.layout import OUTSIDE
from reid_attack_bench.data.readers.msmt17 import MSMT17
from reid_attack_bench.data.readers.torchreid import read_with_torchreid
from reid_attack_bench.errors import BenchError
from tests.data.conftest import described, picture


def cuhk03_lists(data_root: Path, **options: object) -> dict[str, ImageList]:
    return dict(read_listing(CUHK03(**options), data_root / "cuhk03").splits)  # type: ignore[arg-type]


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
    lists = cuhk03_lists(cuhk03)
    assert described(lists["train"]) == [("1_001_2_06.png", 0, 1), ("1_002_1_01.png", 1, 0)]
    assert described(lists["query"]) == [("5_100_1_02.png", 1400, 0)]
    assert described(lists["gallery"]) == [("5_100_2_07.png", 1400, 1)]
    assert "images_detected" in lists["train"].paths[0]
    classic = cuhk03_lists(cuhk03, cuhk03_labeled=True, cuhk03_classic_split=True, split_id=19)
    assert len(classic["query"].paths) == len(classic["gallery"].paths) == 2
    assert "images_labeled" in classic["train"].paths[0]
    with pytest.raises(BenchError, match=r"torchreid cannot read .*cuhk03"):
        cuhk03_lists(cuhk03, split_id=1)


def test_what_the_extraction_of_cuhk03_needs_is_named(cuhk03: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cuhk03 / "cuhk03" / "splits_new_detected.json").unlink()
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(BenchError, match="pip install h5py"):
        cuhk03_lists(cuhk03)


def test_cuhk03_moved_after_extraction_is_explained(cuhk03: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    shutil.move(cuhk03 / "cuhk03", tmp_path / "elsewhere" / "cuhk03")
    with pytest.raises(BenchError, match=r"delete the files splits_\*\.json"):
        cuhk03_lists(tmp_path / "elsewhere")


def test_what_cuhk03_lacks_is_named(cuhk03: Path) -> None:
    assert read_listing(CUHK03(), cuhk03 / "cuhk03").skipped == {OUTSIDE: ["images_labeled/"]}
    (cuhk03 / "cuhk03" / "cuhk03_release" / "cuhk-03.mat").unlink()
    with pytest.raises(BenchError, match=r"cuhk-03\.mat is missing"):
        cuhk03_lists(cuhk03)


def test_only_the_classic_split_of_cuhk03_is_single_shot() -> None:
    assert CUHK03(cuhk03_classic_split=True).protocol == "cuhk03"
    assert CUHK03(cuhk03_labeled=True).protocol == "market1501"


LISTED = {
    "list_train": ["0001/0001_001_15_0302noon_1018_1.jpg 1", "0000/0000_000_01_0303morning_0015_0.jpg 0"],
    "list_val": ["0000/0000_009_14_0303morning_0020_2.jpg 0"],
    "list_query": ["0003/0003_003_05_0303morning_0030_0.jpg 3"],
    "list_gallery": ["0003/0003_004_07_0303noon_0040_0.jpg 3"],
}


def msmt(root: Path, version: str = "MSMT17_V1", train: str = "train", test: str = "test") -> Path:
    """MSMT17 in miniature; returns the folder of its version."""
    for name, lines in LISTED.items():
        for line in lines:
            picture(root / version / (train if name in ("list_train", "list_val") else test) / line.split(" ")[0])
        (root / version / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return root / version


@pytest.mark.parametrize("version", [("MSMT17_V1", "train", "test"), ("MSMT17_V2", "mask_train_v2", "mask_test_v2")])
def test_msmt17_trains_on_its_training_list_alone(tmp_path: Path, version: tuple[str, str, str]) -> None:
    base = msmt(tmp_path, *version)
    picture(base / version[2] / "0003" / "0003_009_07_0303noon_0040_0.jpg")
    listing = read_listing(MSMT17(), tmp_path)
    assert described(listing.splits["train"]) == [
        ("0000_000_01_0303morning_0015_0.jpg", 0, 0),
        ("0001_001_15_0302noon_1018_1.jpg", 1, 14),
    ]
    assert described(listing.splits["query"]) == [("0003_003_05_0303morning_0030_0.jpg", 3, 4)]
    assert described(listing.splits["gallery"]) == [("0003_004_07_0303noon_0040_0.jpg", 3, 6)]
    assert load_images(listing.splits["gallery"].paths, (4, 2)).shape == (1, 4, 2, 3)
    assert listing.skipped == {
        "images of list_val.txt": [f"{version[0]}/{version[1]}/0000/0000_009_14_0303morning_0020_2.jpg"],
        "images that no list names": [f"{version[0]}/{version[2]}/0003/0003_009_07_0303noon_0040_0.jpg"],
    }
    (base / "list_val.txt").unlink()
    with pytest.raises(BenchError, match=rf"{version[0]}/list_val\.txt is missing"):
        MSMT17().read(tmp_path)


@pytest.mark.parametrize(
    "mess",
    [
        lambda text: text + "\n\n",
        lambda text: text.replace(" ", "\t"),
        lambda text: text.replace(" ", "   "),
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", "  \n"),
        lambda text: text.rstrip("\n"),
    ],
)
def test_lists_of_msmt17_are_read_as_people_edit_them(tmp_path: Path, mess) -> None:
    base = msmt(tmp_path)
    clean = {part: described(images) for part, images in read_with_torchreid("msmt17", "MSMT17", tmp_path).items()}
    for name in LISTED:
        path = base / f"{name}.txt"
        path.write_bytes(mess(path.read_text()).encode())
    assert {part: described(images) for part, images in MSMT17().read(tmp_path).splits.items()} == clean


@pytest.mark.parametrize("line", ["0000/0000_000_01_a.jpg", "0000/0000_000_01_a.jpg one", "0000/a.jpg 0",
                                  "0000/0000_000_00_a.jpg 0"])  # fmt: skip
def test_a_line_that_is_none_is_an_error_with_file_and_line(tmp_path: Path, line: str) -> None:
    path = msmt(tmp_path) / "list_query.txt"
    path.write_text(f"{path.read_text()}\n{line}\n")
    with pytest.raises(BenchError, match=rf"list_query\.txt, line 3: '{line}' is not"):
        MSMT17().read(tmp_path)


def test_a_missing_folder_is_not_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchreid.reid.data.datasets.dataset as module

    monkeypatch.setattr(module, "download_url", lambda *args: pytest.fail("downloads"))
    for data_set in (MSMT17(), CUHK03()):
        with pytest.raises(BenchError, match="is missing"):
            data_set.read(tmp_path / "none")
    with pytest.raises(BenchError, match="is missing"):
        read_with_torchreid("market1501", "Market1501", tmp_path / "none")
    assert list(tmp_path.iterdir()) == []

"""Published data sets by name, each in miniature in its own layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reid_attack_bench import registry
from reid_attack_bench.contracts import DataSet, ImageList, Listing
from reid_attack_bench.data import catalogue
from reid_attack_bench.data.readers.clothes import LTCC, PRCC
from reid_attack_bench.data.readers.content import read_listing
from reid_attack_bench.data.readers.cuhk_sysu import CUHKSYSU
from reid_attack_bench.data.readers.layout import HIDDEN, NO_IMAGE, OUTSIDE
from reid_attack_bench.data.readers.market1501 import DukeMTMCReID, OccludedDuke
from reid_attack_bench.data.readers.rendered import ClonedPerson, PersonX
from reid_attack_bench.data.readers.vehicles import VeRi776
from reid_attack_bench.errors import BenchError
from reid_attack_bench.zoo.catalogue import WITHDRAWN
from tests.data.conftest import described, pictures

NAMED = {
    "dukemtmc-reid": DukeMTMCReID, "occluded-duke": OccludedDuke, "personx": PersonX, "clonedperson": ClonedPerson,
    "cuhk-sysu": CUHKSYSU, "ltcc": LTCC, "prcc": PRCC, "veri-776": VeRi776,
}  # fmt: skip

LTCC_FILES = ["train/000_1_c11_005215.png", "train/000_2_c1_005300.png", "query/003_2_c12_000001.png",
              "test/003_2_c3_000002.png", "test/003_1_c3_000003.png", "test/003_1_c12_000004.png"]  # fmt: skip

PRCC_FILES = [
    "rgb/train/001/A_cropped_rgb001.jpg", "rgb/train/001/C_cropped_rgb002.jpg", "rgb/train/010/B_cropped_rgb001.jpg",
    "rgb/val/001/A_cropped_rgb009.jpg", "rgb/test/A/002/cropped_rgb001.jpg", "rgb/test/A/003/cropped_rgb001.jpg",
    "rgb/test/B/002/cropped_rgb001.jpg", "rgb/test/C/002/cropped_rgb001.jpg", "rgb/test/C/002/cropped_rgb002.jpg",
    "sketch/train/001/A_sketch001.jpg",
]  # fmt: skip


def read(data_set: DataSet, root: Path) -> Listing:
    return read_listing(data_set, root)


def worn(images: ImageList) -> list[int]:
    assert images.clothes is not None
    return images.clothes.tolist()


@pytest.mark.parametrize(("name", "reader"), NAMED.items())
def test_every_set_is_registered_and_says_what_it_is(name: str, reader: type[DataSet]) -> None:
    assert registry.find("data set", name).factory is reader
    assert reader.title
    assert reader.url.startswith("http")
    assert reader.version is not None
    assert set(reader.images) <= {"train", "query", "gallery"}


def test_withdrawn_sets_carry_the_reason_and_so_does_what_derives_from_them() -> None:
    assert {name for name, reader in NAMED.items() if reader.withdrawn} == {"dukemtmc-reid", "occluded-duke"}
    assert "deprecated" in OccludedDuke.withdrawn
    assert all(catalogue.withdrawn(name) for name in WITHDRAWN)
    assert catalogue.withdrawn("market1501") == catalogue.withdrawn("no data set of ours") == ""


def test_rendered_people_are_synthetic(tmp_path: Path) -> None:
    pictures(tmp_path, ["query/0001_c3s1_01.jpg", "bounding_box_test/0001_c12s1_01.jpg"])
    made = catalogue.source("personx", {"root": str(tmp_path)}, size=(16, 8), seed=0, data_root=None)
    assert made.synthetic
    assert not made.withdrawn
    assert not made.genuine, "two images are not PersonX"
    assert {name for name, reader in NAMED.items() if reader.synthetic} == {"personx", "clonedperson"}


def test_occluded_duke(tmp_path: Path) -> None:
    pictures(tmp_path / "Occluded_Duke", ["bounding_box_train/0002_c1_f0044158.jpg", "query/0005_c2_f0046985.jpg",
             "bounding_box_test/0005_c8_f0051781.jpg", "bounding_box_test/0005_c10_f0051782.jpg"])  # fmt: skip
    made = catalogue.source("occluded-duke", {}, size=(16, 8), seed=0, data_root=tmp_path)
    assert made.counts == {"train": 1, "query": 1, "gallery": 2}
    assert made.withdrawn == OccludedDuke.withdrawn
    gallery = read(OccludedDuke(), tmp_path).splits["gallery"]
    assert described(gallery) == [("0005_c10_f0051782.jpg", 5, 9), ("0005_c8_f0051781.jpg", 5, 7)]


def test_personx_has_the_cameras_of_its_files(tmp_path: Path) -> None:
    pictures(tmp_path / "PersonX", ["bounding_box_train/0002_c10s1_01.jpg", "query/0001_c3s1_01.jpg",
             "bounding_box_test/0001_c12s1_36.jpg", "bounding_box_test/0001_c11s1_01.png"])  # fmt: skip
    splits = read(PersonX(), tmp_path).splits
    assert described(splits["query"]) == [("0001_c3s1_01.jpg", 1, 2)]
    assert described(splits["gallery"]) == [("0001_c11s1_01.png", 1, 10), ("0001_c12s1_36.jpg", 1, 11)]
    assert described(splits["train"]) == [("0002_c10s1_01.jpg", 0, 9)]


def test_clonedperson_tells_cameras_of_different_scenes_apart_unless_asked_not_to(tmp_path: Path) -> None:
    pictures(tmp_path / "clonedperson", [
        "train/700000_s02_c00_f023389.jpg", "train/700000_s06_c00_f023413.jpg", "train/700010_s12_c10_f000001.jpg",
        "test/query/705227_s02_c02_f001117.jpg", "test/gallery/705227_s12_c02_f005521.jpg",
        "test/gallery/705227_s12_c03_f002965.jpg", "test/notes/sheet.png",
    ])  # fmt: skip
    listing = read(ClonedPerson(), tmp_path)
    assert described(listing.splits["query"]) == [("705227_s02_c02_f001117.jpg", 705227, 202)]
    assert listing.splits["gallery"].cameras.tolist() == [1202, 1203]
    assert listing.splits["train"].cameras.tolist() == [200, 600, 1210]
    assert listing.splits["train"].identities.tolist() == [0, 0, 1]
    assert listing.skipped == {OUTSIDE: ["clonedperson/test/notes/"]}
    alike = read(ClonedPerson(cameras="number"), tmp_path).splits
    assert [alike[part].cameras.tolist() for part in ("query", "gallery")] == [[2], [2, 3]]
    pictures(tmp_path / "clonedperson", ["test/query/705227_s02_c100_f001117.jpg"])
    with pytest.raises(BenchError, match=r"c100_f001117\.jpg: it has camera 100, but a scene has fewer than 100"):
        read(ClonedPerson(), tmp_path)


def test_veri_776(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "VeRi", [
        "image_train/0001_c001_00016450_0.jpg", "image_train/0010_c020_00016451_0.jpg",
        "image_query/0002_c002_00030600_0.jpg", "image_test/0002_c002_00030600_0.jpg",
        "image_test/0002_c010_00030605_1.jpg", "image_test/-1_c010_00030606_1.jpg",
    ])  # fmt: skip
    (folder / "name_query.txt").touch()
    made = catalogue.source("veri-776", {}, size=(16, 16), seed=0, data_root=tmp_path)
    assert made.counts == {"train": 2, "query": 1, "gallery": 2}
    splits = read(VeRi776(), tmp_path).splits
    assert described(splits["gallery"]) == [("0002_c002_00030600_0.jpg", 2, 1), ("0002_c010_00030605_1.jpg", 2, 9)]
    assert splits["train"].cameras.tolist() == [0, 19]


def test_cuhk_sysu_has_no_cameras_so_no_match_is_junk(tmp_path: Path) -> None:
    folder = tmp_path / "cuhk-sysu" / "CUHK-SYSU" / "cuhksysu4reid"
    pictures(folder, [
        "train/00003_s00010_0000000_0.jpg", "train/11934_s00011_0000001_1.jpg", "query/00101_s00020_0000000_0.jpg",
        "gallery/00101_s00021_0000000_0.jpg", "gallery/00102_s00022_0000001_0.jpg",
        "combine/00101_s00020_0000000_0.jpg", "query/._00101_s00020_0000000_0.jpg",
    ])  # fmt: skip
    (folder / "query" / "list.txt").touch()
    listing = read(CUHKSYSU(), tmp_path / "cuhk-sysu")
    assert described(listing.splits["query"]) == [("00101_s00020_0000000_0.jpg", 101, 0)]
    assert described(listing.splits["gallery"]) == [
        ("00101_s00021_0000000_0.jpg", 101, 1),
        ("00102_s00022_0000001_0.jpg", 102, 1),
    ]
    assert listing.splits["train"].identities.tolist() == [0, 1]
    assert not any(images.cameras_known for images in listing.splits.values())
    assert set(listing.skipped) == {HIDDEN, NO_IMAGE, OUTSIDE}
    assert [name for name in listing.skipped[OUTSIDE] if "combine" in name]


def test_crops_of_cuhk_sysu_without_queries_are_explained(tmp_path: Path) -> None:
    pictures(tmp_path, ["cropped_images/p11422_s16929_1.jpg"])
    with pytest.raises(BenchError, match=r"cropped_images, training images alone.*LifelongReID.*layout: csv"):
        read(CUHKSYSU(), tmp_path)


def test_ltcc_has_clothes_and_two_settings(tmp_path: Path) -> None:
    pictures(tmp_path / "LTCC_ReID", LTCC_FILES)
    listing = read(LTCC(), tmp_path)
    query, gallery = listing.splits["query"], listing.splits["gallery"]
    assert described(query) == [("003_2_c12_000001.png", 3, 11)]
    assert worn(query) == [2]
    assert described(gallery) == [("003_1_c12_000004.png", 3, 11), ("003_1_c3_000003.png", 3, 2),
                                  ("003_2_c3_000002.png", 3, 2)]  # fmt: skip
    assert worn(gallery) == [1, 1, 2]
    assert (listing.splits["train"].cameras.tolist(), worn(listing.splits["train"])) == ([10, 0], [1, 2])
    assert (LTCC().protocol, LTCC(setting="standard").protocol) == ("clothes", "market1501")
    made = [
        catalogue.source("ltcc", {"setting": setting}, size=(16, 8), seed=0, data_root=tmp_path)
        for setting in ("cloth-changing", "standard")
    ]
    assert [each.protocol for each in made] == ["clothes", "market1501"]
    assert made[0].identity != made[1].identity
    with pytest.raises(BenchError, match="setting"):
        catalogue.source("ltcc", {"setting": "same"}, size=(16, 8), seed=0, data_root=tmp_path)


def test_ltcc_without_a_change_of_clothes_cannot_be_ranked_in_that_setting(tmp_path: Path) -> None:
    pictures(tmp_path / "LTCC_ReID", [name for name in LTCC_FILES if "003_1" not in name])
    with pytest.raises(BenchError, match="in other clothes"):
        catalogue.source("ltcc", {}, size=(16, 8), seed=0, data_root=tmp_path)
    made = catalogue.source("ltcc", {"setting": "standard"}, size=(16, 8), seed=0, data_root=tmp_path)
    assert made.counts["gallery"] == 1


@pytest.mark.parametrize(("setting", "camera", "count"), [("cloth-changing", 2, 2), ("standard", 1, 1)])
def test_prcc_has_other_queries_in_each_setting(tmp_path: Path, setting, camera: int, count: int) -> None:
    pictures(tmp_path / "prcc", PRCC_FILES)
    listing = read(PRCC(setting=setting), tmp_path)
    query, gallery, train = (listing.splits[part] for part in ("query", "gallery", "train"))
    assert [each.identities.tolist() for each in (query, gallery, train)] == [[2] * count, [2, 3], [0, 0, 1]]
    assert [each.cameras.tolist() for each in (query, gallery, train)] == [[camera] * count, [0, 0], [0, 2, 1]]
    assert [worn(each) for each in (query, gallery, train)] == [[int(camera == 2)] * count, [0, 0], [0, 1, 0]]
    other = "B" if setting == "cloth-changing" else "C"
    assert listing.skipped == {OUTSIDE: ["prcc/sketch/", "prcc/rgb/val/", f"prcc/rgb/test/{other}/"]}


def test_a_file_of_prcc_with_another_name_is_named(tmp_path: Path) -> None:
    pictures(tmp_path / "prcc", PRCC_FILES)
    pictures(tmp_path / "prcc", ["rgb/train/001/D_cropped_rgb001.jpg"])
    listing = read(PRCC(), tmp_path)
    assert ["prcc/rgb/train/001/D_cropped_rgb001.jpg"] in listing.skipped.values()
    assert np.array_equal(listing.splits["train"].identities, [0, 0, 1])

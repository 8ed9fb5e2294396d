"""Zoo files: what is listed, and mistakes in a user's file."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from reid_attack_bench import contracts, registry
from reid_attack_bench.data.catalogue import withdrawn
from reid_attack_bench.errors import BenchError
from reid_attack_bench.victims.torchreid_zoo import ARCHITECTURES
from reid_attack_bench.zoo import catalogue

PUBLISHED = Path(__file__).parents[3] / "shared" / "facts" / "torchreid_zoo.csv"

DATA_SETS = {
    "market1501": "market1501", "M": "market1501", "dukemtmcreid": "dukemtmc-reid", "dukemtmc-reid": "dukemtmc-reid",
    "D": "dukemtmc-reid", "msmt17": "msmt17", "MS": "msmt17", "C": "cuhk03", "imagenet": "imagenet",
}  # fmt: skip
"""Names in the list of torchreid → ours."""


def ours(name: str) -> str:
    return DATA_SETS[name if name in DATA_SETS else name.lower()]


def torchreid() -> list[catalogue.ZooEntry]:
    return [entry for entry in catalogue.shipped().values() if entry.builder == "torchreid"]


def test_every_published_row_of_torchreid_is_listed() -> None:
    entries = torchreid()
    assert len(entries) == 66
    assert sum(len(entry.figures) for entry in entries) == 60
    if not PUBLISHED.is_file():
        pytest.skip("the list to compare with is not here")
    by_address = {entry.address: entry for entry in entries}
    published = list(csv.DictReader(PUBLISHED.open()))
    assert {row["google_drive_id"] for row in published} == set(by_address)
    for row in published:
        entry = by_address[row["google_drive_id"]]
        assert entry.architecture == row["architecture"]
        assert entry.trained_on == tuple(
            ours(name) for name in row["trained_on"].removesuffix(" (all images)").split("+")
        )
        assert entry.all_images == ("all images" in row["trained_on"])
        assert entry.name.startswith(f"{row['architecture']}-")
        if row["rank1"]:
            assert entry.input == tuple(int(side) for side in row["input"].split("x"))
            assert entry.distance == row["distance"]
            figure = catalogue.Figure(ours(row["tested_on"]), float(row["rank1"]), float(row["mAP"]))
            assert figure in entry.figures, row


def test_the_shipped_zoo_is_complete_and_says_what_was_withdrawn() -> None:
    addresses = [entry.address for entry in catalogue.shipped().values()]
    assert len(set(addresses)) == len(addresses)
    for entry in catalogue.shipped().values():
        assert entry.address, entry.name
        assert entry.licence, entry.name
        assert entry.trained_on, entry.name
        assert bool(entry.withdrawn) == ("dukemtmc-reid" in entry.trained_on), entry.name
    assert {entry.architecture for entry in torchreid()} <= ARCHITECTURES
    assert catalogue.find("osnet_ain_x1_0-ms_d_c").withdrawn == ("dukemtmc-reid",)
    assert catalogue.find("hacnn-market1501").input == (160, 64)
    assert (catalogue.IMAGENET_MEAN, catalogue.IMAGENET_STD) == (contracts.IMAGENET_MEAN, contracts.IMAGENET_STD)


def test_what_was_withdrawn_is_what_the_data_sets_say() -> None:
    names = {*registry.available("data set"), *catalogue.WITHDRAWN}
    assert {name for name in names if withdrawn(name)} == catalogue.WITHDRAWN


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


MINE = "models:\n  osnet_x1_0-market1501: {builder: torchreid, architecture: osnet_x0_25, file: mine.pth}\n"


def test_a_name_of_the_user_wins_over_a_shipped_one(tmp_path: Path) -> None:
    path = written(tmp_path, MINE)
    mine = catalogue.find("osnet_x1_0-market1501", path)
    assert (mine.architecture, mine.zoo_file, mine.stands_in) == ("osnet_x0_25", path, True)
    assert next(iter(catalogue.models(path))) == "osnet_x1_0-market1501"
    assert set(catalogue.models(path)) == set(catalogue.shipped())
    assert catalogue.find("osnet_x1_0-market1501").architecture == "osnet_x1_0"


def test_defaults_hold_for_all_models_of_a_file(tmp_path: Path) -> None:
    text = """
defaults: {builder: torchreid, licence: MIT, input: [384, 128]}
models:
  a: {architecture: resnet50, trained_on: market1501}
  b: {architecture: resnet50, input: [160, 64], licence: unknown}
"""
    a, b = (catalogue.find(name, written(tmp_path, text)) for name in "ab")
    assert (a.input, a.licence, a.trained_on) == ((384, 128), "MIT", ("market1501",))
    assert (b.input, b.licence, b.withdrawn) == ((160, 64), "unknown", ())


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ("{architecture: resnet50}", "models.a.*builder"),
        ("{builder: keras, architecture: resnet50}", "models.a.*builder must be one of torchreid, fastreid"),
        ("{builder: torchreid, architecture: resnet50, input: [256]}", "models.a.*input must be a list of 2"),
        ("{builder: torchreid, architecture: resnet50, adress: x}", "models.a.*'adress'.*did you mean 'address'"),
        ("{builder: torchreid, architecture: resnet50, address: ftp://x}", "address must be a URL that starts with"),
        ("{builder: torchreid, architecture: resnet50, sha256: XYZ}", "sha256 must be 8 to 64 lower-case"),
        ("{builder: torchreid, architecture: resnet50, std: [0, 1, 1]}", r"std\[0\] must be a positive number"),
        ("{builder: torchreid, architecture: x, figures: [{tested_on: a, rank1: 101, mAP: 1}]}", r"figures\[0\].rank1"),
        ("{builder: torchreid, architecture: x, file: a, address: 'http://a/b'}", "both an address and a file"),
        ("3", "models.a must be a mapping"),
    ],
)  # fmt: skip
def test_a_mistake_names_the_file_the_model_and_the_field(tmp_path: Path, fields: str, says: str) -> None:
    path = written(tmp_path, f"models:\n  a: {fields}\n")
    with pytest.raises(BenchError, match=says) as raised:
        catalogue.read_zoo(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)


def test_names_that_cannot_be_a_file_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "models: {../a: {builder: torchreid, architecture: x}}")
    with pytest.raises(BenchError, match="a name of letters"):
        catalogue.read_zoo(path)
    with pytest.raises(BenchError, match=r"nothing.yaml.* does not exist"):
        catalogue.find("a", tmp_path / "nothing.yaml")
    with pytest.raises(BenchError, match="did you mean 'osnet_x1_0-market1501'"):
        catalogue.find("osnet_x1_0-market")

"""Runs on data sets of one's own, by any name and in any layout, through the commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reid_attack_bench.errors import BenchError
from reid_attack_bench.plan.planner import make_plan
from reid_attack_bench.report.analysis.conclude import conclude
from reid_attack_bench.report.markdown import report_text
from reid_attack_bench.steps.artefacts import read_pairs, read_splits
from reid_attack_bench.store import Store
from reid_attack_bench.suites import parse
from tests.conftest import TOY
from tests.data.conftest import MARKET_FILES, people, picture, pictures
from tests.test_clean_figures import executed
from tests.test_pipeline import bench

PEOPLE = range(2000, 2006)
SEEN = (1, 10, 11, 12)
"""Cameras: torchreid's reader reads all of them as 1, so every match is junk."""


@pytest.fixture
def lobby(tmp_path: Path) -> Path:
    """Market's layout: cameras of two digits, identities above 1501, other suffixes, and a stray file."""
    names = people(PEOPLE, SEEN)
    kinds = [name.replace(".jpg", suffix) for name, suffix in zip(names, (".jpg", ".JPG", ".png") * 99, strict=False)]
    root = pictures(tmp_path / "lobby", kinds)
    picture(root / "query" / "IMG_2041.jpg")
    return root


@pytest.fixture
def harbour(tmp_path: Path) -> Path:
    """A list without a training split."""
    root = tmp_path / "harbour"
    rows = [f"{part}/{who}.png,{who},{part}" for who in "abcd" for part in ("query", "gallery")]
    pictures(root, [row.split(",")[0] for row in rows])
    (root / "list.csv").write_text("\n".join(["path,identity,split", *rows]))
    return root / "list.csv"


@pytest.mark.e2e
def test_two_sets_of_one_s_own_in_one_run(tiny, write_suite, tmp_path: Path, lobby: Path, harbour: Path) -> None:
    tiny["datasets"] = {"lobby": {"layout": "market1501", "root": str(lobby)},
                        "harbour": {"layout": "csv", "root": str(harbour)}}  # fmt: skip
    tiny["victims"] = {"toy": {"use": f"{TOY}:ToyRecipe", "train_on": ["lobby"]}}
    tiny["attacks"] = {"noise": {}}
    note = "lobby: not read: names without identity and camera (1: query/IMG_2041.jpg)."
    assert bench("run", write_suite(tiny), "--dry-run", cwd=tmp_path).stdout.count(note) == 1
    store = Store(tmp_path / "store")
    results, _ = executed(make_plan(parse.parse(tiny)), store)
    assert {cell.status for cell in results.cells} == {"ok"}
    # every query has a match that counts
    assert {cell.dataset: cell.queries for cell in results.cells} == {"lobby": len(PEOPLE), "harbour": 4}
    assert note.replace("_", "\\_") in report_text(results, {}, conclude(results))
    known = {each.name: (each.layout, each.genuine, each.counts["train"]) for each in results.record.datasets}
    assert known == {"lobby": ("market1501", True, len(PEOPLE) * len(SEEN)), "harbour": ("csv", True, 0)}
    # moved, it is the same data
    lobby.rename(tmp_path / "moved")
    tiny["datasets"]["lobby"]["root"] = str(tmp_path / "moved")
    assert executed(make_plan(parse.parse(tiny)), store)[1] == []


@pytest.mark.e2e
def test_clothes_decide_every_ranking_of_a_list_with_the_clothes_rule(tiny, tmp_path: Path) -> None:
    shots = [("train", 1, "x"), ("train", 2, "x"), ("query", 1, "x")]
    shots += [("gallery", 2, "x"), ("gallery", 2, "y"), ("gallery", 1, "z")]  # the second alone is a match
    rows = [
        f"{part}/{who}{camera}{worn}.png,{who},{camera},{part},{worn}"
        for who in "abcdefgh"
        for part, camera, worn in shots
    ]
    pictures(tmp_path / "closet", [row.split(",")[0] for row in rows])
    (tmp_path / "closet/list.csv").write_text("\n".join(["path,identity,camera,split,clothes", *rows]))
    closet = {"layout": "csv", "root": str(tmp_path / "closet/list.csv"), "clothes_rule": True}
    tiny["datasets"] = {"closet": closet}
    tiny["victims"]["toy"]["train_on"] = ["closet"]
    tiny["attacks"] = {"noise": {}, "aimed": {"use": "noise", "impersonate": "random"}}
    store = Store(tmp_path / "store")
    results, _ = executed(make_plan(parse.parse(tiny)), store)
    assert {cell.status for cell in results.cells} == {"ok"}
    splits = read_splits(store.folder("data", results.record.cells[0].data_key))
    query, gallery = splits["query"], splits["gallery"]
    assert query.clothes is not None
    assert gallery.clothes is not None
    clean = results.clean[0]
    assert read_pairs(store.folder("clean-rank", clean.rank_key), "genuine").shape == (1, 8)  # type: ignore[union-attr]
    assert clean.value("mAP") == pytest.approx(clean.value("mINP")), "each query has one match"
    shown = 0
    (chosen,) = {tuple(sheet.queries) for sheet in results.sheets}
    for retrieved in results.retrieved.values():
        for row, images in zip(chosen, retrieved.after, strict=True):
            own = gallery.identities[images] == query.identities[row]
            assert not (own & (gallery.clothes[images] == query.clothes[row])).any()
            shown += int(own.sum())
    assert shown > 0


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (people(PEOPLE, (1,)), "data set market1501 in .*/market1501: no query has a match from another camera"),
        (MARKET_FILES["query"], "has no query and bounding_box_test"),
    ],
)
def test_what_cannot_be_ranked_stops_a_dry_run(tiny, write_suite, tmp_path: Path, names, says: str) -> None:
    pictures(tmp_path / "market1501", names)
    tiny["datasets"] = {"market1501": {}}
    tiny["victims"]["toy"]["train_on"] = ["market1501"]
    suite = parse.load(write_suite(tiny))
    with pytest.raises(BenchError, match=says):
        make_plan(suite, data_root=tmp_path)


def test_data_check_says_what_is_there(tmp_path: Path, lobby: Path, harbour: Path, market: Path) -> None:
    said = bench("data", "check", "lobby", "--layout", "market1501", "--root", str(lobby), cwd=tmp_path).stdout
    assert [line.split() for line in said.splitlines() if line.strip().startswith(("train", "query", "gallery"))] == [
        ["train", "24", "6", "4"],
        ["query", "6", "6", "1"],
        ["gallery", "24", "6", "4"],
    ]
    assert "6 of 6 queries have a match" in said
    assert "query/IMG_2041.jpg" in said
    said = bench("data", "check", "--layout", "csv", "--root", str(harbour), "--json", cwd=tmp_path).stdout
    assert json.loads(said)["counts"]["train"] == {"images": 0, "identities": 0, "cameras": 0}
    said = bench("data", "check", "market1501", "--data-root", str(market), cwd=tmp_path).stdout
    assert "not the published 12,936 train" in said
    assert "withdrawn" not in said
    said = bench("data", "check", cwd=tmp_path, expect=1).stderr
    assert "name a data set" in said


def test_data_check_fails_where_nothing_can_be_ranked(tmp_path: Path) -> None:
    root = pictures(tmp_path / "one", people(PEOPLE, (3,)))
    done = bench("data", "check", "one", "--layout", "market1501", "--root", str(root), cwd=tmp_path, expect=1)
    assert "0 of 6 queries" in done.stdout
    assert "no query has a match from another camera" in done.stderr


def test_names_of_the_suite_may_be_picked(tiny, lobby: Path) -> None:
    tiny["datasets"]["lobby"] = {"layout": "market1501", "root": str(lobby)}
    picked = parse.parse(tiny, data=["lobby", "campus"])
    assert picked.datasets["lobby"] == tiny["datasets"]["lobby"]
    assert [victim.train_on for victim in picked.victims] == [("lobby", "campus")]
    with pytest.raises(BenchError, match="must be a label of at most 128 letters"):
        parse.parse({**tiny, "datasets": {"my lobby": {}}})

"""Submissions: what is packed, what is recomputed, and which claims do not hold."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import jsonschema
import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from reid_attack_bench.errors import BenchError
from reid_attack_bench.files import file_digest
from reid_attack_bench.jobs.submission import card as submission_card
from reid_attack_bench.jobs.submission.card import read_card
from reid_attack_bench.jobs.submission.trusted import Given
from reid_attack_bench.jobs.submission.verify import Check, verify
from reid_attack_bench.report.record import parse_record, read_record
from reid_attack_bench.suites import parse
from reid_attack_bench.validation import schema_text
from tests.conftest import TOY, tiny_document
from tests.test_pipeline import Silent, bench

VICTIM = "smooth@plaza"


def document() -> dict:
    """A trained toy, and a defence of it that was found in a file."""
    tiny = tiny_document()
    tiny["datasets"] = {"plaza": tiny["datasets"]["plaza"]}
    tiny["victims"] = {
        "toy": {"use": f"{TOY}:ToyRecipe", "train_on": "plaza"},
        "smooth": {"use": "gaussian", "defends": "toy"},
    }
    tiny["attacks"] = {"noise": {"epsilon": [4, 8]}, "pgd": {"options": {"steps": 2}}}
    return tiny


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    """A folder with a finished run, a filled card and a submission."""
    folder = tmp_path_factory.mktemp("submitted")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(document(), sort_keys=False))
    bench("run", "tiny.yaml", cwd=folder)
    submit = ("submit", "runs/tiny", "--victim", VICTIM)
    told = bench(*submit, cwd=folder, expect=1).stderr
    assert "wrote card.yaml, because there was no card: fill it in" in told
    refused = bench(*submit, cwd=folder, expect=1).stderr
    assert "card.yaml" in refused
    assert "code" in refused  # the first field that is not filled in, with what belongs there
    card = yaml.safe_load((folder / "card.yaml").read_text())
    card |= {"paper": "none", "code": "none", "licence": "MIT", "contact": "me@example.org"}
    (folder / "card.yaml").write_text(yaml.safe_dump(card))
    bench(*submit, cwd=folder)
    return folder


GIVEN = Given({"toy": f"{TOY}:ToyRecipe"})


def checked(path: Path, **options) -> tuple[Check, ...]:
    settings = {"given": GIVEN, "data_root": None, "device": torch.device("cpu")}
    found = verify(path, **{**settings, **options}, listener=Silent())
    if found.problems:
        raise BenchError(found.problems[0])
    return found.checks


def rewritten(packed: Path, out: Path, change) -> Path:
    """The submission with every file as `change` returns it, (name, content) → content."""
    with zipfile.ZipFile(packed / f"{VICTIM}.zip") as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return out


def test_an_honest_submission_holds(packed: Path) -> None:
    with zipfile.ZipFile(packed / f"{VICTIM}.zip") as archive:
        names = archive.namelist()
        claims = pd.read_csv(io.BytesIO(archive.read("matrix.csv")))
    assert {"card.yaml", "manifest.json", "matrix.csv", "clean.csv", "leaderboard.csv"} <= set(names)
    assert set(claims["target"]) == {VICTIM}
    assert (
        sum(name.startswith("store/victim/") and name.endswith("manifest.json") for name in names) == 2
    )  # and its twin
    assert not any("store/rank" in name or "store/features" in name for name in names)
    said = bench("verify", f"{VICTIM}.zip", f"--victim=toy={TOY}:ToyRecipe", cwd=packed).stdout
    assert f"all {len(claims)} claims hold" in said
    assert "not verified: that the weights of smooth@plaza come from its training" in said
    found = json.loads(bench("verify", f"{VICTIM}.zip", f"--victim=toy={TOY}:ToyRecipe", "--json", cwd=packed).stdout)
    assert found["holds"] is True
    assert len(found["claims"]) == len(claims)
    assert all(each["alike"] == 1 for each in found["crafted_again"])
    assert any("come from its training" in line for line in found["not_verified"])
    checks = checked(packed / f"{VICTIM}.zip")
    assert len(checks) == len(claims)
    assert all(check.found == pytest.approx(check.claimed, abs=0.01) for check in checks)


def test_a_better_figure_than_the_true_one_is_found_out(packed: Path, tmp_path: Path) -> None:
    def change(name: str, content: bytes) -> bytes:
        if name != "matrix.csv":
            return content
        claims = pd.read_csv(io.BytesIO(content))
        claims["mAP"] += 30
        return claims.to_csv(index=False).encode()

    checks = checked(rewritten(packed, tmp_path / "better.zip", change))
    assert all("mAP is" in check.problem and "claimed" in check.problem for check in checks)


def test_images_over_their_budget_are_found_out(packed: Path, tmp_path: Path) -> None:
    craft = ""

    def louder(name: str, content: bytes) -> bytes:
        nonlocal craft
        if name.startswith("store/craft/") and name.endswith("query.npy"):
            images = np.load(io.BytesIO(content))
            images[0, 0, 0] ^= 0x40  # 64 steps
            craft = name.rpartition("/")[0]
            changed = io.BytesIO()
            np.save(changed, images)
            (tmp_path / "query.npy").write_bytes(changed.getvalue())
            return changed.getvalue()
        if name.startswith("store/craft/") and name.endswith("manifest.json"):
            manifest = json.loads(content)
            return json.dumps({**manifest, "files": {}}).encode()  # and its digest with it
        return content

    checks = checked(rewritten(packed, tmp_path / "loud.zip", louder))
    assert craft
    assert checks
    assert all("exceeded its L-inf budget on image 0" in check.problem for check in checks)


def test_other_weights_than_the_card_s_are_found_out(packed: Path, tmp_path: Path) -> None:
    def change(name: str, content: bytes) -> bytes:
        if name != "card.yaml":
            return content
        return yaml.safe_dump({**yaml.safe_load(content), "weights": "0" * 32}).encode()

    with pytest.raises(BenchError, match="the card has 00000"):
        checked(rewritten(packed, tmp_path / "other.zip", change))


def test_a_damaged_image_is_found_out(packed: Path, tmp_path: Path) -> None:
    def change(name: str, content: bytes) -> bytes:
        return content[:-1] if name.endswith("query.npy") else content

    with pytest.raises(BenchError, match=r"query\.npy is damaged|holds more than its"):
        checked(rewritten(packed, tmp_path / "damaged.zip", change))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"licence": None}, "licence must be text that is not empty, not null .SPDX identifier"),
        (
            {"trained_on": "market1501"},
            r"trained_on must be a list of at least 1, not 'market1501' \(a list of every data",
        ),
        ({"weights": "abc"}, "weights must be 32 hexadecimal digits, not 'abc'"),
        ({"colour": "red"}, "it has no field 'colour': known: code, contact"),
        (
            {"paper": "FILL IN: arXiv", "trained_on": ["FILL IN"]},
            "not filled in: .*trained_on .a list.*paper .arXiv number",
        ),
        ({"paper": ""}, "paper must be text that is not empty, not ''"),
    ],
)
def test_mistakes_in_a_card(packed: Path, tmp_path: Path, change: dict, says: str) -> None:
    path = tmp_path / "card.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load((packed / "card.yaml").read_text()), **change}))
    with pytest.raises(BenchError, match=says):
        read_card(path)


def test_a_card_without_a_field(packed: Path, tmp_path: Path) -> None:
    card = yaml.safe_load((packed / "card.yaml").read_text())
    assert read_card(packed / "card.yaml").trained_on == card["trained_on"]
    (tmp_path / "card.yaml").write_text(yaml.safe_dump({name: card[name] for name in card if name != "code"}))
    with pytest.raises(BenchError, match=r"card .*card\.yaml: code is missing \(URL of the code; none\)"):
        read_card(tmp_path / "card.yaml")


def test_the_published_schema_of_cards_is_the_one_of_the_code(packed: Path) -> None:
    path = Path(submission_card.__file__).with_name("card.schema.json")
    schema = submission_card.card_schema()
    command = "reid-attack-bench schema card > reid_attack_bench/jobs/submission/card.schema.json"
    assert path.read_text() == schema_text(schema), f"it is stale: run  {command}"
    validator = jsonschema.Draft202012Validator(schema)
    card = yaml.safe_load((packed / "card.yaml").read_text())
    assert validator.is_valid(card)
    for wrong in ({"paper": "FILL IN: arXiv"}, {"colour": "red"}, {"weights": "abc"}, {"trained_on": []}):
        assert not validator.is_valid({**card, **wrong})


def test_a_card_of_another_victim(packed: Path) -> None:
    refused = bench("submit", "runs/tiny", "--victim", "toy@plaza", cwd=packed, expect=1).stderr
    assert "name is smooth@plaza, but the run evaluated toy@plaza" in refused
    assert "the run has no victim 'tyo'" in bench("submit", "runs/tiny", "--victim", "tyo", cwd=packed, expect=1).stderr


def test_no_submission(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="does not exist"):
        checked(tmp_path / "nothing.zip")
    (tmp_path / "text.zip").write_text("no zip")
    with pytest.raises(BenchError, match="not a readable submission"):
        checked(tmp_path / "text.zip")


def test_a_suite_comes_back_from_a_manifest(packed: Path) -> None:
    record = read_record(packed / "runs/tiny")
    assert record.suite == parse.parse(document())
    assert parse_record(record.to_json(), "again") == record
    assert file_digest(packed / "card.yaml")


def test_missing_images_are_not_made_again(packed: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(packed / f"{VICTIM}.zip") as old, zipfile.ZipFile(tmp_path / "fewer.zip", "w") as new:
        for name in old.namelist():
            if not name.startswith("store/craft"):
                new.writestr(name, old.read(name))
    with pytest.raises(BenchError, match="lacks the images of"):
        checked(tmp_path / "fewer.zip")

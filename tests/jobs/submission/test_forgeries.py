"""Forgeries: each is made from one good submission, and each is refused with one line that names what is wrong."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.numpy import load, save

import reid_attack_bench
from reid_attack_bench.errors import BenchError
from reid_attack_bench.jobs.submission.card import card_template
from reid_attack_bench.jobs.submission.opened import opened
from reid_attack_bench.jobs.submission.pack import pack
from reid_attack_bench.jobs.submission.tables import tables_of
from reid_attack_bench.jobs.submission.trusted import Given
from reid_attack_bench.jobs.submission.verify import compared, verified
from reid_attack_bench.steps.artefacts import read_splits
from reid_attack_bench.store import Store
from tests.conftest import TOY, tiny_document
from tests.test_pipeline import Silent

VICTIM = "smooth@plaza"
GIVEN = Given({"toy": f"{TOY}:ToyRecipe"}, {"learner": f"{TOY}:Learner"})
CPU = torch.device("cpu")

Files = dict[str, bytes]


def document() -> dict[str, Any]:
    """A trained toy, a defence of it, and one attack of each kind."""
    tiny = tiny_document()
    tiny["datasets"] = {"plaza": tiny["datasets"]["plaza"]}
    tiny["victims"] = {
        "toy": {"use": f"{TOY}:ToyRecipe", "train_on": "plaza"},
        "smooth": {"use": "gaussian", "defends": "toy"},
    }
    tiny["attacks"] = {
        "noise": {"epsilon": [4, 8]},
        "metric_pgd": {"epsilon": 8, "options": {"steps": 2}},
        "both": {"use": "metric_pgd", "epsilon": 8, "perturbs": "both", "access": "white-box", "options": {"steps": 1}},
        "learner": {"use": f"{TOY}:Learner", "access": "white-box"},
    }
    return tiny


@dataclass(frozen=True)
class Good:
    """A good submission: its files, the tables as verify makes them, and the clean queries."""

    files: Files
    made: dict[str, str]
    queries: np.ndarray
    said: tuple[str, ...]


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Good:
    folder = tmp_path_factory.mktemp("good")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(document(), sort_keys=False))
    run = reid_attack_bench.run(folder / "tiny.yaml", out=folder / "run", store=folder / "store", progress=False)
    card = yaml.safe_load(card_template(run.results, VICTIM))
    card |= {"paper": "none", "code": "none", "licence": "MIT", "contact": "me@example.org"}
    (folder / "card.yaml").write_text(yaml.safe_dump(card))
    path = pack(run.results, Store(run.store), VICTIM, folder / "card.yaml", folder / "good.zip")
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    (data,) = (run.store / "data").iterdir()
    with opened(path, GIVEN, None) as submission:
        found = verified(submission, CPU, Silent())
        assert not found.wrong
        made = tables_of(found.results, VICTIM)
    return Good(files, made, np.array(read_splits(data)["query"].images), found.unverified)


def refusal(good: Good, path: Path, deep: bool) -> str:
    """Why a submission is refused; empty if it is not. `deep`: what it brings is used, not only its tables."""
    try:
        with opened(path, GIVEN, None) as submission:
            if deep:
                return next(iter(verified(submission, CPU, Silent(), sample=100).wrong), "")
            checks, problems = compared(submission.tables, good.made)
            return next(iter([*problems, *(check.problem for check in checks if check.problem)]), "")
    except BenchError as error:
        return str(error)


def written(files: Files, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def in_table(name: str, change: Callable[[list[dict[str, str]]], Any]) -> Callable[[Good, Files], None]:
    """Change the rows of a table."""

    def forge(good: Good, files: Files) -> None:
        found = list(csv.DictReader(io.StringIO(files[name].decode())))
        change(found)
        text = io.StringIO()
        writer = csv.DictWriter(text, list(found[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
        files[name] = text.getvalue().encode()

    return forge


def put(column: str, value: str, row: int = 0) -> Callable[[list[dict[str, str]]], None]:
    return lambda found: found[row].__setitem__(column, value)


def better(column: str, by: float) -> Callable[[list[dict[str, str]]], None]:
    return lambda found: found[0].__setitem__(column, f"{float(found[0][column]) + by:.4f}")


def in_record(change: Callable[[dict[str, Any]], Any]) -> Callable[[Good, Files], None]:
    def forge(good: Good, files: Files) -> None:
        record = json.loads(files["manifest.json"])
        change(record)
        files["manifest.json"] = json.dumps(record).encode()

    return forge


def attack_of(record: dict[str, Any], label: str) -> dict[str, Any]:
    return next(each for each in record["suite"]["attacks"] if each["label"] == label)


def crafts(files: Files, attack: str, epsilon: int) -> list[str]:
    """Names of the images of an attack, without their suffix."""
    rows = csv.DictReader(io.StringIO(files["matrix.csv"].decode()))
    keys = {row["craft_key"] for row in rows if (row["attack"], row["epsilon"]) == (attack, str(epsilon))}
    return sorted(f"store/craft/{key}" for key in keys)


def array(images: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, images)
    return content.getvalue()


def images(make: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Callable[[Good, Files], None]:
    """Replace the queries of an attack by `make(adversarial, clean)`."""

    def forge(good: Good, files: Files) -> None:
        name = f"{crafts(files, 'metric_pgd', 8)[0]}/query.npy"
        files[name] = array(make(np.load(io.BytesIO(files[name])), good.queries))

    return forge


def learned(good: Good, files: Files) -> None:
    """Of an attack that cannot be crafted again."""
    for name in crafts(files, "learner", 8):
        files[f"{name}/query.npy"] = array(good.queries)


def noise(adversarial: np.ndarray, clean: np.ndarray) -> np.ndarray:
    drawn = np.random.default_rng(0).integers(-8, 9, clean.shape)
    return np.clip(clean.astype(int) + drawn, 0, 255).astype(np.uint8)


def weaker(adversarial: np.ndarray, clean: np.ndarray) -> np.ndarray:
    change = adversarial.astype(int) - clean
    return (clean + change // 2).astype(np.uint8)


def swapped(good: Good, files: Files) -> None:
    first, second = (f"{name}/query.npy" for name in crafts(files, "metric_pgd", 8)[:2])
    files[first], files[second] = files[second], files[first]


def of_another_epsilon(good: Good, files: Files) -> None:
    (low,), (high,) = crafts(files, "noise", 4), crafts(files, "noise", 8)
    files[f"{high}/query.npy"] = files[f"{low}/query.npy"]


def with_gallery(good: Good, files: Files) -> None:
    name = crafts(files, "metric_pgd", 8)[0]
    files[f"{name}/gallery.npy"] = files[f"{crafts(files, 'both', 8)[0]}/gallery.npy"]


def without_images(good: Good, files: Files) -> None:
    del files[f"{crafts(files, 'metric_pgd', 8)[0]}/query.npy"]


def of_no_cell(good: Good, files: Files) -> None:
    files[f"store/craft/{'0' * 32}/query.npy"] = array(good.queries)


def costs(good: Good, files: Files) -> None:
    name = f"{crafts(files, 'metric_pgd', 8)[0]}/manifest.json"
    found = json.loads(files[name])
    files[name] = json.dumps(found | {"facts": {**found["facts"], "forward_passes": 0.5}}).encode()


def weights_name(files: Files) -> str:
    return next(name for name in files if name.endswith("weights.safetensors"))


def other_weights(good: Good, files: Files) -> None:
    name = weights_name(files)
    found = load(files[name])
    files[name] = save({each: -value if value.dtype.kind == "f" else value for each, value in found.items()})


def fewer_weights(good: Good, files: Files) -> None:
    name = weights_name(files)
    files[name] = save({"classes": load(files[name])["classes"]})


def in_card(**changes: Any) -> Callable[[Good, Files], None]:
    def forge(good: Good, files: Files) -> None:
        files["card.yaml"] = yaml.safe_dump(yaml.safe_load(files["card.yaml"]) | changes).encode()

    return forge


def raw(name: str, change: Callable[[bytes], bytes]) -> Callable[[Good, Files], None]:
    return lambda good, files: files.__setitem__(name, change(files[name]))


def aliases(good: Good, files: Files) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 10)}]" for i in range(8)]
    files["card.yaml"] += ("\n".join(lines) + "\n").encode()


M, C, B = "matrix.csv", "clean.csv", "leaderboard.csv"

TABLES: dict[str, tuple[Callable[[Good, Files], None], str]] = {
    "a better mAP": (in_table(M, better("mAP", 30)), "mAP is .*, claimed"),
    "a lower Rank-1 of the last cell": (in_table(M, put("rank1", "0.37", -1)), "rank1 is .*, claimed 0.37"),
    "a better interval": (in_table(M, better("mAP_high", 60)), "mAP_high is"),
    "a less visible attack": (in_table(M, put("ssim", "1.0000")), "ssim is .*, claimed 1.0000"),
    "another clean figure beside the attack": (in_table(M, put("clean_rank1", "12.00")), "clean_rank1 is"),
    "an attack that does not transfer": (in_table(M, put("transfers", "no")), "transfers is|relation"),
    "NaN": (in_table(M, put("mAP", "nan")), "mAP is .*, claimed nan"),
    "infinity": (in_table(M, put("rank1", "-inf")), "rank1 is .*, claimed -inf"),
    "a huge number": (in_table(M, put("mAP", "9" * 400)), "mAP is .*, claimed 999"),
    "no number": (in_table(M, put("mAP", "")), "mAP is .*, claimed ''"),
    "a status": (in_table(M, put("status", "failed")), "status is ok, claimed failed"),
    "more queries": (in_table(M, put("queries", "1000")), "queries is 8, claimed 1000"),
    "a cell left out": (in_table(M, lambda found: found.pop(0)), "lacks 1 of the .* cells of its suite; the first: "),
    "all cells of an attack left out": (
        in_table(M, lambda found: found.__setitem__(slice(None), [r for r in found if r["attack"] != "metric_pgd"])),
        "lacks 2 of the .* cells of its suite; the first: metric_pgd",
    ),
    "a cell twice": (in_table(M, lambda found: found.append(dict(found[0]))), "claims .* twice"),
    "a cell of no step": (in_table(M, put("rank_key", "0" * 32)), "1 of its .* claims do not match"),
    "a cell of other images": (in_table(M, put("craft_key", "0" * 32)), "1 of its .* claims do not match"),
    "another label": (in_table(M, put("attack", "strong")), "1 of its .* claims .* the first: attack 'strong'"),
    "a larger epsilon": (in_table(M, put("epsilon", "16")), "1 of its .* claims .* epsilon '16'"),
    "a transfer called white-box": (in_table(M, put("access", "query")), "1 of its .* claims"),
    "another target": (in_table(M, put("target", "toy@plaza")), "1 of its .* claims"),
    "rows in another order": (in_table(M, lambda found: found.reverse()), "is .*, claimed"),
    "a column left out": (in_table(M, lambda found: [row.pop("drop_mAP") for row in found]), "other columns.*drop_mAP"),
    "a column of the plan left out": (in_table(M, lambda found: [r.pop("seed") for r in found]), "has no column seed"),
    "a column more": (in_table(M, lambda found: [row.update(certified="yes") for row in found]), "other columns.*cert"),
    "a column twice": (raw(M, lambda old: old.replace(b"drop_mAP,", b"mAP,", 1)), "has the column 'mAP' 2 times"),
    "a row cut short": (raw(M, lambda old: old.rstrip().rpartition(b",")[0]), "row .* has .* values for .* columns"),
    "no UTF-8": (raw(M, lambda old: old.replace(b"noise", b"no\xffse", 1)), "matrix.csv is not a table"),
    "no table": (raw(M, lambda old: b""), "matrix.csv is empty"),
    "a better worst case": (in_table(B, better("worst_e8_mAP", 20)), "leaderboard.csv, .*worst_e8_mAP is"),
    "a better rank": (in_table(B, put("rank", "0")), "leaderboard.csv, .*rank is 1, claimed 0"),
    "flags left out": (in_table(B, put("audit", "none")), "leaderboard.csv, .*audit is"),
    "missing cells": (in_table(B, put("worst_e8_missing", "7")), "worst_e8_missing is 0, claimed 7"),
    "no place": (raw(B, lambda old: old.split(b"\n")[0] + b"\n"), "leaderboard.csv has 0 rows, and 1 are made here"),
    "a better clean figure": (in_table(C, better("rank1", 20)), "clean.csv, .*rank1 is"),
    "other weights in the table": (in_table(C, put("weights", "0" * 32)), "clean.csv, .*weights is .*, claimed 0000"),
    "another defence": (in_table(C, put("defence", "certified")), "clean.csv, .*defence is .*, claimed certified"),
    "gradients that are there": (in_table(C, put("zero_gradient", "0.5000")), "clean.csv, .*zero_gradient is"),
    "not randomised": (in_table(C, lambda r: put("randomised", "maybe")(r)), "clean.csv, .*randomised is"),
    "another victim": (in_table(C, put("victim", "other")), "clean.csv, .*victim is smooth@plaza, claimed other"),
    "another data set": (
        in_table(C, put("dataset", "market1501")),
        "clean.csv, .*dataset is plaza, claimed market1501",
    ),
    "a victim more": (in_table(C, lambda found: found.append(dict(found[0]))), "clean.csv has 2 rows, and 1 are"),
}

RECORDS: dict[str, tuple[Callable[[Good, Files], None], str]] = {
    "an attack without its steps": (
        in_record(lambda record: attack_of(record, "metric_pgd")["options"].update(steps=1)),
        "claims do not match this model, code and data",
    ),
    "an attack less": (in_record(lambda record: record["suite"]["attacks"].pop(1)), "2 of its .* claims do not match"),
    "another seed": (in_record(lambda record: record["suite"].update(seed=1)), "none of its .* claims matches"),
    "other data": (
        in_record(lambda record: record["suite"]["datasets"]["plaza"].update(test_identities=3)),
        "none of its .* claims matches",
    ),
    "a smaller epsilon": (
        in_record(lambda record: attack_of(record, "noise")["threats"][0].update(epsilon=2)),
        "claims do not match",
    ),
    "fewer targets": (
        in_record(lambda record: attack_of(record, "metric_pgd").update(relations=["white-box"])),
        "1 of its .* claims do not match",
    ),
    "the name of a shipped suite": (
        in_record(lambda record: record["suite"].update(name="quick")),
        "suite is called quick, but differs from the shipped suite of that name",
    ),
    "a protocol that there is not": (
        in_record(lambda record: record["suite"].update(protocol="best-9")),
        "no protocol is called 'best-9'",
    ),
    "another relation": (
        in_record(lambda record: record["cells"][0].update(relation="x")),
        "other cells than its suite",
    ),
    "a cell less": (in_record(lambda record: record["cells"].pop()), "other cells than its suite has here"),
    "at home elsewhere": (
        in_record(lambda record: record["clean"][0].update(home=False)),
        "other clean than its suite",
    ),
    "a step more": (in_record(lambda r: r["steps"].append(r["steps"][0])), "other steps than its suite has here"),
    "other inputs": (in_record(lambda r: r["steps"][-1].update(inputs={})), "other steps than its suite has here"),
    "a genuine data set": (
        in_record(lambda record: record["datasets"][0].update(title="Market-1501")),
        "other datasets than its suite has here",
    ),
    "not finished": (in_record(lambda record: record.update(finished=False)), "is of a run that is not finished"),
    "failed": (
        in_record(lambda record: record.update(failures={record["cells"][-1]["rank_key"]: "died"})),
        "says that .* failed",
    ),
    "a key twice": (raw("manifest.json", lambda old: b'{"bench": "1",' + old[1:]), "'bench' is given twice"),
    "NaN in the record": (raw("manifest.json", lambda old: b'{"x": NaN,' + old[1:]), "NaN is no number of JSON"),
    "deep nesting": (raw("manifest.json", lambda old: b"[" * 100_000 + b"]" * 100_000), "is not valid JSON"),
    "a number of 5000 digits": (raw("manifest.json", lambda old: b'{"seed": ' + b"9" * 5000 + b"}"), "not valid JSON"),
    "a record cut short": (raw("manifest.json", lambda old: old[:-100]), "manifest.json is not valid JSON"),
    "a card of another": (in_card(name="other"), "its card is of 'other', which is no victim of its suite"),
    "a card of its source": (in_card(name="toy@plaza"), "none of its .* claims matches"),
    "a card of aliases": (aliases, "aliases expand to more than 200,000 values"),
    "images left out": (without_images, "lacks the images of metric_pgd from"),
    "an added gallery that helps": (with_gallery, "gallery.npy, which no cell of its suite needs"),
    "images of no cell": (of_no_cell, "query.npy, which no cell of its suite needs"),
}

CODE: dict[str, tuple[Callable[[Good, Files], None], str]] = {
    "a victim in a file": (
        in_record(lambda record: record["suite"]["victims"][1].update(use="evil.py:Evil")),
        r"victim smooth is code in a file, evil\.py:Evil: .* --victim smooth=evil\.py:Evil",
    ),
    "an attack in a file": (
        in_record(lambda record: attack_of(record, "noise").update(use="/tmp/evil.py:Evil")),
        r"attack noise is code in a file, evil\.py:Evil: .* --attack noise=evil\.py:Evil",
    ),
    "another file of that label": (
        in_record(lambda record: attack_of(record, "learner").update(use="other.py:Learner")),
        r"attack learner is other\.py:Learner in the submission, not toy\.py:Learner",
    ),
    "a reader in a file": (
        in_record(lambda record: record["suite"]["datasets"].update(mine={"layout": "evil.py:Evil"})),
        "data set mine is read by 'evil.py:Evil', a file",
    ),
    "a folder of data": (
        in_record(lambda record: record["suite"]["datasets"]["plaza"].update(root="/etc")),
        "data set plaza: its option root is '/etc'",
    ),
    "a pickle": (
        in_record(
            lambda record: record["suite"]["victims"].append(
                record["suite"]["victims"][1]
                | {
                    "label": "x",
                    "use": "torchvision",
                    "defends": "",
                    "options": {"arch": "alexnet", "trust_pickle": True},
                }
            )
        ),
        "victim x: its option trust_pickle is True: give it with --victim x=FILE",
    ),
    "a file of weights": (
        in_record(lambda record: record["suite"]["victims"][1].update(use="torchvision", options={"file": "w.pth"})),
        "victim smooth: its option file is 'w.pth'",
    ),
    "a repository of the hub": (
        in_record(lambda record: record["suite"]["victims"][1].update(use="timm", options={"arch": "hf-hub:a/b"})),
        "option arch is 'hf-hub:a/b', which may be a file",
    ),
    "a download in nested settings": (
        in_record(
            lambda record: record["suite"]["victims"][1].update(
                use="timm", options={"arch": "resnet18", "settings": {"pretrained": True}}
            )
        ),
        "option pretrained is True",
    ),
    "what is not installed": (
        in_record(lambda record: attack_of(record, "noise").update(use="sound")),
        "attack noise: no attack is called 'sound' here",
    ),
    "a plan without end": (
        in_record(lambda record: attack_of(record, "noise").update(seeds=list(range(200_000)))),
        "cells, more than the 500,000 that verify takes",
    ),
    "images without end": (
        in_record(lambda record: record["suite"].update(image_size=[10**6, 10**6])),
        "images of",
    ),
    "people without end": (
        in_record(lambda record: record["suite"]["datasets"]["plaza"].update(test_identities=10**12)),
        "option test_identities is 1000000000000, outside",
    ),
}

BROUGHT: dict[str, tuple[Callable[[Good, Files], None], str]] = {
    "clean images": (
        images(lambda adversarial, clean: clean),
        r"are not those that it makes: .* 0% are the same or as strong .* 0\.00 times as far",
    ),
    "clean images of a learned attack": (learned, "learner .*: its images are the clean ones"),
    "noise": (images(noise), "images of 'craft metric_pgd 8/255 on .*' are not those that it makes"),
    "half of the change": (images(weaker), "are not those that it makes"),
    "only the last image is clean": (
        images(lambda adversarial, clean: np.concatenate([adversarial[:5], clean[5:]])),
        "are not those that it makes",
    ),
    "images of another epsilon": (of_another_epsilon, "images of 'craft noise 8/255.*' are not those that it makes"),
    "images of another source": (swapped, "are not those that it makes"),
    "more than epsilon": (
        images(lambda adversarial, clean: np.where(clean < 128, clean + 9, clean).astype(np.uint8)),
        "exceeded its L-inf budget",
    ),
    "fewer images": (images(lambda adversarial, clean: adversarial[:-1]), r"holds uint8 \(7, 64, 32, 3\), expected"),
    "images of another type": (images(lambda adversarial, clean: adversarial.astype(np.int16)), "more than the|int16"),
    "another cost": (costs, "the cost of 'craft metric_pgd.*forward_passes per image are .*, claimed 0.50"),
    "other weights": (other_weights, "the weights are .*, but the card has"),
    "weights that do not fit": (fewer_weights, "weights.safetensors does not make a toy@plaza"),
    "no weights": (lambda good, files: files.pop(weights_name(files)), "lacks store/victim/.*weights.safetensors"),
    "another digest on the card": (in_card(weights="0" * 32), "the weights are .*, but the card has 00000"),
}


def refused(good: Good, tmp_path: Path, forge: Callable[[Good, Files], None], says: str, deep: bool) -> None:
    files = dict(good.files)
    forge(good, files)
    assert files != good.files, "nothing was forged"
    why = refusal(good, written(files, tmp_path / "forged.zip"), deep)
    assert why, "it was accepted"
    assert "\n" not in why
    with pytest.raises(BenchError, match=says):
        raise BenchError(why)


def test_the_good_one_passes_and_says_what_was_not_verified(packed: Good, tmp_path: Path) -> None:
    assert refusal(packed, written(packed.files, tmp_path / "good.zip"), deep=False) == ""
    said = "\n".join(packed.said)
    for words in (
        "that suite tiny is a fair choice",
        "the attack was learned in the run",
        "the cost of crafting",
        "come from its training",
        "what card and manifest say in words",
    ):
        assert words in said, words


@pytest.mark.parametrize("name", [*TABLES, *RECORDS, *CODE])
def test_a_forged_table_record_or_suite_is_refused(packed: Good, tmp_path: Path, name: str) -> None:
    refused(packed, tmp_path, *{**TABLES, **RECORDS, **CODE}[name], deep=False)


@pytest.mark.parametrize("name", BROUGHT)
def test_forged_images_and_weights_are_refused(packed: Good, tmp_path: Path, name: str) -> None:
    refused(packed, tmp_path, *BROUGHT[name], deep=True)


def test_nothing_is_loaded_that_is_not_named(packed: Good, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of the name that a manifest gives lies in the folder where verify is started."""
    marker = tmp_path / "ran"
    (tmp_path / "evil.py").write_text(f"open({str(marker)!r}, 'w')\n")
    monkeypatch.chdir(tmp_path)
    for name in CODE:
        files = dict(packed.files)
        CODE[name][0](packed, files)
        assert refusal(packed, written(files, tmp_path / "forged.zip"), deep=True)
    assert not marker.exists()


def test_the_sample_is_not_known_before_the_file_is_finished(packed: Good, tmp_path: Path) -> None:
    found = set()
    for notes in ("one", "two"):
        files = dict(packed.files)
        in_card(notes=notes)(packed, files)
        with opened(written(files, tmp_path / f"{notes}.zip"), GIVEN, None) as submission:
            found.add(verified(submission, CPU, Silent()).seed)
    assert len(found) == 2

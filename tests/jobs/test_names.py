"""Names of suites and labels become folders and files: what cannot is found before anything is computed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from reid_attack_bench.errors import BenchError
from reid_attack_bench.execute.events import Outcome
from reid_attack_bench.jobs import manifest
from reid_attack_bench.jobs.job import Settings, evaluate_job, plan_of, run_job
from reid_attack_bench.jobs.run import evaluate
from reid_attack_bench.store import Store
from reid_attack_bench.suites import parse
from tests.conftest import TOY
from tests.plugins import toy

DOCUMENT = "datasets: {plaza: {}}\nattacks: {noise: {}}\n"
UNSAFE = ["../../escape", "/tmp/escape", "..", ".", " ", "x" * 240, "名" * 80, "a\\b", "CON", "-rf", "a.", "a\0b"]


def suite_file(folder: Path, name: str, file: str = "mine.yaml") -> Path:
    (folder / file).write_text(f"name: {json.dumps(name)}\n{DOCUMENT}", encoding="utf-8")
    return folder / file


@pytest.mark.parametrize("name", UNSAFE)
def test_a_suite_whose_name_is_no_folder_is_refused_in_one_line(tmp_path, name):
    with pytest.raises(BenchError, match="the name of the suite") as caught:
        run_job(suite_file(tmp_path, name), Settings())
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("name", ["quick", "übung", "my suite (v2) [x]", "a+b@c"])
def test_other_names_of_suites_are_their_folders(tmp_path, name):
    assert run_job(suite_file(tmp_path, name), Settings()).out == Path("runs") / name


def test_a_suite_without_a_name_has_that_of_its_file_which_is_checked_too(tmp_path):
    (tmp_path / "plain.yaml").write_text(DOCUMENT, encoding="utf-8")
    assert run_job(tmp_path / "plain.yaml", Settings()).out == Path("runs/plain")
    (tmp_path / "-rf.yaml").write_text(DOCUMENT, encoding="utf-8")
    with pytest.raises(BenchError, match="begins with a dot, ~ or -"):
        run_job(tmp_path / "-rf.yaml", Settings())


@pytest.mark.parametrize("section", ["victims", "attacks", "datasets"])
def test_a_label_in_a_suite_has_128_characters_at_most(tmp_path, section):
    long = "x" * 240
    parts = {"datasets": "plaza: {}", "attacks": "noise: {}", "victims": "torchreid: {}"}
    parts[section] = f"{long}: {{}}"
    text = "".join(f"{name}: {{{part}}}\n" for name, part in parts.items())
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(BenchError, match="a label of at most 128 letters") as caught:
        parse.load(str(tmp_path / "mine.yaml"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("label", [" ", "x" * 240, "a\nb", "\x1b[2J", "\u202eb", " a"])
def test_a_name_that_is_no_label_is_refused(tmp_path, label):
    suite = suite_file(tmp_path, "mine")
    with pytest.raises(BenchError, match="the label"):
        evaluate_job("torchreid", suite, Settings(), name=label, options={}, train_on=["plaza"])
    with pytest.raises(BenchError, match="the label"):
        evaluate(toy.ToyVictim(), suite=str(suite), name=label, progress=False)


@pytest.mark.parametrize("label", ["[/x]", "../../escape", "lab/model", "a|b", "=1+1", "$x$", "ε [8]", "100 %", "{x}"])
def test_odd_labels_stay_and_their_folder_stays_below_runs(tmp_path, label):
    job = evaluate_job(
        "torchreid", suite_file(tmp_path, "mine"), Settings(), name=label, options={}, train_on=["plaza"]
    )
    assert job.suite.victims[-1].label == label
    assert job.out.parent == Path("runs")
    assert job.out.name.startswith("mine+")


@pytest.mark.e2e
def test_a_record_of_names_that_are_no_text_is_read_back(tmp_path):
    job = evaluate_job(f"{TOY}:ToyVictim", suite_file(tmp_path, "mine"), Settings(), options={})
    odd = "caf\udce9 \x1b[2J"
    outcome = Outcome(failed={"key": odd}, rebuilt=[odd])
    store = Store(tmp_path / "store")
    record = manifest.describe(plan_of(job), store, outcome, torch.device("cpu"), f"run {odd}", finished=False)
    manifest.write(record, tmp_path / "run")
    found = manifest.read(tmp_path / "run")
    assert found is not None
    assert (found.command, found.failures) == (r"run caf\xe9 \x1b[2J", {"key": r"caf\xe9 \x1b[2J"})

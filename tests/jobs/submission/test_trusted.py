"""What the suite of a submission may name: nothing that is not given, and no other suite of a shipped name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.models import shufflenet_v2_x0_5

from reid_attack_bench.errors import BenchError
from reid_attack_bench.jobs.job import Settings, evaluate_job, run_job
from reid_attack_bench.jobs.submission.trusted import Given, allowed, check_name
from reid_attack_bench.plan.planner import make_plan
from reid_attack_bench.suites import parse
from reid_attack_bench.suites.suite import Suite, VictimEntry
from tests.conftest import TOY, tiny_document


def of_quick(**options: Any) -> Suite:
    """The suite of an evaluation of a model under the suite quick."""
    job = evaluate_job(f"{TOY}:ToyVictim", "quick", Settings.of(**options), name="mine", options={})
    return job.suite


def test_a_shipped_suite_is_the_shipped_one() -> None:
    for suite in (
        parse.load("quick"),
        of_quick(),
        of_quick(protocol="reid-standard-2-small"),
        run_job("standard", Settings(), full=False).suite,
        parse.load("market1501"),
        run_job("minute", Settings(), data=("station",)).suite,
    ):
        assert check_name(suite, "mine") == "", suite.name
    assert "suite own is a fair choice" in check_name(replace(parse.load("quick"), name="own"), "mine")


QUICK = of_quick()


@pytest.mark.parametrize(
    ("suite", "part"),
    [
        (replace(QUICK, attacks=QUICK.attacks[:-1]), "in its attacks"),
        (replace(QUICK, seed=7), "in its seed"),
        (replace(QUICK, image_size=(16, 16)), "in its image_size"),
        (replace(QUICK, victims=QUICK.victims[1:]), "in its victims"),
        (replace(QUICK, headline_epsilon=0), "in its headline_epsilon"),
        (replace(QUICK, relations=("cross-model",)), "in its relations"),
        (replace(QUICK, datasets={name: {"test_identities": 2} for name in QUICK.datasets}), "in its datasets"),
        (replace(QUICK, precision="bfloat16"), "in its precision"),
        (replace(QUICK, victims=(*QUICK.victims, VictimEntry("more", "gaussian", defends="mine"))), "in its victims"),
        (
            replace(QUICK, victims=(*QUICK.victims[:-1], replace(QUICK.victims[-1], roles=("target",)))),
            "in its victims",
        ),
    ],
)
def test_another_suite_under_a_shipped_name_is_refused(suite: Suite, part: str) -> None:
    with pytest.raises(BenchError, match=f"is called quick, but differs from the shipped suite of that name {part}"):
        check_name(suite, "mine")


def with_weights(file: Path | str, **options: Any) -> Suite:
    tiny = tiny_document() | {"attacks": {"noise": {"epsilon": 8}}}
    settings = {"arch": "shufflenet_v2_x0_5", "file": str(file), "input_size": [64, 32], **options}
    tiny["victims"] = {"net": {"use": "torchvision", "options": settings}}
    return parse.parse(tiny)


def test_weights_are_read_from_the_file_that_is_given_and_have_the_key_of_the_submission(tmp_path: Path) -> None:
    theirs, mine = tmp_path / "theirs.pth", tmp_path / "mine.pth"
    torch.save(shufflenet_v2_x0_5().state_dict(), theirs)
    submitted = with_weights(theirs)
    keys = {cell.rank_key for cell in make_plan(submitted).cells}
    theirs.rename(mine)
    with pytest.raises(BenchError, match=r"victim net: its option file is .*give it with --victim net=FILE"):
        allowed(submitted, Given(), "net")
    suite, live = allowed(submitted, Given({"net": str(mine)}), "net")
    assert {cell.rank_key for cell in make_plan(suite, live=live).cells} == keys


def test_a_file_that_can_run_code_needs_a_word_of_trust(tmp_path: Path) -> None:
    suite = with_weights(tmp_path / "x.pth", trust_pickle=True)
    with pytest.raises(BenchError, match=r"can run code when it is read \(trust_pickle\): give --trust too"):
        allowed(suite, Given({"net": "x.pth"}), "net")
    assert allowed(suite, Given({"net": "x.pth"}, trust=True), "net")[1].keys() == {"net"}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (Given({"nett": "x.pth"}), "--victim nett=…: the submission has no 'nett': did you mean 'net'"),
        (Given(attacks={"sound": "x.py:X"}), "--attack sound=…: the submission has no 'sound'"),
        (Given({"net": "x.pth"}, {"noise": "x.npz"}), r"--attack noise=x\.npz: write LABEL=FILE\.py:NAME"),
        (Given({"net": "x.pth"}, {"noise": "x.py:X"}), r"attack noise is noise in the submission, not x\.py:X"),
    ],
)
def test_what_is_given_for_nothing_is_refused(given: Given, says: str) -> None:
    with pytest.raises(BenchError, match=says):
        allowed(with_weights("w.pth"), given, "net")

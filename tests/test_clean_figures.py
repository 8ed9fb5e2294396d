"""Runs of victims with published values: reproduced, not reproduced, resumed, and stored before there were any."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from reid_attack_bench import registry
from reid_attack_bench.contracts import PublishedValues
from reid_attack_bench.execute.executor import execute
from reid_attack_bench.jobs.manifest import describe
from reid_attack_bench.plan.plan import Plan
from reid_attack_bench.plan.planner import make_plan
from reid_attack_bench.report.analysis.conclude import conclude
from reid_attack_bench.report.collect import collect
from reid_attack_bench.report.html.build import page
from reid_attack_bench.report.markdown import report_text
from reid_attack_bench.report.results import Results
from reid_attack_bench.report.terminal import leaderboard_table
from reid_attack_bench.store import Store
from reid_attack_bench.suites import parse
from tests.conftest import TOY
from tests.plugins.toy import ToyVictim
from tests.test_pipeline import Silent

pytestmark = pytest.mark.e2e

VICTIMS = """
import sys
sys.path.insert(0, {folder!r})
from reid_attack_bench.contracts import PublishedValues
from toy import ToyVictim

class Known(ToyVictim):
    published = {{"plaza": PublishedValues({rank1}, {mean})}}
"""


def document(tiny: dict, known: str) -> dict:
    victims = {"known": {"use": known}, "other": {"use": f"{TOY}:ToyVictim", "options": {"seed": 1}}}
    return {**tiny, "victims": victims, "attacks": {"pgd": {"options": {"steps": 1}}}}


def written(folder: Path, rank1: float, mean: float) -> str:
    path = folder / "known.py"
    path.write_text(VICTIMS.format(folder=str(TOY.parent), rank1=rank1, mean=mean))
    return f"{path}:Known"


def executed(plan: Plan, store: Store) -> tuple[Results, list[str]]:
    """The results of a run without the checks of its victims, which take long, and the labels of what was run."""
    listener = Silent()
    wanted = [key for key in plan.goals if plan.steps[key].kind != "check"]
    outcome = execute(replace(plan, wanted=tuple(wanted)), store, torch.device("cpu"), listener)
    return collect(describe(plan, store, outcome, torch.device("cpu"), ""), store), listener.done


@pytest.fixture
def measured(tiny, tmp_path: Path) -> tuple[float, float]:
    """Clean Rank-1 and mAP of the toy on plaza."""
    store, plan = Store(tmp_path / "store"), make_plan(parse.parse(document(tiny, f"{TOY}:ToyVictim")))
    (key,) = [row.rank_key for row in plan.clean if (row.victim, row.dataset) == ("known", "plaza")]
    execute(replace(plan, wanted=(key,)), store, torch.device("cpu"))
    facts = store.manifest("clean-rank", key)["facts"]
    return round(facts["rank1"], 1), round(facts["mAP"], 1)


def test_a_reproduced_figure_changes_nothing(tiny, tmp_path: Path, measured) -> None:
    plan = make_plan(parse.parse(document(tiny, written(tmp_path, *measured))))
    results, done = executed(plan, Store(tmp_path / "store"))
    assert {row.status for row in [*results.clean, *results.cells]} == {"ok"}
    assert "reproduce clean figure of known on plaza" in done
    assert not [note for note in results.notes if "igure" in note]


def test_a_figure_that_is_not_reproduced_stops_all_attacks_on_its_victim_and_from_it(
    tiny, tmp_path: Path, measured
) -> None:
    rank1, mean = measured
    plan = make_plan(parse.parse(document(tiny, written(tmp_path, rank1, mean + 7))))
    results, done = executed(plan, Store(tmp_path / "store"))
    assert not [label for label in done if label.startswith("craft") and "known" in label]
    says = f"clean figure not reproduced: published Rank-1 {rank1}, mAP {mean + 7:.1f}; here {rank1}, {mean}. "
    assert f"Failed: reproduce clean figure of known on plaza: {says}" in " ".join(results.notes)
    concerned = [cell for cell in results.cells if "known" in (cell.source, cell.target)]
    assert len(concerned) == 6
    assert all(cell.status.startswith(says) and "mAP" not in cell.values for cell in concerned), "anywhere"
    assert all(cell.ok for cell in results.cells if cell not in concerned)
    clean = {row.dataset: row for row in results.clean if row.victim == "known"}
    assert all(row.status.startswith(says) for row in clean.values())
    assert clean["plaza"].value("mAP") == pytest.approx(mean, abs=0.06), "its values stay"

    concluded = conclude(results)
    board = concluded.board.set_index(["victim", "dataset"])
    assert board.index.get_level_values(0).tolist() == ["other", "other", "known", "known"], "below the line"
    assert board.loc[("known", "plaza")].audit == "unverified: clean figure not reproduced"
    assert board.loc[("known", "plaza")].clean_mAP == pytest.approx(mean, abs=0.06)
    report = report_text(results, {}, concluded)
    assert report.index("**unverified**") < report.index("| known | ")
    assert f"| known | plaza | red | clean figure not reproduced | published Rank-1 {rank1}" in report
    assert says.strip() in page(results, concluded, [])
    assert "(!): unverified" in " ".join(str(leaderboard_table(results, concluded.board).caption).split())


def test_cells_stored_before_there_was_a_figure_no_longer_count(tiny, tmp_path: Path) -> None:
    """And a run that goes on after the gate fell, or after it was put right, is as one from the start."""
    store, victim = Store(tmp_path / "store"), ToyVictim()
    live = {"known": registry.Plugin("victim", "known", victim, "v1", "memory")}
    tiny = {**tiny, "victims": {"known": {"use": "known"}}, "attacks": {"pgd": {"options": {"steps": 1}}}}

    def values() -> list[tuple[str, bool]]:
        results, _ = executed(make_plan(parse.parse(tiny), live=live), store)
        return [(cell.status.partition(":")[0], "mAP" in cell.values) for cell in results.cells]

    assert values() == [("ok", True)] * 2
    victim.published = {"plaza": PublishedValues(1.0, 2.0)}
    for _ in range(2):
        assert values() == [("clean figure not reproduced", False)] * 2
    victim.published = {}
    assert values() == [("ok", True)] * 2

"""Rules of the audit, one by one, on outcomes made up for them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from reid_attack_bench.checks.result import CheckResult, not_checked
from reid_attack_bench.report.analysis.audit import SEVERITIES, Flag, audit, doubtful, notes, unverified
from reid_attack_bench.report.record import RunRecord
from reid_attack_bench.report.results import CellRow, PerQuery, Results, Setting
from tests.report.test_report import cell_row, clean_row, demo_suite

VICTIM = "net@plaza"
QUERIES = 64
APGD: dict[str, Any] = {"family": "embedding", "steps": 20}
NOISE: dict[str, Any] = {"family": "noise", "steps": 0, "needs": ()}
SQUARE: dict[str, Any] = {"family": "", "steps": 0, "needs": ("embedding",), "access": "query", "query_budget": 100}


def outcome(left: float, seed: int = 0, spread: float = 2.0) -> PerQuery:
    """AP of queries, two of each person, with a mean of `left` %."""
    rng = np.random.default_rng(seed)
    person = rng.normal(0, spread, QUERIES // 2).repeat(2)
    ap = np.clip(left + (person - person.mean()), 0, 100) / 100
    return PerQuery((ap > 0.2).astype(float), ap, np.ones(QUERIES, bool), np.arange(QUERIES) // 2)


class Bench:
    """Results of one victim, attack by attack."""

    def __init__(self, clean: float = 80.0, **row: Any) -> None:
        self.per_query = {"clean": outcome(clean)}
        self.clean = clean_row(VICTIM, "plaza", {"mAP": clean}, home=True, rank_key="clean", **row)
        self.cells: list[CellRow] = []

    def attack(self, name: str, epsilon: int, left: float, **about: Any) -> Bench:
        """An attack that leaves an mAP of `left`; by the gradients of the victim itself unless told otherwise."""
        key = f"cell-{len(self.cells)}"
        self.per_query[key] = about.pop("outcome", None) or outcome(left, seed=len(self.cells) + 1)
        about = {"access": "white-box", "needs": ("gradients",), "seed": 0, "source": VICTIM, **about}
        query_budget, linf = about.pop("query_budget", 0), about.pop("linf", float(epsilon))
        cell = cell_row(
            Setting(name, epsilon, about.pop("pixels", 0), queries=query_budget), about.pop("source"), VICTIM, "plaza",
            **{"family": "", "steps": 0, **about}, rank_key=key, values={"mAP": left, "linf": linf},
        )  # fmt: skip
        self.cells.append(cell)
        return self

    @property
    def results(self) -> Results:
        return Results(RunRecord(demo_suite(("net",), ("plaza",))), self.cells, [self.clean], self.per_query)

    @property
    def flags(self) -> dict[str, str]:
        """Name → evidence, without notes."""
        return {flag.name: flag.evidence for flag in audit(self.results) if flag.severity != "note"}


def test_a_victim_whose_clean_figure_was_not_reproduced_is_unverified() -> None:
    status = "clean figure not reproduced: published Rank-1 90.0, mAP 80.0; here 54.1, 30.2. net on plaza: check …"
    (flag,) = audit(Bench(status=status).results)
    assert (flag.name, flag.severity) == ("clean figure not reproduced", "red")
    assert flag.evidence.startswith("published Rank-1 90.0")
    assert not audit(Bench(status="no disk").results)


def honest(**row: Any) -> Bench:
    """What an undefended victim shows under the small protocol."""
    bench = Bench(**row)
    bench.attack("noise", 8, 79.0, **NOISE).attack("blocks", 8, 70.0, **NOISE).attack("noise", 64, 40.0, **NOISE)
    bench.attack("fgsm", 8, 60.0, family="embedding", steps=1).attack("apgd", 8, 6.0, **APGD)
    return bench.attack("large", 64, 2.0, **APGD).attack("square", 8, 65.0, **SQUARE)


def robust(eight: float = 50.0, **row: Any) -> Bench:
    """What an adversarially trained victim shows."""
    bench = Bench(**row)
    bench.attack("noise", 8, 79.5, **NOISE).attack("blocks", 8, 75.0, **NOISE).attack("noise", 64, 60.0, **NOISE)
    bench.attack("apgd", 8, eight, **APGD).attack("large", 64, 3.0, **APGD)
    return bench.attack("square", 8, 74.0, **SQUARE)


def test_honest_victims_have_no_flag() -> None:
    assert honest().flags == {}
    assert robust().flags == {}
    assert honest(detector="suspicion", defence="d").attack("adaptive", 8, 5.0, adaptive=1, **APGD).flags == {}


def test_gradients_that_lead_no_further_than_a_control_have_no_excuse() -> None:
    """The former escape: that noise breaks the victim at a large epsilon, and gradients do so beside it."""
    fake = Bench().attack("blocks", 8, 70.0, **NOISE).attack("noise", 64, 5.0, **NOISE)
    fake.attack("apgd", 8, 78.0, **APGD).attack("large", 64, 4.0, **APGD)
    assert set(fake.flags) == {"gradients no better than noise"}
    assert (
        "blocks at ε = 8 against apgd at ε = 8: mAP 70.0 against 78.0" in fake.flags["gradients no better than noise"]
    )


def test_a_control_that_is_stronger_than_gradients_stands_against_any_larger_budget() -> None:
    fake = Bench().attack("blocks", 8, 70.0, **NOISE).attack("noise", 64, 60.0, **NOISE)
    fake.attack("apgd", 8, 75.0, **APGD).attack("large", 64, 3.0, **APGD)
    assert "gradients no better than noise" in fake.flags


def test_a_victim_robust_to_both_is_judged_at_larger_budgets() -> None:
    def at_four(*larger: tuple[int, float, float]) -> dict[str, str]:
        bench = Bench().attack("blocks", 4, 78.0, **NOISE).attack("apgd", 4, 77.8, **APGD)
        for epsilon, by_noise, by_gradients in larger:
            bench.attack("blocks", epsilon, by_noise, **NOISE).attack("apgd", epsilon, by_gradients, **APGD)
        return bench.flags

    assert at_four((64, 50.0, 3.0)) == {}
    assert "gradients no better than noise" in at_four((64, 7.0, 3.0))  # both leave nothing, which says nothing
    assert "gradients no better than noise" in at_four((16, 60.0, 60.0), (64, 50.0, 3.0))
    assert at_four((16, 60.0, 40.0), (64, 7.0, 3.0)) == {}


def test_an_attack_by_gradients_has_an_effect() -> None:
    """Where nothing changes anything at 8/255 the victim recognises its images again."""
    fake = Bench().attack("blocks", 8, 80.0, outcome=outcome(80.0), **NOISE)
    fake.attack("noise", 64, 40.0, **NOISE).attack("apgd", 8, 80.0, outcome=outcome(80.0), **APGD)
    fake.attack("large", 64, 3.0, **APGD)
    assert set(fake.flags) == {"attack without effect"}
    assert "attack without effect" not in robust(eight=70.0).flags
    unsure = outcome(15.5, seed=3, spread=12.0)  # a small loss with an interval that contains a large one
    weak = Bench(18.0).attack("blocks", 8, 17.0, **NOISE).attack("apgd", 8, 15.5, outcome=unsure, **APGD)
    assert "attack without effect" not in weak.attack("noise", 64, 18.0, **NOISE).attack("large", 64, 3.0, **APGD).flags


def test_queries_that_beat_gradients_at_the_same_or_a_larger_epsilon() -> None:
    name = "queries stronger than gradients"
    for epsilon in (8, 4):
        assert name in robust().attack("nes", epsilon, 40.0, **SQUARE).flags
    assert name not in robust().attack("nes", 16, 40.0, **SQUARE).flags
    assert name not in robust().attack("nes", 8, 49.5, **SQUARE).flags
    assert name not in honest().attack("nes", 8, 1.0, **SQUARE).flags  # gradients break it as well


def test_faults_of_the_victim_are_red_and_a_missing_check_is_never_silent() -> None:
    wrong = CheckResult("gradient", "fault", "it is wrong"), CheckResult("logits", "note", "none")
    found = honest(checks=wrong).results
    assert unverified(audit(found)) == {(VICTIM, "plaza"): ["fails check: gradient"]}
    missing = audit(honest(checks=(not_checked("it failed"),)).results)
    assert unverified(missing) == {}
    assert doubtful(missing) == {(VICTIM, "plaza"): ["not checked"]}
    assert "it failed" in missing[0].evidence


def test_an_attack_that_changes_nothing_is_red_on_its_source() -> None:
    name = "attack changes nothing"
    assert name in honest().attack("pgd", 8, 80.0, linf=0.0, **APGD).flags
    assert "pgd at ε = 8" in honest().attack("pgd", 8, 80.0, linf=0.0, **APGD).flags[name]
    assert name not in honest().attack("pgd", 0, 80.0, linf=0.0, **APGD).flags
    other = {**APGD, "source": "other@plaza", "access": "transfer"}
    assert name in honest().attack("pgd", 8, 80.0, linf=0.0, **other).flags  # a source without a row of its own
    bench = honest().attack("pgd", 8, 80.0, linf=0.0, **other)
    rows = [bench.clean, dataclasses.replace(bench.clean, victim="other@plaza", home=False)]
    flags = audit(dataclasses.replace(bench.results, clean=rows))
    assert name not in {flag.name for flag in flags if flag.victim == VICTIM}


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"values": {"zero_gradient": 0.9}}, "zero gradients"),
        ({"randomised": True}, "randomised without EOT"),
        ({"detector": "suspicion"}, "detector not attacked"),
    ],
)
def test_only_an_adaptive_attack_that_succeeds_waives_a_flag(row: dict[str, Any], name: str) -> None:
    def flags(*left: float) -> dict[str, str]:
        bench = robust()
        values = {**bench.clean.values, **row.get("values", {})}
        bench.clean = dataclasses.replace(bench.clean, **{**row, "values": values})
        for each in left:
            bench.attack("adaptive", 8, each, adaptive=8, **APGD)
        return bench.flags

    assert "no adaptive attack was run" in flags()[name]
    assert "no adaptive attack succeeded: adaptive at ε = 8 leaves mAP 76.0" in flags(76.0)[name]
    assert name not in flags(60.0)


def test_a_detector_without_a_score_stays_unattacked() -> None:
    bench = robust(detector="rejects").attack("adaptive", 8, 20.0, adaptive=1, **APGD)
    assert "without a suspicion score" in bench.flags["detector not attacked"]


def test_a_detector_of_result_lists_is_attacked_by_what_sees_the_gallery() -> None:
    blind = robust(detector="list").attack("adaptive", 8, 20.0, adaptive=1, **APGD)
    assert "no adaptive attack on queries saw the gallery" in blind.flags["detector not attacked"]
    seeing = {**APGD, "needs": ("gallery", "gradients")}
    assert blind.attack("seeing", 8, 20.0, adaptive=1, **seeing).flags == {}
    assert robust(detector="list").flags.keys() == {"detector not attacked"}


def test_refused_queries_count_as_their_clean_versions() -> None:
    """A control that is refused has found nothing, though a refusal is a miss."""
    refused = dataclasses.replace(outcome(0.0), hit_as_clean=outcome(80.0).hit, ap_as_clean=outcome(80.0).ap)
    bench = robust(detector="suspicion").attack("adaptive", 8, 50.0, adaptive=1, **APGD)
    assert bench.attack("tint", 8, 0.0, outcome=refused, **NOISE).flags == {}


def test_restarts() -> None:
    def seeds(*left: float, spread: float = 2.0) -> dict[str, str]:
        bench = robust()
        for seed, each in enumerate(left):
            bench.attack("seeded", 8, each, seed=seed, outcome=outcome(each, seed=seed, spread=spread), **APGD)
        return bench.flags

    assert seeds(50.0, 51.0) == {}
    assert set(seeds(50.0, 51.0, spread=12.0)) == {"more restarts"}
    assert "lowest per query" in seeds(50.0, 51.0, spread=12.0)["more restarts"]
    assert "restarts change the result" in seeds(50.0, 60.0)


def test_amber_does_not_rank_below_the_line() -> None:
    from reid_attack_bench.report import rows
    from reid_attack_bench.report.analysis.conclude import conclude

    bench = robust()
    for seed in (1, 2):
        bench.attack("seeded", 8, 50.0, seed=seed, outcome=outcome(50.0, seed=seed, spread=12.0), **APGD)
    (row,) = rows.rows(conclude(bench.results).board)
    assert row["audit"] == "amber: more restarts"
    assert not rows.is_unverified(row)
    bench.attack("nes", 8, 30.0, **SQUARE)
    (row,) = rows.rows(conclude(bench.results).board)
    assert rows.audit_flags(row) == (["queries stronger than gradients"], ["more restarts"])
    assert rows.is_unverified(row)


def test_steps_and_epsilon_are_compared_across_labels_of_one_family() -> None:
    assert "iterations weaker than one step" in robust().attack("one", 8, 40.0, family="embedding", steps=1).flags
    assert "more steps do not help" in robust().attack("few", 8, 40.0, family="embedding", steps=5).flags
    # a weak attack with more steps says nothing beside a strong one
    bench = robust().attack("few", 8, 52.0, family="embedding", steps=5)
    assert bench.attack("weak", 8, 70.0, family="embedding", steps=10).flags == {}
    assert "more steps do not help" not in robust().attack("few", 8, 40.0, family="logits", steps=5).flags
    fake = Bench().attack("apgd", 8, 50.0, **APGD).attack("large", 64, 49.8, **APGD)
    assert "from apgd at ε = 8 to large at ε = 64" in fake.flags["larger epsilon does not hurt"]
    assert "unbounded attack fails" in fake.flags
    same = robust().attack("apgd", 16, 49.9, **APGD)
    assert "larger epsilon does not hurt" in same.flags
    other = robust().attack("weaker", 16, 49.9, **APGD)
    assert "larger epsilon does not hurt" not in other.flags


def test_transfer_that_is_stronger_than_white_box() -> None:
    other = {**APGD, "source": "other@plaza", "access": "transfer"}
    assert "transfer stronger than white-box" in robust().attack("apgd", 8, 40.0, **other).flags
    assert robust().attack("apgd", 8, 60.0, **other).flags == {}


def test_an_interval_by_identity_decides() -> None:
    """Queries of one person are alike: by query the difference would be beyond doubt."""
    name = "queries stronger than gradients"
    bench, few = robust(), outcome(50.0)
    ap = few.ap.copy()
    ap[:16] -= 0.12  # all that is lower is of one person
    one = dataclasses.replace(few, ap=ap, ap_as_clean=ap, identities=np.maximum(np.arange(QUERIES) // 2, 8))
    for cell in bench.cells:
        same = dataclasses.replace(bench.per_query[cell.rank_key], identities=one.identities)
        bench.per_query[cell.rank_key] = dataclasses.replace(same, ap_as_clean=same.ap)
    bench.per_query["cell-3"] = dataclasses.replace(few, identities=one.identities)
    assert name not in bench.attack("nes", 8, 48.0, outcome=one, **SQUARE).flags


def test_every_flag_has_a_severity() -> None:
    assert {Flag("", "", name, "").severity for name in SEVERITIES} == {"red", "amber", "note"}
    assert notes([Flag("a", "", "not audited", "why"), Flag("b", "", "not audited", "why")]) == ["why: a, b"]


def test_a_victim_that_fell_to_an_attack_on_itself_was_attacked() -> None:
    def only(**about: Any) -> Bench:
        return Bench().attack("apgd", 8, 60.0, source="other@plaza", **{**APGD, "access": "transfer"}).attack(**about)

    fell = {**SQUARE, "name": "square", "epsilon": 8}
    assert only(**fell, left=0.0).flags == {}
    assert "never attacked white-box" in only(**fell, left=70.0).flags
    joined = {**APGD, "name": "joined", "epsilon": 8, "source": "net@plaza+other@plaza"}
    assert "never attacked white-box" not in only(**joined, left=0.5).flags

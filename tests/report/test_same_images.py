"""Defences and their baselines on the same adversarial images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from reid_attack_bench.report.analysis.same_images import COLUMNS, in_words, on_targets_alone, same_images
from reid_attack_bench.report.record import RunRecord
from reid_attack_bench.report.results import PerQuery, Results, Setting
from reid_attack_bench.report.rows import rows
from reid_attack_bench.suites.suite import Suite, VictimEntry
from tests.report.test_report import cell_row, clean_row

IDENTITIES = np.repeat(np.arange(6), 2)
VALID = np.arange(12) != 3


def outcome(seed: int, level: float) -> PerQuery:
    rng = np.random.default_rng(seed)
    ap = np.clip(level + rng.normal(0, 0.1, 12), 0, 1)
    return PerQuery((ap > 0.5).astype(float), ap, VALID, IDENTITIES)


def made(roles: tuple[str, ...] = ("target",), craft: str = "images") -> Results:
    """net and its twin "net+trick", whose drop under metric_pgd is larger; images crafted on net and on other."""
    victims = (
        VictimEntry("net", "torchreid", train_on=("plaza",)),
        VictimEntry("net+trick", "k-reciprocal", roles=roles, defends="net"),
    )
    suite = Suite("made", "", 0, (64, 32), 32, 8, {"plaza": {}}, victims, ())
    clean = [clean_row("net@plaza", "plaza", {}, rank_key="c0"),
             clean_row("net+trick@plaza", "plaza", {}, rank_key="c1")]  # fmt: skip
    cells, found = [], {"c0": outcome(0, 0.7), "c1": outcome(1, 0.9)}
    for source, relation in (("net@plaza", "white-box"), ("other@plaza", "cross-model")):
        for target, level in (("net@plaza", 0.5), ("net+trick@plaza", 0.4)):
            key = f"{source} {target}"
            found[key] = outcome(len(found), level)
            own = relation if target == "net@plaza" else "cross-model"
            images = "images" if target == "net@plaza" else craft
            cells.append(cell_row(Setting("metric_pgd", 8), source, target, "plaza", relation=own, rank_key=key,
                                  craft_key=images))  # fmt: skip
    return Results(RunRecord(suite, command=""), cells, clean, per_query=found)


def test_the_drops_of_both_are_compared_query_by_query() -> None:
    results = made()
    table = same_images(results)
    assert list(table.columns) == list(COLUMNS)
    assert list(table.relation) == ["white-box", "cross-model"], "that of the source and the baseline"
    (row,) = on_targets_alone(results, table)
    assert (row["defence"], row["attack"], row["epsilon"], row["cells"]) == ("k-reciprocal", "metric_pgd", 8, 1)
    found = results.per_query
    ap = {name: 100 * found[key].ap[VALID] for name, key in
          {"own": "c1", "own_after": "net@plaza net+trick@plaza", "twin": "c0", "twin_after": "net@plaza net@plaza"}
          .items()}  # fmt: skip
    for column, name in (("clean_mAP", "own"), ("mAP", "own_after"), ("twin_clean_mAP", "twin")):
        assert row[column] == pytest.approx(ap[name].mean())
    more = (ap["own"] - ap["own_after"]) - (ap["twin"] - ap["twin_after"])
    assert row["more_drop_mAP"] == pytest.approx(more.mean())
    assert row["more_drop_mAP"] > 20, "amplified"
    centred = [sum(more[IDENTITIES[VALID] == each] - more.mean()) for each in range(6)]
    error = np.sqrt(6 / 5 * np.square(centred).sum()) / len(more)
    half = stats.t.ppf(0.975, 5) * error
    assert (row["more_drop_mAP_low"], row["more_drop_mAP_high"]) == pytest.approx(
        (more.mean() - half, more.mean() + half)
    )
    assert row["identities"] == 6
    assert in_words(row)[:3] == ["k-reciprocal", "metric_pgd", "8"]


def test_only_the_same_images_are_compared() -> None:
    assert same_images(made(craft="others")).empty
    results = made()
    failed = [replace(cell, status="failed: NaN") if "trick" in cell.target else cell for cell in results.cells]
    assert same_images(replace(results, cells=failed)).empty


def test_a_defence_that_is_attacked_itself_has_a_table_of_its_own() -> None:
    results = made(("white-box", "target"))
    assert len(rows(same_images(results))) == 2
    assert on_targets_alone(results, same_images(results)) == []

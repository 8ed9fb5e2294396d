"""From stored facts to the columns of a cell."""

from __future__ import annotations

import pytest

from reid_attack_bench.metrics import catalogue
from reid_attack_bench.report.collect import _cell_values

OLD = {"rank1": 80.0, "rank5": 90.0, "rank10": 95.0, "rank20": 97.0, "mAP": 60.0, "mINP": 20.0}
"""Facts of a ranking of an earlier version."""


def test_facts_of_an_earlier_version_lack_measures_and_nothing_else() -> None:
    after = {**OLD, "rank1": 20.0, "mAP": 15.0, "rank1_low": 15.0, "rank1_high": 25.0}
    found = _cell_values(OLD, after, None, {})
    assert found["clean_mAP"] == 60.0
    assert found["drop_mAP"] == 45.0
    assert (found["relative_drop_rank1"], found["relative_drop_mAP"]) == (75.0, 75.0)
    assert not [name for name in found if "tpr" in name or "trapezoid" in name or "success" in name]
    assert set(found) <= set(catalogue.cell_columns())


def test_facts_of_now_have_all() -> None:
    more = {"mAP_trapezoid": 58.0, "tpr_fpr1e3": 40.0, "tpr_fpr1e2": None}
    found = _cell_values({**OLD, **more}, {**OLD, **more, "mAP_trapezoid": 50.0, "success1": 12.5}, None, {})
    assert (found["clean_mAP_trapezoid"], found["drop_mAP_trapezoid"]) == (58.0, pytest.approx(8.0))
    assert (found["clean_tpr_fpr1e3"], found["drop_tpr_fpr1e3"], found["success1"]) == (40.0, 0.0, 12.5)
    assert "tpr_fpr1e2" not in found, "too few impostor pairs: empty"

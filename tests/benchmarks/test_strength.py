"""The comparison of attacks: its interval, its victims, and what torchattacks climbs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks import strength
from reid_attack_bench.contracts import Batch
from reid_attack_bench.plan.planner import make_plan
from reid_attack_bench.suites import parse
from tests.plugins.toy import ToyVictim


def test_the_interval_resamples_identities() -> None:
    people = np.repeat(np.arange(20), 2)
    these, those = np.repeat(np.arange(20.0), 2), np.full(40, 5.0)
    these[0] = np.nan
    line = strength._difference("a", these, "b", those, people, "≤ 0 within the interval")
    assert line.value == pytest.approx(np.nanmean(these) - 5)
    # of 20 identities, not of 39 queries: 1.96 standard errors of a uniform distribution over 0 … 19
    assert line.high - line.low == pytest.approx(2 * 1.96 * 5.77 / np.sqrt(20), rel=0.15)
    assert line.met is False


def test_all_contestants_have_the_same_passes() -> None:
    for name, attack in strength.contestants(("self", "ranking")).items():
        assert attack.craft_work == 3.0 * strength.PASSES, name


def test_their_loss_rises_with_ours() -> None:
    source = ToyVictim().eval().requires_grad_(False)
    images = torch.rand(4, 3, 32, 16, generator=torch.Generator().manual_seed(0))
    objective = strength.objective_for("self", strength.View(source, Batch(images)))
    other = (images + 0.05).clamp(0, 1).requires_grad_(True)
    theirs = torch.nn.functional.cross_entropy(
        strength._TwoClasses(objective)(other), torch.zeros(4, dtype=torch.int64), reduction="none"
    )
    ours = objective(other)
    torch.testing.assert_close(theirs, torch.nn.functional.softplus(ours))
    signs = [torch.autograd.grad(values.sum(), other)[0].sign() for values in (theirs, ours)]
    assert (signs[0] == signs[1]).float().mean() > 0.999


def test_its_victims_are_those_of_the_shipped_suites() -> None:
    shipped = {
        step.about: step.key for step in make_plan(parse.load("queries")).steps.values() if step.kind == "victim"
    }
    own = {
        step.about: step.key for step in make_plan(parse.parse(strength.SUITE)).steps.values() if step.kind == "victim"
    }
    assert own["mobilenetv2@plaza"] == shipped["mobilenetv2_x1_0@plaza"]
    assert {"metric-at@plaza", "jpeg@plaza", "random-resize-pad@plaza"} <= own.keys()

"""Victims with a comparison of their own: ranked by it, attacked through it, and checked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from reid_attack_bench.attacks.apgd import APGD
from reid_attack_bench.attacks.gap import GAP
from reid_attack_bench.attacks.metric import MetricPGD
from reid_attack_bench.attacks.misranking import MisRanking
from reid_attack_bench.attacks.noise import Noise
from reid_attack_bench.attacks.square import Square, SquareDistances
from reid_attack_bench.checks.check import check
from reid_attack_bench.contracts import Attack, ThreatModel, Victim, packed
from reid_attack_bench.contracts.features import Packed
from reid_attack_bench.errors import BenchError, VictimError
from reid_attack_bench.execute.executor import execute
from reid_attack_bench.jobs.manifest import describe
from reid_attack_bench.metrics.ranking import rank, top_matches
from reid_attack_bench.plan.planner import make_plan
from reid_attack_bench.report.collect import collect
from reid_attack_bench.report.write import write_report
from reid_attack_bench.steps.artefacts import read_draws, read_nearest, read_ranking, read_targets
from reid_attack_bench.steps.craft import craft_step
from reid_attack_bench.steps.data import data_step
from reid_attack_bench.steps.embed import clean_step, features_step
from reid_attack_bench.steps.examine import examine
from reid_attack_bench.steps.fit import fit_step
from reid_attack_bench.steps.rank import clean_rank_step, rank_step
from reid_attack_bench.steps.step import Configured, Step
from reid_attack_bench.steps.victim import defended_step, ready_step
from reid_attack_bench.store import Store
from reid_attack_bench.suites import parse
from reid_attack_bench.victims.defences.feature_noise import FeatureNoise
from reid_attack_bench.victims.defences.input_defences import GaussianSmoothing
from reid_attack_bench.victims.reranking import KReciprocal
from tests.contracts.test_features import aligned, bpbreid
from tests.plugins import parts
from tests.plugins.parts import Careless, Everyone, Hashed, Parts, Stripes
from tests.steps.conftest import Lab, alike, attacked
from tests.victims.test_every_victim import people

CPU = torch.device("cpu")

PARTS = Path(parts.__file__)


def step_of(victim: Victim) -> Step:
    return ready_step(type(victim).__name__, Configured("mine.py:It", "v1", {}, victim))


def crowd() -> Step:
    return data_step(alike(people=6, queries=3))


def under(victim: Step, attack: Attack, data: Step, **threat: object) -> tuple[Step, Step]:
    """The clean ranking of `victim`, and that under `attack`, crafted on itself."""
    clean = clean_step(victim, data, {}, ())
    run = attacked(attack, ThreatModel(**{"epsilon": 8, **threat}))
    craft = craft_step(run, [victim], data, None, {}, 6, ())
    features = features_step(craft, victim, data, {}, ())
    return clean_rank_step(clean, victim, data, 0.0), rank_step(features, clean, victim, data)


def labels(lab: Lab, data: Step) -> list[np.ndarray]:
    split = lab.workspace.splits(data.key)
    return [getattr(split[part], name) for name in ("identities", "cameras") for part in ("query", "gallery")]


def literal(victim: Victim, query: torch.Tensor, gallery: torch.Tensor) -> np.ndarray:
    outer = packed(victim)
    assert isinstance(outer, Packed)
    trees = outer.layout.unpacked(query), outer.layout.unpacked(gallery)
    return aligned(*(tree.numpy() for tree in trees)) if isinstance(victim, Stripes) else bpbreid(*trees)


@pytest.mark.parametrize("victim", [Parts(), Stripes()])
def test_rankings_are_by_its_comparison_and_metric_pgd_climbs_it(lab, victim: Victim) -> None:
    data, own = crowd(), step_of(victim)
    clean, attack = under(own, MetricPGD(steps=8), data, epsilon=16)
    folders = lab.run(clean), lab.run(attack)
    (before,), (after,) = (read_draws(lab.folder / step.inputs["features"]) for step in (clean, attack))
    for draw, folder in ((before, folders[0]), (after, folders[1])):
        matrix = literal(victim, draw["query"], before["gallery"]).astype(np.float32)
        expected, found = rank(matrix, *labels(lab, data)), read_ranking(folder)
        np.testing.assert_allclose(found.ap, expected.ap, atol=0.02)
        np.testing.assert_allclose(found.ap.mean(), expected.ap.mean(), atol=0.002)
        nearest = top_matches(matrix, *labels(lab, data))
        assert (read_nearest(folder) == nearest).mean() > 0.95
    noise = under(own, Noise(), data, epsilon=16)[1]
    lab.run(noise)
    facts = [lab.facts[step.key] for step in (clean, noise, attack)]
    assert facts[0]["mAP"] > 60
    assert facts[2]["mAP"] < facts[1]["mAP"] - 20
    assert facts[2]["rank1"] < facts[1]["rank1"] - 10


@pytest.mark.parametrize(("attack", "threat"), [
    (APGD(steps=6), {}),
    (APGD(objectives=("same_identity", "misranking"), restarts=2, steps=3), {}),
    (MetricPGD(steps=4, references="same_identity"), {}),
    (MetricPGD(steps=4), {"impersonate": "hardest"}),
    (Square(), {"sees": "embedding", "queries": 6}),
    (SquareDistances(), {"sees": "distances", "queries": 6}),
], ids=str)  # fmt: skip
def test_attacks_that_read_distances_follow_it(lab, attack: Attack, threat: dict) -> None:
    _, ranked = under(step_of(Parts()), attack, crowd(), **threat)
    lab.run(ranked)
    assert lab.facts[ranked.key]["queries"] == 18


def test_the_hardest_target_is_nearest_by_its_comparison(lab) -> None:
    data, victim = crowd(), Parts()
    clean, ranked = under(step_of(victim), MetricPGD(steps=1), data, impersonate="hardest")
    lab.run(ranked)
    lab.run(clean)
    (draw,) = read_draws(lab.folder / clean.inputs["features"])
    apart = literal(victim, draw["query"], draw["query"])
    identities = labels(lab, data)[0]
    means = np.stack([apart[:, identities == each].mean(axis=1) for each in range(6)], axis=1)
    means[np.arange(18), identities] = np.inf
    np.testing.assert_array_equal(read_targets(lab.folder / ranked.inputs["craft"]), means.argmin(axis=1))


def test_embedding_queries_are_judged_by_its_comparison(lab) -> None:
    """Square finds larger distances than the first query gives."""
    data, victim = crowd(), Parts()
    moved = []
    for queries in (2, 20):
        clean, ranked = under(step_of(victim), Square(), data, sees="embedding", queries=queries)
        lab.run(ranked)
        (draw,) = read_draws(lab.folder / ranked.inputs["features"])
        (before,) = read_draws(lab.folder / clean.inputs["features"])
        moved.append(np.diag(literal(victim, draw["query"], before["query"])).mean())
    assert moved[1] > 1.02 * moved[0]


@pytest.mark.parametrize("attack", [
    GAP(objective="embedding", width=4, steps=2, batch=4),
    MisRanking(misclassification_weight=0.0, width=4, discriminator_width=4, steps=2, batch_identities=3, held_out=0,
               batch_instances=2),
], ids=lambda attack: type(attack).__name__)  # fmt: skip
def test_generators_are_fitted_on_it(lab, attack: Attack) -> None:
    data, victim = crowd(), step_of(Parts())
    fit = fit_step(attacked(attack, ThreatModel(8)), [victim], data, ())
    assert (lab.run(fit) / "state.safetensors").is_file()


def test_defences_around_it_are_ranked_by_it(lab) -> None:
    data, inner = crowd(), step_of(Parts())
    plain, _ = under(inner, Noise(), data)
    blurred = defended_step("blurred", Configured("gaussian", "v1", {}, GaussianSmoothing(0.3)), inner, None, 0)
    reranked = defended_step("reranked", Configured("k-reciprocal", "v1", {}, KReciprocal(4, 2)), inner, None, 0)
    found = {}
    for name, step in (("plain", inner), ("blurred", blurred), ("reranked", reranked)):
        clean, attack = under(step, MetricPGD(steps=4), data)
        lab.run(attack)
        lab.run(clean)
        found[name] = lab.facts[clean.key]["mAP"], lab.facts[attack.key]["mAP"]
    lab.run(plain)
    assert found["plain"][0] == lab.facts[plain.key]["mAP"]
    assert found["blurred"][0] == pytest.approx(found["plain"][0], abs=10)
    assert found["blurred"][1] < found["blurred"][0]
    assert found["reranked"][0] != found["plain"][0]
    with pytest.raises(BenchError, match="feature-noise adds noise to embeddings, and Parts compares features"):
        FeatureNoise().defend(packed(Parts()))


def test_what_cannot_follow_a_comparison_is_not_applicable(tiny: dict) -> None:
    tiny["victims"] |= {name: {"use": f"{PARTS}:{use}"} for name, use in (("parts", "Parts"), ("hashed", "Hashed"))}
    tiny["attacks"] = {
        "noise": {}, "metric_pgd": {}, "pgd": {}, "muap": {}, "fna": {},
        "square-distances": {"sees": "distances", "queries": 10},
        "joint": {"use": "metric_pgd", "sources": ["parts", "toy"]},
    }  # fmt: skip
    why = {(cell.attack, cell.source): cell.impossible for cell in make_plan(parse.parse(tiny)).cells}
    for attack in ("noise", "metric_pgd", "pgd", "square-distances"):
        assert not why[attack, "parts"]
    for attack in ("noise", "square-distances"):
        assert not why[attack, "hashed"], "it takes no gradient"
    assert why["metric_pgd", "hashed"] == (
        "the comparison of hashed gives no gradients, so it can only be a target of metric_pgd"
    )
    assert why["pgd", "hashed"] == "the comparison of hashed gives no gradients, so it can only be a target of pgd"
    for attack in ("muap", "fna"):
        assert why[attack, "parts"] == (
            f"parts ranks by a comparison of its own, and {attack} reads embeddings themselves, so it can only be a "
            f"target of {attack}"
        )
    (joint,) = {reason for (attack, _), reason in why.items() if attack == "joint"}
    assert joint == "several sources are compared by the cosine distance, and parts by a comparison of its own"
    assert not any(reason for (_, source), reason in why.items() if source in ("toy@plaza", "toy@station"))


def test_a_comparison_without_gradients_must_say_so() -> None:
    assert examine(Hashed(), CPU)["zero_gradient"] < 1
    examine(Parts(), CPU)
    with pytest.raises(VictimError, match=r"victim Careless: the gradient of compare is missing.*differentiable_comp"):
        examine(Careless(), CPU)


@pytest.mark.e2e
def test_the_part_model_of_the_documentation_is_attacked_through_its_distances(tiny: dict, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "add-victim.md").read_text()
    (tmp_path / "parts.py").write_text(page.split('```python title="parts.py"\n')[1].split("```")[0])
    tiny["datasets"] = {"plaza": {**tiny["datasets"]["plaza"], "test_identities": 12}}
    tiny["victims"] = {"parts": {"use": f"{tmp_path / 'parts.py'}:PartModel"}}
    tiny["attacks"] = {"noise": {"epsilon": 16}, "metric_pgd": {"epsilon": 16, "options": {"steps": 8}}}
    tiny["headline_epsilon"] = 16
    plan, store = make_plan(parse.parse(tiny)), Store(tmp_path / "store")
    outcome = execute(plan, store, CPU)
    assert not outcome.causes
    results = collect(describe(plan, store, outcome, CPU, ""), store)
    (clean,) = results.clean
    assert clean.distance == "its own"
    values = {cell.attack: cell.values for cell in results.cells}
    assert values["metric_pgd"]["rank1"] <= values["noise"]["rank1"] - 10
    assert values["metric_pgd"]["mAP"] <= values["noise"]["mAP"] - 5
    assert all(found.after.shape == (len(found.after), 5) for found in results.retrieved.values())
    checks = {result.name: result.level for result in clean.checks}
    assert "fault" not in checks.values()
    write_report(results, tmp_path / "report")


@pytest.mark.e2e
def test_check_victim_knows_comparisons() -> None:
    found = {}
    for victim in (Parts(), Stripes(), Hashed(), Everyone()):
        results = check(victim, *people(), timed=False)
        found[victim.name or type(victim).__name__] = {result.name: result for result in results}
        assert "distance" not in found[type(victim).__name__], "there is no other to try"
    for name in ("Parts", "Stripes", "Hashed"):
        faults = [result for result in found[name].values() if result.level == "fault"]
        assert not faults, faults
        assert found[name]["comparison"].level == "ok"
        assert found[name]["gradient"].level == "ok"
    assert "attacks that climb distances are not applicable" in found["Hashed"]["comparison"].evidence
    assert found["Everyone"]["comparison"].level == "fault"
    assert "compare each pair by itself" in found["Everyone"]["comparison"].advice

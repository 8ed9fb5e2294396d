"""Planning tiny suites: rows, cells, gates and what cannot be crafted. Nothing is run."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from reid_attack_bench import registry
from reid_attack_bench.attacks.pgd import PGD
from reid_attack_bench.data import catalogue
from reid_attack_bench.errors import BenchError
from reid_attack_bench.execute.events import Outcome
from reid_attack_bench.jobs import manifest
from reid_attack_bench.plan.attacks import on_source, plan_attacks, why_impossible
from reid_attack_bench.plan.plan import Plan
from reid_attack_bench.plan.planner import make_plan
from reid_attack_bench.plan.victims import PlannedVictim, relation_of
from reid_attack_bench.suites import parse
from tests.conftest import TOY
from tests.plugins.toy import ToyVictim
from tests.steps.conftest import attacked, toy

DEFENDED = TOY.parent / "defended.py"


def planned(document: dict, **only: list[str]) -> Plan:
    return make_plan(parse.parse(document), only=only)


def victim(model: str, dataset: str = "", **changes) -> PlannedVictim:
    about = {"home": dataset, "step": toy(), "roles": ("source", "target"), "expected_rank1": 0.0}
    return PlannedVictim(model, dataset, **{**about, "differentiable": True, **changes})


def test_the_matrix_is_attacks_by_sources_by_targets_by_data_sets(tiny) -> None:
    plan = planned(tiny)
    assert len(plan.clean) == 4
    assert len(plan.cells) == 4 * 2 * 2 * 2, "noise at two epsilons, pgd, learner"
    assert {(row.victim, row.dataset): row.home for row in plan.clean} == {
        (f"toy@{home}", name): home == name for home in ("plaza", "station") for name in ("plaza", "station")
    }
    for cell in plan.cells:
        assert cell.access == ("white-box" if cell.source == cell.target else "transfer")
        keys = (cell.craft_key, cell.measure_key, cell.features_key, cell.rank_key, cell.clean_rank_key)
        kinds = [plan.steps[key].kind for key in keys]
        assert kinds == ["craft", "measure", "features", "rank", "clean-rank"]
        assert plan.steps[cell.features_key].parents["victim"].about == cell.target
        assert plan.steps[cell.rank_key].inputs["clean"] == plan.steps[cell.clean_rank_key].inputs["features"]


def test_steps_come_after_everything_they_read_or_wait_for(tiny) -> None:
    done: set[str] = set()
    for key, step in planned(tiny).steps.items():
        assert {*step.inputs.values(), *step.after} <= done, step.label
        done.add(key)


def test_equal_work_is_one_step(tiny) -> None:
    plan = planned(tiny)
    crafts = [step for step in plan.steps.values() if step.kind == "craft"]
    assert sum("noise" in step.about for step in crafts) == 2 * 2, "epsilons by data sets, for all sources"
    assert sum("pgd" in step.about for step in crafts) == 2 * 2, "sources by data sets"
    assert len([step for step in plan.steps.values() if step.kind == "measure"]) == len(crafts)


def test_the_gate_is_the_clean_ranking_at_home(tiny) -> None:
    tiny["victims"]["toy"]["expected_rank1"] = 30
    plan = planned(tiny)
    gates = {row.victim: row.rank_key for row in plan.clean if row.home}
    for row in plan.clean:
        expected = plan.steps[row.rank_key].config["expected_rank1"]
        assert expected == (30 if row.home else 0), "other data sets expect nothing"
        assert plan.steps[row.features_key].after == (() if row.home else (gates[row.victim],))
    for step in plan.steps.values():
        if step.kind == "fit" or (step.kind == "craft" and "source" in step.parents):
            assert step.after == (gates[step.parents["source"].about],)


def test_a_restricted_plan_keeps_the_gates_of_its_cells(tiny) -> None:
    plan = planned(tiny, attack=["pgd"], dataset=["station"], target=["toy@station"], source=["toy@plaza"])
    (cell,) = plan.cells
    assert (cell.attack, cell.source, cell.target) == ("pgd", "toy@plaza", "toy@station")
    assert {(row.victim, row.dataset) for row in plan.clean} == {("toy@station", "station"), ("toy@plaza", "plaza")}


@pytest.mark.parametrize(
    ("only", "says"),
    [
        ({"atack": ["pgd"]}, "--only: unknown key 'atack': .*attack"),
        ({"attack": ["pdg"]}, "--only attack=pdg: no such attack in this suite: .*pgd"),
        ({"source": ["toy@campus"]}, "no such source"),
    ],
)
def test_a_wrong_restriction_names_the_nearest(tiny, only: dict, says: str) -> None:
    with pytest.raises(BenchError, match=says):
        planned(tiny, **only)


def test_a_defence_is_planned_for_each_model_of_its_victim(tiny) -> None:
    tiny["victims"]["soft"] = {"use": f"{DEFENDED}:Pretend", "defends": "toy", "roles": ["white-box", "target"]}
    tiny["attacks"] = {"pgd": {}}
    plan = planned(tiny)
    assert {row.victim for row in plan.clean} == {"toy@plaza", "toy@station", "soft@plaza", "soft@station"}
    for row in plan.clean:
        step = plan.steps[row.victim_key]
        if row.victim.startswith("soft"):
            assert step.label == f"victim {row.victim}"
            assert step.parents["victim"].about == row.victim.replace("soft", "toy")
    assert {cell.target for cell in plan.cells if cell.source == "soft@plaza"} == {"soft@plaza"}
    tiny["victims"] = {"soft": tiny["victims"]["soft"], "toy": tiny["victims"]["toy"]}
    with pytest.raises(BenchError, match="victim soft is a defence: say which victim above it"):
        planned(tiny)


def test_a_victim_in_memory_takes_the_place_of_its_entry(tiny) -> None:
    tiny["victims"] = {"mine": {"use": f"{TOY}:NoSuch"}}
    plugin = registry.Plugin("victim", "mine", ToyVictim(), "v1", "memory")
    plan = make_plan(parse.parse(tiny), live={"mine": plugin})
    assert {row.victim for row in plan.clean} == {"mine"}
    assert plan.source is None


def test_attacks_cross_threat_models_and_seeds(tiny) -> None:
    tiny["attacks"] = {"pgd": {"epsilon": [4, 8], "seeds": [1, 2], "options": {"steps": 3}}}
    runs = plan_attacks(parse.parse(tiny))
    assert [run.label for run in runs] == [f"pgd {e}/255 seed {s}" for e in (4, 8) for s in (1, 2)]
    assert {(run.iterations, run.attack.family, run.needs) for run in runs} == {(3, "logits", ("gradients", "logits"))}


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        ({"use": "pgd", "sees": "embedding", "queries": 5}, "needs gradients and logits, and sees: embedding shows"),
        ({"use": f"{TOY}:Asker"}, "asks for embedding: set sees: embedding and a number of queries"),
        ({"use": f"{TOY}:Asker", "sees": "ranking", "queries": 5}, "asks for embedding: set sees: embedding"),
        ({"use": f"{TOY}:Asker", "sees": "embedding"}, "sees: embedding needs a budget: set queries"),
        ({"use": "pgd", "queries": 5}, "queries limits an attack that only sees answers"),
        ({"use": "pgd", "access": "query"}, "access query is now sees: embedding"),
        ({"use": f"{TOY}:Asker", "sees": "embedding", "queries": 5, "impersonate": "random"}, "can only hide"),
        ({"use": "pgd", "perturbs": "both", "impersonate": "random"}, "so perturbs must be query"),
        ({"use": "noise", "impersonate": "hardest"}, "uses no source, whose embeddings choose"),
    ],
)
def test_an_attack_that_asks_for_more_than_its_access_is_refused(tiny, attack, message) -> None:
    tiny["attacks"] = {"one": attack}
    with pytest.raises(BenchError, match=message):
        plan_attacks(parse.parse(tiny))


def test_an_attack_takes_its_form_without_logits_where_there_are_none() -> None:
    @dataclass(frozen=True)
    class Plain(PGD):
        @property
        def needs(self):
            return frozenset({"gradients"})

    @dataclass(frozen=True)
    class Both(PGD):
        def without_logits(self):
            return Plain()

    @dataclass(frozen=True)
    class Only(PGD):
        def without_logits(self):
            return None

    run, without = attacked(Both()), victim("x", classifies=False)
    assert on_source(run, victim("toy")) is run
    assert on_source(attacked(Only()), without).needs == ("gradients", "logits")
    other = on_source(run, without)
    assert other.needs == ("gradients",)
    assert why_impossible(other, without) == ""
    assert other.use.options == run.use.options


def test_reasons_why_a_source_is_a_target_only() -> None:
    run, adaptive = attacked(PGD()), attacked(PGD(), adaptive=8)
    assert why_impossible(run, victim("toy")) == ""
    assert why_impossible(run, victim("x", "plaza", differentiable=False)).startswith("x@plaza gives no gradients")
    behind = victim("x", differentiable=False, purifies=True)
    assert why_impossible(run, behind).endswith("unless that is adaptive")
    assert why_impossible(adaptive, behind) == ""
    assert "has no logits" in why_impossible(run, victim("x", classifies=False))


def test_relations() -> None:
    known = ("plaza", "station")
    source = victim("a", "plaza")
    relations = {
        (target.label, name): relation_of(source, target, name, known)
        for target in (source, victim("a", "station"), victim("b", "plaza"), victim("b", "station"), victim("c"))
        for name in known
    }
    assert {pair: relation for pair, relation in relations.items() if relation} == {
        ("a@plaza", "plaza"): "white-box",
        ("a@station", "station"): "cross-dataset",
        ("b@plaza", "plaza"): "cross-model",
        ("b@station", "station"): "cross-both",
        ("c", "plaza"): "cross-model",
        ("c", "station"): "cross-model",
    }


def test_steps_of_one_key_are_one_step_under_the_first_label(tiny) -> None:
    ready = {"use": f"{TOY}:ToyVictim"}
    tiny["victims"] = {"one": ready, "two": ready}
    plan = planned(tiny)
    victims = [step for step in plan.steps.values() if step.kind == "victim"]
    assert [step.about for step in victims] == ["one"]
    assert {row.victim for row in plan.clean} == {"one", "two"}


def test_the_name_of_a_victim_is_made_of_its_model_and_data_set() -> None:
    assert victim("a").label == "a"
    assert victim("a", "plaza").label == "a@plaza"


def test_logits_of_one_class_are_none(tiny) -> None:
    """Attacks on them would change nothing; those with a form for embeddings take it."""
    fakes = TOY.parent / "deceptive.py"
    tiny["victims"] = {"one": {"use": f"{fakes}:OneClass"}, "several": {"use": f"{fakes}:Honest"}}
    tiny["attacks"] = {"fgsm": {}, "stubborn": {"use": f"{TOY}:Stubborn"}}
    plan = make_plan(parse.parse(tiny))
    found = {(cell.attack, cell.source): (cell.needs, cell.impossible) for cell in plan.cells}
    assert found["fgsm", "one"] == (("gradients",), "")
    assert found["fgsm", "several"] == (("gradients", "logits"), "")
    assert "logits have one class" in found["stubborn", "one"][1]
    assert not found["stubborn", "several"][1]


@pytest.fixture
def without_training(monkeypatch):
    """Makes data sets of the next plan such that have no training split."""

    def make(*names: str) -> None:
        known = catalogue.source

        def source(name, *args, **settings):
            made = known(name, *args, **settings)
            return replace(made, counts={**made.counts, "train": 0}) if name in names else made

        monkeypatch.setattr(catalogue, "source", source)

    return make


@pytest.fixture
def trained_on(monkeypatch):
    """Sets the training data that the toy declares."""
    factory = registry.find("victim", f"{TOY}:ToyVictim").factory

    def declare(*names: str) -> None:
        monkeypatch.setattr(factory, "trained_on", names[0] if len(names) == 1 else "")
        monkeypatch.setattr(factory, "training_data", names if len(names) > 1 else ())

    return declare


def test_a_recipe_is_not_trained_on_a_data_set_without_a_training_split(tiny, without_training) -> None:
    without_training("station")
    with pytest.raises(BenchError, match="toy@station cannot be trained: data set station has no training split"):
        planned(tiny)


def test_nor_is_a_defence(tiny, without_training, trained_on) -> None:
    tiny["victims"] = {
        "ready": {"use": f"{TOY}:ToyVictim"},
        "guarded": {"use": "adversarial-training", "defends": "ready"},
    }
    without_training("plaza")
    trained_on("plaza")
    with pytest.raises(BenchError, match="victim guarded cannot be trained: data set plaza has no training split"):
        planned(tiny)


def test_a_learned_attack_without_training_images_is_not_applicable(tiny, without_training) -> None:
    tiny["victims"] = {"ready": {"use": f"{TOY}:ToyVictim"}}
    without_training("plaza")
    fitted = {cell.fitted_on for cell in planned(tiny).cells if cell.attack == "learner"}
    assert fitted == {"station"}, "where the training data is unknown, the first data set that has some"
    without_training("plaza", "station")
    cells = planned(tiny).cells
    assert {cell.impossible for cell in cells if cell.attack != "learner"} == {""}
    assert {cell.impossible for cell in cells if cell.attack == "learner"} == {
        "learner is fitted on training images, and no data set has a training split"
    }


def test_nor_where_the_source_was_trained_on_a_data_set_that_has_none(tiny, without_training, trained_on) -> None:
    tiny["victims"] = {"ready": {"use": f"{TOY}:ToyVictim"}}
    trained_on("plaza")
    without_training("plaza")
    reasons = {cell.impossible for cell in planned(tiny).cells if cell.attack == "learner"}
    assert reasons == {
        "learner is fitted on training images, and plaza, which ready was trained on, has no training split"
    }


def test_withdrawn_data_is_marked_and_named(tiny, monkeypatch, trained_on) -> None:
    known = catalogue.source

    def source(name, *args, **settings):
        return replace(known(name, *args, **settings), withdrawn="taken back" if name == "station" else "")

    monkeypatch.setattr(catalogue, "source", source)
    tiny["victims"]["guarded"] = {"use": "feature-noise", "defends": "toy"}
    tiny["victims"]["other"] = {"use": f"{TOY}:ToyVictim"}
    trained_on("market1501", "dukemtmc-reid")
    plan = planned(tiny)
    for row in (*plan.clean, *plan.cells):
        assert row.withdrawn == (row.dataset == "station")
    assert [line for line in manifest.notes(plan, Outcome()) if "ithdrawn" in line] == [
        "Withdrawn data (station): taken back.",
        "Trained on withdrawn data (station): toy@station, guarded@station.",
        "Trained on withdrawn data (dukemtmc-reid): other.",
    ]

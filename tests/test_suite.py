"""Suites are checked in full before any work."""

from __future__ import annotations

import pytest

from reid_attack_bench import suite
from reid_attack_bench.errors import BenchError


@pytest.mark.parametrize("name", suite.shipped())
def test_shipped_suites_are_valid(name: str) -> None:
    from reid_attack_bench.plan import make_plan

    chosen = suite.load(name)
    assert chosen.name == name
    assert chosen.description
    plan = make_plan(chosen)
    assert len(plan.cells) > 100
    assert {"plaza", "station"} <= set(chosen.datasets)


def test_threats_are_crossed(tiny) -> None:
    tiny["attacks"]["pgd"] = {"epsilon": [4, 8], "pixels": [None, 100]}
    threats = next(a for a in suite.parse(tiny).attacks if a.label == "pgd").threats
    assert [(t.epsilon, t.pixels) for t in threats] == [(4, None), (4, 100), (8, None), (8, 100)]


def test_seeds_of_an_attack_share_everything_but_the_attack(tiny) -> None:
    from reid_attack_bench.plan import make_plan

    plain = make_plan(suite.parse(tiny))
    tiny["attacks"]["learner"]["seeds"] = [0, 3]
    seeded = make_plan(suite.parse(tiny))
    assert set(plain.steps) <= set(seeded.steps), "the suite's own seed keeps every key"
    added = [step for key, step in seeded.steps.items() if key not in plain.steps]
    assert {step.kind for step in added} == {"fit", "craft", "measure", "features", "rank"}
    assert all("learner 8/255 seed 3" in step.label for step in added)
    assert {(c.attack, c.seed) for c in seeded.cells} == {("noise", 0), ("pgd", 0), ("learner", 0), ("learner", 3)}
    assert len(seeded.cells) == len(plain.cells) + sum(c.attack == "learner" for c in plain.cells)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.update(atacks={}), "no setting 'atacks'.*did you mean 'attacks'"),
        (lambda d: d.update(victims={}), "victims is missing or empty"),
        (lambda d: d.update(image_size=64), "image_size must be"),
        (lambda d: d["attacks"]["pgd"].update(epsilon=2.5), "attacks.pgd: epsilon must be a whole number"),
        (lambda d: d["attacks"]["pgd"].update(epsilon=[]), "epsilon is an empty list"),
        (lambda d: d["attacks"]["pgd"].update(perturb="query"), "did you mean 'perturbs'"),
        (lambda d: d["attacks"]["pgd"].update(seeds=[1, 1]), "attacks.pgd.seeds names a seed twice"),
        (lambda d: d["attacks"]["pgd"].update(seeds=["a"]), "attacks.pgd.seeds must be a whole number"),
        (lambda d: d["victims"]["toy"].update(train_on=["plazza"]), "did you mean 'plaza'"),
        (lambda d: d["victims"]["toy"].update(roles="sorce"), "none of source"),
        (lambda d: d["victims"].update({"a b": {}}), "letters, digits"),
        (lambda d: d["victims"].update(toy=3), "must be a mapping"),
        (lambda d: d.update(seed="x"), "seed must be a whole number"),
    ],
)
def test_mistakes(tiny, change, says: str) -> None:
    change(tiny)
    with pytest.raises(BenchError, match=says):
        suite.parse(tiny)


@pytest.mark.parametrize(("name", "says"), [("quik", "did you mean 'quick'"), ("none.yaml", "does not exist")])
def test_no_such_suite(name: str, says: str) -> None:
    with pytest.raises(BenchError, match=says):
        suite.load(name)


def test_a_file_that_is_no_yaml(tmp_path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("a: [1\n")
    with pytest.raises(BenchError, match="not valid YAML") as caught:
        suite.load(str(path))
    assert "\n" not in str(caught.value)

"""Suites are checked in full before any work."""

from __future__ import annotations

import pytest

from reid_attack_bench.errors import BenchError
from reid_attack_bench.suites import parse
from reid_attack_bench.suites.suite import CONTROL
from tests.plugins import published
from tests.stand_ins import plan_with_stand_ins

OF_REAL_DATA = {"market1501", "msmt17", "market-to-msmt"}


@pytest.mark.parametrize("name", sorted(OF_REAL_DATA))
def test_suites_of_published_networks_run_every_attack_of_theirs(name: str) -> None:
    chosen = parse.load(name)
    cells = plan_with_stand_ins(chosen).cells
    assert {cell.attack for cell in cells} == {attack.label for attack in chosen.attacks}
    assert not chosen.relations or {cell.relation for cell in cells} == set(chosen.relations)


@pytest.mark.parametrize("name", sorted(set(parse.shipped()) - OF_REAL_DATA))
def test_shipped_suites_are_valid(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from reid_attack_bench.plan.planner import make_plan

    published.stand_in(monkeypatch)
    chosen = parse.load(name)
    assert chosen.name == name
    assert chosen.description
    if not chosen.victims:
        with pytest.raises(BenchError, match=r"has no victims of its own: .* evaluate"):
            make_plan(chosen)
        return
    cells = make_plan(chosen).cells
    defended = any(victim.defends for victim in chosen.victims)
    expected = {attack.label for attack in chosen.attacks if defended or not attack.defended_only}
    assert {cell.attack for cell in cells} == expected
    if not chosen.relations:
        assert len(cells) > 50
        return
    assert {cell.relation for cell in cells} == set(chosen.relations), "each experiment is about these cells only"
    if name in ("queries", "reranking"):
        return  # they show curves, and pairs of victims in same_images.csv, and claim nothing of attacks
    assert chosen.findings or name == "full-width", "its fits are too long for three seeds on a CPU"
    claimed = {side.attack for finding in chosen.findings for side in (finding.lower, finding.higher)}
    seeds = {attack.label: attack.seeds for attack in chosen.attacks}
    assert all(len(seeds[label]) >= 3 for label in claimed - {CONTROL}), "a finding needs an interval over seeds"
    assert {finding.relation for finding in chosen.findings} <= set(chosen.relations)
    # the same file at full size; embedded data stand in for the real ones
    full = parse.load(name, full=True, data=["plaza", "station"])
    assert full.image_size == (256, 128)
    assert {v.label for v in full.victims} <= {"resnet50", "densenet121", "mudeep", "pcb_p6", "hacnn"}
    assert {cell.attack for cell in make_plan(full).cells} == {cell.attack for cell in cells}
    for attack in full.attacks:
        if attack.use == "misranking":
            assert attack.options["width"] == 32
            assert attack.options["steps"] == 4650


def test_the_paper_s_suites_share_their_fits_and_victims() -> None:
    from reid_attack_bench.plan.planner import make_plan

    made = make_plan(parse.load("paper-whitebox")).steps
    victims = {key for key, step in made.items() if step.kind == "victim"}
    for kind in ("dataset", "model", "both"):
        steps = make_plan(parse.load(f"paper-cross-{kind}")).steps
        assert {key for key, step in steps.items() if step.kind == "fit"} <= set(made)
        victims |= {key for key, step in steps.items() if step.kind == "victim"}
    assert len(victims) == 4, "two architectures on two data sets, each trained once"
    for name in ("paper-epsilon", "paper-pixels", "decoder", "full-width", "released-vs-paper"):
        assert {key for key, step in make_plan(parse.load(name)).steps.items() if step.kind == "victim"} <= victims


@pytest.mark.parametrize("name", ["whitebox", "cross-model", "cross-dataset", "cross-both"])
def test_the_paper_s_main_suites_have_eight_seeds_and_controls(name: str) -> None:
    suite = parse.load(f"paper-{name}")
    attacks = {attack.label: attack for attack in suite.attacks}
    sides = [side.attack for claim in suite.findings for side in (claim.lower, claim.higher)]
    assert "control" in sides
    assert all(len(attacks[label].seeds) >= 8 for label in sides if label != "control")
    controls = [attack for attack in attacks.values() if attack.use == "noise"]
    blocks = {tuple(attack.options["blocks"]) for attack in controls if attack.options["values"] == "corner"}
    assert {(1, 1), (2, 1), (4, 2), (8, 4), (16, 8), (32, 16)} == blocks
    assert {attack.threats for attack in controls} == {attacks["misranking"].threats}
    if name != "whitebox":
        against = {claim.lower.attack for claim in suite.findings if claim.higher.attack == "control"}
        assert against == {"misranking", "gap", "pgd"}


def test_threats_are_crossed(tiny) -> None:
    tiny["attacks"]["pgd"] = {"epsilon": [4, 8], "pixels": [None, 100]}
    threats = next(a for a in parse.parse(tiny).attacks if a.label == "pgd").threats
    assert [(t.epsilon, t.pixels) for t in threats] == [(4, None), (4, 100), (8, None), (8, 100)]


def test_relations_of_cells(tiny) -> None:
    from reid_attack_bench.plan.planner import make_plan

    tiny["victims"]["other"] = dict(tiny["victims"]["toy"], options={"seed": 1}, train_on=["plaza"])
    cells = {(c.source, c.target, c.dataset): c.relation for c in make_plan(parse.parse(tiny)).cells}
    assert cells["toy@plaza", "toy@plaza", "plaza"] == "white-box"
    assert cells["toy@plaza", "toy@plaza", "station"] == "", "not on its own data set"
    assert cells["toy@plaza", "toy@station", "station"] == "cross-dataset"
    assert cells["toy@plaza", "toy@station", "plaza"] == ""
    assert cells["toy@plaza", "other@plaza", "plaza"] == "cross-model"
    assert cells["toy@station", "other@plaza", "plaza"] == "cross-both"
    tiny["relations"] = ["cross-both"]
    chosen = make_plan(parse.parse(tiny)).cells
    assert {(c.source, c.target, c.dataset) for c in chosen} == {
        ("toy@station", "other@plaza", "plaza"),
        ("other@plaza", "toy@station", "station"),
    }


def test_a_suite_extends_another(tiny, write_suite) -> None:
    tiny["presets"] = {"fast": {"use": "pgd", "epsilon": 4, "options": {"steps": 2}}}
    tiny["full"] = {
        "image_size": [128, 64],
        "datasets": {"campus": {}, "station": {}},
        "presets": {"fast": {"options": {"step_size": 1}}},
    }
    base = write_suite(tiny, "base.yaml")
    document = {
        "extends": base,
        "replace": "attacks",
        "datasets": ["station"],
        "attacks": {"slow": {"like": "fast", "pixels": "1/8", "options": {"steps": 9}}},
        "full": {"datasets": ["station"]},
    }
    small, full = parse.parse(document, "child"), parse.parse(document, "child", full=True)
    assert small.name == "child"
    assert small.image_size == (64, 32)
    assert set(small.datasets) == set(full.datasets) == {"station"}
    assert small.victims[0].train_on == ("station",), "victims are trained on what is left"
    (attack,), (large,) = small.attacks, full.attacks
    assert (attack.use, attack.options) == ("pgd", {"steps": 9})
    assert [(t.epsilon, t.pixels) for t in attack.threats] == [(4, 64 * 32 // 8)]
    assert large.options == {"steps": 9, "step_size": 1}
    assert [t.pixels for t in large.threats] == [128 * 64 // 8], "a share of the pixels follows the image size"


def test_other_data_take_the_place_of_the_suite_s(tiny) -> None:
    tiny["victims"]["half"] = dict(tiny["victims"]["toy"], train_on=["station"])
    moved = parse.parse(tiny, data=["market1501", "campus"])
    assert moved.datasets == {"market1501": {}, "campus": tiny["datasets"]["station"]}
    assert [v.train_on for v in moved.victims] == [("market1501", "campus"), ("campus",)]
    more = parse.parse(tiny, data=["market1501", "campus", "plaza"])
    assert [v.train_on for v in more.victims] == [("market1501", "campus", "plaza"), ("campus",)]
    with pytest.raises(BenchError, match="half is trained on station, which no data set replaces"):
        parse.parse(tiny, data=["plaza"])
    with pytest.raises(BenchError, match="did you mean 'campus'"):
        parse.parse(tiny, data=["campos"])


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"extends": "quik"}, "did you mean 'quick'"),
        ({"extends": "quick", "victims": ["shufflenet"]}, "no 'shufflenet' to pick.*did you mean"),
        ({"extends": "paper-whitebox", "attacks": {"a": {"like": "pdg"}}}, "attacks.a.like.*did you mean 'pgd'"),
        ({"extends": "quick", "attacks": {"pgd": {}}, "relations": ["crossmodel"]}, "did you mean 'cross-model'"),
        ({"extends": "quick", "findings": [{"lower": "pgd", "higher": "fgsm"}]}, r"findings\[0\]\.claim is missing"),
        ({"extends": "quick", "findings": [{"claim": "x", "lower": "pgd"}]}, "needs lower and higher, or ascending"),
        ({"extends": "quick", "findings": [{"claim": "x", "ascending": ["fgms", "pgd"]}]}, "did you mean 'fgsm'"),
        (
            {"extends": "quick", "findings": [{"claim": "x", "lower": "metric_pgd", "higher": "noise"}]},
            "metric_pgd has 2 such threat models",
        ),
        (
            {"extends": "quick", "attacks": {"pgd": {"epsilon": 8}, "fgsm": {}},
             "findings": [{"claim": "x", "lower": "pgd", "higher": "fgsm", "measure": "ssim", "at_equal": "mAP"}]},
            "needs a curve",
        ),
        (
            {"extends": "quick", "attacks": {"pgd": {"epsilon": [4, 8]}, "fgsm": {}},
             "findings": [{"claim": "x", "lower": "pgd", "higher": "control", "measure": "ssim", "at_equal": "mAP"}]},
            "control is one value at a budget, not a curve",
        ),
        (
            {"extends": "quick", "findings": [{"claim": "x", "ascending": ["control", "control"]}]},
            "both sides are control",
        ),
        (
            {"extends": "quick", "attacks": {"pgd": {"epsilon": 8}},
             "findings": [{"claim": "x", "lower": "pgd", "higher": {"attack": "control", "epsilon": 8}}]},
            "control has the budget of the other side",
        ),
        ({"extends": "quick", "attacks": {"control": {"use": "noise"}}}, "findings call the best control by that name"),
    ],
)  # fmt: skip
def test_mistakes_in_what_a_suite_is_made_of(document, says: str) -> None:
    with pytest.raises(BenchError, match=says):
        parse.parse(document)


def test_no_circles_and_no_full_size_where_there_is_none(tiny, write_suite, tmp_path) -> None:
    (tmp_path / "a.yaml").write_text(f"extends: {tmp_path}/a.yaml\n")
    with pytest.raises(BenchError, match="circular"):
        parse.load(str(tmp_path / "a.yaml"))
    with pytest.raises(BenchError, match="has no full size"):
        parse.load(write_suite(tiny), full=True)


def test_findings_name_their_threat_models(tiny) -> None:
    tiny["attacks"]["pgd"] = {"epsilon": [4, 8, 16]}
    tiny["findings"] = [
        {"claim": "grows", "ascending": [{"attack": "pgd", "epsilon": e} for e in (16, 8, 4)]},
        {"claim": "curve", "lower": "noise", "higher": "pgd", "measure": "ssim", "at_equal": "mAP"},
    ]
    first, second, curve = parse.parse(tiny).findings
    assert [[t.epsilon for t in f.lower.threats + f.higher.threats] for f in (first, second)] == [[16, 8], [8, 4]]
    assert [t.epsilon for t in curve.higher.threats] == [4, 8, 16]


def test_a_finding_may_name_a_number_of_queries(tiny) -> None:
    tiny["attacks"]["square"] = {"epsilon": 8, "sees": "embedding", "access": "white-box", "queries": [10, 100]}
    tiny["findings"] = [
        {"claim": "more", "ascending": [{"attack": "square", "queries": 100}, {"attack": "square", "queries": 10}]}
    ]
    (claim,) = parse.parse(tiny).findings
    assert [[threat.queries for threat in side.threats] for side in (claim.lower, claim.higher)] == [[100], [10]]
    tiny["findings"] = [{"claim": "more", "lower": "square", "higher": "pgd"}]
    with pytest.raises(BenchError, match="square has 2 such threat models: name one with epsilon, pixels and queries"):
        parse.parse(tiny)


def test_a_finding_may_name_the_best_control(tiny) -> None:
    """It has the budget of the other side, through JSON, other epsilons and other protocols."""
    tiny["attacks"]["pgd"] = {"epsilon": 16, "pixels": 100}
    tiny["attacks"].pop("noise", None)
    tiny["findings"] = [{"claim": "transfers", "lower": "pgd", "higher": "control", "relation": "cross-model"}]
    suite = parse.parse(tiny)
    (claim,) = suite.findings
    assert (claim.higher.attack, claim.higher.threats) == (CONTROL, claim.lower.threats)
    assert [(threat.epsilon, threat.pixels) for threat in claim.higher.threats] == [(16, 100)]
    assert parse.from_json(parse.to_json(suite)) == suite
    assert [c.higher.threats[0].epsilon for c in suite.with_epsilons([4, 8]).findings] == [4, 8]
    assert parse.with_protocol(suite, "reid-standard-1-small").findings == suite.findings


def test_seeds_of_an_attack_share_everything_but_the_attack(tiny) -> None:
    from reid_attack_bench.plan.planner import make_plan

    plain = make_plan(parse.parse(tiny))
    tiny["attacks"]["learner"]["seeds"] = [0, 3]
    seeded = make_plan(parse.parse(tiny))
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
        (lambda d: d.update(image_size=64), "image_size must be"),
        (lambda d: d["attacks"]["pgd"].update(epsilon=2.5), r"attacks\.pgd\.epsilon must be a whole number"),
        (lambda d: d["attacks"]["pgd"].update(epsilon=[]), "epsilon is an empty list"),
        (lambda d: d["attacks"]["pgd"].update(perturb="query"), "did you mean 'perturbs'"),
        (lambda d: d["attacks"]["pgd"].update(pixels="2/3"), r"attacks\.pgd\.pixels must be .* not '2/3'"),
        (lambda d: d["attacks"]["pgd"].update(seeds=[1, 1]), "attacks.pgd.seeds has a seed twice"),
        (lambda d: d["attacks"]["pgd"].update(seeds=["a"]), r"attacks\.pgd\.seeds\[0\] must be a whole number"),
        (lambda d: d["victims"]["toy"].update(train_on=["plazza"]), "did you mean 'plaza'"),
        (lambda d: d["victims"]["toy"].update(roles="sorce"), "roles must be one of source, white-box, target"),
        (lambda d: d["victims"].update({"a b": {}}), "letters, digits"),
        (lambda d: d["victims"].update(toy=3), "must be a mapping"),
        (lambda d: d.update(seed="x"), "seed must be a whole number"),
    ],
)
def test_mistakes(tiny, change, says: str) -> None:
    change(tiny)
    with pytest.raises(BenchError, match=says):
        parse.parse(tiny)


@pytest.mark.parametrize(("name", "says"), [("quik", "did you mean 'quick'"), ("none.yaml", "does not exist")])
def test_no_such_suite(name: str, says: str) -> None:
    with pytest.raises(BenchError, match=says):
        parse.load(name)


def test_a_file_that_is_no_yaml(tmp_path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("a: [1\n")
    with pytest.raises(BenchError, match="not valid YAML") as caught:
        parse.load(str(path))
    assert "\n" not in str(caught.value)

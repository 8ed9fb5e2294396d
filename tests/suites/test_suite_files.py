"""Suites as files: merged into the one they extend, written as JSON and read back, described by a schema."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jsonschema
import pytest
import yaml

from reid_attack_bench.contracts import ThreatModel
from reid_attack_bench.errors import BenchError
from reid_attack_bench.suites import document, parse
from reid_attack_bench.suites.suite import RELATIONS, AttackEntry, Claim, Contender, Suite, VictimEntry
from reid_attack_bench.validation import schema_text

RESULTS = Path(__file__).parents[2] / "results"


def attack_of(suite: Suite, label: str) -> AttackEntry:
    return next(attack for attack in suite.attacks if attack.label == label)


def test_a_child_is_merged_into_its_parent() -> None:
    quick = parse.load("quick")
    child = parse.parse({"extends": "quick", "attacks": {"pgd": {"epsilon": 4, "options": {"stop_early": True}}}})
    own = [attack for attack in quick.attacks if not attack.protocol]  # a protocol is not inherited
    assert [attack.label for attack in child.attacks] == [attack.label for attack in own]
    changed, before = attack_of(child, "pgd"), attack_of(quick, "pgd")
    assert changed.options == {**before.options, "stop_early": True}
    assert changed.threats == (ThreatModel(4),)
    assert [a for a in child.attacks if a.label != "pgd"] == [a for a in own if a.label != "pgd"]
    assert child.victims == quick.victims
    assert child.datasets == quick.datasets


def test_an_entry_left_empty_is_its_parent_s() -> None:
    protocol = {"protocol": parse.load("quick").protocol}
    child = parse.parse({"extends": "quick", "attacks": {"pgd": None}, **protocol})
    assert child.attacks == parse.load("quick").attacks


def test_victims_and_data_are_merged_entry_by_entry() -> None:
    quick = parse.load("quick")
    child = parse.parse(
        {
            "extends": "quick",
            "datasets": {"plaza": {"test_identities": 8}, "campus": {}},
            "victims": {"mobilenetv2_x1_0": {"options": {"epochs": 1}}},
        }
    )
    assert child.datasets == {
        "plaza": {**quick.datasets["plaza"], "test_identities": 8},
        "station": quick.datasets["station"],
        "campus": {},
    }
    first, second = child.victims
    assert first == quick.victims[0]
    assert second.options == {**quick.victims[1].options, "epochs": 1}
    assert second.train_on == quick.victims[1].train_on == ("plaza",)


def test_an_entry_with_use_or_like_stands_for_itself() -> None:
    document = {"extends": "quick", "presets": {"fast": {"use": "pgd", "options": {"steps": 1}}}}
    for entry in ({"like": "fast"}, {"use": "pgd", "options": {"steps": 1}}):
        child = parse.parse({**document, "attacks": {"pgd": entry}})
        assert attack_of(child, "pgd") == AttackEntry("pgd", "pgd", {"steps": 1}, (ThreatModel(),))
        assert len(child.attacks) == len([a for a in parse.load("quick").attacks if not a.protocol])


def test_a_section_is_replaced_where_the_suite_says_so() -> None:
    child = parse.parse({"extends": "quick", "replace": "attacks", "attacks": {"noise": {}}})
    assert child.attacks == (AttackEntry("noise", "noise", {}, (ThreatModel(),)),)
    assert child.victims == parse.load("quick").victims
    with pytest.raises(BenchError, match=r"replace lists victims, but the suite has no such section"):
        parse.parse({"extends": "quick", "replace": ["victims"]})
    with pytest.raises(BenchError, match=r"replace: this suite extends no other"):
        parse.parse({"replace": "attacks", "datasets": {"plaza": {}}, "attacks": {"noise": {}}})
    with pytest.raises(BenchError, match=r"replace must be one of datasets, victims, attacks.*did you mean 'attacks'"):
        parse.parse({"extends": "quick", "replace": "attack"})


def test_the_full_size_is_merged_by_the_same_rules(tiny, write_suite) -> None:
    tiny["full"] = {"attacks": {"pgd": {"epsilon": 16}}, "datasets": {"plaza": {"test_identities": 9}, "campus": {}}}
    full = parse.parse(tiny, full=True)
    assert attack_of(full, "pgd").options == {"steps": 2}
    assert attack_of(full, "pgd").threats == (ThreatModel(16),)
    assert list(full.datasets) == ["plaza", "station", "campus"]
    base = write_suite(tiny, "base.yaml")
    child = {"extends": base, "full": {"datasets": ["campus"], "victims": {"toy": {"train_on": "campus"}}}}
    assert parse.parse(child, full=True).datasets == {"campus": {}}, "what is picked is all there is"
    assert list(parse.parse(child).datasets) == ["plaza", "station"]


def test_lists_pick_from_a_parent_only(tiny) -> None:
    with pytest.raises(BenchError, match="attacks is a list of names to pick from an extended suite"):
        parse.parse({**tiny, "attacks": ["pgd"]})


def test_mistakes_in_a_parent_name_its_file(tiny, write_suite) -> None:
    tiny["attacks"]["pgd"]["epsilonn"] = 3
    path = write_suite(tiny, "base.yaml")
    with pytest.raises(BenchError, match=r"base\.yaml: attacks\.pgd has no setting 'epsilonn': did you mean"):
        parse.parse({"extends": path})


@pytest.mark.parametrize(("given", "read"), [(8, 8), ("8/255", 8), ("16 / 255", 16), (8.0, 8), (["4/255", 8], [4, 8])])
def test_epsilons_are_steps_or_fractions_of_255(tiny, given: Any, read: Any) -> None:
    tiny["attacks"]["pgd"]["epsilon"] = given
    tiny["headline_epsilon"] = "8/255"
    suite = parse.parse(tiny)
    assert [threat.epsilon for threat in attack_of(suite, "pgd").threats] == (
        read if isinstance(read, list) else [read]
    )
    assert suite.headline_epsilon == 8


@pytest.mark.parametrize("wrong", ["8/256", 0.03, 256, -1, True, None, "eight"])
def test_other_epsilons_are_refused(tiny, wrong: Any) -> None:
    tiny["attacks"]["pgd"]["epsilon"] = [8, wrong]
    with pytest.raises(BenchError, match=r"attacks\.pgd\.epsilon\[1\] must be a whole number .* such as 8 or 8/255"):
        parse.parse(tiny)


def test_epsilons_of_a_command_line() -> None:
    assert parse.read_epsilons("4,8/255, 16") == (4, 8, 16)
    with pytest.raises(BenchError, match=r"epsilon must be a whole number of 8-bit steps .*, not 300"):
        parse.read_epsilons("4,300")


def test_a_label_that_stands_twice_is_an_error(tmp_path) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text("datasets: {plaza: {}}\nattacks:\n  pgd: {epsilon: 4}\n  noise: {}\n  pgd: {epsilon: 8}\n")
    with pytest.raises(BenchError, match=r"twice\.yaml, line 5: 'pgd' is given twice, first in line 3"):
        parse.load(str(path))


@pytest.mark.parametrize("name", parse.shipped())
def test_a_shipped_suite_survives_json(name: str) -> None:
    for full in (False, True) if "full:" in parse.shipped()[name].read_text() else (False,):
        suite = parse.load(name, full=full)
        assert parse.from_json(parse.to_json(suite)) == suite
        assert parse.from_plain(asdict(suite)) == suite


text = st.text(max_size=6)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | text,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(text, below, max_size=3),
    max_leaves=5,
)
options = st.dictionaries(text, plain, max_size=3)
threats = st.builds(
    ThreatModel,
    epsilon=st.integers(0, 255),
    pixels=st.none() | st.integers(1, 9999),
    perturbs=st.sampled_from(["query", "gallery", "both"]),
    access=st.sampled_from(["transfer", "white-box"]),
    top=st.integers(1, 50),
)
several = st.lists(threats, min_size=1, max_size=3).map(tuple)
contenders = st.builds(Contender, text, several)
suites = st.builds(
    Suite,
    name=text,
    description=text,
    seed=st.integers(0),
    image_size=st.tuples(st.integers(16, 999), st.integers(16, 999)),
    batch_size=st.integers(1),
    draw_batch=st.integers(1),
    headline_epsilon=st.integers(0, 255),
    datasets=st.dictionaries(text, options, max_size=2),
    victims=st.lists(
        st.builds(VictimEntry, text, text, options, st.lists(text, max_size=2).map(tuple), st.floats(0, 100)),
        max_size=2,
    ).map(tuple),
    attacks=st.lists(
        st.builds(AttackEntry, text, text, options, several, st.lists(st.integers(0), max_size=2).map(tuple)),
        max_size=2,
    ).map(tuple),
    relations=st.lists(st.sampled_from(RELATIONS), max_size=2).map(tuple),
    findings=st.lists(st.builds(Claim, text, contenders, contenders, at_equal=text), max_size=2).map(tuple),
    precision=st.sampled_from(["float32", "bfloat16"]),
    compile=st.booleans(),
)


@hypothesis.given(suites)
@hypothesis.settings(max_examples=60, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
def test_any_suite_survives_json(suite: Suite) -> None:
    assert parse.from_json(parse.to_json(suite)) == suite


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*/manifest.json")), ids=lambda path: path.parent.name)
def test_suites_of_published_runs_are_read(path: Path) -> None:
    published = json.loads(path.read_text())["suite"]
    suite = parse.from_plain(published)
    again = json.loads(parse.to_json(suite))
    assert _among(again, published) == published, "whole, with its findings"


def _among(values: Any, wanted: Any) -> Any:
    """`values` without the fields that `wanted`, of an earlier version, does not have."""
    if isinstance(wanted, dict):
        return {name: _among(values[name], value) for name, value in wanted.items() if name in values}
    if isinstance(wanted, list) and len(values) == len(wanted):
        return [_among(value, each) for value, each in zip(values, wanted, strict=True)]
    return values


def test_a_suite_that_cannot_be_read_whole_is_refused() -> None:
    plain = json.loads(parse.to_json(parse.load("minute")))
    with pytest.raises(BenchError, match="the suite has no field 'norm'"):
        parse.from_plain({**plain, "norm": "l2"})
    plain["attacks"][0]["threats"][0]["norm"] = "l2"
    with pytest.raises(BenchError, match=r"attacks\[0\].threats\[0\] has no field 'norm'"):
        parse.from_plain(plain)
    with pytest.raises(BenchError, match="the JSON of a suite is corrupt"):
        parse.from_json("{")


def test_other_epsilons_take_the_place_of_a_suite_s(tiny) -> None:
    tiny["attacks"]["pgd"] = {"epsilon": [4, 8], "pixels": [None, 100]}
    suite = parse.parse(tiny).with_epsilons((16, 8, 16))
    assert [(t.epsilon, t.pixels) for t in attack_of(suite, "pgd").threats] == [
        (16, None), (16, 100), (8, None), (8, 100),
    ]  # fmt: skip
    assert [t.epsilon for t in attack_of(suite, "noise").threats] == [16, 8]
    assert suite.headline_epsilon == 8
    assert suite.with_epsilons([2, 32]).headline_epsilon == 2
    with pytest.raises(BenchError, match="epsilons is empty"):
        suite.with_epsilons([])
    with pytest.raises(BenchError, match="epsilon must be a whole number"):
        suite.with_epsilons([300])


def test_claims_follow_other_epsilons_where_they_keep_their_meaning(tiny) -> None:
    tiny["attacks"]["noise"] = {"epsilon": [4, 8]}
    tiny["findings"] = [
        {"claim": "one", "lower": "pgd", "higher": "learner"},
        {"claim": "chosen", "lower": "pgd", "higher": {"attack": "noise", "epsilon": 8}},
        {"claim": "gone", "lower": "pgd", "higher": {"attack": "noise", "epsilon": 4}},
        {"claim": "curve", "lower": "noise", "higher": "noise", "measure": "ssim", "at_equal": "mAP"},
    ]
    suite = parse.parse(tiny)
    kept = [
        (claim.claim, [t.epsilon for t in claim.lower.threats], [t.epsilon for t in claim.higher.threats])
        for claim in suite.with_epsilons([8, 16]).findings
    ]
    assert kept == [("one", [8], [8]), ("one", [16], [16]), ("chosen", [8], [8]), ("curve", [8, 16], [8, 16])]
    assert [claim.claim for claim in suite.with_epsilons([2]).findings] == ["one"], "one point is no curve"


def test_the_published_schema_is_the_one_of_the_code() -> None:
    path = Path(document.__file__).with_name("suite.schema.json")
    command = f"reid-attack-bench schema suite > {path.relative_to(RESULTS.parent)}"
    assert path.read_text() == schema_text(document.suite_schema()), f"it is stale: run  {command}"


@pytest.mark.parametrize("name", parse.shipped())
def test_the_schema_accepts_every_shipped_suite(name: str) -> None:
    validator = jsonschema.Draft202012Validator(document.suite_schema())
    assert list(validator.iter_errors(yaml.safe_load(parse.shipped()[name].read_text()))) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"atacks": {}},
        {"attacks": {"pgd": {"epsilonn": 3}}},
        {"attacks": {"pgd": {"epsilon": 300}}},
        {"attacks": {"pgd": {"access": "black-box"}}},
        {"victims": {"a": {"roles": "judge"}}},
        {"full": {"seed": -1}},
        {"findings": [{"lower": "pgd"}]},
    ],
)
def test_the_schema_refuses_mistakes(wrong: dict) -> None:
    assert list(jsonschema.Draft202012Validator(document.suite_schema()).iter_errors(wrong))

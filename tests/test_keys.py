"""Keys address stored results, seeds decide random numbers: neither may change when code moves."""

from __future__ import annotations

import importlib.metadata
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path

import pytest
import yaml

from reid_attack_bench import registry
from reid_attack_bench.adversary import adaptive
from reid_attack_bench.contracts import ThreatModel, Victim
from reid_attack_bench.data import catalogue as datasets
from reid_attack_bench.data.synthetic import DOMAINS
from reid_attack_bench.files import digest_of
from reid_attack_bench.jobs import attack_file
from reid_attack_bench.plan import planner as plan
from reid_attack_bench.plan.plan import Plan
from reid_attack_bench.plan.planner import make_plan
from reid_attack_bench.steps import fit
from reid_attack_bench.steps.data import data_step
from reid_attack_bench.steps.kinds import STEP_VERSIONS
from reid_attack_bench.steps.step import Step
from reid_attack_bench.suites import parse, protocols
from reid_attack_bench.suites.suite import Suite, VictimEntry
from tests.conftest import TOY
from tests.plugins import published
from tests.stand_ins import plan_with_stand_ins

PINNED = {
    "carry-over": ("badd25da4296", "805e6094b8c0"),
    "decoder": ("3cfe3b495eb1", "895b3f4803c6"),
    "defended": ("f2e5f6db1174", "63208134ecd2"),
    "full-width": ("b414f9c82382", "5b5bba635d92"),
    "market-to-msmt": ("8fdb6f19450f", "9fecae94a685"),
    "market1501": ("90d5ae87ae12", "143f9a9f4825"),
    "minute": ("3ffdc2cde1e9", "06b790b23bff"),
    "msmt17": ("5eea2619bcb5", "07298f1b41b5"),
    "paper-cross-both": ("ac7372e8d2f6", "6110d33de018"),
    "paper-cross-dataset": ("9b37253d076d", "a18a2db623ae"),
    "paper-cross-model": ("f825ea983c15", "1596f30afe9c"),
    "paper-discriminator": ("655ecbcf5dec", "ca576df77ac2"),
    "paper-epsilon": ("05041f40459b", "f05c7b50fcbe"),
    "paper-objectives": ("dfbf50bb5a95", "38a2d5f43776"),
    "paper-perception": ("37b7b540aba7", "3d87d59ca801"),
    "paper-pixels": ("c76f65966a50", "ee66e96e33fe"),
    "paper-whitebox": ("31fe7bd801cc", "bbb2ab639f42"),
    "queries": ("2e63bdbf557b", "93793e5adf0f"),
    "quick": ("f6dd06e51230", "20fb619f3efb"),
    "released-vs-paper": ("807d3935671c", "f391347e6cc8"),
    "reranking": ("40fa7c011ec6", "761dac65cdfd"),
    "standard": ("621a7f3782e1", "01994f50f0ff"),
}
"""Suite → digest of the keys, digest of the seeds, of all its steps, at both sizes where it has two.

Data and weights that are not here are stand-ins, see tests.stand_ins.
"""


PROTOCOLS = {
    "reid-standard-1": "90427f41dbaa",
    "reid-standard-1-small": "9dbc426089a5",
    "reid-standard-2": "0563d3814545",
    "reid-standard-2-small": "7c97c83b41b0",
}
"""Protocol → digest of its attacks."""


@pytest.fixture(autouse=True)
def _no_lpips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys of `measure` hold the digest of weights that not every machine has."""
    monkeypatch.setattr(plan, "find_lpips_weights", lambda: None)


@pytest.fixture(autouse=True)
def _no_published_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys of published networks hold the digest of their weights, which are not here."""
    published.stand_in(monkeypatch)


def planned(name: str, *, full: bool) -> Plan:
    chosen = parse.load(name, full=full, data=["plaza", "station"] if full else ())
    if not chosen.victims:
        chosen = chosen.with_victim(VictimEntry("mine", "torchreid", train_on=tuple(chosen.datasets)))
    rendered = set(chosen.datasets) <= set(DOMAINS)
    return make_plan(chosen) if rendered and name == "carry-over" else plan_with_stand_ins(chosen)


@pytest.mark.parametrize("name", parse.shipped())
def test_keys_and_seeds_of_shipped_suites_are_pinned(name: str) -> None:
    two_sizes = "full" in yaml.safe_load(parse.shipped()[name].read_text())
    steps = [
        step for full in ((False, True) if two_sizes else (False,)) for step in planned(name, full=full).steps.values()
    ]
    found = tuple(digest_of(sorted(values))[:12] for values in ([s.key for s in steps], [s.seed for s in steps]))
    assert found == PINNED.get(name), (
        f"{name}: keys or seeds are not {PINNED.get(name)} but {found}. Other keys orphan every result that is stored, "
        "other seeds change the published figures. If no result should change, undo what changed them: a new "
        "setting belongs in contracts.ADDED_LATER. If results change, raise the version of the attack, victim or step, "
        "which changes keys and no seed, and pin the new digests."
    )


def test_every_shipped_suite_is_pinned() -> None:
    assert set(PINNED) == set(parse.shipped())


@pytest.mark.parametrize("name", protocols.shipped())
def test_protocols_are_pinned(name: str) -> None:
    found = digest_of(
        {label: entry.model_dump(exclude_unset=True) for label, entry in protocols.attacks(name).items()}
    )[:12]
    assert found == PROTOCOLS.get(name), f"{name} has changed ({found}): a protocol never does; write the next version"


MARKET = (
    "bounding_box_train/0002_c1s1_000451_03.jpg", "bounding_box_train/0007_c3s3_077419_03.jpg",
    "query/0001_c1s1_001051_00.jpg", "bounding_box_test/0001_c2s1_001976_01.jpg",
    "bounding_box_test/0000_c5s1_000151_01.jpg", "bounding_box_test/-1_c3s2_068767_04.jpg",
)  # fmt: skip
"""Files of a data set in the layout of Market-1501; their content is their name."""


@pytest.mark.parametrize("layout", [{}, {"layout": "market1501"}])
def test_the_key_of_market1501_is_pinned(tmp_path: Path, layout: dict[str, str]) -> None:
    for name in MARKET:
        path = tmp_path / "market1501" / "Market-1501-v15.09.15" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    options = {**layout, **({"root": str(tmp_path / "market1501")} if layout else {})}
    source = datasets.source("market1501", options, size=(64, 32), seed=0, data_root=tmp_path)
    assert (data_step(source).key[:12], data_step(source).seed) == ("c1fd2b91ddf2", 122850667886638435)


def identities(document: dict) -> dict[str, tuple[str, int]]:
    """Label of each step → key and seed."""
    return {step.label: (step.key, step.seed) for step in make_plan(parse.parse(document)).steps.values()}


def of_kind(document: dict, kind: str, change: Callable[[Suite], Suite] = lambda chosen: chosen) -> list[Step]:
    return [step for step in make_plan(change(parse.parse(document))).steps.values() if step.kind == kind]


def register(monkeypatch: pytest.MonkeyPatch, kind: str, name: str, factory: object, module: str) -> None:
    """Make `name` the entry point of `factory` in a module of that name."""
    holder = types.ModuleType(module)
    holder.It = factory  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module, holder)
    entries = importlib.metadata.entry_points

    def changed(group: str) -> list[importlib.metadata.EntryPoint]:
        own = [importlib.metadata.EntryPoint(name, f"{module}:It", group)] if group == registry.GROUPS[kind] else []
        return [*own, *(entry for entry in entries(group=group) if not own or entry.name != name)]

    monkeypatch.setattr(importlib.metadata, "entry_points", changed)


def attack_like(name: str, **changes: object) -> type:
    """The class of a registered attack under another name and in another module."""
    factory = registry.find("attack", name).factory
    return type("Renamed", (factory,), {"version": factory.version, "__module__": "elsewhere", **changes})


def test_a_moved_or_renamed_class_keeps_keys_and_seeds(tiny, monkeypatch) -> None:
    before = identities(tiny)
    register(monkeypatch, "attack", "pgd", attack_like("pgd"), "elsewhere")
    assert registry.find("attack", "pgd").factory.__name__ == "Renamed"
    assert identities(tiny) == before


def test_a_raised_version_changes_the_key_and_not_the_seed(tiny, monkeypatch) -> None:
    before = identities(tiny)
    register(monkeypatch, "attack", "pgd", attack_like("pgd", version=7), "elsewhere")
    monkeypatch.setattr(fit, "VERSION", 99)
    after = identities(tiny)
    assert {label: seed for label, (_, seed) in after.items()} == {label: seed for label, (_, seed) in before.items()}
    changed = {label for label, (key, _) in after.items() if key != before[label][0]}
    assert changed == {label for label in before if " pgd " in f" {label} " or "learner" in label}


def test_another_way_to_adapt_changes_the_key_and_not_the_seed(tiny, monkeypatch) -> None:
    tiny["attacks"] = {"pgd": {"adaptive": True}}
    before = of_kind(tiny, "craft")
    monkeypatch.setattr(adaptive, "VERSION", adaptive.VERSION + 1)
    after = of_kind(tiny, "craft")
    assert not {s.key for s in before} & {s.key for s in after}
    assert [s.seed for s in before] == [s.seed for s in after]
    tiny["attacks"] = {"pgd": {}}
    assert not {s.seed for s in before} & {s.seed for s in of_kind(tiny, "craft")}


@pytest.mark.parametrize(
    ("setting", "kinds"),
    [
        ({"precision": "bfloat16"}, {"clean", "craft", "features"}),
        ({"compile": True}, {"clean", "craft", "features"}),
        ({"batch_size": 6}, {"craft"}),
    ],
)
def test_the_way_of_computing_leaves_the_seeds_alone(tiny, setting: dict, kinds: set[str]) -> None:
    for kind in STEP_VERSIONS:
        before, after = of_kind(tiny, kind), of_kind({**tiny, **setting}, kind)
        assert [s.seed for s in before] == [s.seed for s in after]
        if kind in kinds:
            assert [s.key for s in before] != [s.key for s in after]


def test_lpips_weights_decide_the_key_of_measures_alone(tiny, monkeypatch) -> None:
    before = identities(tiny)
    monkeypatch.setattr(plan, "find_lpips_weights", lambda: TOY)
    for label, (key, seed) in identities(tiny).items():
        assert (key != before[label][0], seed) == (label.startswith("measure"), before[label][1])


@pytest.mark.parametrize(
    ("kinds", "change"),
    [
        ({"data", "victim", "fit", "craft"}, lambda d: d.update(seed=1)),
        ({"data", "victim", "fit", "craft"}, lambda d: d.update(image_size=[64, 48])),
        ({"data", "victim", "fit", "craft"}, lambda d: [o.update(train_identities=9) for o in d["datasets"].values()]),
        ({"victim", "fit", "craft"}, lambda d: d["victims"]["toy"].update(options={"steps": 5})),
        ({"victim", "fit", "craft"}, lambda d: d["victims"]["toy"].update(use="torchreid")),
        ({"fit", "craft"}, lambda d: d["attacks"]["learner"].update(options={"steps": 2})),
        ({"fit", "craft"}, lambda d: d["attacks"]["learner"].update(seeds=[1])),
        ({"fit", "craft"}, lambda d: d["attacks"]["learner"].update(epsilon=4)),
        ({"fit", "craft"}, lambda d: d["attacks"]["learner"].update(pixels=50)),
        ({"craft"}, lambda d: d["attacks"]["learner"].update(perturbs="both")),
        ({"craft"}, lambda d: d["attacks"].update(learner={"use": "pgd"})),
    ],
)
def test_what_is_asked_for_decides_the_seed(tiny, kinds: set[str], change) -> None:
    tiny["attacks"] = {"learner": {"use": "gap"}}
    before = {kind: {s.seed for s in of_kind(tiny, kind)} for kind in STEP_VERSIONS}
    change(tiny)
    for kind in ("data", "victim", "fit", "craft"):
        after = {s.seed for s in of_kind(tiny, kind)}
        assert after.isdisjoint(before[kind]) if kind in kinds else after == before[kind] or not after, kind


def test_no_two_steps_of_a_plan_share_a_seed_or_a_key() -> None:
    steps = make_plan(parse.load("quick")).steps.values()
    assert len({s.seed for s in steps}) == len({s.key for s in steps}) == len(steps)


def test_a_ready_victim_is_its_weights(tiny, tmp_path) -> None:
    path = tmp_path / "ready.py"
    tiny["victims"] = {"ready": {"use": f"{path}:It"}}

    def step(seed: int, comment: str = "") -> Step:
        folder = str(TOY.parent)
        path.write_text(
            f"import sys; sys.path.insert(0, {folder!r}){comment}\n"
            f"from toy import ToyVictim\nIt = ToyVictim(seed={seed})\n"
        )
        (made,) = of_kind(tiny, "victim")
        return made

    first, edited, other = step(0), step(0, "  # a comment"), step(1)
    assert first.seed == edited.seed != other.seed
    assert len({first.key, edited.key, other.key}) == 3, "a file has no version"


def test_a_new_field_of_the_threat_model_changes_nothing(tiny) -> None:
    @dataclass(frozen=True)
    class Grown(ThreatModel):
        norm: str = "linf"

    def grown(chosen: Suite, **new: str) -> Suite:
        def entry(each):
            threats = tuple(Grown(**vars(threat), **new) for threat in each.threats)
            return replace(each, threats=threats)

        return replace(chosen, attacks=tuple(map(entry, chosen.attacks)))

    for kind in ("fit", "craft"):
        before, after = of_kind(tiny, kind), of_kind(tiny, kind, grown)
        assert [(s.key, s.seed) for s in before] == [(s.key, s.seed) for s in after]
        other = of_kind(tiny, kind, lambda chosen: grown(chosen, norm="l2"))
        assert ({s.key for s in other} == {s.key for s in before}) == (kind == "fit"), "a fit sees the budget alone"


def test_a_step_is_handed_no_more_of_the_threat_than_its_key_holds(tiny) -> None:
    tiny["attacks"] = {"learner": {**tiny["attacks"]["learner"], "perturbs": "gallery", "access": "white-box"}}
    fits, crafts = of_kind(tiny, "fit"), of_kind(tiny, "craft")
    assert [step.config["threat"] for step in fits] == [{"epsilon": 8}] * len(fits)
    assert [step.config["threat"] for step in crafts] == [{"epsilon": 8, "perturbs": "gallery"}] * len(crafts)


def test_transfer_and_white_box_share_what_is_fitted_and_crafted(tiny) -> None:
    def attacked(access: str) -> Plan:
        attacks = {"learner": {**tiny["attacks"]["learner"], "access": access}, "noise": {"access": access}}
        return make_plan(parse.parse({**tiny, "attacks": attacks}))

    transfer, white_box = attacked("transfer"), attacked("white-box")
    for kind in ("fit", "craft"):
        keys = [{s.key for s in each.steps.values() if s.kind == kind} for each in (transfer, white_box)]
        assert keys[0] == keys[1] != set()
    assert {cell.threat.access for cell in white_box.cells} == {"white-box"}, "cells keep the whole threat"
    assert len(white_box.cells) < len(transfer.cells)


@pytest.mark.parametrize("asked", [{"queries": 10}, {"queries": 9}, {"queries": 10, "top": 5, "sees": "ranking"}])
def test_what_an_attack_sees_is_part_of_its_craft(tiny, asked) -> None:
    tiny["attacks"] = {"asker": {"use": f"{TOY}:Asker", "sees": "embedding", "queries": 11}}
    before = of_kind(tiny, "craft")
    tiny["attacks"]["asker"] |= {"options": {"form": asked.get("sees", "embedding")}, **asked}
    after = of_kind(tiny, "craft")
    assert after
    for step in after:
        assert step.config["threat"] == {"epsilon": 8, "sees": "embedding", **asked}
    assert not {s.seed for s in before} & {s.seed for s in after}


def test_only_a_version_of_its_own_stands_for_the_source(monkeypatch, tmp_path) -> None:
    assert registry.find("attack", "pgd").code == "v1"
    register(monkeypatch, "attack", "mine", type("Mine", (attack_like("pgd"),), {}), "mine")
    assert registry.find("attack", "mine").code != "v1", "what inherits changes by itself"


def test_each_of_our_registered_classes_declares_its_version() -> None:
    for kind in registry.GROUPS:
        ours = [
            name for name, entry in registry.available(kind).items() if entry.value.startswith("reid_attack_bench.")
        ]
        for name in ours:
            assert registry.find(kind, name).code.startswith("v"), name


def test_a_registered_victim_made_already_is_known_by_its_module(monkeypatch, tmp_path) -> None:
    class Ready(Victim):
        version = 1

    register(monkeypatch, "victim", "ready", Ready(), "ready_module")
    monkeypatch.setattr(sys.modules["ready_module"], "__file__", str(TOY), raising=False)
    by_file = registry.find("victim", f"{TOY}:ToyVictim").code
    assert registry.find("victim", "ready").code == by_file


def test_a_fitted_attack_of_before_is_still_read(tmp_path) -> None:
    values = {each.name: "" for each in fields(attack_file.AttackFile)}
    values |= {"use": "gap", "options": {}, "threat": ThreatModel(), "seed": 0, "image_size": (64, 32)}
    about = attack_file.AttackFile(**{**values, "code": "reid_attack_bench.attacks.gap.GAP v1"})
    read, _ = attack_file.read(attack_file.write(tmp_path / "old.safetensors", about, {}))
    assert type(read.attack()).__name__ == "GAP"

"""Read a suite from YAML and check it in full."""

from __future__ import annotations

import importlib.resources
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from reid_attack_bench.contracts import ThreatModel
from reid_attack_bench.errors import BenchError, nearest
from reid_attack_bench.metrics.catalogue import MEASURES
from reid_attack_bench.suites.compose import compose
from reid_attack_bench.suites.fields import (
    check_known,
    check_label,
    list_of,
    mapping_of,
    precision_of,
    section_of,
    size_of,
    true_or_false,
    whole,
)
from reid_attack_bench.suites.suite import EOT_SAMPLES, RELATIONS, AttackEntry, Contender, Finding, Suite, VictimEntry


def shipped() -> dict[str, Path]:
    """Suites that come with the bench: name → file."""
    folder = Path(str(importlib.resources.files("reid_attack_bench.suites")))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load(name_or_file: str, *, full: bool = False, data: Sequence[str] = ()) -> Suite:
    """A shipped suite by name, or a YAML file; at its full size, or with other data sets in place of its own.

    `compose.compose` says what a file may be made of.

    Raises:
        BenchError: no such suite (the nearest is named), or a mistake in the file.
    """
    path = _path(name_or_file)
    document = _document(path)
    try:
        return parse(document, default_name=path.stem, full=full, data=data)
    except BenchError as error:
        raise BenchError(f"{path}: {error}") from error


def _path(name_or_file: str) -> Path:
    if name_or_file.endswith((".yaml", ".yml")):
        path = Path(name_or_file).expanduser()
        if not path.is_file():
            raise BenchError(f"suite file {path} does not exist")
    else:
        known = shipped()
        if name_or_file not in known:
            raise BenchError(
                f"no suite is called '{name_or_file}': {nearest(name_or_file, known)} (or give a .yaml file)"
            )
        path = known[name_or_file]
    return path


def _document(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BenchError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    return mapping_of(document, str(path))


def parse(document: Any, default_name: str = "suite", *, full: bool = False, data: Sequence[str] = ()) -> Suite:
    """Check a suite document (as YAML gives it) and return it."""
    top = compose(mapping_of(document, "the suite"), lambda name: _document(_path(name)), full=full, data=data)
    check_known(
        top,
        (
            "name",
            "description",
            "seed",
            "image_size",
            "batch_size",
            "headline_epsilon",
            "datasets",
            "victims",
            "attacks",
            "relations",
            "findings",
            "precision",
            "compile",
        ),
        "the suite",
    )
    datasets = {str(k): mapping_of(v or {}, f"datasets.{k}") for k, v in section_of(top, "datasets").items()}
    victims = tuple(_victim(str(k), v, datasets) for k, v in mapping_of(top.get("victims") or {}, "victims").items())
    image_size = size_of(top.get("image_size", [256, 128]))
    attacks = tuple(_attack(str(k), v, image_size) for k, v in section_of(top, "attacks").items())
    epsilons = sorted({t.epsilon for a in attacks for t in a.threats})
    return Suite(
        name=str(top.get("name", default_name)),
        description=str(top.get("description", "")),
        seed=whole(top.get("seed", 0), "seed"),
        image_size=image_size,
        batch_size=whole(top.get("batch_size", 64), "batch_size", least=1),
        headline_epsilon=whole(top.get("headline_epsilon", epsilons[0]), "headline_epsilon"),
        datasets=datasets,
        victims=victims,
        attacks=attacks,
        relations=_relations(top.get("relations", [])),
        findings=tuple(
            each
            for i, value in enumerate(list_of(top, "findings"))
            for each in _findings(i, value, attacks, image_size)
        ),
        precision=precision_of(top.get("precision", "float32")),
        compile=true_or_false(top.get("compile", False), "compile"),
    )


def from_plain(plain: Mapping[str, Any]) -> Suite:
    """The suite that `dataclasses.asdict` made `plain` of, as a manifest has it; without its findings."""
    victims = tuple(VictimEntry(**{k: _tupled(v) for k, v in entry.items()}) for entry in plain["victims"])
    attacks = tuple(
        AttackEntry(
            **{
                **entry,
                "threats": tuple(ThreatModel(**threat) for threat in entry["threats"]),
                "seeds": tuple(entry["seeds"]),
            }
        )
        for entry in plain["attacks"]
    )
    tuples = {name: tuple(plain[name]) for name in ("image_size", "relations")}
    return Suite(**{**plain, **tuples, "victims": victims, "attacks": attacks, "findings": ()})


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _relations(value: Any) -> tuple[str, ...]:
    given = (value,) if isinstance(value, str) else tuple(value)
    for name in given:
        if name not in RELATIONS:
            raise BenchError(f"relations: no '{name}': {nearest(str(name), RELATIONS)}")
    return given


def _findings(
    index: int, value: Any, attacks: tuple[AttackEntry, ...], image_size: tuple[int, int]
) -> Iterator[Finding]:
    """One finding, or for `ascending: [a, b, c]` one for each two neighbours."""
    where = f"findings[{index}]"
    entry = mapping_of(value, where)
    check_known(entry, ("claim", "lower", "higher", "ascending", "measure", "relation", "at_equal"), where)
    if not entry.get("claim"):
        raise BenchError(f"{where} has no claim: say in words what it claims")
    measure, equal = str(entry.get("measure", "rank1")), str(entry.get("at_equal", ""))
    for name in (measure, equal):
        if name and name not in MEASURES:
            raise BenchError(f"{where}: no measure is called '{name}': {nearest(name, MEASURES)}")
    (relation,) = _relations(str(entry.get("relation", "white-box")))
    if ("ascending" in entry) == ("lower" in entry and "higher" in entry):
        raise BenchError(f"{where} needs lower and higher, or ascending with a list of attacks")
    sides = list_of(entry, "ascending") if "ascending" in entry else [entry["lower"], entry["higher"]]
    if len(sides) < 2:
        raise BenchError(f"{where}.ascending needs at least two attacks")
    contenders = [_contender(side, where, attacks, image_size, curve=bool(equal)) for side in sides]
    for lower, higher in itertools.pairwise(contenders):
        yield Finding(str(entry["claim"]), lower, higher, measure, relation, equal)


def _contender(
    value: Any, where: str, attacks: tuple[AttackEntry, ...], image_size: tuple[int, int], *, curve: bool
) -> Contender:
    entry = {"attack": value} if isinstance(value, str) else mapping_of(value, where)
    check_known(entry, ("attack", "epsilon", "pixels"), where)
    label = str(entry.get("attack"))
    known = {attack.label: attack for attack in attacks}
    if label not in known:
        raise BenchError(f"{where}: no attack '{label}' in this suite: {nearest(label, known)}")
    threats = known[label].threats
    if "epsilon" in entry:
        threats = tuple(threat for threat in threats if threat.epsilon == entry["epsilon"])
    if "pixels" in entry:
        budget = _pixels(entry["pixels"], image_size)
        threats = tuple(threat for threat in threats if threat.pixels == budget)
    if curve and len(threats) < 2:
        raise BenchError(f"{where}: at_equal reads a curve, and attack {label} has {len(threats)} threat model there")
    if not curve and len(threats) != 1:
        raise BenchError(
            f"{where}: attack {label} has {len(threats)} such threat models: name one with epsilon and pixels"
        )
    return Contender(label, threats)


def _pixels(value: Any, image_size: tuple[int, int]) -> Any:
    """A pixel budget: a number, "all" or null for no limit, or "1/8" of the image's pixels."""
    if value in (None, "all"):
        return None
    if isinstance(value, str) and (share := re.fullmatch(r"1/([1-9]\d*)", value)):
        return max(1, image_size[0] * image_size[1] // int(share[1]))
    if isinstance(value, str):
        raise BenchError(f"pixels must be a whole number, all, or a share such as 1/8, not {value!r}")
    return value


def _victim(label: str, value: Any, datasets: Mapping[str, Any]) -> VictimEntry:
    where = f"victims.{label}"
    entry = mapping_of(value or {}, where)
    check_known(entry, ("use", "options", "train_on", "expected_rank1", "roles", "defends"), where)
    check_label(label, where)
    train_on = entry.get("train_on", [])
    train_on = tuple(str(d) for d in ([train_on] if isinstance(train_on, str) else train_on))
    for name in train_on:
        if name not in datasets:
            raise BenchError(f"{where}.train_on: no data set '{name}' in this suite: {nearest(name, datasets)}")
    roles = entry.get("roles", ["source", "target"])
    roles = tuple([roles] if isinstance(roles, str) else roles)
    for role in roles:
        if role not in ("source", "white-box", "target"):
            raise BenchError(f"{where}.roles: '{role}' is none of source, white-box, target")
    try:
        expected = float(entry.get("expected_rank1", 0.0))
    except (TypeError, ValueError):
        raise BenchError(f"{where}.expected_rank1 must be a number in %, not {entry['expected_rank1']!r}") from None
    options = mapping_of(entry.get("options") or {}, f"{where}.options")
    defends = str(entry.get("defends", ""))
    if defends and train_on:
        raise BenchError(f"{where}: it defends {defends}, which says what it is trained on: remove train_on")
    return VictimEntry(label, str(entry.get("use", label)), options, train_on, expected, roles, defends)


def _attack(label: str, value: Any, image_size: tuple[int, int]) -> AttackEntry:
    where = f"attacks.{label}"
    entry = mapping_of(value or {}, where)
    check_known(entry, ("use", "options", "epsilon", "pixels", "perturbs", "access", "seeds", "adaptive"), where)
    check_label(label, where)

    def several(name: str, default: Any) -> list[Any]:
        given = entry.get(name, default)
        return given if isinstance(given, list) else [given]

    try:
        threats = tuple(
            ThreatModel(
                epsilon, _pixels(pixels, image_size), entry.get("perturbs", "query"), entry.get("access", "transfer")
            )
            for epsilon in several("epsilon", 8)
            for pixels in several("pixels", None)
        )
    except (BenchError, TypeError, ValueError) as error:
        raise BenchError(f"{where}: {error}") from error
    if not threats:
        raise BenchError(f"{where}: epsilon is an empty list")
    options = mapping_of(entry.get("options") or {}, f"{where}.options")
    seeds = tuple(whole(seed, f"{where}.seeds") for seed in several("seeds", []))
    if len(set(seeds)) < len(seeds):
        raise BenchError(f"{where}.seeds names a seed twice: {list(seeds)}")
    adaptive = entry.get("adaptive", False)
    samples = EOT_SAMPLES * adaptive if isinstance(adaptive, bool) else whole(adaptive, f"{where}.adaptive")
    return AttackEntry(label, str(entry.get("use", label)), options, threats, seeds, samples)

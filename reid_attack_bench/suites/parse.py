"""Read and validate suites from YAML; convert them to JSON and back."""

from __future__ import annotations

import importlib.resources
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

from reid_attack_bench.contracts import ThreatModel
from reid_attack_bench.errors import BenchError, nearest
from reid_attack_bench.files import expanded
from reid_attack_bench.suites import protocols
from reid_attack_bench.suites.compose import compose
from reid_attack_bench.suites.document import (
    AttackDocument,
    ContenderDocument,
    FindingDocument,
    SuiteDocument,
    VictimDocument,
    epsilon_steps,
)
from reid_attack_bench.suites.suite import CONTROL, OTHERS, AttackEntry, Claim, Contender, Suite, VictimEntry
from reid_attack_bench.validation import checked, read_yaml

T = TypeVar("T")


def shipped() -> dict[str, Path]:
    """Shipped suites: name → file."""
    folder = Path(str(importlib.resources.files("reid_attack_bench.suites")))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load(name_or_file: str, *, full: bool = False, data: Sequence[str] = ()) -> Suite:
    """A shipped suite by name, or a YAML file; optionally at full size or with other data sets.

    See `compose.compose` for the parts of a file.

    Raises:
        BenchError: unknown suite, or an error in the file.
    """
    path = _path(name_or_file)
    document = read_yaml(path, "suite file")
    try:
        return parse(document, default_name=path.stem, full=full, data=data)
    except BenchError as error:
        raise BenchError(f"{path}: {error}") from error


def parse(document: Any, default_name: str = "suite", *, full: bool = False, data: Sequence[str] = ()) -> Suite:
    """Validate a suite document, as read from YAML, and return the suite.

    Raises:
        BenchError: the first error, with its location.
    """
    parts = compose(_plain(document), _read, full=full, data=data)
    top = checked(SuiteDocument, parts, "the suite")
    size = (top.image_size[0], top.image_size[1])
    datasets, victims, attacks = _entries(top.datasets), _entries(top.victims), _entries(top.attacks)
    for name, section in (("datasets", datasets), ("attacks", attacks or top.protocol)):
        if not section:
            raise BenchError(f"{name} is missing or empty: a suite needs at least one entry there")
    entries = {
        **protocol_attacks(top.protocol, size, attacks),
        **{label: _attack(label, entry, size) for label, entry in attacks.items()},
    }
    if CONTROL in entries:
        raise BenchError(f"attacks.{CONTROL}: findings call the best control by that name: choose another label")
    smallest = min(threat.epsilon for entry in entries.values() for threat in entry.threats)
    claims = (_claims(f"findings[{i}]", each, entries, size) for i, each in enumerate(top.findings))
    return Suite(
        name=top.name or default_name,
        description=top.description,
        seed=top.seed,
        image_size=size,
        batch_size=top.batch_size,
        headline_epsilon=smallest if top.headline_epsilon is None else top.headline_epsilon,
        datasets=datasets,
        victims=tuple(_victim(label, entry, datasets) for label, entry in victims.items()),
        attacks=tuple(entries.values()),
        relations=tuple(top.relations),
        findings=tuple(itertools.chain.from_iterable(claims)),
        precision=top.precision,
        compile=top.compile,
        protocol=top.protocol,
        draw_batch=top.draw_batch,
    )


def with_protocol(suite: Suite, name: str) -> Suite:
    """`suite` with the attacks of the protocol `name` in place of those of its own protocol.

    Raises:
        BenchError: no such protocol, or the suite has an attack of its own with a label of the protocol.
    """
    own = {attack.label: attack for attack in suite.attacks if not attack.protocol}
    entries = {**protocol_attacks(name, suite.image_size, own), **own}
    known = {(label, threat) for label, entry in entries.items() for threat in entry.threats}
    findings = tuple(
        claim
        for claim in suite.findings
        if all(
            side.attack == CONTROL or (side.attack, threat) in known
            for side in (claim.lower, claim.higher)
            for threat in side.threats
        )
    )
    return replace(suite, attacks=tuple(entries.values()), findings=findings, protocol=name)


def to_json(suite: Suite) -> str:
    """A suite as JSON; `from_json` returns an equal one."""
    return json.dumps(asdict(suite))


def from_json(text: str) -> Suite:
    """The suite written by `to_json`.

    Raises:
        BenchError: the text is not JSON, or not a suite that this version can read.
    """
    try:
        return from_plain(json.loads(text))
    except json.JSONDecodeError as error:
        raise BenchError(f"the JSON of a suite is corrupt: {error}") from error


def from_plain(plain: Mapping[str, Any]) -> Suite:
    """The suite from the result of `dataclasses.asdict`, as stored in a manifest.

    Raises:
        BenchError: not a suite that this version can read.
    """
    if isinstance(plain, Mapping) and "batch_size" in plain:  # one number before the two were apart
        plain = {"draw_batch": plain["batch_size"], **plain}
    return checked(Suite, plain, "the suite", noun="field")


def read_epsilons(text: str) -> tuple[int, ...]:
    """Parse epsilons of a command line: "4,8/255,16" → (4, 8, 16).

    Raises:
        BenchError: one is not a whole number of steps of 1/255 from 0 to 255.
    """
    try:
        return tuple(epsilon_steps(int(part) if part.strip().isdigit() else part) for part in text.split(","))
    except ValueError as error:
        raise BenchError(f"epsilon {error}") from None


def _path(name_or_file: str) -> Path:
    if name_or_file.endswith((".yaml", ".yml")):
        return expanded(name_or_file)
    known = shipped()
    if name_or_file not in known:
        raise BenchError(f"unknown suite '{name_or_file}': {nearest(name_or_file, known)} (or give a .yaml file)")
    return known[name_or_file]


def _read(name_or_file: str) -> dict[str, Any]:
    """The document of a suite that another one extends."""
    path = _path(name_or_file)
    document = read_yaml(path, "suite file")
    try:
        return _plain(document)
    except BenchError as error:
        raise BenchError(f"{path}: {error}") from error


def _plain(document: Any) -> dict[str, Any]:
    """A validated document as plain values, without defaults."""
    return checked(SuiteDocument, document, "the suite").model_dump(exclude_unset=True)


def _entries(section: dict[str, T] | list[str]) -> dict[str, T]:
    """A section of a composed suite, a mapping."""
    assert isinstance(section, dict)
    return section


def _victim(label: str, entry: VictimDocument, datasets: Mapping[str, Any]) -> VictimEntry:
    where = f"victims.{label}"
    for name in entry.train_on:
        if name not in datasets:
            raise BenchError(f"{where}.train_on: no data set '{name}' in this suite: {nearest(name, datasets)}")
    if entry.defends and entry.train_on:
        raise BenchError(
            f"{where}: a defence is trained on the data sets of its victim {entry.defends}: remove train_on"
        )
    use, options = entry.use or label, entry.options
    if entry.zoo:
        if entry.use or "name" in options:
            raise BenchError(f"{where}: zoo names the model already: remove {'use' if entry.use else 'options.name'}")
        use, options = "zoo", {"name": entry.zoo, **options}
    return VictimEntry(
        label, use, options, tuple(entry.train_on), entry.expected_rank1, tuple(entry.roles),
        entry.defends,
    )  # fmt: skip


def protocol_attacks(
    name: str, image_size: tuple[int, int], own: Mapping[str, Any] | None = None
) -> dict[str, AttackEntry]:
    """Attacks of a protocol by label; none without a name. `own`: those of the suite, whose labels must differ."""
    if not name:
        return {}
    fixed = protocols.attacks(name)
    for label in fixed:
        if label in (own or ()):
            raise BenchError(f"attacks.{label}: the protocol {name} has an attack of that label: choose another")
    return {label: replace(_attack(label, entry, image_size), protocol=name) for label, entry in fixed.items()}


def _attack(label: str, entry: AttackDocument, image_size: tuple[int, int]) -> AttackEntry:
    budgets: list[int | None] = [*entry.queries] or [None]
    threats = tuple(
        ThreatModel(
            epsilon,
            _pixel_count(pixels, image_size),
            entry.perturbs,
            entry.access,
            sees=entry.sees,
            queries=queries,
            top=entry.top,
            impersonate=entry.impersonate,
        )
        for epsilon in entry.epsilon
        for pixels in entry.pixels
        for queries in budgets
    )
    if entry.sources and entry.sees != "gradients":
        raise BenchError(f"attacks.{label}: answers come from one system, so sources needs sees: gradients")
    if OTHERS in entry.sources and (len(entry.sources) > 1 or entry.access != "transfer"):
        raise BenchError(
            f"attacks.{label}: sources: {OTHERS} is all sources but the target: give no label with it, and access: "
            "transfer"
        )
    return AttackEntry(
        label,
        entry.use or label,
        entry.options,
        threats,
        tuple(entry.seeds),
        entry.adaptive,
        entry.defended_only,
        sources=tuple(entry.sources),
        relations=tuple(entry.relations),
    )


def _pixel_count(pixels: int | str | None, image_size: tuple[int, int]) -> int | None:
    """A pixel budget as a number; None for no limit."""
    if isinstance(pixels, str):
        return max(1, image_size[0] * image_size[1] // int(pixels.removeprefix("1/")))
    return pixels


def _claims(
    where: str, entry: FindingDocument, attacks: Mapping[str, AttackEntry], image_size: tuple[int, int]
) -> Iterator[Claim]:
    """One claim, or for `ascending: [a, b, c]` one for each pair of neighbours."""
    sides = entry.ascending or [side for side in (entry.lower, entry.higher) if side is not None]
    curve = bool(entry.at_equal)
    contenders = [
        None if side.attack == CONTROL else _contender(where, side, attacks, image_size, curve=curve) for side in sides
    ]
    if any(each is None and side.model_fields_set > {"attack"} for each, side in zip(contenders, sides, strict=True)):
        raise BenchError(f"{where}: {CONTROL} has the budget of the other side: give the attack alone")
    for lower, higher in itertools.pairwise(contenders):
        if lower is None and higher is None:
            raise BenchError(f"{where}: both sides are {CONTROL}: name an attack of the suite for one of them")
        if curve and (lower is None or higher is None):
            raise BenchError(f"{where}: {CONTROL} is one value at a budget, not a curve: remove at_equal")
        pair = (lower or _control(higher), higher or _control(lower))
        yield Claim(entry.claim, *pair, entry.measure, entry.relation, entry.at_equal)


def _control(other: Contender | None) -> Contender:
    """The best control of the budget of the other side."""
    assert other is not None
    return Contender(CONTROL, other.threats)


def _contender(
    where: str,
    entry: ContenderDocument,
    attacks: Mapping[str, AttackEntry],
    image_size: tuple[int, int],
    *,
    curve: bool,
) -> Contender:
    label, given = entry.attack, entry.model_fields_set
    if label not in attacks:
        raise BenchError(f"{where}: no attack '{label}' in this suite: {nearest(label, [*attacks, CONTROL])}")
    budget = _pixel_count(entry.pixels, image_size)
    threats = tuple(
        threat
        for threat in attacks[label].threats
        if ("epsilon" not in given or threat.epsilon == entry.epsilon)
        and ("pixels" not in given or threat.pixels == budget)
        and ("queries" not in given or threat.queries == entry.queries)
    )
    if curve and len(threats) < 2:
        raise BenchError(f"{where}: at_equal needs a curve, but attack {label} has {len(threats)} threat model there")
    if not curve and len(threats) != 1:
        raise BenchError(
            f"{where}: attack {label} has {len(threats)} such threat models: name one with epsilon, pixels and queries"
        )
    return Contender(label, threats)

"""A suite: which data sets, victims and attacks make one matrix. Read from YAML and checked in full."""

from __future__ import annotations

import importlib.resources
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from reid_attack_bench.compose import compose
from reid_attack_bench.contracts import ThreatModel
from reid_attack_bench.errors import BenchError, nearest

RELATIONS = ("white-box", "cross-dataset", "cross-model", "cross-both")
"""How target and source of a cell stand to each other, on the data set that the target was trained on: the same model;
the same architecture trained on another data set; another architecture trained on the same; both."""

PRECISIONS = ("float32", "bfloat16")

EOT_SAMPLES = 8
"""Draws of a randomised victim that `adaptive: true` averages."""

MEASURES = (
    "rank1", "rank5", "rank10", "rank20", "mAP", "mINP",
    "drop_rank1", "drop_rank5", "drop_rank10", "drop_rank20", "drop_mAP", "drop_mINP",
    "l2", "pixels_changed", "ssim", "ms_ssim", "lpips", "grid",
)  # fmt: skip
"""Columns of matrix.csv that a finding may compare."""


@dataclass(frozen=True)
class VictimEntry:
    """One victim of a suite.

    Attributes:
        label: its name in tables.
        use: registered victim or FILE.py:NAME.
        options: its settings.
        train_on: data sets to train it on, one model each; empty for a victim that comes trained.
        expected_rank1: clean Rank-1 in % below which a trained model counts as failed, on its own data set.
        roles: "source" (crafted on, against every target), "white-box" (crafted on, against itself only), "target".
        defends: label of the victim that this one, a contracts.Defence, is made of; one for each of its models.
    """

    label: str
    use: str
    options: Mapping[str, Any] = field(default_factory=dict)
    train_on: tuple[str, ...] = ()
    expected_rank1: float = 0.0
    roles: tuple[str, ...] = ("source", "target")
    defends: str = ""


@dataclass(frozen=True)
class AttackEntry:
    """One attack of a suite, under one or more threat models.

    Attributes:
        label: its name in tables.
        use: registered attack or FILE.py:NAME.
        options: its settings.
        threats: what it may do; all are run.
        seeds: it is fitted and crafted once with each; empty for the suite's seed alone. Data and victims keep the
            suite's seed, so that seeds differ in the attack and in nothing else.
        adaptive: the source is attacked as one that knows its defence would (see `adaptive`); the number is how many
            draws of a randomised source are averaged. 0 attacks it as it is.
    """

    label: str
    use: str
    options: Mapping[str, Any]
    threats: tuple[ThreatModel, ...]
    seeds: tuple[int, ...] = ()
    adaptive: int = 0


@dataclass(frozen=True)
class Contender:
    """One side of a finding: an attack of the suite under one of its threat models, or under several as a curve."""

    attack: str
    threats: tuple[ThreatModel, ...]


@dataclass(frozen=True)
class Finding:
    """A claim about two attacks that a run confirms or does not; see report.findings.

    Attributes:
        claim: in words.
        lower, higher: whose `measure` is claimed to be the lower one, and the higher one.
        measure: a column of matrix.csv.
        relation: over which cells, see RELATIONS; the mean over all of them counts.
        at_equal: compare where this measure is the same, read off the curves over threat models; empty to compare the
            two as they are.
    """

    claim: str
    lower: Contender
    higher: Contender
    measure: str = "rank1"
    relation: str = "white-box"
    at_equal: str = ""


@dataclass(frozen=True)
class Suite:
    """A whole matrix.

    Attributes:
        name, description: for people.
        seed: from which every random draw of the run follows.
        image_size: (height, width) in pixels at which images are stored, attacked and judged.
        batch_size: images per forward pass; does not change results beyond rounding, but for a victim that draws once
            for a batch. What does not fit into a GPU's memory is halved.
        headline_epsilon: the leaderboard is ordered by the worst case at this epsilon.
        datasets: name → options.
        victims, attacks: what is crossed.
        relations: only these cells, see RELATIONS; empty for all.
        findings: claims that the report judges.
        precision: of victims when they are attacked and judged, not when they are trained: "float32", or "bfloat16"
            for torch's autocast, meant for GPUs.
        compile: have torch.compile make them faster on a GPU, where it can. Both change results a little.
    """

    name: str
    description: str
    seed: int
    image_size: tuple[int, int]
    batch_size: int
    headline_epsilon: int
    datasets: Mapping[str, Mapping[str, Any]]
    victims: tuple[VictimEntry, ...]
    attacks: tuple[AttackEntry, ...]
    relations: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    precision: str = "float32"
    compile: bool = False

    def with_seed(self, seed: int) -> Suite:
        return replace(self, seed=seed)

    def with_victim(self, victim: VictimEntry) -> Suite:
        if victim.label in {v.label for v in self.victims}:
            raise BenchError(f"suite {self.name} already has a victim '{victim.label}': give yours another name")
        return replace(self, victims=(*self.victims, victim))


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
    return _mapping(document, str(path))


def parse(document: Any, default_name: str = "suite", *, full: bool = False, data: Sequence[str] = ()) -> Suite:
    """Check a suite document (as YAML gives it) and return it."""
    top = compose(_mapping(document, "the suite"), lambda name: _document(_path(name)), full=full, data=data)
    _known(
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
    datasets = {str(k): _mapping(v or {}, f"datasets.{k}") for k, v in _section(top, "datasets").items()}
    victims = tuple(_victim(str(k), v, datasets) for k, v in _mapping(top.get("victims") or {}, "victims").items())
    image_size = _size(top.get("image_size", [256, 128]))
    attacks = tuple(_attack(str(k), v, image_size) for k, v in _section(top, "attacks").items())
    epsilons = sorted({t.epsilon for a in attacks for t in a.threats})
    return Suite(
        name=str(top.get("name", default_name)),
        description=str(top.get("description", "")),
        seed=_whole(top.get("seed", 0), "seed"),
        image_size=image_size,
        batch_size=_whole(top.get("batch_size", 64), "batch_size", least=1),
        headline_epsilon=_whole(top.get("headline_epsilon", epsilons[0]), "headline_epsilon"),
        datasets=datasets,
        victims=victims,
        attacks=attacks,
        relations=_relations(top.get("relations", [])),
        findings=tuple(
            each for i, value in enumerate(_list(top, "findings")) for each in _findings(i, value, attacks, image_size)
        ),
        precision=_precision(top.get("precision", "float32")),
        compile=_bool(top.get("compile", False), "compile"),
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
    entry = _mapping(value, where)
    _known(entry, ("claim", "lower", "higher", "ascending", "measure", "relation", "at_equal"), where)
    if not entry.get("claim"):
        raise BenchError(f"{where} has no claim: say in words what it claims")
    measure, equal = str(entry.get("measure", "rank1")), str(entry.get("at_equal", ""))
    for name in (measure, equal):
        if name and name not in MEASURES:
            raise BenchError(f"{where}: no measure is called '{name}': {nearest(name, MEASURES)}")
    (relation,) = _relations(str(entry.get("relation", "white-box")))
    if ("ascending" in entry) == ("lower" in entry and "higher" in entry):
        raise BenchError(f"{where} needs lower and higher, or ascending with a list of attacks")
    sides = _list(entry, "ascending") if "ascending" in entry else [entry["lower"], entry["higher"]]
    if len(sides) < 2:
        raise BenchError(f"{where}.ascending needs at least two attacks")
    contenders = [_contender(side, where, attacks, image_size, curve=bool(equal)) for side in sides]
    for lower, higher in itertools.pairwise(contenders):
        yield Finding(str(entry["claim"]), lower, higher, measure, relation, equal)


def _contender(
    value: Any, where: str, attacks: tuple[AttackEntry, ...], image_size: tuple[int, int], *, curve: bool
) -> Contender:
    entry = {"attack": value} if isinstance(value, str) else _mapping(value, where)
    _known(entry, ("attack", "epsilon", "pixels"), where)
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
    entry = _mapping(value or {}, where)
    _known(entry, ("use", "options", "train_on", "expected_rank1", "roles", "defends"), where)
    _label(label, where)
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
    options = _mapping(entry.get("options") or {}, f"{where}.options")
    defends = str(entry.get("defends", ""))
    if defends and train_on:
        raise BenchError(f"{where}: it defends {defends}, which says what it is trained on: remove train_on")
    return VictimEntry(label, str(entry.get("use", label)), options, train_on, expected, roles, defends)


def _attack(label: str, value: Any, image_size: tuple[int, int]) -> AttackEntry:
    where = f"attacks.{label}"
    entry = _mapping(value or {}, where)
    _known(entry, ("use", "options", "epsilon", "pixels", "perturbs", "access", "seeds", "adaptive"), where)
    _label(label, where)

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
    options = _mapping(entry.get("options") or {}, f"{where}.options")
    seeds = tuple(_whole(seed, f"{where}.seeds") for seed in several("seeds", []))
    if len(set(seeds)) < len(seeds):
        raise BenchError(f"{where}.seeds names a seed twice: {list(seeds)}")
    adaptive = entry.get("adaptive", False)
    samples = EOT_SAMPLES * adaptive if isinstance(adaptive, bool) else _whole(adaptive, f"{where}.adaptive")
    return AttackEntry(label, str(entry.get("use", label)), options, threats, seeds, samples)


def _section(top: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = _mapping(top.get(name) or {}, name)
    if not section:
        raise BenchError(f"{name} is missing or empty: a suite needs at least one entry there")
    return section


def _list(entry: Mapping[str, Any], name: str) -> list[Any]:
    given = entry.get(name) or []
    if not isinstance(given, list):
        raise BenchError(f"{name} must be a list, not {type(given).__name__}")
    return given


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise BenchError(f"{where} must be a mapping of names to values, not {type(value).__name__}")
    return {str(k): v for k, v in value.items()}


def _known(entry: Mapping[str, Any], allowed: tuple[str, ...], where: str) -> None:
    for name in entry:
        if name not in allowed:
            raise BenchError(f"{where} has no setting '{name}': {nearest(name, allowed)}")


def _label(label: str, where: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]*", label):
        raise BenchError(f"{where}: a label has letters, digits and _ . + - only")


def _whole(value: Any, where: str, least: int = 0) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise BenchError(f"{where} must be a whole number of at least {least}, not {value!r}")
    return value


def _precision(value: Any) -> str:
    if value not in PRECISIONS:
        raise BenchError(f"precision must be one of {', '.join(PRECISIONS)}, not {value!r}")
    return str(value)


def _bool(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise BenchError(f"{where} must be true or false, not {value!r}")
    return value


def _size(value: Any) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2:
        raise BenchError(f"image_size must be [height, width] in pixels, not {value!r}")
    return _whole(value[0], "image_size", 16), _whole(value[1], "image_size", 16)

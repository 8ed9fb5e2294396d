"""The suite of a submission, as far as a stranger's text may decide what is run.

Nothing is loaded that the command line does not name: plug-ins are registered ones, with settings that name no file, or
those that are given by label. The size of the plan has a limit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from reid_attack_bench import registry
from reid_attack_bench.errors import BenchError, nearest
from reid_attack_bench.registry import Plugin
from reid_attack_bench.suites import parse
from reid_attack_bench.suites.suite import AttackEntry, Suite, VictimEntry

CELLS = 500_000
"""Largest number of cells of a submitted suite, at most."""

NUMBER = 1e7
"""Largest size of a number among the settings of a submitted suite."""

_FILE = re.compile(r"trust|file|path|folder|root|cache|url|checkpoint|pretrained|weights$", re.IGNORECASE)
_WORDS = ("defence",)
"""Options that hold words for people."""


@dataclass(frozen=True)
class Given:
    """What the command line names.

    Attributes:
        victims: label → FILE.py:NAME, or the model or weights file of a registered victim. The label is that of the
            suite; "" for the submitted victim.
        attacks: label → FILE.py:NAME.
        trust: whether the files of `victims` may be read though they can run code (pickles, TorchScript).
    """

    victims: Mapping[str, str] = field(default_factory=dict)
    attacks: Mapping[str, str] = field(default_factory=dict)
    trust: bool = False


def allowed(suite: Suite, given: Given, submitted: str) -> tuple[Suite, dict[str, Plugin]]:
    """The suite with what is given, and label → plug-in of victims whose file is given.

    Args:
        submitted: label of the submitted victim in the suite.

    Raises:
        BenchError: the suite names code or files that are not given, or is too large.
    """
    named = {label or submitted: value for label, value in given.victims.items()}
    _check_known("--victim", named, [entry.label for entry in suite.victims])
    _check_known("--attack", given.attacks, [entry.label for entry in suite.attacks])
    _check_size(suite)
    _check_protocol(suite)
    for name, options in suite.datasets.items():
        layout = options.get("layout", "")
        if not isinstance(layout, str) or _is_file(layout):
            raise BenchError(f"data set {name} is read by {layout!r}, a file: verify loads no reader from a file")
        _check_options(f"data set {name}", options, trusted=())
    live: dict[str, Plugin] = {}
    victims = tuple(_victim(entry, named.get(entry.label, ""), given.trust, live) for entry in suite.victims)
    attacks = tuple(_attack(entry, given.attacks.get(entry.label, "")) for entry in suite.attacks)
    return replace(suite, victims=victims, attacks=attacks), live


def check_name(suite: Suite, submitted: str) -> str:
    """Compare a suite under a shipped name with the shipped one; what to say of a suite of another name, else "".

    Raises:
        BenchError: it has the name of a shipped suite and is another.
    """
    if suite.name not in parse.shipped():
        return f"that suite {suite.name} is a fair choice: it is none of the shipped ones"
    suite = replace(suite, datasets={name: _own(options) for name, options in suite.datasets.items()})
    apart: list[str] = []
    for expected in _shipped(suite):
        known = {entry.label for entry in expected.victims}
        added = [entry for entry in suite.victims if entry.label not in known]
        expected = replace(expected, victims=(*expected.victims, *added))
        if parse.to_json(expected) == parse.to_json(suite):
            if any(entry.label != submitted or not {"source", "white-box"} & set(entry.roles) for entry in added):
                break
            return ""
        differs = [name for name in vars(suite) if _plain(suite, name) != _plain(expected, name)]
        apart = min(apart, differs, key=len) if apart else differs
    what = f" in its {' and '.join(apart)}" if apart else " in its victims"
    raise BenchError(
        f"its suite is called {suite.name}, but differs from the shipped suite of that name{what}: run that suite as "
        "it is, or give yours a name of its own"
    )


def _shipped(suite: Suite) -> list[Suite]:
    """The shipped suite of that name as it is, at full size, and with the data sets of `suite`."""
    found = []
    for full in (False, True):
        for data in ((), tuple(suite.datasets)):
            try:
                expected = parse.load(suite.name, full=full, data=data)
                expected = parse.with_protocol(expected, suite.protocol) if suite.protocol else expected
            except BenchError:  # no full size, or other data sets than it can have
                continue
            datasets = {name: _own(options) for name, options in expected.datasets.items()}
            found.append(replace(expected, datasets=datasets))
    return found


def _plain(suite: Suite, name: str) -> str:
    return str(parse.json.loads(parse.to_json(suite))[name])


def _own(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name != "root"}


def _check_known(flag: str, named: Mapping[str, str], known: list[str]) -> None:
    for label in named:
        if label not in known:
            raise BenchError(f"{flag} {label}=…: the submission has no '{label}': {nearest(label, known)}")


def _victim(entry: VictimEntry, given: str, trust: bool, live: dict[str, Plugin]) -> VictimEntry:
    where = f"victim {entry.label}"
    if _is_file(given):
        if _is_file(entry.use):
            _check_same_name(where, entry.use, given)
        _check_options(where, entry.options, trusted=())
        return replace(entry, use=given)
    _check_registered("victim", where, entry.use, f"--victim {entry.label}={_file_of(entry.use)}")
    if not given:
        _check_options(where, entry.options, trusted=(), flag=f"--victim {entry.label}=FILE")
        return entry
    if not isinstance(entry.options.get("file"), str):
        raise BenchError(f"--victim {entry.label}={given}: {entry.use} of the submission has no file to stand for")
    trusts = [name for name in entry.options if name.startswith("trust_")]
    if any(entry.options[name] for name in trusts) and not trust:
        raise BenchError(
            f"{where} is a file that can run code when it is read ({', '.join(trusts)}): give --trust too if you trust "
            f"{given}"
        )
    _check_options(where, entry.options, trusted=("file", *trusts))
    live[entry.label] = _with_file(registry.find("victim", entry.use), given)
    return entry


def _with_file(plugin: Plugin, file: str) -> Plugin:
    """The plug-in that reads `file` whatever its option says, which stays as it is in the keys."""

    def build(**options: Any) -> Any:
        return plugin.build({**options, "file": file})

    return replace(plugin, factory=build)


def _attack(entry: AttackEntry, given: str) -> AttackEntry:
    where = f"attack {entry.label}"
    _check_options(where, entry.options, trusted=())
    if given:
        if not _is_file(given):
            raise BenchError(f"--attack {entry.label}={given}: write LABEL=FILE.py:NAME")
        _check_same_name(where, entry.use, given)
        return replace(entry, use=given)
    _check_registered("attack", where, entry.use, f"--attack {entry.label}={_file_of(entry.use)}")
    return entry


def _check_registered(kind: str, where: str, use: str, flag: str) -> None:
    if use not in registry.available(kind):
        if _is_file(use):
            raise BenchError(
                f"{where} is code in a file, {_file_of(use)}: read your copy of it, and give it with {flag}"
            )
        raise BenchError(f"{where}: no {kind} is called {use!r} here: install what registers it")


def _check_same_name(where: str, use: str, given: str) -> None:
    if _file_of(use) != _file_of(given):
        raise BenchError(f"{where} is {_file_of(use)} in the submission, not {_file_of(given)}: give that one")


def _is_file(use: str) -> bool:
    return ".py" in use


def _file_of(use: str) -> str:
    """FILE.py:NAME without its folder."""
    file, colon, name = use.rpartition(":")
    return re.split(r"[/\\]", file or use)[-1] + (f":{name}" if colon else "")


def _check_options(where: str, options: Mapping[str, Any], trusted: tuple[str, ...], flag: str = "") -> None:
    """Raises BenchError for an option, at any depth, that is or may be the name of a file, or is out of bounds."""
    for name, value in options.items():
        if name in trusted:
            continue
        if _FILE.search(name) and value not in (None, False, ""):
            said = f"give it with {flag}" if flag else "verify follows none that is not on its command line"
            raise BenchError(f"{where}: its option {name} is {_short(value)}: {said}")
        _check_value(f"{where}: its option {name}", value, words=name in _WORDS)


def _check_value(where: str, value: Any, *, words: bool) -> None:
    if isinstance(value, Mapping):
        _check_options(where, value, ())
    elif isinstance(value, (list, tuple)):
        for each in value:
            _check_value(where, each, words=words)
    elif isinstance(value, (int, float)):
        if not abs(value) <= NUMBER:
            raise BenchError(f"{where} is {_short(value)}, outside ±{NUMBER:.0e}")
    elif isinstance(value, str) and not words and _may_be_file(value):
        raise BenchError(f"{where} is {_short(value)}, which may be a file: verify follows none")


def _may_be_file(text: str) -> bool:
    if len(text) > 200 or re.search(r"[/\\:~\0\n]|^\.", text):
        return True
    return bool(text) and Path(text).is_file()


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _check_size(suite: Suite) -> None:
    """Raises BenchError for a suite whose plan could fill the memory or never end."""
    models: dict[str, int] = {}
    for entry in suite.victims:
        models[entry.label] = models.get(entry.defends, 1) if entry.defends else max(1, len(entry.train_on))
    runs = sum(len(attack.threats) * max(1, len(attack.seeds)) for attack in suite.attacks)
    cells = runs * sum(models.values()) ** 2 * len(suite.datasets)
    if cells > CELLS:
        raise BenchError(f"its suite has up to {cells:,} cells, more than the {CELLS:,} that verify takes")
    if not (all(16 <= side <= 4096 for side in suite.image_size) and 1 <= suite.batch_size <= 65536):
        raise BenchError(f"its suite has images of {suite.image_size} in batches of {suite.batch_size}")
    if not 0 <= suite.seed < 2**63:
        raise BenchError(f"its suite has the seed {_short(suite.seed)}")


def _check_protocol(suite: Suite) -> None:
    """Raises BenchError where the attacks of a protocol are not those of its file."""
    fixed = tuple(parse.protocol_attacks(suite.protocol, suite.image_size).values())
    given = tuple(entry for entry in suite.attacks if entry.protocol)
    if parse.to_json(replace(suite, attacks=given)) != parse.to_json(replace(suite, attacks=fixed)):
        name = suite.protocol or given[0].protocol
        raise BenchError(f"its attacks are not those of {name}: run the protocol as it is")

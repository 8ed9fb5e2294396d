"""Get and check the weights of zoo models."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from reid_attack_bench import registry
from reid_attack_bench.errors import BenchError, MissingWeightsError
from reid_attack_bench.metrics.lpips import Lpips
from reid_attack_bench.plan.victims import missing_weights
from reid_attack_bench.suites import parse
from reid_attack_bench.zoo.catalogue import ZooEntry, find
from reid_attack_bench.zoo.download import Progress
from reid_attack_bench.zoo.fetch import fetch, verified
from reid_attack_bench.zoo.folder import find_file, read_records, stem_of, weights_folder
from reid_attack_bench.zoo.formats import suffix_of


@dataclass(frozen=True)
class WeightsResult:
    """What became of one model.

    Attributes:
        name: of the model.
        path: its file; None if that is not there.
        sha256: digest of the file.
        state: in words, such as "downloaded".
        error: one line; empty if all is well.
    """

    name: str
    path: str | None = None
    sha256: str = ""
    state: str = ""
    error: str = ""


def wanted(names: Iterable[str], zoo_file: Path | None, suite: str = "") -> list[ZooEntry]:
    """The models of these names, and those that a suite lacks.

    Raises:
        BenchError: unknown name, or an error in the suite or the zoo file.
    """
    found = [find(name, zoo_file) for name in names]
    for error in missing_weights(parse.load(suite)) if suite else ():
        found += [find(name, error.zoo_file or None) for name in error.names]
    return list({(entry.name, entry.zoo_file): entry for entry in found}.values())


def get(
    entries: Iterable[ZooEntry],
    source: Path | None,
    progress: Callable[[str], AbstractContextManager[Progress]],
) -> list[WeightsResult]:
    """Get the file of each model; one that fails stops no other.

    Args:
        source: folder of files that were fetched by other means; nothing is then downloaded.
        progress: context manager of a progress callback, by the title of what it shows.
    """
    results = []
    for entry in entries:
        try:
            with progress(f"get {entry.name}") as told:
                got = fetch(entry, source=source, progress=told)
            state = ("copied" if source else "downloaded") if got.is_new else "was here"
            results.append(WeightsResult(entry.name, str(got.path), got.sha256, state))
        except BenchError as error:
            results.append(WeightsResult(entry.name, error=str(error)))
    return results


def check(entries: Iterable[ZooEntry]) -> list[WeightsResult]:
    """Check the file of each model: whole, of the right digest, and fitting its architecture."""
    return [_checked(entry) for entry in entries]


def _checked(entry: ZooEntry) -> WeightsResult:
    folder, digest, path = weights_folder(), "", None
    try:
        path = find_file(entry)
        if path is None:
            raise MissingWeightsError((entry.name,), str(folder), str(entry.zoo_file or ""))
        suffix_of(path, f"{entry.name} in {path}")
        digest = verified(entry, path, folder)
        _load(entry, path)
    except BenchError as error:
        return WeightsResult(entry.name, str(path) if path else None, digest, error=str(error))
    known = entry.sha256 or entry.file or stem_of(entry) in read_records(folder)
    return WeightsResult(entry.name, str(path), digest, "fits" if known else "fits, no digest to compare with")


def _load(entry: ZooEntry, path: Path) -> None:
    if entry.builder == "metric-backbone":
        Lpips(path)
        return
    options = {"name": entry.name} | ({"zoo_file": str(entry.zoo_file)} if entry.zoo_file else {})
    registry.find("victim", "zoo").build(options)

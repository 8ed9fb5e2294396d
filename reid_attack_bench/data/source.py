"""A data set of a plan, and what a report says about it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reid_attack_bench.contracts import DataSet, RankingProtocol
from reid_attack_bench.data.readers.content import PARTS, Content
from reid_attack_bench.data.split import Allocate, Progress, Split
from reid_attack_bench.errors import BenchError
from reid_attack_bench.files import expanded

_NAMED = 3
"""Files that a note names for each reason."""


@dataclass(frozen=True)
class DataSource:
    """One data set, ready to load.

    Attributes:
        name: name in suites and tables.
        synthetic: True for rendered images; results on them are marked as synthetic.
        protocol: ranking protocol, see `metrics.ranking`.
        identity: everything that determines its content, as plain values; part of the key of every step.
        counts: number of images of "train", "query" and "gallery"; 0 without a training split. They estimate run times.
        load: decodes or renders the splits "query", "gallery" and, if there is one, "train" at the size of the suite.
        title: name in papers; `name` for one's own data.
        withdrawn: why its authors have withdrawn it; empty for others.
        genuine: False if it goes by the name of a published data set, but has other numbers of images: no published
            value stands beside results on it.
        skipped: reason → files that are not read, see contracts.Listing.
        root: its folder, or list of images; None for a rendered domain.
        paths: lists the image files of each split again, in the order of `load`, to name one in an error; none of a
            rendered domain.
        notes: what every report on it must say: that it is not the published one, or not all was read.
    """

    name: str
    synthetic: bool
    protocol: RankingProtocol
    identity: Mapping[str, Any]
    counts: Mapping[str, int]
    load: Callable[[Progress, Allocate], dict[str, Split]]
    withdrawn: str = ""
    title: str = ""
    genuine: bool = True
    skipped: Mapping[str, Sequence[str]] = field(default_factory=dict)
    root: Path | None = None
    notes: tuple[str, ...] = ()
    paths: Callable[[], Mapping[str, Sequence[str]]] = dict

    def image_name(self, part: str, index: int) -> str:
        """An image in words, for errors: its split and position, and its file below `root` if it has one."""
        with contextlib.suppress(BenchError, IndexError, KeyError):  # the folder may have changed since
            path = Path(self.paths()[part][index])
            inside = self.root is not None and path.is_relative_to(self.root)
            return f"{part} image {index} ({path.relative_to(self.root) if inside else path.name})"  # type: ignore[arg-type]
        return f"{part} image {index}"


@dataclass(frozen=True)
class OnDisk:
    """A data set on disk, as it was found.

    Attributes:
        name, title, withdrawn: as in DataSource.
        data_set: its reader.
        reader: name of the reader.
        root: its folder, or list of images.
        content: what is in it.
        published: published number of images by split, of the data set of this name; empty if none is.
    """

    name: str
    title: str
    withdrawn: str
    data_set: DataSet
    reader: str
    root: Path
    content: Content
    published: Mapping[str, int]

    @property
    def counts(self) -> dict[str, int]:
        """Number of images of each split."""
        return {part: counts["images"] for part, counts in self.content.counts.items()}

    @property
    def genuine(self) -> bool:
        """As in DataSource."""
        return all(self.counts[part] == count for part, count in self.published.items())

    @property
    def notes(self) -> tuple[str, ...]:
        """As in DataSource."""
        lines = []
        if not self.genuine:
            lines.append(
                f"{self.name} in {_from_home(self.root)} has {_shown(self.counts)}, not the published "
                f"{_shown(self.published)}: no published value stands beside it."
            )
        if self.content.skipped:
            reasons = "; ".join(_reason(reason, names) for reason, names in self.content.skipped.items())
            lines.append(f"{self.name}: not read: {reasons}.")
        return tuple(lines)


def _from_home(path: Path) -> str:
    """A path as reports show it, which are passed on: without the name of the user."""
    home = expanded("~")
    return f"~/{path.relative_to(home).as_posix()}" if home in path.parents else str(path)


def _shown(counts: Mapping[str, int]) -> str:
    *most, last = [f"{counts[part]:,} {part}" for part in PARTS if part in counts]
    return f"{', '.join(most)} and {last} images" if most else f"{last} images"


def _reason(reason: str, names: Sequence[str]) -> str:
    """ "hidden files (4: query/.a.jpg, query/.b.jpg, query/.c.jpg …)" """
    more = " …" if len(names) > _NAMED else ""
    return f"{reason} ({len(names):,}: {', '.join(names[:_NAMED])}{more})"

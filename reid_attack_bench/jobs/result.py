"""The result of a run: tables, images and the report, read from the store on demand."""

from __future__ import annotations

import functools
import html
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reid_attack_bench.errors import BenchError, nearest
from reid_attack_bench.jobs import manifest
from reid_attack_bench.report.record import CellRecord, RunRecord, read_record
from reid_attack_bench.steps.artefacts import read_crafted, read_splits
from reid_attack_bench.store import open_store

if TYPE_CHECKING:  # slow to import, and not needed by a run that is up to date
    import pandas as pd

    from reid_attack_bench.report.analysis.conclude import Conclusions
    from reid_attack_bench.report.results import Results

_SHOWN = 8
"""Largest number of choices listed in an error."""


@dataclass(frozen=True)
class Images:
    """Clean and adversarial images of one attack on one data set, in the same order.

    Attributes:
        clean, adversarial: uint8 RGB N×H×W×3; read-only memory maps.
        identities, cameras: int64 N.
    """

    clean: np.ndarray
    adversarial: np.ndarray
    identities: np.ndarray
    cameras: np.ndarray


@dataclass(frozen=True, repr=False)
class Result:
    """Result of a run. Tables and images are read from the store on demand.

    Attributes:
        out: folder of the report.
        store: folder of the artefacts.
        record: the run record, as in manifest.json in `out`.
        failures: one line per step that failed by itself. Cells that depend on it have no values; their `status`
            gives the reason.
    """

    out: Path
    store: Path
    record: RunRecord
    failures: tuple[str, ...] = ()

    @classmethod
    def load(cls, run_dir: Path | str, store: Path | str | None = None) -> Result:
        """The result of an earlier run, which may be interrupted or still running.

        Args:
            run_dir: folder of its report.
            store: folder of its artefacts, if moved.

        Raises:
            BenchError: the folder does not hold a run, or its store does not exist.
        """
        record = read_record(Path(run_dir))
        place = Path(store or record.store)
        if not open_store(place).is_there():
            raise BenchError(f"the store {place} of this run does not exist: give its folder with --store")
        failures = tuple(note.removeprefix("Failed: ") for note in record.notes if note.startswith("Failed: "))
        return cls(Path(run_dir), place, record, failures)

    @functools.cached_property
    def results(self) -> Results:
        """All data of the report."""
        from reid_attack_bench.report.collect import collect

        return collect(self.record, open_store(self.store))

    @functools.cached_property
    def conclusions(self) -> Conclusions:
        """Leaderboard, findings, audit and gains of defences."""
        from reid_attack_bench.report.analysis.conclude import conclude

        return conclude(self.results)

    @property
    def leaderboard(self) -> pd.DataFrame:
        """The table of leaderboard.csv: one row per victim on its training data set, the most robust first."""
        return self.conclusions.board.copy()

    @property
    def matrix(self) -> pd.DataFrame:
        """The table of matrix.csv: one row per attack, threat model, source, target and data set."""
        from reid_attack_bench.report.analysis import leaderboard

        return leaderboard.matrix(self.results, self.conclusions.controls)

    @property
    def clean(self) -> pd.DataFrame:
        """The table of clean.csv: one row per victim and data set, without an attack."""
        from reid_attack_bench.report.analysis import leaderboard

        return leaderboard.clean(self.results)

    @property
    def is_reported(self) -> bool:
        """Whether the report in `out` is up to date."""
        return manifest.is_reported(self.record, manifest.read(self.out), self.out)

    def report(self, progress: Callable[[int, int, str], None] = lambda done, total, note: None) -> Path:
        """Path of report.html; the report is written first if it is not up to date."""
        if not self.is_reported:
            self.write_report(progress)
        return self.out / "report.html"

    def write_report(
        self, progress: Callable[[int, int, str], None] = lambda done, total, note: None, *, every_plot: bool = False
    ) -> list[Path]:
        """Write tables, plots and pages into `out`; returns their paths.

        Args:
            progress: called as progress(done, total, note) after every part.
            every_plot: draw heat maps and curves also of a run with thousands of cells, which takes minutes.
        """
        from reid_attack_bench.report.write import write_report

        written = write_report(
            self.results, self.out, progress=progress, concluded=self.conclusions, every_plot=every_plot
        )
        if self.record.finished:  # the report of an unfinished run is written again later
            names = tuple(str(path.relative_to(self.out)) for path in written)
            manifest.write(replace(self.record, files=names), self.out)
        return written

    # size: each argument names one column of the matrix
    def images(
        self,
        *,
        attack: str | None = None,
        source: str | None = None,
        dataset: str | None = None,
        epsilon: int | None = None,
        pixels: int | None = None,
        seed: int | None = None,
        side: str | None = None,
    ) -> Images:
        """Clean and adversarial images of one attack on one source and data set.

        Arguments with only one choice can be left out; an attack that ignores its source has the same images for all.

        Args:
            attack, source, dataset, epsilon, pixels, seed: columns of `matrix`.
            side: "query" or "gallery"; by default the attacked side, "query" if both were attacked.

        Raises:
            BenchError: no such images, or several; the choices are listed.
        """
        wanted = {
            "attack": attack, "source": source, "dataset": dataset, "epsilon": epsilon, "pixels": pixels, "seed": seed,
        }  # fmt: skip
        cell = self._one_cell({name: value for name, value in wanted.items() if value is not None})
        store = open_store(self.store)
        crafted = read_crafted(store.open("craft", cell.craft_key))
        side = side or ("query" if "query" in crafted else next(iter(crafted)))
        if side not in crafted:
            raise BenchError(f"side {side!r} was not attacked: {nearest(side, crafted)}")
        split = read_splits(store.open("data", cell.data_key))[side]
        return Images(split.images, crafted[side], split.identities, split.cameras)

    def _one_cell(self, wanted: Mapping[str, Any]) -> CellRecord:
        """A cell that matches `wanted`; all that match must have the same images."""
        left = [(_place(cell), cell) for cell in self.record.cells]
        for name, value in wanted.items():
            known = {place[name] for place, _ in left}
            left = [(place, cell) for place, cell in left if place[name] == value]
            if not left:
                raise BenchError(f"no images with {name}={value}: {nearest(str(value), map(str, known))}")
        store = open_store(self.store)
        stored = {cell.craft_key: (place, cell) for place, cell in left if store.has("craft", cell.craft_key)}
        if not stored:
            reasons = {cell.impossible or self.record.failures.get(cell.craft_key, "") for _, cell in left}
            raise BenchError(f"no such images: {max(reasons) or 'the run has not made them yet'}")
        if len(stored) > 1:
            differ = [name for name in _NAMES if len({str(place[name]) for place, _ in stored.values()}) > 1]
            texts = [" ".join(f"{name}={place[name]}" for name in differ) for place, _ in stored.values()]
            more = f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
            raise BenchError(f"several match: choose by {', '.join(differ)}: {'; '.join(texts[:_SHOWN])}{more}")
        return next(iter(stored.values()))[1]

    def __repr__(self) -> str:
        table = self._summary()
        return "\n".join([self._headline(), *([table.to_string(index=False)] if len(table) else []), *self._remarks()])

    def _repr_html_(self) -> str:
        remarks = "".join(f"<p>{html.escape(line)}</p>" for line in self._remarks())
        table = self._summary().to_html(index=False, border=0, na_rep="")
        return f"<p><b>{html.escape(self._headline())}</b></p>{table}{remarks}"

    def _headline(self) -> str:
        from reid_attack_bench.report.results import NOT_APPLICABLE

        cells = self.results.cells
        possible = sum(not cell.status.startswith(NOT_APPLICABLE) for cell in cells)
        return (
            f"Result of suite {self.results.suite}: {sum(cell.ok for cell in cells)} of {possible} cells, in {self.out}"
        )

    def _summary(self) -> pd.DataFrame:
        """The leaderboard without intervals and single attacks, for display."""
        board = self.leaderboard
        worst = [name for name in board if str(name).startswith("worst_") and str(name).endswith(("_rank1", "_mAP"))]
        return board[["victim", "dataset", "clean_rank1", "clean_mAP", *worst]].round(1)

    def _remarks(self) -> list[str]:
        return [*(note for note in self.results.notes if not note.startswith("Failed: ")), *self.failures]


_NAMES = ("attack", "source", "dataset", "epsilon", "pixels", "seed")


def _place(cell: CellRecord) -> dict[str, Any]:
    """Values of a cell in the columns _NAMES of the matrix."""
    return {name: getattr(cell.threat if name in ("epsilon", "pixels") else cell, name) for name in _NAMES}

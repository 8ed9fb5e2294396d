"""Whether a report can be written, tried before the work that it reports."""

from __future__ import annotations

import importlib
import io
import os
from pathlib import Path

from reid_attack_bench.errors import BenchError
from reid_attack_bench.text import one_line

FOLDERS = ("", "tables", "plots", "sheets")
FILES = ("report.html", "report.md", "leaderboard.csv", "matrix.csv", "clean.csv")


def check_report(out: Path) -> None:
    """Import all that a report needs, draw a plot in memory, and write to the folders of the report.

    Raises:
        BenchError: one of these fails.
    """
    try:
        importlib.import_module("reid_attack_bench.report.write")
        style = importlib.import_module("reid_attack_bench.report.plots.style")
        with style.styled():
            style.new_figure(1.0, 1.0, "Rank-1", "mAP, ε ≤ 8").savefig(io.BytesIO(), format="png")
    except Exception as error:  # a damaged installation or configuration may raise anything
        raise BenchError(
            f"no report could be written, so nothing was run: {type(error).__name__}: {one_line(error)}"
        ) from error
    try:
        out.mkdir(parents=True, exist_ok=True)
        for folder in (out / name for name in FOLDERS if (out / name).exists()):
            probe = folder / f".{os.getpid()}.tmp"
            probe.write_bytes(b"")
            probe.unlink()
    except OSError as error:
        where = error.filename or out
        raise BenchError(
            f"no report can be written to {out} ({where}: {error.strerror}): choose another --out"
        ) from None
    for name in FILES:
        if (out / name).is_dir():
            raise BenchError(f"no report can be written to {out}: {name} is a folder there; choose another --out")

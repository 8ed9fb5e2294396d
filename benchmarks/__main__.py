"""Run the benchmarks, print their table and write it: python -m benchmarks [TOPIC …] [--out DIR].

Every value is a ratio of two measurements made in turn in this run, or a count. A missed target is reported and does
not fail the run.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import io
import math
import os
import platform
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.side_by_side import Line

TOPICS = ("crafting", "strength", "ranking", "matrix", "training", "measures", "growth", "reports", "overhead")
COLUMNS = ("topic", "what", "against", "figure", "low", "high", "unit", "target", "met", "runs", "note")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("topics", nargs="*", metavar="TOPIC", help=f"one of {', '.join(TOPICS)}; all by default")
    parser.add_argument("--out", type=Path, help="write benchmarks.csv and README.md there; other topics stay")
    arguments = parser.parse_args()
    unknown = set(arguments.topics) - set(TOPICS)
    if unknown:
        parser.error(f"no topic {', '.join(sorted(unknown))}; expected {', '.join(TOPICS)}")
    lines: list[Line] = []
    for topic in arguments.topics or TOPICS:
        for line in importlib.import_module(f"benchmarks.{topic}").measure():
            print(_text(line), flush=True)
            lines.append(line)
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        kept = _kept(arguments.out / "benchmarks.csv", {line.topic for line in lines})
        lines = sorted([*lines, *kept], key=lambda line: TOPICS.index(line.topic))
        earlier = list(dict.fromkeys(line.topic for line in kept))
        (arguments.out / "benchmarks.csv").write_text(_csv(lines), encoding="utf-8")
        (arguments.out / "README.md").write_text(_page(lines, earlier), encoding="utf-8")


def _kept(path: Path, measured: set[str]) -> list[Line]:
    """Lines of topics that were not measured now."""
    if not path.is_file():
        return []
    kept = []
    for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines()):
        if row["topic"] in set(TOPICS) - measured:
            value, low, high = (float(row[name]) for name in ("figure", "low", "high"))
            met = {"True": True, "False": False, "": None}[row["met"]]
            about = (row["topic"], row["what"], row["against"])
            kept.append(Line(*about, value, low, high, row["unit"], row["target"], met, int(row["runs"]), row["note"]))
    return kept


def machine() -> str:
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    names = [
        x.split(":")[1].strip()
        for x in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if "model name" in x
    ]
    cores = len(os.sched_getaffinity(0))
    return f"{names[0] if names else platform.machine()}, {cores} cores, {gpu}; torch {torch.__version__}"


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def _verdict(line: Line) -> str:
    if line.runs == 0:
        return "not measured"
    return {None: "", True: "met", False: "missed"}[line.met]


def _text(line: Line) -> str:
    spread = "" if line.low == line.high or math.isnan(line.low) else f" [{_number(line.low)}, {_number(line.high)}]"
    target = f", target {line.target}: {_verdict(line)}" if line.target else ""
    note = f" ({line.note})" if line.note else ""
    return f"{line.topic}: {line.what} against {line.against}: {_number(line.value)}{spread} {line.unit}{target}{note}"


def _csv(lines: list[Line]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for line in lines:
        row = {**vars(line), "figure": line.value}  # the name of the column in stored files
        writer.writerow([row[name] for name in COLUMNS])
    return text.getvalue()


def _page(lines: list[Line], earlier: Sequence[str] = ()) -> str:
    kept = f" Kept from an earlier run, perhaps on another machine: {', '.join(earlier)}." if earlier else ""
    text = [
        "# Benchmarks",
        "",
        f"Written by `make bench` on: {machine()}. Medians with [smallest, largest] over the runs of each line.{kept}",
        "",
        "| topic | what | against | figure | target | | runs | note |",
        "|---|---|---|--:|---|---|--:|---|",
    ]
    for line in lines:
        spread = "" if line.low == line.high or line.runs == 0 else f" [{_number(line.low)}, {_number(line.high)}]"
        shown = f"{_number(line.value)}{spread} {line.unit}"
        columns = [line.topic, line.what, line.against, shown, line.target, _verdict(line), str(line.runs), line.note]
        text.append("| " + " | ".join(column.replace("|", "\\|") for column in columns) + " |")
    return "\n".join(text) + "\n"


if __name__ == "__main__":
    main()

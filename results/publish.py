"""Copy finished runs into this folder, reduced in size: python results/publish.py runs/quick …

Copied: report.md, report.html if it is small, CSVs, tables/, the manifest, the plots overview, cost, curve and
visibility in fewer colours, and one sheet of example images at half its size. Left out: the heat map of each attack
and the PDFs, which `reid-attack-bench report` writes again from a store; report.md links only what is copied.
README.md is always written again, also if no run is given.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pandas as pd
from PIL import Image

from reid_attack_bench.errors import BenchError
from reid_attack_bench.report.markdown import PDF_NOTE
from reid_attack_bench.report.record import reading
from reid_attack_bench.text import code_span, one_line

HERE = Path(__file__).parent
SUBMISSIONS = "submissions"
"""Folder of accepted submissions, see accept.py."""
PLOTS = ("overview", "cost_", "curve_", "visibility")
PLOT_COLOURS = 128
SHEETS, SHEET_SIZE, SHEET_QUALITY = 1, 0.5, 40
"""Sheets of a run that are copied, first by name; their scale; WebP quality that keeps the noise visible."""
HTML_LIMIT = 4 * 2**20
"""Bytes; a larger report.html is left out."""
LEFT_OUT = "Heat maps of each attack, PDFs and further sheets are left out here; the command below makes them."


def publish(run: Path, here: Path = HERE, sheet_size: float = SHEET_SIZE) -> Path:
    """Copy one finished run; returns its folder in `here`."""
    out = here / run.name
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for path in sorted(run.glob("*.csv")):
        shutil.copy(path, out / path.name)
    if (run / "tables").is_dir():
        shutil.copytree(run / "tables", out / "tables")
    page = run / "report.html"
    if page.is_file() and page.stat().st_size <= HTML_LIMIT:
        (out / page.name).write_text(anonymous(page.read_text(encoding="utf-8")), encoding="utf-8")
    with reading(run):
        manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
        manifest["store"] = "runs/store"
        (out / "manifest.json").write_text(anonymous(compact(manifest)), encoding="utf-8")
    for path in sorted((run / "plots").glob("*.png")):
        if path.name.startswith(PLOTS):
            reduce_plot(path, out / "plots" / path.name)
    for path in sorted((run / "sheets").glob("*.png"))[:SHEETS]:
        reduce_sheet(path, out / "sheets" / f"{path.stem}.webp", sheet_size)
    (out / "report.md").write_text(
        relinked(anonymous((run / "report.md").read_text(encoding="utf-8")), out), encoding="utf-8"
    )
    return out


def _entrance(folder: Path) -> str:
    """Target of a link to a folder: its README, or the first of its files."""
    readme = folder / "README.md"
    first = readme if readme.is_file() else min(path for path in folder.iterdir() if path.is_file())
    return f"{folder.name}/{first.name}"


def anonymous(text: str) -> str:
    return text.replace(str(Path.home()), "~")


def compact(manifest: dict[str, Any]) -> str:
    """JSON with one line per entry and per item of a long list: smaller, and still readable in a diff."""

    def entry(value: Any) -> str:
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return "[\n" + ",\n".join(f"  {json.dumps(item, ensure_ascii=False)}" for item in value) + "\n ]"
        return json.dumps(value, ensure_ascii=False)

    return "{\n" + ",\n".join(f" {json.dumps(name)}: {entry(value)}" for name, value in manifest.items()) + "\n}\n"


def reduce_plot(path: Path, out: Path) -> None:
    out.parent.mkdir(exist_ok=True)
    with Image.open(path) as picture:
        colours = picture.convert("RGB").quantize(
            PLOT_COLOURS,
            method=Image.Quantize.MAXCOVERAGE,  # the median cut gives all to the large areas and none to thin lines
            dither=Image.Dither.NONE,
        )
    colours.save(out, optimize=True)


def reduce_sheet(path: Path, out: Path, size: float) -> None:
    out.parent.mkdir(exist_ok=True)
    with Image.open(path) as picture:
        small = picture.convert("RGB")
    if size < 1:
        small = small.resize((round(small.width * size), round(small.height * size)), Image.Resampling.LANCZOS)
    small.save(out, quality=SHEET_QUALITY, method=6)


LINK = re.compile(r"(!?)\[((?:[^\]\\]|\\.)*)\]\(([^)\s]+)\)")


def relinked(report: str, folder: Path) -> str:
    """report.md with links to files in `folder` only: a .webp for a .png; other links become their text, images go.

    A chapter that is empty afterwards is removed.
    """

    def link(found: re.Match[str]) -> str:
        image, words, target = found.groups()
        path = unquote(target)
        if "://" in target or target.startswith("#") or (folder / path).is_file():
            return found[0]
        if (folder / path).with_suffix(".webp").is_file():
            return f"{image}[{words}]({quote(str(Path(path).with_suffix('.webp')), safe='/@+=')})"
        return "" if image else words

    lines: list[str] = []
    for line in report.replace(PDF_NOTE, LEFT_OUT).split("\n"):
        changed = LINK.sub(link, line)
        if changed.strip() or not line.strip():
            lines.append(changed)
    chapters = re.split(r"(?m)^(?=#{1,6} )", re.sub(r"\n{3,}", "\n\n", "\n".join(lines)))
    return "".join(each for each in chapters if len(each.strip().split("\n")) > 1 or not each.startswith("## "))


def index(here: Path = HERE) -> str:
    """README.md: a table of the runs with data and command, and a table of their findings."""
    lines = [
        "# Published runs",
        "",
        "Written by `python results/publish.py`. Each folder has the report, tables, plots and manifest of one run. "
        "The heat map of each attack and PDFs are left out; images are reduced in colours and size. The time of a step "
        "that several runs share counts in each.",
        "",
        "Runs without a date, or dated before 25 November 2026, were measured with the random numbers of 0.1.0. Keys "
        "and seeds changed once since then, so the same command now gives other values. Those of the paper suites are "
        "indicative: three seeds, and Mis-Ranking of version 2, whose discriminator learnt from pairs of one person "
        "instead of two.",
        "",
        "| run | description | data | command | machine | time of its steps | version |",
        "|---|---|---|---|---|--:|---|",
    ]
    folders = sorted(path.parent for path in here.glob("*/manifest.json"))
    for folder in folders:
        with reading(folder):
            manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            name = f"[{folder.name}]({folder.name}/report.md)"
            if (folder / "report.html").is_file():
                name += f" ([html]({folder.name}/report.html))"
            what = " ".join(str(manifest["suite"].get("description", "")).split())
            lines.append(run_row(manifest, name, what))
    others = sorted(path for path in here.iterdir() if path.is_dir() and path not in folders and any(path.iterdir()))
    others = [path for path in others if not path.name.startswith(("_", ".")) and path.name != SUBMISSIONS]
    if others:
        lines += ["", "Also here: " + ", ".join(f"[{path.name}]({_entrance(path)})" for path in others) + "."]
    lines += submissions(here)
    found = [(folder, path) for folder in folders if (path := folder / "findings.csv").is_file()]
    if found:
        lines += ["", "## Findings", "", "Indicative: fewer than eight seeds, so no verdict.", ""]
        lines += ["| run | claim | lower | higher | measure | difference | verdict |"]
        lines.append("|---|---|--:|--:|---|--:|---|")
    for folder, path in found:
        with reading(path):
            lines += [finding(folder.name, row) for row in pd.read_csv(path).to_dict("records")]
    return "\n".join(lines) + "\n"


def _cell(text: object) -> str:
    """Text of a submission in a cell of a table, which it does not end; no tag of HTML."""
    return one_line(text).replace("|", "\\|").replace("<", "&lt;")


def run_row(manifest: dict[str, Any], name: str, what: str) -> str:
    """A row of a table of runs; `name` with its links, `what` in words."""
    command = code_span(manifest["command"]).replace("|", "\\|")  # in code, < is no tag
    after = map(_cell, (machine(manifest), duration(manifest), version(manifest)))
    return "| " + " | ".join([name, _cell(what), _cell(data(manifest)), command, *after]) + " |"


def submissions(here: Path) -> list[str]:
    """A table of the accepted submissions; nothing without any."""
    folders = sorted(path.parent for path in here.glob(f"{SUBMISSIONS}/*/manifest.json"))
    if not folders:
        return []
    lines = ["", "## Submissions", "", "Sent in, recomputed and accepted by `python results/accept.py`.", ""]
    lines += ["| submission | protocol | data | command | machine | time of its steps | version |"]
    lines.append("|---|---|---|---|---|--:|---|")
    for folder in folders:
        with reading(folder):
            manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            place = f"{SUBMISSIONS}/{folder.name}"
            name = f"[{folder.name}]({place}/report.md) ([card]({place}/card.yaml))"
            lines.append(run_row(manifest, name, manifest["suite"]["protocol"]))
    return lines


def data(manifest: dict[str, Any]) -> str:
    """Data sets by name, and whether they are synthetic."""
    synthetic = {row["dataset"]: row["synthetic"] for row in manifest["clean"]}
    kinds = {kind: sorted(name for name, value in synthetic.items() if value == kind) for kind in (True, False)}
    texts = [f"{', '.join(kinds[True])} (**synthetic**)"] if kinds[True] else []
    return ", ".join(texts + kinds[False])


def machine(manifest: dict[str, Any]) -> str:
    about = manifest["machine"]
    return about["gpu"] or f"{about['cores']} CPU cores"


def duration(manifest: dict[str, Any]) -> str:
    minutes = sum(step["seconds"] or 0.0 for step in manifest["steps"]) / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def version(manifest: dict[str, Any]) -> str:
    """Versions of the bench and of torch, and the date if the manifest has one."""
    texts = [manifest["bench"], f"torch {manifest['versions']['torch']}", manifest.get("date", "")[:10]]
    return ", ".join(text for text in texts if text)


def finding(run: str, row: dict[str, Any]) -> str:
    digits = 3 if row["measure"] in ("ssim", "ms_ssim", "grid", "lpips") else 1
    sides = [f"{row[side]}: {row[f'{side}_mean']:.{digits}f}" for side in ("lower", "higher")]
    measure = row["measure"] + (f" at equal {row['at_equal']}" if isinstance(row["at_equal"], str) else "")
    gap = f"{row['difference']:.{digits}f} [{row['low']:.{digits}f}, {row['high']:.{digits}f}]"
    columns = [run, row["claim"], *sides, f"{measure}, {row['relation']}", gap, row["verdict"]]
    return "| " + " | ".join(map(_cell, columns)) + " |"


def main(runs: list[str], here: Path = HERE) -> None:
    lacking = [name for name in runs for part in ("manifest.json", "report.md") if not (Path(name) / part).is_file()]
    if lacking:
        sys.exit(f"error: {lacking[0]} is not a finished run: it needs manifest.json and report.md")
    try:
        for name in runs:
            print(publish(Path(name), here))
        (here / "README.md").write_text(index(here), encoding="utf-8")
    except BenchError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])

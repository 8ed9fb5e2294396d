"""Take finished runs into this folder, with small pictures, and write the index: python results/publish.py runs/quick …

What is taken: report.md, the tables, plots, sheets and the manifest. Pictures lose colours, sheets half of their
size; nothing else changes. Without a run it only writes README.md again.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

HERE = Path(__file__).parent
SHEET_SIZE, SHEET_COLOURS, PLOT_COLOURS = 0.5, 32, 64
TABLES = ("report.md", "leaderboard.csv", "matrix.csv", "clean.csv", "findings.csv")


def publish(run: Path) -> Path:
    """Copy one finished run; returns its folder here."""
    out = HERE / run.name
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    for name in TABLES:
        if (run / name).is_file():
            shutil.copy(run / name, out / name)
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["store"] = "runs/store"
    text = json.dumps(manifest, indent=1).replace(str(Path.home()), "~")
    (out / "manifest.json").write_text(text + "\n")
    report = (out / "report.md").read_text().replace(str(Path.home()), "~")
    (out / "report.md").write_text(report)
    for folder, colours, factor in (("plots", PLOT_COLOURS, 1.0), ("sheets", SHEET_COLOURS, SHEET_SIZE)):
        for path in sorted((run / folder).glob("*.png")):
            (out / folder).mkdir(exist_ok=True)
            shrink(path, out / folder / path.name, colours, factor)
    return out


def shrink(path: Path, out: Path, colours: int, factor: float) -> None:
    with Image.open(path) as picture:
        small = picture.convert("RGB")
    if factor < 1:
        size = round(small.width * factor), round(small.height * factor)
        small = small.resize(size, Image.Resampling.LANCZOS)
    small.quantize(colours, dither=Image.Dither.NONE).save(out, optimize=True)


def index() -> str:
    """README.md: every folder, the command that made it, and what its findings say."""
    lines = [
        "# Published runs",
        "",
        "Written by `python results/publish.py`. Each folder has its report, tables, pictures and the manifest that "
        "reproduces it. **All on synthetic data** unless it says otherwise.",
        "",
        "| run | command | machine | report |",
        "|---|---|---|---|",
    ]
    folders = [path.parent for path in sorted(HERE.glob("*/manifest.json"))]
    for folder in folders:
        manifest = json.loads((folder / "manifest.json").read_text())
        lines.append(
            f"| {folder.name} | `{manifest['command']}` | {machine(manifest)} | [report]({folder.name}/report.md) |"
        )
    lines += ["", "## Findings", "", "| run | claim | lower | higher | measure | difference | verdict |"]
    lines.append("|---|---|--:|--:|---|--:|---|")
    for folder in folders:
        if (folder / "findings.csv").is_file():
            for row in pd.read_csv(folder / "findings.csv").to_dict("records"):
                lines.append(finding(folder.name, row))
    return "\n".join(lines) + "\n"


def machine(manifest: dict[str, Any]) -> str:
    about = manifest["machine"]
    return about["gpu"] or f"{about['cores']} CPU cores"


def finding(run: str, row: dict[str, Any]) -> str:
    digits = 3 if row["measure"] in ("ssim", "ms_ssim", "grid", "lpips") else 1
    sides = [f"{row[side]}: {row[f'{side}_mean']:.{digits}f}" for side in ("lower", "higher")]
    measure = row["measure"] + (f" at equal {row['at_equal']}" if isinstance(row["at_equal"], str) else "")
    gap = f"{row['difference']:.{digits}f} [{row['low']:.{digits}f}, {row['high']:.{digits}f}]"
    columns = [run, row["claim"], *sides, f"{measure}, {row['relation']}", gap, row["verdict"]]
    return "| " + " | ".join(columns) + " |"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(publish(Path(name)))
    (HERE / "README.md").write_text(index())

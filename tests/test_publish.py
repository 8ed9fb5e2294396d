"""What results/publish.py takes of a run: less, with links that hold."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from urllib.parse import unquote

import pytest
from PIL import Image

from reid_attack_bench.report import write
from tests.report.test_report import make_results

RESULTS = Path(__file__).parent.parent / "results"
_SPEC = importlib.util.spec_from_file_location("publish", RESULTS / "publish.py")
assert _SPEC is not None
assert _SPEC.loader is not None
publish = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(publish)


def broken_links(page: Path) -> list[str]:
    targets = [match[3] for match in publish.LINK.finditer(page.read_text())]
    assert targets
    return [t for t in targets if "://" not in t and not (page.parent / unquote(t)).exists()]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "demo"
    results = make_results(("osnet", "mu-deep"), ("plaza",), ("fgsm", "pgd"), (8,), missing=0.1)
    write.write_report(results, folder)
    manifest = {
        "bench": "0.1.0", "command": "reid-attack-bench run demo", "suite": {"description": "A | B\n"},
        "date": "2026-01-02T03:04:05+00:00",
        "store": f"{Path.home()}/store", "machine": {"gpu": None, "cores": 2}, "versions": {"torch": "2"},
        "clean": [{"dataset": "plaza", "synthetic": True}], "steps": [{"seconds": 90.0}, {"seconds": None}],
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "report.html").write_text("small")
    return folder


@pytest.mark.e2e
def test_a_run_is_published_small_and_its_links_hold(run: Path, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").touch()
    publish.main([str(run)], tmp_path)
    out = tmp_path / "demo"
    names = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert {"report.md", "report.html", "leaderboard.csv", "matrix.csv", "clean.csv", "manifest.json"} <= names
    assert {"tables/leaderboard.tex", "tables/matrix_plaza_pgd_e8.md", "plots/overview.png"} <= names
    assert not any(name.endswith(".pdf") or name.startswith("plots/matrix") for name in names)
    assert sum(name.startswith("sheets/") for name in names) == publish.SHEETS
    assert broken_links(out / "report.md") == broken_links(tmp_path / "README.md") == []
    report = (out / "report.md").read_text()
    before = (run / "report.md").read_text()
    assert publish.LEFT_OUT in report
    gone = {"## Matrices"}
    assert [x for x in before.split("\n") if x.startswith("## ") and x not in gone] == re.findall(
        r"(?m)^## .*$", report
    )
    assert before[: before.index("## Tables for a paper")] in report
    sheet = "sheets/sheet_mu-deep@plaza_plaza"
    with Image.open(run / f"{sheet}.png") as whole, Image.open(out / f"{sheet}.webp") as half:
        assert half.size == (round(whole.width / 2), round(whole.height / 2))
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest == json.loads((run / "manifest.json").read_text()) | {"store": "runs/store"}
    readme = (tmp_path / "README.md").read_text()
    assert r"A \| B" in readme
    for words in ("plaza (**synthetic**)", "`reid-attack-bench run demo`", "2 CPU cores", "2 min", "2026-01-02"):
        assert words in readme
    assert "Also here: [pictures](pictures/" in readme
    # again, the same
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    publish.main([str(run)], tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == files


@pytest.mark.e2e
def test_a_large_page_and_a_folder_that_is_no_run_stay_out(run: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(publish, "HTML_LIMIT", 3)
    publish.main([str(run)], tmp_path)
    assert not (tmp_path / "demo/report.html").exists()
    assert "html" not in (tmp_path / "README.md").read_text()
    with pytest.raises(SystemExit, match="is not a finished run"):
        publish.main([str(tmp_path)], tmp_path)
    assert (tmp_path / "demo/report.md").is_file()


def test_what_is_published_is_indexed_and_holds_together() -> None:
    assert (RESULTS / "README.md").read_text() == publish.index(RESULTS), "run python results/publish.py"
    sent = RESULTS / publish.SUBMISSIONS
    pages = [RESULTS / "README.md", *RESULTS.glob("*/report.md"), *sent.glob("*/report.md")]
    assert {page: broken for page in pages if (broken := broken_links(page))} == {}
    readme = (RESULTS / "README.md").read_text()
    folders = [path for path in RESULTS.iterdir() if path.is_dir() and not path.name.startswith("_") and path != sent]
    for folder in [*folders, *sent.glob("*")]:
        assert f"[{folder.name}]({folder.relative_to(RESULTS)}" in readme
    size = sum(path.stat().st_size for path in RESULTS.rglob("*") if path.is_file())
    assert size < 16 * 2**20, "a few MB in all"

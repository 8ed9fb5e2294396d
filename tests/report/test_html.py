"""report.html: what it says, and what a browser makes of it."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from reid_attack_bench.report import markdown
from reid_attack_bench.report.analysis import conclude
from reid_attack_bench.report.html import build as html
from reid_attack_bench.report.results import Results, Retrieved
from tests.browser import Visit, faults
from tests.report import test_report
from tests.report.test_report import change_cells, make_results, make_sheets, with_suite, without

MEGABYTE = 1_000_000


def with_pictures(results: Results, images: int = 3) -> Results:
    """The results with a sheet of every craft, a gallery, and what each target retrieves from it."""
    rng = np.random.default_rng(3)
    cells = [cell for cell in results.cells if cell.ok]
    places = sorted({cell.dataset for cell in cells})
    sheets = make_sheets(sorted({cell.source for cell in cells}), tuple(places),
                         tuple(sorted({cell.attack for cell in cells})),
                         tuple(sorted({cell.epsilon for cell in cells})), images, rng)  # fmt: skip
    sheets = [dataclasses.replace(sheet, queries=np.arange(images) * 10) for sheet in sheets]
    galleries = {place: rng.integers(0, 256, (40, 128, 64, 3), dtype=np.uint8) for place in places}
    retrieved = {}
    for key in (cell.rank_key for cell in cells):
        before, after = rng.integers(0, 40, (2, images, 5))
        after[0, 4] = -1  # a gallery of fewer
        retrieved[key] = Retrieved(before, after, before < 30, (after < 10) & (after >= 0))
    return dataclasses.replace(results, sheets=sheets, galleries=galleries, retrieved=retrieved)


def page_of(results: Results) -> str:
    return html.page(results, conclude.conclude(results), markdown.definitions())


def data_of(page: str) -> dict:
    block = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert block is not None
    return json.loads(block.group(1))


@pytest.fixture(scope="module")
def results() -> Results:
    made = make_results(models=("osnet", "mudeep_adversarially_trained"), attacks=("noise", "pgd"), missing=0)
    return with_pictures(without(made, np.arange(len(made.cells)) == 4))


@pytest.fixture(scope="module")
def page(results: Results) -> str:
    return page_of(results)


@pytest.mark.e2e
def test_figures_are_those_of_the_tables(results: Results, page: str) -> None:
    data = data_of(page)
    column = {name: index for index, name in enumerate(data["columns"])}
    shown = {
        (
            data["settings"][cell[column["setting"]]]["attack"],
            data["settings"][cell[column["setting"]]]["epsilon"],
            data["victims"][cell[column["source"]]]["name"],
            data["victims"][cell[column["target"]]]["name"],
            data["datasets"][cell[column["dataset"]]]["name"],
        ): cell
        for cell in data["cells"]
    }
    assert len(shown) == len(results.cells)
    for row in results.cells:
        cell = shown[row.attack, row.epsilon, row.source, row.target, row.dataset]
        if row.ok:
            assert cell[column["mAP"]] == pytest.approx(row.value("mAP"), abs=1e-4)
            assert cell[column["ssim"]] == pytest.approx(row.value("ssim"), abs=1e-4)
    board = conclude.conclude(results).board
    assert [row["victim"] for row in data["board"]] == list(board["victim"])
    assert data["board"][0]["worst"]["8"]["mAP"][0] == pytest.approx(board["worst_e8_mAP"][0], abs=1e-4)


def test_a_missing_cell_has_a_reason_and_no_figure(results: Results, page: str) -> None:
    data = data_of(page)
    column = {name: index for index, name in enumerate(data["columns"])}
    gone = [cell for cell in data["cells"] if cell[column["status"]] != "ok"]
    assert len(gone) == 1
    assert gone[0][column["status"]] == "failed"
    assert gone[0][column["mAP"]] is None
    assert f"1 of {len(results.cells)} cells have no values" in page
    assert "<li>1 × failed</li>" in page


def test_the_same_results_give_the_same_bytes(results: Results, page: str) -> None:
    assert page_of(results) == page


def test_a_name_is_text_and_never_markup(results: Results) -> None:
    nasty = '</script><img src=x onerror="alert(1)">'
    renamed = change_cells(results, lambda cell: not cell.ok, status=nasty)
    renamed = dataclasses.replace(with_suite(renamed, name=nasty), notes=[nasty])
    page = page_of(renamed)
    assert nasty not in page
    assert "<img src=x" not in page
    assert any(nasty in cell for cell in data_of(page)["cells"])


def test_pictures_are_within_their_budget(results: Results, monkeypatch) -> None:
    monkeypatch.setattr("reid_attack_bench.report.html.examples.CRAFT_BYTES", 60_000)
    monkeypatch.setattr("reid_attack_bench.report.html.examples.GALLERY_BYTES", 10_000)
    few = data_of(page_of(results))["examples"]
    weight = sum(len(uri) * 3 / 4 for craft in few["crafts"] for uri in craft["adversarial"] + craft["noise"])
    largest = max(len(uri) for craft in few["crafts"] for uri in craft["adversarial"] + craft["noise"])
    assert 0 < weight < 60_000 + 2 * 4 * largest
    assert 0 < len(few["found"]) < len(few["craft_of"])
    known = {int(index) for pictures in few["gallery"].values() for index in pictures}
    wanted = {
        index for found in few["found"].values() for query in found for index, _ in query["before"] + query["after"]
    }
    assert wanted - {None} <= known  # nothing points to a picture that was left out


# in a browser


@pytest.fixture(scope="module")
def file(page: str, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page)
    return path


@pytest.fixture
def visit(browser, file: Path) -> Iterator[Visit]:
    visit = Visit(browser, file.as_uri())
    yield visit
    visit.quiet()
    visit.context.close()


def test_the_leaderboard_sorts(visit: Visit, results: Results) -> None:
    board = conclude.conclude(results).board
    assert visit.column("board", 2) == list(board["victim"])
    visit.page.click("#board thead button:text-is('Clean mAP')")
    clean = [float(text.split()[0]) for text in visit.column("board", 6)]
    assert clean == sorted(clean, reverse=True)
    assert visit.page.get_attribute("#board thead th:nth-child(6)", "aria-sort") == "descending"
    visit.page.keyboard.press("Enter")  # the button kept the focus
    assert [float(text.split()[0]) for text in visit.column("board", 6)] == sorted(clean)


def test_the_filters_narrow_leaderboard_and_cells(visit: Visit, results: Results) -> None:
    everything = len(results.cells)
    assert f"{everything} of {everything} cells" in visit.page.inner_text("#cells-count")
    visit.page.select_option("#f-attack", "pgd")
    visit.page.select_option("#f-budget", "e8")
    visit.page.select_option("#f-access", "transfer")
    visit.page.select_option("#f-dataset", "plaza")
    chosen = [cell for cell in results.cells if (cell.attack, cell.epsilon, cell.dataset) == ("pgd", 8, "plaza")]
    chosen = [cell for cell in chosen if not cell.own]
    assert f"{len(chosen)} of {everything} cells" in visit.page.inner_text("#cells-count")
    for victim, mean in zip(visit.column("board", 2), visit.column("board", 10), strict=True):
        lowest = min(cell.value("mAP") for cell in chosen if cell.target == victim and cell.ok)
        assert float(mean.split()[0]) == pytest.approx(lowest, abs=0.05)
    visit.page.select_option("#f-defended", "yes")
    assert set(visit.column("board", 2)) == {"mudeep_adversarially_trained@plaza"}
    visit.page.click("#filters button[type=reset]")
    visit.page.wait_for_function(f"document.getElementById('cells-count').innerText.startsWith('{everything} of')")


def test_the_matrix_switches_attack_and_figure(visit: Visit, results: Results) -> None:
    visit.page.select_option("#m-dataset", "plaza")
    label = "pgd, ε = 8"
    visit.page.select_option("#m-setting", label=label)
    for metric, name in (("mAP", "mAP"), ("rank1", "Rank-1"), ("ssim", "SSIM")):
        visit.page.select_option("#m-metric", metric)
        cells = [cell for cell in results.cells if (cell.attack, cell.epsilon, cell.dataset) == ("pgd", 8, "plaza")]
        shown = visit.page.eval_on_selector_all("#heat td[data-cell]:not(.gap)", "cells => cells.map(c => c.innerText)")
        wanted = sorted(
            round(float(value), 3 if metric == "ssim" else 1)
            for value in (cell.value(metric) for cell in cells if cell.ok)
        )
        assert sorted(map(float, shown)) == pytest.approx(wanted, abs=0.051)
        assert name in visit.page.inner_text("#legend")


def test_a_cell_opens_with_the_keyboard(visit: Visit) -> None:
    visit.page.select_option("#m-setting", label="pgd, ε = 8")
    visit.page.focus("#heat td[tabindex='0']")
    visit.page.keyboard.press("ArrowRight")
    number = int(visit.page.evaluate("document.activeElement.dataset.cell"))
    visit.page.keyboard.press("Enter")
    assert visit.page.is_visible("#details")
    words = visit.page.inner_text("#details")
    for expected in ("pgd, ε = 8", "Threat model", "Rank-1", "SSIM", "Seeds of the attack", "Example queries"):
        assert expected in words
    assert visit.page.locator("#details .shot.correct").count() > 0
    assert visit.page.locator("#details .shot.wrong").count() > 0
    assert number >= 0
    visit.page.keyboard.press("Escape")
    assert not visit.page.is_visible("#details")


def test_a_missing_cell_says_why(visit: Visit) -> None:
    gap = visit.page.locator("#heat td.gap")
    for setting in visit.page.eval_on_selector_all("#m-setting option", "options => options.map(o => o.value)"):
        for place in ("campus", "plaza"):
            visit.page.select_option("#m-dataset", place)
            visit.page.select_option("#m-setting", setting)
            if gap.count():
                assert gap.inner_text() == "–"
                gap.click()
                assert "failed" in visit.page.inner_text("#details")
                return
    pytest.fail("no missing cell in any matrix")


def test_charts_and_gallery_follow_their_controls(visit: Visit) -> None:
    first = visit.page.inner_text("#curve-text")
    visit.page.select_option("#c-metric", "rank1")
    visit.page.wait_for_function("document.getElementById('curve-text').innerText.startsWith('Rank-1')")
    assert first.startswith("mAP")
    assert visit.page.locator("#curve svg").count() == 1
    before = visit.page.inner_html("#gallery-rows")
    visit.page.select_option("#g-query", index=1)
    assert visit.page.inner_html("#gallery-rows") != before
    assert visit.page.locator("#gallery-rows .row").count() == 4  # two attacks at two epsilons


def test_nothing_is_clipped_on_a_phone(browser, file: Path) -> None:
    visit = Visit(browser, file.as_uri(), width=390, dark=True)
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= 390
    assert visit.page.get_attribute("html", "data-theme") == "dark"
    visit.page.click("#theme")
    assert visit.page.get_attribute("html", "data-theme") == "light"
    visit.quiet()


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_no_serious_accessibility_fault(browser, file: Path, width: int, dark: bool) -> None:
    visit = Visit(browser, file.as_uri(), width, dark)
    for opened in (False, True):
        if opened:
            visit.page.click("#heat td[data-cell]:not(.gap)")
        assert faults(visit.page) == []


def test_a_run_of_ten_attacks_on_twenty_models_opens_at_once(browser, tmp_path: Path, monkeypatch) -> None:
    names = [f"attack_{number}" for number in range(10)]
    for number, name in enumerate(names):
        monkeypatch.setitem(test_report.ATTACKS, name, 0.1 * number)
    models = tuple(f"model_{number:02}" for number in range(20))
    results = make_results(models=models, places=("plaza",), attacks=tuple(names), epsilons=(8,), missing=0.01)
    assert len(results.cells) == 4000
    page = page_of(with_pictures(results, images=6))
    file = tmp_path / "report.html"
    file.write_text(page)
    assert file.stat().st_size < 15 * MEGABYTE
    visits = [Visit(browser, file.as_uri()) for _ in range(2)]
    assert min(visit.milliseconds for visit in visits) < 3000
    visits[0].page.select_option("#m-metric", "rank1")
    assert visits[0].page.locator("#heat td[data-cell]").count() == 400
    visits[0].quiet()

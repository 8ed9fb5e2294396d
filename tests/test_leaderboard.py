"""The leaderboard of the documentation: which rows it has, in which order, and what a browser makes of it."""

from __future__ import annotations

import csv
import functools
import json
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest

from reid_attack_bench.suites import protocols
from tests.browser import Visit, faults
from tests.conftest import script

ROOT = Path(__file__).parent.parent
leaderboard = script(ROOT / "docs" / "leaderboard.py")
FULL, SMALL = leaderboard.current()


def line(victim: str, mean: float, **changes: str) -> dict[str, str]:
    """A row of a leaderboard.csv."""
    row = {
        "rank": "1", "victim": victim, "defence": "", "audit": "", "protocol": SMALL, "dataset": "plaza",
        "synthetic": "true", "withdrawn": "false", "queries": "8",
    }  # fmt: skip
    for name, value in (("clean", 90.0), ("protocol_e8", mean), ("protocol_e64", 1.0)):
        for metric in ("rank1", "mAP"):
            row |= {f"{name}_{metric}{end}": f"{value + by:.2f}" for end, by in (("", 0), ("_low", -2), ("_high", 2))}
    return row | {"protocol_e8_missing": "0", "protocol_e64_missing": "0"} | changes


def published(folder: Path, *lines: dict[str, str], key: str = "a1b2c3d4") -> None:
    folder.mkdir(parents=True)
    clean = [{"victim": row["victim"], "citation": "arXiv 2004.04199"} for row in lines]
    for name, table in (("leaderboard.csv", lines), ("clean.csv", clean)):
        with (folder / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, table[0])
            writer.writeheader()
            writer.writerows(table)
    cells = [{"dataset": row["dataset"], "data_key": key} for row in lines]
    manifest = {"command": f"reid-attack-bench run {folder.name}", "suite": {"image_size": [64, 32]}, "cells": cells}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "report.md").touch()


def test_the_current_protocol_is_the_newest(monkeypatch) -> None:
    names = ["reid-standard-10-small", "reid-standard-10", "reid-standard-9", "mine", "reid-standard-11x"]
    monkeypatch.setattr(protocols, "shipped", lambda: dict.fromkeys(names, Path()))
    assert leaderboard.current() == ["reid-standard-10", "reid-standard-10-small"]


def test_rows_are_those_of_the_current_protocols_ranked_where_they_compare(tmp_path: Path) -> None:
    old = line("old", 99, protocol="reid-standard-1")
    flagged = line("flagged", 80, audit="unverified: zero gradients; amber: more restarts")
    published(tmp_path / "a", line("weak", 5), old, line("lacks", 99, protocol=""), flagged)
    published(tmp_path / "b", line("strong", 40), line("elsewhere", 3, dataset="station"))
    published(tmp_path / "c", line("other", 50), key="ffff")  # of the same name, rendered with other settings
    published(tmp_path / "d", line("real", 10, synthetic="false", dataset="market1501", protocol=FULL), key="1")
    published(tmp_path / "e", line("real2", 11, synthetic="false", dataset="market1501", protocol=FULL), key="2")
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "leaderboard.csv").write_text("rank,victim\n1,no protocol\n")
    rows = leaderboard.rows(tmp_path)
    assert [(row.victim, row.place) for row in rows] == [
        ("real2", 1), ("real", 2), ("strong", 1), ("weak", 2), ("flagged", 3), ("other", 1), ("elsewhere", 1),
    ]  # fmt: skip
    assert (rows[4].red, rows[4].amber) == (["zero gradients"], ["more restarts"])
    page = leaderboard.tables(rows, str)
    assert page.index("Unverified") < page.index("flagged") < page.index("other")
    assert page.count("Unverified") == 1
    assert "data a1b2c3" in page, "two data sets of one name are told apart"


def test_a_row_links_to_its_run_and_card_and_shows_its_command(tmp_path: Path) -> None:
    published(tmp_path / "a", line("x@plaza", 5, withdrawn="true", dataset="<duke>", synthetic="false"))
    (tmp_path / "a" / "report.html").touch()
    published(tmp_path / "submissions/mine", line("mine", 7, protocol_e8_missing="2"))
    (tmp_path / "submissions/mine/card.yaml").touch()
    page = leaderboard.tables(leaderboard.rows(tmp_path), lambda path: f"to/{path}")
    assert '<a href="to/results/a/report.html">a</a>' in page
    assert '<a href="https://arxiv.org/abs/2004.04199">arXiv 2004.04199</a>' in page
    assert '<a href="to/results/submissions/mine/report.md">mine</a>' in page
    assert '<a href="to/results/submissions/mine/report.md#card">card</a>' in page
    assert "<code>reid-attack-bench run mine</code>" in page
    assert '<a class="lb-badge" href="to/data.md#withdrawn-data-sets">withdrawn</a>' in page
    assert "<duke>" not in page
    assert "≤ 7.0 <small>[5.0, 9.0]</small>" in page
    assert f"{FULL}</code></strong> Full protocol: no run is published yet" in page


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("arXiv:1704.01155v2", "https://arxiv.org/abs/1704.01155"),
        ("10.1109/CVPR42600.2020.00042", "https://doi.org/10.1109/CVPR42600.2020.00042"),
        ("https://example.org/a?b=1&c", "https://example.org/a?b=1&amp;c"),
    ],
)
def test_a_citation_is_a_link(text: str, address: str) -> None:
    assert leaderboard._citation(text).startswith(f'<a href="{address}">')
    assert leaderboard._citation("Wang <et al.>") == "Wang &lt;et al.&gt;"


# in a browser


@pytest.fixture(scope="module")
def home(site: Path) -> Iterator[str]:
    """Address of the built site."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


@pytest.fixture(scope="module")
def crowded(site: Path, tmp_path_factory) -> list:
    """Rows of every kind; crowded.html of the site is its first page with them."""
    folder = tmp_path_factory.mktemp("results")
    means = [(f"victim_{number}@plaza", 10.0 * number) for number in (1, 3, 2)]
    plaza = [line(*mean, protocol=name) for name in (FULL, SMALL) for mean in means]
    plaza[0] |= {"clean_mAP": "", "clean_mAP_low": "", "clean_mAP_high": "", "defence": "a defence of its own"}
    plaza[1] |= {"audit": "unverified: zero gradients"}
    market = {"dataset": "market1501", "synthetic": "false", "protocol": FULL, "withdrawn": "true"}
    published(folder / "quick", *plaza, line("osnet@market1501", 2, **market))
    rows = leaderboard.rows(folder)
    page = (site / "index.html").read_text()
    start, end = page.index('<div class="lb" id="rows">'), page.index(leaderboard.END)
    assert 'id="add-a-row"' in page[end:], "how to add one is below"
    tables = leaderboard.tables(rows, lambda path: f"{path.removesuffix('.md')}.html")
    (site / "crowded.html").write_text(page[:start] + tables + page[end + len(leaderboard.END) :])
    return rows


READY = "#rows[data-ready=true]"


def opened(browser, home: str, page: str = "crowded.html", **options) -> Visit:
    return Visit(browser, home + page, home=home, ready=READY, **options)


@pytest.fixture
def visit(browser, home: str, crowded) -> Iterator[Visit]:
    visit = opened(browser, home)
    yield visit
    visit.quiet()
    visit.context.close()


def shown(visit: Visit, protocol: str, dataset: str, number: int) -> list[str]:
    """Cells of a column of a group of rows, as they are seen."""
    rows = (
        f"table[data-protocol='{protocol}'] tbody[data-dataset='{dataset}']:not([hidden]) tr:not([class]):not([hidden])"
    )
    return visit.page.eval_on_selector_all(f"{rows} > :nth-child({number})", "cells => cells.map(c => c.innerText)")


def test_the_site_opens_with_every_published_row(browser, home: str, site: Path) -> None:
    visit = opened(browser, home, "index.html")
    assert visit.page.evaluate("document.querySelector('#rows').getBoundingClientRect().top") < 450, (
        "after the title and a sentence"
    )
    rows = leaderboard.rows(ROOT / "results")
    assert f"{len(rows)} of {len(rows)} rows" in visit.page.inner_text(".lb-count")
    for path in sorted((ROOT / "results").glob("*/leaderboard.csv")):
        for row in csv.DictReader(path.open()):
            if row.get("protocol") in (FULL, SMALL):
                found = visit.page.locator("#rows tr", has=visit.page.locator(f"a:text-is('{path.parent.name}')"))
                found = found.filter(has_text=row["victim"])
                assert found.count() == 1
                assert f"{float(row['protocol_e8_mAP']):.1f}" in found.inner_text()
    for link in visit.page.eval_on_selector_all("#rows a", "links => links.map(a => a.getAttribute('href'))"):
        if not link.startswith("https://"):
            assert (site / unquote(link.partition("#")[0])).is_file(), link
    visit.quiet()
    visit.context.close()


def test_columns_sort_within_a_data_set(visit: Visit) -> None:
    names = ["victim_3@plaza", "victim_2@plaza", "victim_1@plaza"]
    assert shown(visit, SMALL, "plaza", 2) == names
    head = visit.page.locator(f"table[data-protocol='{SMALL}'] thead th", has_text="Victim")
    head.locator("button").focus()
    visit.page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert shown(visit, SMALL, "plaza", 2) == names[::-1]
    visit.page.keyboard.press("Space")  # the button kept the focus
    assert head.get_attribute("aria-sort") == "descending"
    assert shown(visit, SMALL, "plaza", 2) == names
    # the other table has its own order, with the flagged victim below a line; sorted, there is no line
    assert shown(visit, FULL, "plaza", 2) == ["victim_2@plaza", "victim_1@plaza", "victim_3@plaza"]
    assert visit.page.locator(".lb-line").count() == 1
    visit.page.click(f"table[data-protocol='{FULL}'] thead th:nth-child(7) button")
    assert shown(visit, FULL, "plaza", 2) == names
    assert visit.page.locator(".lb-line").count() == 0
    clean = f"table[data-protocol='{FULL}'] thead th:nth-child(5) button"
    for _ in range(2):  # a missing value is last in either direction
        visit.page.click(clean)
        assert shown(visit, FULL, "plaza", 5)[-1] == "–"
    visit.page.click("#rows button[type=reset]")
    visit.page.wait_for_selector(".lb-line")
    assert shown(visit, FULL, "plaza", 2) == ["victim_2@plaza", "victim_1@plaza", "victim_3@plaza"]


def test_every_column_sorts(visit: Visit) -> None:
    heads = visit.page.locator(f"table[data-protocol='{FULL}'] thead th")
    for number in range(heads.count()):
        heads.nth(number).locator("button").click()
        assert heads.nth(number).get_attribute("aria-sort") in ("ascending", "descending")
    assert len(shown(visit, FULL, "plaza", 2)) == 3


def test_rows_are_found_by_text_data_set_protocol_and_budget(visit: Visit, crowded: list) -> None:
    def count() -> str:
        return visit.page.inner_text(".lb-count")

    field = visit.page.locator("#rows form").get_by_label
    assert count() == f"{len(crowded)} of {len(crowded)} rows"
    field("Find").fill("DEFENCE own")
    assert count() == "1 of 7 rows"
    assert shown(visit, FULL, "plaza", 2) == ["victim_1@plaza"]
    assert not visit.page.locator(".lb-line").is_visible()
    field("Find").fill("withdrawn")
    assert shown(visit, FULL, "market1501", 2) == ["osnet@market1501"]
    field("Find").fill("")
    field("Data set").select_option("plaza")
    field("Protocol").select_option(SMALL)
    assert count() == "3 of 7 rows"
    assert not visit.page.locator(f"table[data-protocol='{FULL}']").is_visible()
    field("Worst case at").select_option("64")
    assert not visit.page.locator(f"table[data-protocol='{SMALL}'] th[data-epsilon='8']").first.is_visible()
    assert visit.page.locator(f"table[data-protocol='{SMALL}'] th[data-epsilon='64']").first.is_visible()


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_it_is_readable_by_all(browser, home: str, crowded, width: int, dark: bool) -> None:
    visit = opened(browser, home, width=width, dark=dark)
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
    assert visit.page.get_attribute("body", "data-md-color-scheme") == ("slate" if dark else "default")
    assert faults(visit.page, "#rows") == []
    visit.quiet()
    visit.context.close()


def test_without_a_script_it_is_a_plain_table(browser, home: str, crowded: list) -> None:
    visit = Visit(browser, home + "crowded.html", home=home, ready="#rows", scripts=False)
    assert visit.page.locator("#rows tbody tr:not([class])").count() == len(crowded)
    assert visit.page.locator("#rows form, #rows button").count() == 0
    visit.context.close()

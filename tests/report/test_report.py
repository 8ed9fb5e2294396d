"""Leaderboard, matrix, pictures and report of a run with missing cells."""

from __future__ import annotations

import dataclasses
import io
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from rich.console import Console

from reid_attack_bench.errors import BenchError
from reid_attack_bench.report import rows, write
from reid_attack_bench.report import terminal as text
from reid_attack_bench.report.analysis import conclude
from reid_attack_bench.report.analysis import leaderboard as tables
from reid_attack_bench.report.plots import curves, panels, sheets, visibility
from reid_attack_bench.report.plots import heat_maps as plots
from reid_attack_bench.report.record import RunRecord
from reid_attack_bench.report.results import (
    CellRow,
    CleanRow,
    PerQuery,
    Results,
    Setting,
    Sheet,
    cell_columns,
    clean_columns,
)
from reid_attack_bench.suites.suite import Suite, VictimEntry
from reid_attack_bench.text import file_name

ATTACKS = {
    "noise": 0.02,
    "fgsm": 0.25,
    "pgd": 0.6,
    "metric_fgsm": 0.5,
    "metric_pgd": 0.75,
    "misranking": 0.9,
    "odfa": 0.8,
}
QUERIES = 60


def percent(values: np.ndarray, valid: np.ndarray) -> float:
    return 100 * float(values[valid].mean())


def cell_row(setting: Setting, source: str, target: str, dataset: str, **fields: Any) -> CellRow:
    """A cell on synthetic data that succeeded, if `fields` do not say otherwise."""
    plain = {
        "pixels": setting.pixels or None, "access": "white-box", "needs": (), "relation": "", "synthetic": True,
        "queries": None, "seed": 0, "family": "", "steps": 0, "adaptive": 0, "status": "ok", "values": {},
    }  # fmt: skip
    named = {"attack": setting.attack, "epsilon": setting.epsilon, "perturbs": setting.perturbs}
    return CellRow(source=source, target=target, dataset=dataset, **{**plain, **named, **fields})


def clean_row(victim: str, dataset: str, values: dict[str, float], **fields: Any) -> CleanRow:
    """A clean evaluation on synthetic data that succeeded, if `fields` do not say otherwise."""
    plain = {
        "synthetic": True, "home": True, "defence": "", "distance": "euclidean", "citation": "", "weights": "",
        "randomised": False, "detector": "", "queries": None, "status": "ok",
    }  # fmt: skip
    return CleanRow(victim=victim, dataset=dataset, values=values, **{**plain, **fields})


def make_results(
    models: tuple[str, ...] = ("osnet_x0_25", "resnet50_fc512", "mudeep", "resnet50_fc512_adversarially_trained"),
    places: tuple[str, ...] = ("campus", "plaza"),
    attacks: tuple[str, ...] = tuple(ATTACKS),
    epsilons: tuple[int, ...] = (4, 8),
    images: int = 3,
    missing: float = 0.1,
) -> Results:
    """A run of every model on every data set, each model trained on each, with some cells missing."""
    rng = np.random.default_rng(5)
    victims = [f"{model}@{place}" for model in models for place in places]
    cells: list[CellRow] = []
    clean: list[CleanRow] = []
    per_query: dict[str, PerQuery] = {}
    ease = rng.random(QUERIES)  # what is hard for one model is hard for others

    def outcome(key: str, level: float) -> dict[str, float]:
        ap = np.clip(level + 0.4 * (ease - 0.5) + rng.normal(0, 0.05, QUERIES), 0, 1)
        hit = (0.7 * (1 - ease) + 0.3 * rng.random(QUERIES) < min(1.2 * level, 0.98)).astype(float)
        valid = np.arange(QUERIES) % 15 != 7
        per_query[key] = PerQuery(hit, ap, valid)
        rank1, mean = percent(hit, valid), percent(ap, valid)
        figures = {"rank1": rank1, "mAP": mean, "mINP": mean / 3}
        figures |= {f"rank{k}": min(100.0, rank1 + k) for k in (5, 10, 20)}
        for name, value in (("rank1", rank1), ("mAP", mean)):
            figures |= {f"{name}_low": max(0.0, value - 4), f"{name}_high": min(100.0, value + 4)}
        return figures

    for place in places:
        for v, victim in enumerate(victims):
            home = victim.endswith(place)
            key = f"clean-{place}-{victim}"
            defence = "adversarial training" if "adv" in victim else ""
            values = outcome(key, 0.8 - 0.02 * v if home else 0.35)
            clean.append(clean_row(victim, place, values, home=home, defence=defence, queries=QUERIES, rank_key=key))
    for attack in attacks:
        for epsilon in epsilons:
            for place in places:
                for source in victims:
                    for target in victims:
                        base = next(r for r in clean if (r.victim, r.dataset) == (target, place))
                        own = source == target
                        cell = cell_row(
                            Setting(attack, epsilon), source, target, place, seed=7, queries=QUERIES,
                            access="white-box" if own else "transfer", needs=("gradients",),
                        )  # fmt: skip
                        if rng.random() < missing:
                            cells.append(dataclasses.replace(cell, status="failed: NaN in the embeddings"))
                            continue
                        key = f"{attack}-{epsilon}-{place}-{source}-{target}"
                        force = ATTACKS[attack] * min(epsilon / 8, 1.1) * (1.05 if own else 0.5)
                        force *= 0.6 if "adv" in target else 1.0
                        after = outcome(key, base.value("mAP") / 100 * max(1 - force, 0.02))
                        values = dict(after)
                        for name in ("rank1", "rank5", "rank10", "rank20", "mAP", "mINP"):
                            before = base.value(name)
                            values |= {f"clean_{name}": before, f"drop_{name}": before - after[name]}
                        values |= {"linf": epsilon, "l2": epsilon * (1 + ATTACKS[attack]), "pixels_changed": 8000.0}
                        values |= {"ssim": 1 - epsilon * 0.01 * (1 + ATTACKS[attack]), "ms_ssim": 0.98}
                        cells.append(dataclasses.replace(cell, values=values, rank_key=key))
    return Results(
        record=RunRecord(demo_suite(models, places), command="reid-attack-bench run demo"),
        cells=cells, clean=clean, per_query=per_query,
        sheets=make_sheets(victims[:2], places[:1], attacks, epsilons[-1:], images, rng),
        notes=["All data are synthetic."],
    )  # fmt: skip


def demo_suite(models: tuple[str, ...], places: tuple[str, ...]) -> Suite:
    victims = tuple(VictimEntry(model, "torchreid", train_on=places) for model in models)
    return Suite(
        name="demo", description="", seed=7, image_size=(128, 64), batch_size=8, headline_epsilon=8,
        datasets={place: {} for place in places}, victims=victims, attacks=(),
    )  # fmt: skip


def with_suite(results: Results, **changes: object) -> Results:
    """The results as those of a suite with other settings."""
    suite = dataclasses.replace(results.record.suite, **changes)
    return dataclasses.replace(results, record=dataclasses.replace(results.record, suite=suite))


def make_sheets(
    sources: list[str],
    places: tuple[str, ...],
    attacks: tuple[str, ...],
    epsilons: tuple[int, ...],
    images: int,
    rng: np.random.Generator,
) -> list[Sheet]:
    found = []
    ramp = np.linspace(60, 200, 128)[:, None, None] + np.linspace(-40, 40, 64)[None, :, None] * np.array([1, 0, -1])
    clean = np.stack([np.roll(ramp, 20 * i, axis=0) for i in range(images)]).clip(0, 255).astype(np.uint8)
    for source in sources:
        for place in places:
            for attack in attacks:
                for epsilon in epsilons:
                    change = rng.integers(-epsilon, epsilon + 1, clean.shape)
                    adversarial = (clean.astype(int) + change).clip(0, 255).astype(np.uint8)
                    found.append(Sheet(Setting(attack, epsilon), source, place, clean, adversarial))
    return found


@pytest.fixture(scope="module")
def results() -> Results:
    return make_results()


@pytest.fixture(scope="module")
def small() -> Results:
    return make_results(
        models=("osnet", "mudeep"), places=("plaza",), attacks=("fgsm", "pgd"), epsilons=(8,), missing=0
    )


Where = Callable[[CellRow], bool] | Iterable[bool]
"""Which cells: a condition, or one flag for each."""


def chosen(cells: Sequence[CellRow], where: Where) -> list[bool]:
    flags = [where(cell) for cell in cells] if callable(where) else [bool(flag) for flag in where]
    assert len(flags) == len(cells)
    return flags


def changed(cell: CellRow, changes: Mapping[str, Any]) -> CellRow:
    """The cell with other fields; a change that is no field is one of a value, NaN takes it away."""
    fields = {name: value for name, value in changes.items() if name in vars(cell)}
    values = {**cell.values, **{name: value for name, value in changes.items() if name not in fields}}
    known = {name: value for name, value in values.items() if value == value}
    return dataclasses.replace(cell, **{"values": known, **fields})


def change_cells(results: Results, where: Where, **changes: Any) -> Results:
    flags = chosen(results.cells, where)
    cells = [changed(cell, changes) if flag else cell for cell, flag in zip(results.cells, flags, strict=True)]
    return dataclasses.replace(results, cells=cells)


def without(results: Results, where: Where) -> Results:
    """The same run where some cells failed."""
    return change_cells(results, where, status="failed", values={}, rank_key="")


def cells_of(results: Results) -> pd.DataFrame:
    """The cells as a table, in their order."""
    return pd.DataFrame([cell.columns() for cell in results.cells], columns=cell_columns())


def clean_of(results: Results) -> pd.DataFrame:
    """The clean rows as a table, in their order."""
    return pd.DataFrame([row.columns() for row in results.clean], columns=clean_columns())


def row_of(frame: pd.DataFrame, victim: str) -> pd.Series:
    return frame[frame["victim"] == victim].iloc[0]


# Leaderboard


def test_worst_case_is_the_per_query_minimum_over_attacks_and_sources(results: Results) -> None:
    board = tables.leaderboard(results)
    assert len(board) == 8
    for _, row in board.iloc[[0, -1]].iterrows():  # the loop is slow, and as plain as can be
        for epsilon in (4, 8):
            hits, precisions = [], []
            for query in range(QUERIES):
                lowest_hit, lowest_ap, valid = math.inf, math.inf, True
                for cell in results.cells:
                    same = cell.target == row["victim"] and cell.dataset == row["dataset"]
                    if not same or cell.epsilon != epsilon or cell.status != "ok":
                        continue
                    outcome = results.per_query[cell.rank_key]
                    valid = valid and bool(outcome.valid[query])
                    lowest_hit = min(lowest_hit, outcome.hit[query])
                    lowest_ap = min(lowest_ap, outcome.ap[query])
                if valid:
                    hits.append(lowest_hit)
                    precisions.append(lowest_ap)
            assert len(hits) == 56
            assert row[f"worst_e{epsilon}_rank1"] == pytest.approx(100 * sum(hits) / len(hits))
            assert row[f"worst_e{epsilon}_mAP"] == pytest.approx(100 * sum(precisions) / len(precisions))
            assert row[f"worst_e{epsilon}_mAP_low"] < row[f"worst_e{epsilon}_mAP"] < row[f"worst_e{epsilon}_mAP_high"]


def test_transfer_is_the_other_source_with_the_lowest_map(results: Results) -> None:
    victim = "mudeep@plaza"
    cells = cells_of(results).query("target == @victim and dataset == 'plaza' and epsilon == 8 and attack == 'pgd'")
    others = cells[(cells["source"] != victim) & (cells["status"] == "ok")]
    best = others.loc[others["mAP"].astype(float).idxmin()]
    row = row_of(tables.leaderboard(results), victim)
    assert (row["pgd_e8_transfer_rank1"], row["pgd_e8_transfer_mAP"]) == (best["rank1"], best["mAP"])
    own = cells[cells["source"] == victim].iloc[0]
    assert row["pgd_e8_whitebox_mAP"] == own["mAP"]


def with_seeds(results: Results, attack: str, shifts: dict[int, float]) -> Results:
    """The cells of one attack once for each seed, its figures shifted by so many points and per-query outcomes too."""
    cells = [cell for cell in results.cells if cell.attack != attack]
    per_query = dict(results.per_query)
    for seed, shift in shifts.items():
        for cell in (each for each in results.cells if each.attack == attack):
            key = f"{cell.rank_key}-{seed}" if cell.rank_key else ""
            if key:
                known = per_query[cell.rank_key]
                per_query[key] = PerQuery(known.hit, (known.ap + shift / 100).clip(0, 1), known.valid, known.identities)
            values = {name: cell.value(name) + shift for name in ("rank1", "mAP")}
            cells.append(changed(cell, {"seed": seed, "rank_key": key, **values}))
    return dataclasses.replace(results, cells=cells, per_query=per_query)


@pytest.mark.e2e
def test_several_seeds_show_their_mean_and_the_worst_case_takes_all(small: Results, tmp_path: Path) -> None:
    seeded = with_seeds(small, "pgd", {0: 0.0, 1: -2.0, 2: 5.0})
    one, all_seeds = tables.leaderboard(small), tables.leaderboard(seeded)
    assert list(one.columns) == list(all_seeds.columns)
    victim = one.victim[0]
    for column in ("pgd_e8_whitebox_rank1", "pgd_e8_transfer_mAP"):
        assert row_of(all_seeds, victim)[column] == pytest.approx(row_of(one, victim)[column] + 1.0)
    shifted = with_seeds(small, "pgd", {1: -2.0})
    worst = tables.leaderboard(shifted)
    assert row_of(all_seeds, victim)["worst_e8_mAP"] == pytest.approx(row_of(worst, victim)["worst_e8_mAP"])
    assert row_of(all_seeds, victim)["worst_e8_mAP"] < row_of(one, victim)["worst_e8_mAP"]
    table = tables.matrix(seeded)
    pgd = table[table.attack == "pgd"]
    assert pgd.groupby(["epsilon", "dataset", "source", "target"]).seed.apply(list).map([0, 1, 2].__eq__).all()
    # a seed that failed is left out of the mean
    failed = change_cells(
        seeded, lambda cell: (cell.attack, cell.seed) == ("pgd", 2), status="diverged", rank1=math.nan, mAP=math.nan
    )
    board = tables.leaderboard(failed)
    expected = row_of(one, victim)["pgd_e8_whitebox_rank1"] - 1.0
    assert row_of(board, victim)["pgd_e8_whitebox_rank1"] == pytest.approx(expected)
    assert len(plots.heat_maps(seeded, tmp_path)) == len(plots.heat_maps(small, tmp_path))


def test_leaderboard_columns(small: Results) -> None:
    expected = ["rank", "victim", "defence", "audit", "protocol", "dataset", "synthetic", "withdrawn", "queries"]
    for name in ("clean_rank1", "clean_mAP", "worst_e8_rank1", "worst_e8_mAP"):
        expected += [name, f"{name}_low", f"{name}_high"]
    expected.append("worst_e8_missing")
    for attack in ("fgsm", "pgd"):
        expected += [f"{attack}_e8_{kind}_{m}" for kind in ("whitebox", "transfer") for m in ("rank1", "mAP")]
    assert list(tables.leaderboard(small).columns) == expected


def test_pixel_budgets_attacked_galleries_and_query_access_have_their_own_columns(small: Results) -> None:
    fgsm = [cell.attack == "fgsm" for cell in small.cells]
    plain = row_of(tables.leaderboard(small), "osnet@plaza")
    budget = row_of(tables.leaderboard(change_cells(small, fgsm, pixels=500)), "osnet@plaza")
    assert budget["fgsm_e8_k500_whitebox_mAP"] == plain["fgsm_e8_whitebox_mAP"]
    assert budget["worst_e8_mAP"] == plain["worst_e8_mAP"]  # a pixel budget takes part in the worst case
    queried = row_of(tables.leaderboard(change_cells(small, fgsm, access="query")), "osnet@plaza")
    assert queried["fgsm_e8_query_mAP"] == plain["fgsm_e8_whitebox_mAP"]
    assert "fgsm_e8_whitebox_mAP" not in queried
    pgd = [cell.attack == "pgd" for cell in small.cells]
    gallery = row_of(tables.leaderboard(change_cells(small, pgd, perturbs="gallery")), "osnet@plaza")
    assert gallery["pgd_e8_gallery_whitebox_mAP"] == plain["pgd_e8_whitebox_mAP"]
    assert gallery["worst_e8_mAP"] > plain["worst_e8_mAP"]  # another threat: no part of the worst case


def test_order_is_worst_case_then_clean_then_name(small: Results) -> None:
    board = tables.leaderboard(small)
    assert list(board["rank"]) == [1, 2]
    assert list(board["worst_e8_mAP"]) == sorted(board["worst_e8_mAP"], reverse=True)

    def with_clean(values: dict[str, float]) -> Results:
        """Both victims with the same attacked outcome, and these clean figures."""
        same = change_cells(small, lambda _: True, rank_key=small.cells[0].rank_key)
        clean = [dataclasses.replace(row, values={**row.values, "mAP": values[row.victim]}) for row in small.clean]
        return dataclasses.replace(same, clean=clean)

    equal = tables.leaderboard(with_clean({"osnet@plaza": 70.0, "mudeep@plaza": 60.0}))
    assert list(equal["victim"]) == ["osnet@plaza", "mudeep@plaza"]
    named = tables.leaderboard(with_clean({"osnet@plaza": 60.0, "mudeep@plaza": 60.0}))
    assert list(named["victim"]) == ["mudeep@plaza", "osnet@plaza"]


def test_missing_is_empty_never_zero(small: Results, tmp_path: Path) -> None:
    best = tables.leaderboard(small)["victim"].iloc[0]
    partial = without(small, lambda cell: cell.target == best)
    board = tables.leaderboard(partial)
    last = board.iloc[-1]
    assert last["victim"] == best
    assert last["rank"] is pd.NA
    assert last["worst_e8_missing"] == 4
    header, *lines = rows.write_csv(board, tmp_path / "board.csv").read_text().splitlines()
    values = dict(zip(header.split(","), lines[-1].split(","), strict=True))
    empty = [
        name for name in values if name == "rank" or name.startswith(("worst_e8_rank1", "worst_e8_mAP", "fgsm", "pgd"))
    ]
    assert {values[name] for name in empty} == {""}
    assert values["clean_mAP"] not in ("", "0.00")
    cells = pd.read_csv(rows.write_csv(tables.matrix(partial), tmp_path / "matrix.csv"))
    assert cells[cells["status"] != "ok"][["rank1", "mAP", "drop_mAP", "ssim", "l2"]].isna().all(axis=None)


def test_victim_without_home_has_a_row_per_data_set(results: Results) -> None:
    clean = [dataclasses.replace(row, home=row.home and row.victim != "mudeep@plaza") for row in results.clean]
    board = tables.leaderboard(dataclasses.replace(results, clean=clean))
    assert sorted(board[board["victim"] == "mudeep@plaza"]["dataset"]) == ["campus", "plaza"]
    assert list(board[board["victim"] == "mudeep@campus"]["dataset"]) == ["campus"]


def test_contradictions_are_told(small: Results) -> None:
    key = small.cells[0].rank_key
    lost = {name: outcome for name, outcome in small.per_query.items() if name != key}
    with pytest.raises(BenchError, match="no per-query outcome"):
        tables.leaderboard(dataclasses.replace(small, per_query=lost))
    short = PerQuery(*(getattr(small.per_query[key], name)[:-1] for name in ("hit", "ap", "valid")))
    with pytest.raises(BenchError, match="number of queries"):
        tables.leaderboard(dataclasses.replace(small, per_query=small.per_query | {key: short}))


# CSV


@pytest.mark.e2e
def test_csv_is_the_same_bytes_whatever_the_order_of_the_rows(results: Results, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    cells = [results.cells[i] for i in rng.permutation(len(results.cells))]
    clean = [results.clean[i] for i in rng.permutation(len(results.clean))]
    shuffled = dataclasses.replace(results, cells=cells, clean=clean)
    for name, table in (("leaderboard", tables.leaderboard), ("matrix", tables.matrix), ("clean", tables.clean)):
        first = rows.write_csv(table(results), tmp_path / f"{name}.csv").read_bytes()
        second = rows.write_csv(table(shuffled), tmp_path / f"{name}.csv").read_bytes()
        assert first == second
        assert b"\r" not in first
    assert {path.name for path in tmp_path.iterdir()} == {"leaderboard.csv", "matrix.csv", "clean.csv"}
    assert (tmp_path / "matrix.csv").read_text().split("\n")[0] == ",".join(cell_columns())
    assert (tmp_path / "clean.csv").read_text().split("\n")[0] == ",".join(clean_columns())


@pytest.mark.parametrize(
    ("column", "value", "shown"),
    [
        ("mAP", 12.345678, "12.35"), ("worst_e8_rank1_low", 0.0, "0.00"), ("drop_mAP", -0.001, "0.00"),
        ("drop_rank20", -1.5, "-1.50"), ("ssim", 0.98765432, "0.9877"), ("l2", 2, "2.0000"), ("epsilon", 8.0, "8"),
        ("pixels", math.nan, ""), ("pixels", 500.0, "500"), ("rank", pd.NA, ""), ("synthetic", True, "true"),
        ("lpips", None, ""), ("seed", 7, "7"),
    ],
)  # fmt: skip
def test_csv_values(column: str, value: object, shown: str) -> None:
    assert rows.format_value(column, value) == shown


# Pictures


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def outside(figure: Figure) -> list[str]:
    """Words that the edge of the picture would cut."""
    figure.canvas.draw()
    box = figure.bbox
    cut = []
    for artist in figure.findobj(Text):
        words, extent = artist.get_text().strip(), artist.get_window_extent()
        if not artist.get_visible() or not words or re.fullmatch(r"[−.\d]+", words):
            continue  # numbers: matplotlib keeps labels of ticks that it does not draw
        if min(extent.x0, extent.y0) < -0.5 or extent.x1 > box.x1 + 0.5 or extent.y1 > box.y1 + 0.5:
            cut.append(words)
    return cut


def test_heat_map_says_what_it_shows(results: Results) -> None:
    setting = Setting("pgd", 8)
    figure = plots.heat_map_figure(results, setting, "rank1")
    panels = [axes for axes in figure.axes if axes.images and axes.get_title(loc="left")]
    assert [axes.get_title(loc="left") for axes in panels] == [
        "campus, 60 queries, synthetic data",
        "plaza, 60 queries, synthetic data",
    ]
    assert panels[0].get_ylabel() == "source model (attack crafted on)"
    assert panels[-1].get_xlabel() == "target model (evaluated)"
    labels = [label.get_text() for label in panels[0].get_yticklabels()]
    assert labels[0] == "clean (no attack)"
    assert labels[1:] == sorted({row.victim for row in results.clean})
    assert all(axes.images[0].get_clim() == (0, 100) for axes in panels)
    heading = " ".join(text.get_text() for text in figure.texts)
    assert "Rank-1 under pgd, ε = 8/255" in heading
    assert "seed 7" in heading
    assert "SYNTHETIC DATA" in heading
    mine = cells_of(results).query("attack == 'pgd' and epsilon == 8")
    assert texts(figure).count("missing") == (mine["status"] != "ok").sum() > 0
    figures = [f"{value:.1f}" for value in mine[mine["status"] == "ok"]["rank1"]]
    assert sorted(set(figures) - set(texts(figure))) == []


def test_heat_map_leaves_missing_cells_masked_and_not_run_apart(small: Results) -> None:
    def gone(cell: CellRow) -> bool:
        return (cell.source, cell.target) == ("osnet@plaza", "mudeep@plaza")

    failed = plots.heat_map_figure(without(small, gone), Setting("pgd", 8), "mAP")
    values = failed.axes[0].images[0].get_array()
    assert values.shape == (3, 2)
    assert values.mask.tolist() == [[False, False], [False, False], [True, False]]
    assert "missing" in texts(failed)
    kept = dataclasses.replace(small, cells=[cell for cell in small.cells if not (gone(cell) and cell.attack == "pgd")])
    assert "not run" in texts(plots.heat_map_figure(kept, Setting("pgd", 8), "mAP"))


LONG = "resnet50_fc512_with_a_really_long_name_that_nobody_would_want_to_read"


@pytest.mark.e2e
@pytest.mark.parametrize("count", [1, 2, 4, 20])
def test_nothing_is_cut_off_at_any_size(count: int) -> None:
    run = make_results(
        models=tuple(f"{LONG if i == 0 else 'model'}_{i}" for i in range(count)),
        places=("plaza",), attacks=("pgd", "misranking"), epsilons=(8,), missing=0.2,
    )  # fmt: skip
    victim = run.clean[0].victim
    for figure in (
        plots.heat_map_figure(run, Setting("pgd", 8), "mAP"),
        plots.overview_figure(run),
        curves.curves_figure(run, victim, "plaza"),
        visibility.visibility_figure(run),
    ):
        assert outside(figure) == []
    for sheet in run.sheets[:1]:
        assert outside(sheets.sheet_figure(run, sheet.source, sheet.dataset)) == []


def test_all_panels_of_the_overview_are_at_one_epsilon(small: Results) -> None:
    """Attacks at another budget have no panel and are named; if none is at the headline epsilon, the nearest counts."""

    def texts(headline: int) -> set[str]:
        figure = plots.overview_figure(with_suite(mixed, headline_epsilon=headline))
        return {text.get_text() for text in figure.texts} | {axes.get_title(loc="left") for axes in figure.axes}

    mixed = change_cells(small, lambda cell: cell.attack == "fgsm", epsilon=16)
    at_8 = texts(8)
    assert {"mAP under attack, ε = 8/255", "pgd"} <= at_8
    assert "fgsm" not in at_8
    assert any(text.endswith("only at another ε: fgsm (16)") for text in at_8)
    assert "mAP under attack, ε = 8/255" in texts(5)
    assert {"mAP under attack, ε = 16/255", "fgsm"} <= texts(30)


def test_numbers_are_dropped_where_they_would_not_fit() -> None:
    assert panels.Look(0.35, 0.35, 8, 6.5, 1).shows_numbers()
    assert not panels.Look(0.15, 0.35, 8, 6.5, 1).shows_numbers()
    assert not panels.Look(0.35, 0.08, 8, 6.5, 1).shows_numbers()


def test_curves_start_clean_and_break_at_missing_cells(results: Results) -> None:
    victim = "osnet_x0_25@plaza"
    own = [
        (cell.source, cell.target, cell.attack, cell.dataset) == (victim, victim, "odfa", "plaza")
        for cell in results.cells
    ]
    at4 = [here and cell.epsilon == 4 for cell, here in zip(results.cells, own, strict=True)]
    figure = curves.curves_figure(without(results, at4), victim, "plaza")
    clean = next(row for row in results.clean if (row.victim, row.dataset) == (victim, "plaza"))
    for axes, metric in zip(figure.axes, ("rank1", "mAP"), strict=True):
        assert axes.get_ylabel() == {"rank1": "Rank-1 (%)", "mAP": "mAP (%)"}[metric]
        assert "1/255" in axes.get_xlabel()
        lines = [line for line in axes.lines if len(line.get_xdata()) == 3]
        assert {line.get_linestyle() for line in lines} == {"-", "--"}
        assert {line.get_ydata()[0] for line in lines} == {clean.value(metric)}
        broken = [line for line in lines if math.isnan(line.get_ydata()[1]) and not math.isnan(line.get_ydata()[2])]
        assert len(broken) >= 1
        after = next(cell for cell, here in zip(results.cells, own, strict=True) if here and cell.epsilon == 8)
        assert after.value(metric) in [line.get_ydata()[2] for line in broken]


@pytest.mark.e2e
def test_plots_are_the_same_bytes_and_name_no_version(small: Results, tmp_path: Path) -> None:
    (png, pdf), again = (plots.overview(small, tmp_path / name) for name in ("a", "b"))
    assert [png.read_bytes(), pdf.read_bytes()] == [path.read_bytes() for path in again]
    assert b"Software" not in png.read_bytes()
    for content in (png.read_bytes(), pdf.read_bytes()):
        assert b"matplotlib" not in content.lower()
        assert b"CreationDate" not in content
    assert b"/FontFile2" in pdf.read_bytes()  # TrueType, embedded
    assert b"/Type3" not in pdf.read_bytes()


def test_labels_make_portable_and_different_file_names() -> None:
    assert file_name("curve", "osnet@plaza") == "curve_osnet@plaza"
    odd = [file_name(label) for label in ("a/b", "a b", "a-b", "../a")]
    assert len(set(odd)) == 4
    assert not any("/" in name or " " in name for name in odd)


# Sheets


def test_amplified_noise_spans_the_budget() -> None:
    clean = np.full((1, 1, 3, 3), 100, np.uint8)
    adversarial = clean.copy()
    adversarial[0, 0, 1] += 5
    adversarial[0, 0, 2] -= 5
    assert sheets.amplified(clean, adversarial, 5)[0, 0, :, 0].tolist() == [127, 254, 0]
    assert sheets.amplified(clean, adversarial, 10)[0, 0, :, 0].tolist() == [127, 190, 64]
    assert sheets.amplified(clean, clean, 0).max() == 127


@pytest.mark.e2e
def test_sheets_only_where_there_are_images(results: Results, tmp_path: Path) -> None:
    written = sheets.write_sheets(results, tmp_path)
    assert len(written) == len({(sheet.source, sheet.dataset) for sheet in results.sheets}) == 2
    figure = sheets.sheet_figure(results, results.sheets[0].source, results.sheets[0].dataset)
    assert len(figure.axes) == len(ATTACKS) * 3
    words = [text.get_text() for text in figure.texts]
    assert any("misranking\nε = 8/255\nnoise × 15.9" in word for word in words)
    shown = np.asarray(figure.axes[0].images[0].get_array())
    sheet = min(results.sheets[: len(ATTACKS)], key=lambda each: each.setting.attack)
    assert (shown[:, :64] == sheet.clean[0]).all()
    assert (shown[:, 68:132] == sheet.adversarial[0]).all()
    with pytest.raises(BenchError, match="no images"):
        sheets.sheet_figure(results, "nobody", "plaza")


# Text and report


def test_terminal_table_fits_120_columns(results: Results) -> None:
    console = Console(width=120, file=io.StringIO(), color_system=None)
    console.print(text.leaderboard_table(results, conclude.conclude(results).board))
    shown = console.file.getvalue()
    assert max(map(len, shown.splitlines())) <= 120
    assert "SYNTHETIC DATA" in shown
    row = row_of(tables.leaderboard(results), "osnet_x0_25@plaza")
    line = next(line for line in shown.splitlines() if "osnet_x0_25@plaza" in line)
    assert f"{row['clean_rank1']:.1f}/{row['clean_mAP']:.1f}" in line
    assert f"≤{row['worst_e8_rank1']:.1f}/{row['worst_e8_mAP']:.1f}" in line
    assert f" {row['odfa_e8_whitebox_rank1']:.0f}/{row['odfa_e8_transfer_rank1']:.0f}" in line
    narrow = Console(width=80, file=io.StringIO(), color_system=None)
    narrow.print(text.leaderboard_table(results, conclude.conclude(results).board, narrow.width))
    shown = narrow.file.getvalue()
    assert max(map(len, shown.splitlines())) <= 80
    line = next(line for line in shown.splitlines() if "osnet_x0_25@plaza" in line)
    assert f"≤{row['worst_e8_rank1']:.1f}/{row['worst_e8_mAP']:.1f}" in line, "whole"
    assert "not shown:" in shown
    wide = make_results(models=("a",), attacks=tuple(ATTACKS), epsilons=(2, 4, 8, 16), missing=0)
    console = Console(width=120, file=io.StringIO(), color_system=None)
    console.print(text.leaderboard_table(wide, conclude.conclude(wide).board))
    assert max(map(len, console.file.getvalue().splitlines())) <= 120


@pytest.mark.e2e
def test_report_folder_is_complete_and_its_links_hold(small: Results, tmp_path: Path) -> None:
    run = without(small, np.arange(len(small.cells)) == 0)
    steps: list[tuple[int, int]] = []
    written = write.write_report(run, tmp_path, lambda done, total, note: steps.append((done, total)))
    assert sorted(written) == sorted(path for path in tmp_path.rglob("*") if path.is_file())
    names = {path.relative_to(tmp_path).as_posix() for path in written}
    assert {"leaderboard.csv", "matrix.csv", "clean.csv", "report.md", "plots/overview.png"} <= names
    assert {f"plots/matrix_{a}_e8_{m}.png" for a in ("fgsm", "pgd") for m in ("rank1", "mAP")} <= names
    assert {"plots/curve_osnet@plaza_plaza.png", "sheets/sheet_osnet@plaza_plaza.png"} <= names
    assert steps[-1][0] == steps[-1][1] == len(steps)
    report = (tmp_path / "report.md").read_text()
    links = [part.split(")")[0] for part in report.split("](")[1:]]
    assert {f"plots/matrix_{a}_e8_{m}.pdf" for a in ("fgsm", "pgd") for m in ("rank1", "mAP")} <= names
    assert {"tables/leaderboard.tex", "tables/matrix_plaza_pgd_e8.md"} <= names
    pdfs = {name for name in names if name.endswith(".pdf")}
    assert {name.replace(".pdf", ".png") for name in pdfs} == {
        name for name in names if name.startswith("plots")
    } - pdfs
    assert sorted(links) == sorted(names - pdfs - {"report.md"})
    assert all((tmp_path / link).is_file() for link in links)
    for words in ("All data are synthetic.", "reid-attack-bench run demo", "1 × failed", "≤ ", "osnet@plaza"):
        assert words in report


@pytest.mark.e2e
def test_heat_maps_of_a_large_run_are_drawn_on_request(
    small: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "MANY_CELLS", len(small.cells) - 1)
    write.write_report(small, tmp_path / "large")
    assert not [*(tmp_path / "large").glob("plots/matrix_*"), *(tmp_path / "large").glob("plots/curve_*")]
    assert (tmp_path / "large/plots/overview.png").is_file()
    assert "--every-plot" in (tmp_path / "large/report.md").read_text()
    write.write_report(small, tmp_path / "all", every_plot=True)
    assert list((tmp_path / "all").glob("plots/matrix_*"))
    assert list((tmp_path / "all").glob("plots/curve_*"))
    assert "--every-plot" not in (tmp_path / "all/report.md").read_text()


def test_numbers_too_small_to_read_are_not_drawn() -> None:
    assert panels.Look(0.3, 0.3, 7.5, 6.5, 1).shows_numbers()
    assert not panels.Look(0.09, 0.09, 3.0, 2.8, 0).shows_numbers()


def test_a_run_without_cells_is_refused(small: Results, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="no cell"):
        write.write_report(dataclasses.replace(small, cells=[]), tmp_path)


@pytest.mark.e2e
def test_two_runs_are_compared_query_by_query() -> None:
    from reid_attack_bench.report.analysis import compare

    a = make_results()
    weaker = {key: PerQuery(each.hit, np.clip(each.ap + 0.1, 0, 1), each.valid) for key, each in a.per_query.items()}
    keys = [key for key in a.per_query if key.startswith("clean")]
    b = dataclasses.replace(a, per_query={**weaker, **{key: a.per_query[key] for key in keys}})
    table = compare.compare(a, b)
    clean = table[table.attack == "clean"]
    assert (clean.mAP_change == 0).all()
    assert not clean.changed.any()
    attacked = table[table.attack != "clean"]
    assert attacked.changed.all()
    assert (attacked.rank1_change == 0).all()
    row = attacked.iloc[0]
    assert 0 < row.mAP_change_low <= row.mAP_change <= row.mAP_change_high <= 10 + 1e-9
    assert row.mAP_b - row.mAP_a == pytest.approx(row.mAP_change)
    assert compare.only_in(a, b) == (Counter(), Counter())
    # the same difference for every query has no spread, whatever the two runs scatter
    shifted = {key: PerQuery(each.hit, each.ap * 0 + 0.5, each.valid) for key, each in a.per_query.items()}
    lifted = {key: PerQuery(each.hit, each.ap * 0 + 0.6, each.valid) for key, each in a.per_query.items()}
    even = compare.compare(dataclasses.replace(a, per_query=shifted), dataclasses.replace(a, per_query=lifted))
    assert (even.mAP_change_high - even.mAP_change_low).max() < 1e-9
    cut = {key: PerQuery(each.hit[1:], each.ap[1:], each.valid[1:]) for key, each in a.per_query.items()}
    with pytest.raises(BenchError, match=r"queries differ between the runs .*; compare runs on the same data"):
        compare.compare(a, dataclasses.replace(a, per_query=cut))
    elsewhere = dataclasses.replace(
        change_cells(a, lambda _: True, attack="other"),
        clean=[dataclasses.replace(row, victim="other") for row in a.clean],
    )
    with pytest.raises(BenchError, match="no cell in common"):
        compare.compare(a, elsewhere)


@pytest.mark.e2e
def test_a_comparison_is_paired_over_all_shared_cells_for_the_worst_case(results: Results) -> None:
    from reid_attack_bench.report.analysis import compare

    stronger = {
        key: PerQuery(each.hit, np.clip(each.ap - 0.05, 0, 1), each.valid) if key.startswith("odfa") else each
        for key, each in results.per_query.items()
    }
    other = dataclasses.replace(results, per_query=stronger)
    other = without(other, lambda cell: cell.attack == "misranking")
    table = compare.compare(results, other)
    assert not (table.attack == "misranking").any()
    place = "attack == 'worst case' and target == 'mudeep@plaza' and epsilon == 8 and dataset == 'plaza'"
    (row,) = table.query(place).to_dict("records")
    cells = cells_of(results).query(
        "target == 'mudeep@plaza' and dataset == 'plaza' and epsilon == 8 and attack != 'misranking' and status == 'ok'"
    )
    valid = results.per_query[cells.rank_key.iloc[0]].valid
    lowest = [np.min([run[key].ap for key in cells.rank_key], axis=0)[valid] for run in (results.per_query, stronger)]
    assert row["mAP_a"] == pytest.approx(100 * lowest[0].mean())
    assert row["mAP_change"] == pytest.approx(100 * (lowest[1] - lowest[0]).mean())
    assert row["mAP_change_low"] <= row["mAP_change"] <= row["mAP_change_high"] <= 0
    # an interval of the difference is narrower than that of either side
    assert row["mAP_change_high"] - row["mAP_change_low"] < 5.0
    alone, more = compare.only_in(results, other)
    assert more == Counter()
    there = cells_of(results).query("attack == 'misranking' and status == 'ok'")
    assert alone == Counter({"failed": len(there)})
    page = compare.to_markdown(results, other, table, ("runs/a", "runs/b"))
    assert f"{len(there)} only in runs/a; in runs/b: {len(there)} × failed" in page
    assert "Synthetic data" in page
    assert "worst case, ε = 8/255 → mudeep@plaza, on plaza" in page


@pytest.mark.e2e
def test_a_comparison_leaves_out_what_is_other_data(results: Results) -> None:
    from reid_attack_bench.report.analysis import compare

    a = dataclasses.replace(results, data={"campus": "1", "plaza": "2"})
    b = dataclasses.replace(results, data={"campus": "1", "plaza": "3"})
    table = compare.compare(a, b)
    assert set(table.dataset) == {"campus"}
    assert "plaza left out: its images differ between the runs" in compare.summary(a, b, table)
    assert compare.only_in(a, b) == (Counter(), Counter())
    with pytest.raises(BenchError, match="images of campus, plaza differ between the runs"):
        compare.compare(a, dataclasses.replace(a, data={"campus": "4", "plaza": "3"}))

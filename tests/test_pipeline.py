"""The matrix from a suite: counts, resuming, repairing, failing in part. Runs the real command line."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from reid_attack_bench.cli import main as cli
from reid_attack_bench.contracts import Recipe
from reid_attack_bench.errors import BenchError
from reid_attack_bench.execute.events import Listener
from reid_attack_bench.execute.executor import execute, missing_steps
from reid_attack_bench.metrics import visibility as image_metrics
from reid_attack_bench.plan.planner import make_plan
from reid_attack_bench.steps import artefacts
from reid_attack_bench.steps import kinds as steps
from reid_attack_bench.steps.workspace import Workspace
from reid_attack_bench.store import Store
from reid_attack_bench.suites import parse
from tests.conftest import TOY, tiny_document
from tests.plugins.toy import ToyVictim

pytestmark = pytest.mark.e2e


class Silent(Listener):
    """A listener that remembers."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.failures: list[str] = []
        self.notes: list[str] = []

    def finish(self, step, seconds) -> None:
        self.done.append(step.label)

    def fail(self, step, reason) -> None:
        self.failures.append(f"{step.label}: {reason}")

    def note(self, text) -> None:
        self.notes.append(text)


def bench(
    *arguments: str, cwd: Path, expect: int = 0, process: bool = False, **environment: str
) -> subprocess.CompletedProcess:
    """Run the command line as a user would; error output must be one line without a traceback.

    In this process, which has torch imported already, unless a `process` or an environment of its own is asked for.
    """
    done = _in_process(arguments, cwd, environment) if process or environment else _here(arguments, cwd)
    assert done.returncode == expect, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def _in_process(arguments: tuple[str, ...], cwd: Path, environment: dict[str, str]) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "reid_attack_bench", *arguments],
        cwd=cwd, capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip


def _here(arguments: tuple[str, ...], cwd: Path) -> subprocess.CompletedProcess:
    out, err, status = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(cwd)
        patch.setattr(sys, "argv", ["reid-attack-bench", *arguments])
        try:
            cli.main()
        except SystemExit as end:
            status = int(end.code or 0)
    return subprocess.CompletedProcess(arguments, status, out.getvalue(), err.getvalue())


def run_here(document: dict, store: Path, **options) -> tuple:
    plan = make_plan(parse.parse(document), **options)
    listener = Silent()
    return plan, execute(plan, Store(store), torch.device("cpu"), listener), listener


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A finished run of the tiny suite: the folder it was started in."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(tiny_document(), sort_keys=False))
    bench("run", "tiny.yaml", cwd=folder, process=True)
    return folder


def test_the_whole_matrix_is_there(finished: Path) -> None:
    matrix = pd.read_csv(finished / "runs/tiny/matrix.csv")
    assert len(matrix) == 4 * 2 * 2 * 2  # (attack, epsilon) × sources × targets × data sets
    assert (matrix.status == "ok").all()
    assert matrix.synthetic.all()
    assert (matrix[matrix.source == matrix.target].access == "white-box").all()
    assert (matrix.linf <= matrix.epsilon).all()
    assert np.allclose(matrix.drop_mAP, matrix.clean_mAP - matrix.mAP, atol=0.011)
    assert ((matrix.mAP_low <= matrix.mAP) & (matrix.mAP <= matrix.mAP_high)).all()
    for name in ("mAP_trapezoid", "clean_mAP_trapezoid", "success1", "success10", "relative_drop_mAP"):
        assert matrix[name].between(-100, 100).all(), name
    assert (matrix.success1_low <= matrix.success1 + 0.01).all()
    tpr = matrix.filter(like="tpr_")
    assert tpr.shape[1] == 6
    assert tpr.isna().all(axis=None), "fewer than 100 impostor pairs"
    drops = pd.read_csv(finished / "runs/tiny/mdr.csv")
    assert len(drops) == 4 * 2 * 2  # (attack, epsilon) × sources × data sets
    assert (drops.targets == 2).all()
    assert (drops.transfer_targets == 1).all()
    assert np.allclose(drops.transfer_ratio_of_means_mAP, drops.transfer_mean_of_ratios_mAP)
    assert matrix.lpips.isna().all()  # no weights here: empty, never made up
    board = pd.read_csv(finished / "runs/tiny/leaderboard.csv")
    assert sorted(board.victim) == ["toy@plaza", "toy@station"]
    manifest = json.loads((finished / "runs/tiny/manifest.json").read_text())
    assert any("Synthetic" in note for note in manifest["notes"])
    assert any("LPIPS" in note for note in manifest["notes"])
    assert manifest["versions"]["torch"] == torch.__version__.split("+")[0] or manifest["versions"]["torch"]


def test_costs_are_counted_and_timed(finished: Path) -> None:
    matrix = pd.read_csv(finished / "runs/tiny/matrix.csv").set_index("attack")
    assert (matrix.loc["noise", ["forward_passes", "backward_passes", "queries_per_image"]] == 0).all(axis=None)
    assert (matrix.loc["pgd", "backward_passes"] == 2).all()  # two steps, and a first pass for what it thinks
    assert (matrix.loc["pgd", "forward_passes"] == 3).all()
    assert (matrix.loc["learner", "backward_passes"] == 0).all()
    costs = pd.read_csv(finished / "runs/tiny/costs.csv").set_index("attack")
    assert len(costs) == 4 * 2 * 2  # (attack, epsilon) × sources × data sets
    assert (costs.images == 8).all()
    assert (costs.seconds_per_image > 0).all()
    assert (costs.loc["pgd", "backward_passes"] == 2).all()
    fitted = costs.filter(like="fit_")
    assert fitted.loc[["noise", "pgd"]].isna().all(axis=None)
    assert (fitted.loc["learner"] > 0).all(axis=None)
    assert (finished / "runs/tiny/plots/cost_passes.png").is_file()
    assert not (finished / "runs/tiny/plots/cost_queries.png").exists()  # no attack asks


def test_impersonation_from_suite_to_report(tiny, tmp_path) -> None:
    attack = {"use": "metric_pgd", "epsilon": 64, "options": {"steps": 20}}
    tiny["datasets"] = {"plaza": tiny["datasets"]["plaza"]}
    tiny["victims"]["toy"]["train_on"] = ["plaza"]
    tiny["headline_epsilon"] = 64
    tiny["attacks"] = {
        "hide": attack,
        "random": {**attack, "impersonate": "random"},
        "hardest": {**attack, "impersonate": "hardest"},
        "chance": {"use": "noise", "epsilon": 64, "impersonate": "random"},
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny, sort_keys=False))
    bench("run", "tiny.yaml", cwd=tmp_path)
    matrix = pd.read_csv(tmp_path / "runs/tiny/matrix.csv").set_index("attack")
    assert (matrix.status == "ok").all()
    goals = {"chance": "random", "hardest": "hardest", "hide": "", "random": "random"}
    assert matrix.impersonate.fillna("").to_dict() == goals
    assert matrix.filter(regex="target_|asr").loc["hide"].isna().all()
    for name in ("random", "hardest"):
        assert matrix.target_rank1[name] >= matrix.clean_target_rank1[name] + 50
        assert matrix.asr1[name] >= 80
        assert matrix.rank1[name] < matrix.clean_rank1[name]
    assert matrix.clean_target_mAP["random"] == matrix.clean_target_mAP["chance"]  # the same targets
    assert matrix.clean_target_mAP["hardest"] > matrix.clean_target_mAP["random"]
    assert matrix.target_mAP["chance"] < matrix.target_mAP["random"]
    report = (tmp_path / "runs/tiny/report.md").read_text()
    assert "## Impersonation" in report
    assert "**ASR@1**" in report
    assert "hardest, to hardest identity" in report
    assert "Targeted Rank-1" in (tmp_path / "runs/tiny/report.html").read_text()
    assert "random_e64_to_random_whitebox_mAP" in pd.read_csv(tmp_path / "runs/tiny/leaderboard.csv").columns


def test_a_second_run_does_no_work_and_report_gives_the_same_bytes(finished: Path) -> None:
    tables = {path: path.read_bytes() for path in (finished / "runs/tiny").glob("*.csv")}
    manifest = (finished / "runs/tiny/manifest.json").read_bytes()
    assert len(tables) == 6
    said = bench("run", "tiny.yaml", cwd=finished).stdout
    assert "0 to do" in said
    assert "nothing to do" in said
    assert (finished / "runs/tiny/manifest.json").read_bytes() == manifest
    for path in tables:
        path.unlink()
    bench("report", "runs/tiny", cwd=finished)
    assert {path: path.read_bytes() for path in tables} == tables


def test_killed_in_three_steps_it_reports_how_far_it_came_and_ends_with_the_same_tables(
    finished: Path, tmp_path: Path
) -> None:
    (tmp_path / "tiny.yaml").write_text((finished / "tiny.yaml").read_text())
    done = pd.read_csv(finished / "runs/tiny/matrix.csv")
    deaths = tmp_path / "deaths"
    deaths.mkdir()
    figures = {}
    for moment in ("train", "fit", "craft"):
        (deaths / moment).touch()
        bench("run", "tiny.yaml", "--workers", "1", cwd=tmp_path, expect=-9, TOY_DIES=str(deaths))
        assert not (deaths / moment).exists()
        if moment != "craft":  # before the first model, and in the middle
            assert not (tmp_path / "runs/tiny/matrix.csv").exists()
            said = bench("report", "runs/tiny", cwd=tmp_path).stdout
            figures[moment] = _check_unfinished(tmp_path / "runs/tiny", said, done)
            (tmp_path / "runs/tiny/matrix.csv").unlink()
    assert 0 == figures["train"] < figures["fit"] < len(done)
    bench("run", "tiny.yaml", cwd=tmp_path, TOY_DIES=str(deaths))
    assert list((tmp_path / "runs/store/pending").glob("*")) == []
    assert "Not finished" not in (tmp_path / "runs/tiny/report.md").read_text()
    for name in ("matrix.csv", "leaderboard.csv", "clean.csv"):
        assert (tmp_path / "runs/tiny" / name).read_bytes() == (finished / "runs/tiny" / name).read_bytes()


def _check_unfinished(run: Path, said: str, done: pd.DataFrame) -> int:
    """The report of a killed run: what it has is what the finished run has, the rest is missing and says why."""
    matrix = pd.read_csv(run / "matrix.csv")
    assert len(matrix) == len(done)
    gone, there = matrix[matrix.status != "ok"], matrix[matrix.status == "ok"]
    assert set(gone.status) == {"not in the store: run the suite again"}
    assert gone[["rank1", "mAP", "drop_mAP", "ssim"]].isna().all(axis=None)
    both = there.merge(done, on=["attack", "epsilon", "source", "target", "dataset"])
    assert len(both) == len(there)
    assert (both.mAP_x == both.mAP_y).all()
    assert "Not finished" in said
    report = (run / "report.md").read_text()
    assert f"Not finished: {len(there)} of {len(done)} cells have values" in report
    assert f"{len(gone)} × not in the store" in report
    return len(there)


def test_two_runs_are_compared_on_the_command_line(finished: Path, tmp_path: Path) -> None:
    run = str(finished / "runs/tiny")
    said = bench("compare", run, run, "--out", "c.csv", "--out", "c.md", "--rows", "3", cwd=tmp_path).stdout
    table = pd.read_csv(tmp_path / "c.csv")
    assert set(table.attack) == {"clean", "worst case", "noise", "pgd", "learner"}
    assert len(table) == 2 * 2 + 2 * 2 * 2 + 4 * 2 * 2 * 2
    assert (table.mAP_change == 0).all()
    assert f"0 of {len(table)} values changed" in " ".join(said.split())
    assert (tmp_path / "c.md").read_text().count("\n| ") == len(table) + 3 * 2
    assert "the file must end in .csv" in bench("compare", run, run, "--out", "c.txt", cwd=tmp_path, expect=1).stderr
    (tmp_path / "manifest.json").write_text("[]")
    assert "is not the manifest of a run" in bench("compare", run, ".", cwd=tmp_path, expect=1).stderr


def test_each_thing_is_done_once(tiny, tmp_path: Path) -> None:
    plan, outcome, listener = run_here(tiny, tmp_path)
    assert not outcome.failed
    assert len(listener.done) == len(set(listener.done)) == len(plan.steps)
    kinds = pd.Series([step.kind for step in plan.steps.values()]).value_counts()
    assert kinds["victim"] == 2
    assert kinds["clean"] == 2 * 2
    assert kinds["fit"] == 2
    # noise asks nothing of a source: once per budget and data set; the others once per source and data set
    assert kinds["craft"] == kinds["measure"] == 2 * 2 + 2 * (2 * 2)
    assert kinds["features"] == 2 * kinds["craft"]
    again = run_here(tiny, tmp_path)[2]
    assert again.done == []


def test_an_image_is_measured_once_however_many_targets_it_meets(
    tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = []
    measures = image_metrics.measures

    def counting(clean: np.ndarray, *rest):
        measured.append(len(clean))
        return measures(clean, *rest)

    monkeypatch.setattr(image_metrics, "measures", counting)
    tiny["victims"]["other"] = {"use": f"{TOY}:ToyRecipe", "train_on": ["plaza"], "roles": ["target"]}
    plan = run_here(tiny, tmp_path)[0]
    store = Store(tmp_path)
    crafts = [store.open("craft", step.key) for step in plan.steps.values() if step.kind == "craft"]
    made = sum(len(np.load(path)) for craft in crafts for path in craft.glob("*.npy"))
    assert len({cell.target for cell in plan.cells}) == 3
    assert sum(measured) == made
    assert len(measured) == len(crafts)  # so few images all at once


def test_a_stored_result_needs_none_of_its_inputs_again(tiny, tmp_path: Path) -> None:
    plan, _, _ = run_here(tiny, tmp_path)
    store = Store(tmp_path)
    for step in plan.steps.values():
        if step.kind in ("victim", "fit", "features", "clean"):
            store.discard(step.kind, step.key)
    assert missing_steps(plan, store) == []


def test_a_corrupt_artefact_is_made_again_and_said(finished: Path) -> None:
    before = (finished / "runs/tiny/matrix.csv").read_bytes()
    victim = next((finished / "runs/store/rank").iterdir()) / "ranking.safetensors"
    victim.write_bytes(b"\0" * victim.stat().st_size)
    assert "is corrupt: run the suite again" in bench("report", "runs/tiny", cwd=finished, expect=1).stderr
    said = bench("run", "tiny.yaml", cwd=finished).stdout
    assert "corrupt; making it again" in said
    bench("report", "runs/tiny", cwd=finished)
    assert (finished / "runs/tiny/matrix.csv").read_bytes() == before


def test_a_corrupt_input_is_made_again_on_the_way(tiny, tmp_path: Path) -> None:
    plan, _, _ = run_here(tiny, tmp_path)
    store = Store(tmp_path)
    craft = next(s for s in plan.steps.values() if s.kind == "craft" and "pgd" in s.label)
    original = np.load(store.folder("craft", craft.key) / "query.npy")
    np.save(store.folder("craft", craft.key) / "query.npy", np.zeros_like(original))
    features = next(s for s in plan.steps.values() if s.kind == "features" and s.inputs["craft"] == craft.key)
    rank = next(s for s in plan.steps.values() if s.kind == "rank" and s.inputs["features"] == features.key)
    for step in (features, rank):
        store.discard(step.kind, step.key)
    _, outcome, listener = run_here(tiny, tmp_path)
    assert outcome.rebuilt == [craft.label]
    assert any("does not match its digest" in note for note in listener.notes)
    assert np.array_equal(np.load(store.folder("craft", craft.key) / "query.npy"), original)


def test_one_failure_costs_only_what_stands_on_it(tiny, tmp_path: Path) -> None:
    tiny["attacks"] = {"noise": {}, "cheat": {"use": f"{TOY}:Cheat"}}
    plan, outcome, listener = run_here(tiny, tmp_path)
    assert any("exceeded its L-inf budget on image 0: 11/255" in line for line in listener.failures)
    from reid_attack_bench.jobs import manifest
    from reid_attack_bench.report.collect import collect

    results = collect(manifest.describe(plan, Store(tmp_path), outcome, torch.device("cpu"), "x"), Store(tmp_path))
    cheat, noise = ([cell for cell in results.cells if cell.attack == name] for name in ("cheat", "noise"))
    assert cheat
    assert noise
    assert all(cell.ok for cell in noise)
    assert all("exceeded its L-inf budget" in cell.status for cell in cheat)
    assert not any(name in cell.values for cell in cheat for name in ("rank1", "mAP", "drop_mAP", "linf"))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("NanVictim", "NaN or infinity for image 0"),
        ("FlatVictim", r"embed returned \(128,\) for 2 images, expected 2×D"),
        ("DetachedVictim", "no gradient.*declare differentiable = False"),
    ],
)
def test_a_victim_that_breaks_its_contract(tiny, tmp_path: Path, name: str, says: str) -> None:
    tiny["victims"] = {"bad": {"use": f"{TOY}:{name}"}}
    _, outcome, _ = run_here(tiny, tmp_path)
    import re

    assert re.search(says, outcome.causes[0]), outcome.causes
    assert "victim bad" in outcome.causes[0]


def test_a_victim_without_gradients_is_a_target_only(tiny, tmp_path: Path) -> None:
    tiny["victims"]["fixed"] = {"use": f"{TOY}:TargetOnly"}
    plan, outcome, _ = run_here(tiny, tmp_path)
    assert not outcome.failed
    cells = [c for c in plan.cells if c.attack == "pgd"]
    assert all(("no gradients" in c.impossible) == (c.source == "fixed") for c in cells)
    assert all(c.rank_key for c in cells if c.target == "fixed" and c.source != "fixed")


def test_a_victim_below_its_expected_rank1_is_an_error_not_a_row(tiny, tmp_path: Path) -> None:
    tiny["victims"]["toy"]["expected_rank1"] = 100
    plan, outcome, _ = run_here(tiny, tmp_path)
    assert len(outcome.causes) == 2
    assert all("below the expected 100.0 %" in cause for cause in outcome.causes)
    assert all(cell.rank_key in outcome.failed for cell in plan.cells)


def test_only_restricts_cells(tiny) -> None:
    chosen = parse.parse(tiny)
    plan = make_plan(chosen, only={"attack": ["pgd"], "source": ["toy@plaza"], "dataset": ["station"]})
    assert {(c.attack, c.source, c.dataset) for c in plan.cells} == {("pgd", "toy@plaza", "station")}
    assert {c.target for c in plan.cells} == {"toy@plaza", "toy@station"}


def test_gallery_and_both_are_perturbed(tiny, tmp_path: Path) -> None:
    tiny["attacks"] = {"noise": {"perturbs": "gallery"}, "pgd": {"perturbs": "both", "options": {"steps": 1}}}
    tiny["victims"]["toy"]["train_on"] = ["plaza"]
    plan, outcome, _ = run_here(tiny, tmp_path, only={"dataset": ["plaza"]})
    assert not outcome.failed
    store = Store(tmp_path)
    for cell in plan.cells:
        parts = set(artefacts.read_crafted(store.open("craft", cell.craft_key)))
        assert parts == ({"gallery"} if cell.attack == "noise" else {"gallery", "query"})


def test_white_box_access_stays_on_the_diagonal(tiny) -> None:
    tiny["attacks"] = {"pgd": {"access": "white-box"}}
    assert {(c.source, c.target) for c in make_plan(parse.parse(tiny)).cells} == {
        ("toy@plaza", "toy@plaza"),
        ("toy@station", "toy@station"),
    }


def test_an_attack_that_only_asks_the_source_is_given_it(tiny, tmp_path: Path) -> None:
    asking = {"use": f"{TOY}:Asker", "sees": "embedding", "queries": 3, "access": "white-box"}
    tiny["attacks"] = {"asking": asking}
    plan = make_plan(parse.parse(tiny))
    assert execute(plan, Store(tmp_path / "store"), torch.device("cpu"), Silent()).causes == []
    assert {cell.access for cell in plan.cells} == {"query"}


def test_evaluate_puts_a_new_victim_beside_the_stored_ones(finished: Path) -> None:
    said = bench("evaluate", "--victim", f"{TOY}:ToyVictim", "--suite", "tiny.yaml", "--json", cwd=finished).stdout
    events = [json.loads(line) for line in said.splitlines()]
    done = [e for e in events if e["event"] == "done"]
    assert not [e for e in done if e["kind"] in ("data", "fit") and "ToyVictim" not in e["label"]]
    assert not [e for e in done if "ToyVictim" not in e["label"]]
    matrix = pd.read_csv(finished / "runs/tiny+ToyVictim/matrix.csv")
    new = matrix[matrix.target == "ToyVictim"]
    assert set(new.source) == {"toy@plaza", "toy@station", "ToyVictim"}
    assert set(matrix[matrix.source == "ToyVictim"].target) == {"ToyVictim"}
    assert "ToyVictim" in set(pd.read_csv(finished / "runs/tiny+ToyVictim/leaderboard.csv").victim)


def test_dry_run_prints_the_plan_and_does_nothing(tiny, write_suite, tmp_path: Path) -> None:
    said = bench("run", write_suite(tiny), "--dry-run", cwd=tmp_path).stdout
    assert "to do" in said
    assert "image passes" in said
    assert "craft pgd 8/255 on toy@plaza, station" in said
    assert not (tmp_path / "runs").exists()


def test_a_paper_suite_at_full_size_on_other_data_is_planned_by_its_name(tmp_path: Path) -> None:
    said = bench("run", "paper-objectives", "--full", "--data", "campus", "--dry-run", cwd=tmp_path).stdout
    assert "train resnet50@campus" in said
    assert "fit xent+etri 16/255 seed 2 against resnet50@campus" in said
    assert "plaza" not in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "quick", "--full"], "no full size"),
        (["run", "quick", "--data", "plazza"], "did you mean 'plaza'"),
        (["run", "quik"], "did you mean 'quick'"),
        (["runn", "quick"], "did you mean 'run'"),
        (["run", "quick", "--only", "attack=pdg"], "did you mean 'pgd'"),
        (["run", "quick", "--only", "atack=pgd"], "did you mean 'attack'"),
        (["run", "quick", "--data-root", "/nowhere"], "not a folder"),
        (["run", "quick", "--device", "tpu"], "tpu"),
        (["list", "atacks"], "did you mean 'attacks'"),
        (["report", "."], "not a run"),
        (["evaluate", "--victim", "none.py:X"], "does not exist"),
        (["data", "export", "plazza", "x"], "did you mean 'plaza'"),
    ],
)
def test_mistakes_on_the_command_line_get_one_line(arguments, says, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["reid-attack-bench", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code not in (0, None)
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert "\n" not in error
    assert says in error


def test_a_full_disk_is_said_and_keeps_what_is_done(tiny, tmp_path: Path, monkeypatch) -> None:
    from reid_attack_bench.errors import BenchError

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("reid_attack_bench.steps.data.save_file", full)
    with pytest.raises(BenchError, match=r"disk .* is full .*finished steps are kept"):
        run_here(tiny, tmp_path)


def test_an_exported_domain_runs_as_market1501(tiny, write_suite, tmp_path: Path) -> None:
    root = tmp_path / "data"
    tiny["attacks"] = {"pgd": {"options": {"steps": 2}}}
    source = write_suite(tiny)
    bench("data", "export", "plaza", str(root), "--suite", source, cwd=tmp_path)
    tiny["datasets"] = {"market1501": {}}
    tiny["victims"]["toy"]["train_on"] = ["market1501"]
    real = write_suite(tiny, "real.yaml")
    bench("run", real, "--data-root", str(root), cwd=tmp_path)
    matrix = pd.read_csv(tmp_path / "runs/tiny/matrix.csv")
    assert not matrix.synthetic.any()
    assert (matrix.status == "ok").all()
    harmed = next((root / "market1501/Market-1501-v15.09.15/query").glob("*.jpg"))
    harmed.write_bytes(b"no jpeg")
    said = bench("run", real, "--data-root", str(root), cwd=tmp_path, expect=1).stderr
    assert harmed.name in said


def test_a_withdrawn_target_without_a_training_split_runs_whole(tiny, write_suite, tmp_path: Path) -> None:
    people = tiny["datasets"]["plaza"]
    tiny |= {"datasets": {"plaza": people}, "victims": {"ready": {"use": f"{TOY}:ToyVictim"}}}
    tiny["attacks"] = {"noise": {}, "learner": tiny["attacks"]["learner"]}
    bench("data", "export", "plaza", "data", "--suite", write_suite(tiny), cwd=tmp_path)
    root = tmp_path / "data/market1501/Market-1501-v15.09.15"
    shutil.rmtree(root / "bounding_box_train")
    tiny["datasets"] = {"yard": {"layout": "occluded-duke", "root": str(root)}}
    suite = write_suite(tiny)
    bench("run", suite, "--workers", "1", cwd=tmp_path)
    run = tmp_path / "runs/tiny"
    matrix = pd.read_csv(run / "matrix.csv").set_index("attack")
    assert matrix.withdrawn.all()
    assert not matrix.synthetic.any()
    assert set(matrix.status.drop("learner")) == {"ok"}
    assert matrix.status["learner"].startswith("not applicable: learner is fitted on training images")
    report = (run / "report.md").read_text()
    assert "> **Withdrawn data.**" in report
    assert "Withdrawn data (yard): made of DukeMTMC, which was recorded" in report
    assert (run / "report.html").is_file()
    said = bench("data", "sheet", "yard", "yard.png", "--suite", suite, cwd=tmp_path).stdout
    assert "yard (withdrawn)" in said


def test_missing_real_data_says_where_it_should_be(tiny, write_suite, tmp_path: Path) -> None:
    tiny["datasets"] = {"market1501": {}}
    tiny["victims"]["toy"]["train_on"] = ["market1501"]
    said = bench("run", write_suite(tiny), "--data-root", str(tmp_path), cwd=tmp_path, expect=1, process=True).stderr
    assert "market1501" in said
    assert "http" in said
    assert len(said.strip().splitlines()) == 1


def test_two_workers_give_the_same_tables_as_one(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text((finished / "tiny.yaml").read_text())
    bench("run", "tiny.yaml", "--workers", "2", cwd=tmp_path, process=True)
    for name in ("matrix.csv", "leaderboard.csv", "clean.csv"):
        assert (tmp_path / "runs/tiny" / name).read_bytes() == (finished / "runs/tiny" / name).read_bytes()


def test_a_worker_that_dies_fails_its_step_and_what_stands_on_it(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text((finished / "tiny.yaml").read_text())
    (tmp_path / "fit").touch()
    said = bench("run", "tiny.yaml", "--workers", "2", cwd=tmp_path, expect=1, TOY_DIES=str(tmp_path)).stderr
    assert "fit learner 8/255" in said
    assert "exit status -9" in said
    matrix = pd.read_csv(tmp_path / "runs/tiny/matrix.csv")
    missing = matrix[matrix.status != "ok"]
    assert set(missing.attack) == {"learner"}
    assert missing.source.nunique() == 1
    bench("run", "tiny.yaml", "--workers", "2", cwd=tmp_path, TOY_DIES=str(tmp_path))  # and it is made good
    assert (tmp_path / "runs/tiny/matrix.csv").read_bytes() == (finished / "runs/tiny/matrix.csv").read_bytes()


def test_workers_die_with_a_killed_run(tiny, write_suite, tmp_path: Path) -> None:
    tiny["victims"]["toy"]["options"] = {"steps": 100_000}
    process = subprocess.Popen(
        [sys.executable, "-m", "reid_attack_bench", "run", write_suite(tiny), "--workers", "2", "--json"],
        cwd=tmp_path, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line).get("kind") == "victim":
            break
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) >= 2
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{child}").exists() and _state(child) != "Z" for child in children):
        assert time.monotonic() < deadline, "a worker outlived its run, and would hold the store"
        time.sleep(0.05)


def _state(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_a_contact_sheet_is_a_picture_of_that_size(tiny, write_suite, tmp_path: Path) -> None:
    from PIL import Image

    bench(
        "data", "sheet", "plaza", "out/sheet.png", "--suite", write_suite(tiny), "--identities", "3", "--columns", "4",
        cwd=tmp_path,
    )  # fmt: skip
    width, height = Image.open(tmp_path / "out/sheet.png").size
    assert 4 * 64 <= width < 4 * 64 + 40
    assert 3 * 128 <= height < 3 * 128 + 40


class Interruptible(Recipe):
    """A recipe that counts to six, three at a time: it is interrupted the first time."""

    def fit(self, data, context):
        kept = context.checkpoint.load()
        if kept is None:
            context.checkpoint.save({"count": torch.tensor(3)})
            raise BenchError("the lights went out")
        return {"count": kept["count"] + 3}

    def load(self, state):
        assert int(state["count"]) == 6
        return ToyVictim()


def test_an_interrupted_fit_finds_what_it_kept_and_leaves_nothing(tiny, tmp_path: Path) -> None:
    plan, _, _ = run_here(tiny, tmp_path)
    step = replace(next(s for s in plan.steps.values() if s.kind == "victim"), plugin=Interruptible())
    store = Store(tmp_path)
    workspace = Workspace(
        lambda key: store.open(plan.steps[key].kind, key), plan.steps, torch.device("cpu"), store.unfinished
    )
    (tmp_path / "out").mkdir()
    with pytest.raises(BenchError, match="lights"):
        steps.run(step, workspace, tmp_path / "out", lambda *_: None)
    assert store.unfinished(step.key).is_file()
    steps.run(step, workspace, tmp_path / "out", lambda *_: None)
    assert list((tmp_path / "unfinished").iterdir()) == []

    store.unfinished(step.key).write_bytes(b"cut short")
    with pytest.raises(BenchError, match="lights"):
        steps.run(step, workspace, tmp_path / "out", lambda *_: None)

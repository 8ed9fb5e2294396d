"""Damaged suites, cards, run records and tables: every command succeeds, or ends with one line and a status beside 0.

Values are dropped, added, renamed and replaced by junk in what is otherwise valid; bytes are cut, changed and added.
"""

from __future__ import annotations

import contextlib
import copy
import csv
import functools
import io
import json
import shutil
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import reid_attack_bench
from reid_attack_bench.cli import main as cli
from reid_attack_bench.errors import BenchError
from reid_attack_bench.jobs.submission import verify as submission_verify
from reid_attack_bench.jobs.submission.card import card_template
from reid_attack_bench.jobs.submission.pack import pack
from reid_attack_bench.store import Store
from reid_attack_bench.text import visible
from tests.conftest import TOY, script, tiny_document

ROOT = Path(__file__).parent.parent

SECONDS = 8.0
"""Processor time in which a command must end with what is damaged."""

JUNK: list[Any] = [
    None, True, False, 0, -1, 1, 255, 256, 10**6, 10**12, -(10**30), 0.5, -0.0, 1e-320, 1e308, float("nan"),
    float("inf"), "", " ", "x", "0", "-1", "nan", "true", "x" * 3000, "\x1b[31mred", "\0", "\ud7ff\uffff", "[bold]",
    "=1+1", "../../x", "a\nb", "%s {0}", "8/255", "1/0", "2026-11-30", "none.py:X", "noise", [], {}, [[]], [None], [{}],
    ["x", "x"], {"x": None}, {"": {}}, {"use": 3}, [1, "x", None],
]  # fmt: skip

TIERS = pytest.mark.parametrize(
    "examples", [pytest.param(1, id="some"), pytest.param(20, id="many", marks=pytest.mark.slow)]
)

Damage = Callable[[Any], Any]


def places(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all values within a document."""
    found = [here]
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, each in inner:
        found += places(each, (*here, name))
    return found


@st.composite
def damaged(draw: st.DrawFn, document: Any, most: int = 2) -> Any:
    """A document with a few values dropped, added, renamed, repeated or replaced."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, most))):
        place = draw(st.sampled_from(places(document)))
        if not place:
            return draw(st.sampled_from(JUNK))
        holder = functools.reduce(lambda value, name: value[name], place[:-1], document)
        kind, junk = draw(st.sampled_from(["put", "put", "put", "drop", "add", "rename", "repeat"])), JUNK
        value = draw(st.sampled_from(junk) | st.text(max_size=8) | st.integers() | st.floats())
        name = place[-1]
        if kind == "put":
            holder[name] = value
        elif kind == "drop":
            del holder[name]
        elif isinstance(holder, list):
            holder.insert(name, copy.deepcopy(holder[name]) if kind == "repeat" else value)
        elif kind == "rename":
            holder[draw(st.sampled_from(["x", "", "\x1b", *map(str, holder)]))] = holder.pop(name)
        else:
            holder[draw(st.sampled_from(["x", "", "use", "label"]))] = value
    return document


@st.composite
def damaged_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes that are cut, changed or added somewhere."""
    place = draw(st.integers(0, max(0, len(content) - 1)))
    pieces = [b"", b"\0", b"\xff\xfe", b"\x1b[2J", b"\n", b"\r", b"{", b"[", b"&a ", b"*a", b'"', b","]
    more = draw(st.sampled_from(pieces) | st.binary(max_size=4))
    kept = draw(st.sampled_from([0, 1, 20, len(content)]))
    return content[:place] + more + content[place + (len(content) if kept == 0 else kept if kept < 21 else 0) :]


def ends_well(*arguments: str, seconds: float = SECONDS) -> None:
    """Run a command in this process: it succeeds, or says why not in one line, in this processor time."""
    said, complained = io.StringIO(), io.StringIO()
    status: Any = 0
    started = time.process_time()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["reid-attack-bench", *arguments])
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complained):
            try:
                cli.main()
            except SystemExit as end:
                status = end.code
    assert time.process_time() - started < seconds
    errors = [line for line in complained.getvalue().splitlines() if line.startswith("error: ")]
    if status not in (0, None):
        assert len(errors) == 1, complained.getvalue()
        assert len(errors[0]) > len("error: ") + 5, errors
        assert visible(errors[0]) == errors[0], errors


def fuzz(examples: int) -> Callable[[Any], Any]:
    return settings(
        max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), report_multiple_bugs=False
    )


def suite() -> dict[str, Any]:
    """A suite that uses most of what there is."""
    tiny = tiny_document()
    tiny["victims"] = {
        "toy": {"use": f"{TOY}:ToyRecipe", "train_on": ["plaza", "station"], "options": {"steps": 2}},
        "smooth": {"use": "gaussian", "defends": "toy", "options": {"sigma": 1.0}, "roles": ["target"]},
    }
    tiny["presets"] = {"weak": {"use": "metric_pgd", "options": {"steps": 1}}}
    tiny["attacks"] = {
        "noise": {"epsilon": [4, 8], "seeds": [1, 2]},
        "weak": {"like": "weak", "epsilon": ["8/255"], "pixels": ["1/8", None], "relations": ["white-box"]},
        "asked": {"use": "square", "sees": "embedding", "queries": [5], "access": "white-box"},
        "named": {"use": "metric_pgd", "impersonate": "random", "perturbs": "query"},
    }
    tiny["findings"] = [{"claim": "it is", "lower": {"attack": "noise", "epsilon": 8}, "higher": {"attack": "noise", "epsilon": 4}}]  # fmt: skip  # noqa: E501
    tiny["full"] = {"seed": 1, "datasets": {"plaza": {"test_identities": 5}}}
    return tiny


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run, a card and a submission."""
    folder = tmp_path_factory.mktemp("fuzz")
    tiny = tiny_document() | {"attacks": {"noise": {"epsilon": 8}, "metric_pgd": {"options": {"steps": 1}}}}
    tiny["datasets"] = {"plaza": tiny["datasets"]["plaza"]}
    tiny["victims"] = {"toy": {"use": f"{TOY}:ToyRecipe", "train_on": "plaza"}}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(tiny, sort_keys=False))
    run = reid_attack_bench.run(folder / "tiny.yaml", out=folder / "run", store=folder / "store", progress=False)
    run.write_report()
    card = yaml.safe_load(card_template(run.results, "toy@plaza"))
    card |= {"paper": "none", "code": "none", "licence": "MIT", "contact": "me@example.org"}
    (folder / "card.yaml").write_text(yaml.safe_dump(card))
    pack(run.results, Store(run.store), "toy@plaza", folder / "card.yaml", folder / "good.zip")
    return folder


def as_yaml(document: Any) -> bytes:
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True).encode("utf-8", "surrogatepass")


def as_json(document: Any) -> bytes:
    return json.dumps(document).encode()


@pytest.mark.e2e
@TIERS
def test_suites(examples: int, tmp_path: Path) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_bytes(as_yaml(suite()))
    ends_well("run", str(path), "--dry-run", "--store", str(tmp_path / "store"))

    @fuzz(150 * examples)
    @given(content=damaged(suite()).map(as_yaml) | damaged_bytes(as_yaml(suite())), full=st.booleans())
    def check(content: bytes, full: bool) -> None:
        path.write_bytes(content)
        ends_well("run", str(path), "--dry-run", "--store", str(tmp_path / "store"), *["--full"] * full)

    check()


@pytest.mark.e2e
@TIERS
def test_cards(examples: int, made: Path, tmp_path: Path) -> None:
    good, path = yaml.safe_load((made / "card.yaml").read_text()), tmp_path / "card.yaml"
    arguments = ("submit", str(made / "run"), "--victim", "toy@plaza", "--card", str(path), "--out")

    @fuzz(60 * examples)
    @given(content=damaged(good).map(as_yaml) | damaged_bytes(as_yaml(good)))
    def check(content: bytes) -> None:
        path.write_bytes(content)
        ends_well(*arguments, str(tmp_path / "out.zip"))

    check()


@pytest.mark.e2e
@TIERS
def test_records(examples: int, made: Path, tmp_path: Path) -> None:
    """Commands that read a run: compare, submit and report. The last writes a report, and is asked less often."""
    folder = tmp_path / "run"
    shutil.copytree(made / "run", folder)
    path = folder / "manifest.json"
    good = json.loads(path.read_text())
    out = ("--card", str(made / "card.yaml"), "--out", str(tmp_path / "out.zip"))

    @fuzz(100 * examples)
    @given(content=damaged(good).map(as_json) | damaged_bytes(as_json(good)), which=st.integers(0, 9))
    def check(content: bytes, which: int) -> None:
        path.write_bytes(content)
        if which < 5:
            ends_well("compare", str(folder), str(made / "run"))
        elif which < 9:
            ends_well("submit", str(folder), "--victim", "toy@plaza", *out)
        else:
            ends_well("report", str(folder), "--json", seconds=20 * SECONDS)  # pages and plots are written

    check()


@pytest.mark.e2e
@TIERS
def test_submissions(examples: int, made: Path, tmp_path: Path) -> None:
    """Whatever is in the archive, up to the point where all that it says has been checked."""
    with zipfile.ZipFile(made / "good.zip") as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    record = json.loads(files["manifest.json"])
    path = tmp_path / "bad.zip"
    tables = ("matrix.csv", "clean.csv", "leaderboard.csv")

    def table(name: str) -> Any:
        return list(csv.reader(io.StringIO(files[name].decode())))

    def as_csv(rows: Any) -> bytes:
        text = io.StringIO()
        lines = [row if isinstance(row, list) else [row] for row in (rows if isinstance(rows, list) else [rows])]
        csv.writer(text).writerows(lines)
        return text.getvalue().encode("utf-8", "surrogatepass")

    changes = st.one_of(
        damaged(record).map(lambda found: {"manifest.json": as_json(found)}),
        *(damaged(table(name)).map(lambda found, name=name: {name: as_csv(found)}) for name in tables),
        *(damaged_bytes(files[name]).map(lambda found, name=name: {name: found}) for name in sorted(files)),
    )

    def stopped(*_: Any, **__: Any) -> None:
        raise BenchError("all that it says was read")

    @fuzz(120 * examples)
    @given(change=changes, whole=damaged_bytes((made / "good.zip").read_bytes()), which=st.integers(0, 5))
    def check(change: dict[str, bytes], whole: bytes, which: int) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in {**files, **change}.items():
                archive.writestr(name, content)
        if which == 0:
            path.write_bytes(whole)
        ends_well("verify", str(path), "--victim", f"{TOY}:ToyRecipe")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(submission_verify, "verified", stopped)
        check()


@pytest.mark.e2e
@TIERS
def test_published_tables(examples: int, made: Path, tmp_path: Path) -> None:
    """What makes pages of published results: one line of words, never a traceback of what it stumbled over."""
    publish, leaderboard = script(ROOT / "results" / "publish.py"), script(ROOT / "docs" / "leaderboard.py")
    here = tmp_path / "results"
    folder = publish.publish(made / "run", here)
    (folder / "card.yaml").write_bytes((made / "card.yaml").read_bytes())
    board = (folder / "leaderboard.csv").read_text()
    name = leaderboard.current()[0]
    board = board.replace(",plaza,", f"{name},plaza,", 1) if ",protocol," in board else board
    files = {each.name: each.read_bytes() for each in folder.iterdir() if each.is_file()}
    files["leaderboard.csv"] = board.encode()
    names = ("leaderboard.csv", "clean.csv", "findings.csv", "manifest.json", "report.md")
    changes = st.one_of(
        *(damaged_bytes(files[each]).map(lambda found, each=each: {each: found}) for each in names if each in files),
        damaged(json.loads(files["manifest.json"])).map(lambda found: {"manifest.json": as_json(found)}),
    )

    @fuzz(40 * examples)
    @given(change=changes)
    def check(change: dict[str, bytes]) -> None:
        for each, content in {**files, **change}.items():
            (folder / each).write_bytes(content)
        for make in (publish.index, leaderboard.rows):
            with contextlib.suppress(BenchError):
                make(here)

    check()

"""From a model to a row of the leaderboard: evaluated, packed, accepted; and what is refused."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import yaml

import reid_attack_bench
from reid_attack_bench.errors import BenchError
from reid_attack_bench.jobs.result import Result
from reid_attack_bench.jobs.submission.accept import _of_a_protocol
from reid_attack_bench.jobs.submission.card import card_template
from reid_attack_bench.jobs.submission.pack import pack
from reid_attack_bench.jobs.submission.trusted import Given
from reid_attack_bench.store import Store
from reid_attack_bench.suites import parse, protocols
from tests.conftest import TOY, script, tiny_document
from tests.test_publish import broken_links

ROOT = Path(__file__).parent.parent
accept = script(ROOT / "results" / "accept.py")
leaderboard = script(ROOT / "docs" / "leaderboard.py")

NAME = "reid-standard-99-small"
PROTOCOL = {
    "description": "Of seconds.",
    "attacks": {
        "std-noise": {"use": "noise", "epsilon": 8},
        "std-climb": {"use": "metric_pgd", "epsilon": 8, "options": {"steps": 2}},
    },
}
VICTIM = "toy@plaza"
GIVEN = Given({"": f"{TOY}:ToyRecipe"}, {"learner": f"{TOY}:Learner"})


@pytest.fixture(scope="module", autouse=True)
def protocol(tmp_path_factory) -> Iterator[None]:
    """The newest protocol is one of seconds."""
    path = tmp_path_factory.mktemp("protocols") / f"{NAME}.yaml"
    path.write_text(yaml.safe_dump(PROTOCOL))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocols, "shipped", lambda: {NAME: path})
        yield


def document() -> dict:
    """A suite of one trained toy under the protocol, and one attack of its own."""
    tiny = tiny_document() | {"protocol": NAME, "attacks": {"learner": {"use": f"{TOY}:Learner"}}}
    tiny["datasets"] = {"plaza": tiny["datasets"]["plaza"]}
    tiny["victims"] = {"toy": {"use": f"{TOY}:ToyRecipe", "train_on": "plaza"}}
    return tiny


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Result:
    folder = tmp_path_factory.mktemp("sent")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(document(), sort_keys=False))
    return reid_attack_bench.run(folder / "tiny.yaml", out=folder / "run", store=folder / "store", progress=False)


@pytest.fixture(scope="module")
def packed(run: Result) -> Path:
    """A submission."""
    card = run.out.with_name("card.yaml")
    known = yaml.safe_load(card_template(run.results, VICTIM))
    known |= {"paper": "none", "code": "none", "licence": "MIT", "contact": "me|you@example.org"}
    card.write_text(yaml.safe_dump(known))
    return pack(run.results, Store(run.store), VICTIM, card, run.out.with_name("sent.zip"))


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder of published results."""
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "README.md").write_text("as it was")
    return tmp_path / "results"


def changed(packed: Path, out: Path, change: Callable[[str, bytes], bytes]) -> Path:
    with zipfile.ZipFile(packed) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return out


def test_a_model_becomes_a_row(run: Result, packed: Path, here: Path) -> None:
    place = accept.accepted(packed, here=here, given=GIVEN)
    assert place == here / "submissions" / VICTIM
    (row,) = leaderboard.rows(here)
    (true,) = run.leaderboard.to_dict("records")
    assert (row.protocol, row.victim, row.place, row.red) == (NAME, VICTIM, 1, [])
    assert row.worst[8, "mAP"] == pytest.approx(
        [true[f"protocol_e8_mAP{end}"] for end in ("", "_low", "_high")], abs=0.01
    )
    assert row.clean["rank1"][0] == pytest.approx(true["clean_rank1"], abs=0.01)
    assert (row.folder, row.card) == (f"results/submissions/{VICTIM}", "report.md#card")
    assert row.command == run.record.command
    page = leaderboard.tables([row], str)
    assert f"results/submissions/{VICTIM}/report.md#card" in page
    report = (place / "report.md").read_text()
    assert r"| contact | me\|you@example.org |" in report
    assert report.index("## Card") < report.index("## Leaderboard") < report.index("## Audit")
    assert broken_links(place / "report.md") == broken_links(here / "README.md") == []
    assert f"[{VICTIM}](submissions/{VICTIM}/report.md)" in (here / "README.md").read_text()
    assert sum(path.stat().st_size for path in place.iterdir()) < 200_000
    assert sorted(path.name for path in here.iterdir()) == ["README.md", "submissions"]  # nothing is left over
    with pytest.raises(BenchError, match=f"{VICTIM} is there already: --replace"):
        accept.accepted(packed, here=here, given=GIVEN)


def better(name: str, content: bytes) -> bytes:
    """Higher figures than the true ones."""
    if name != "matrix.csv":
        return content
    claims = pd.read_csv(io.BytesIO(content))
    return claims.assign(mAP=claims["mAP"] + 30).to_csv(index=False).encode()


def fewer(name: str, content: bytes) -> bytes:
    """An attack of the protocol was forgotten."""
    if name != "matrix.csv":
        return content
    claims = pd.read_csv(io.BytesIO(content))
    return claims[claims["attack"] != "std-climb"].to_csv(index=False).encode()


def foreign(name: str, content: bytes) -> bytes:
    """A figure of another run."""
    if name != "matrix.csv":
        return content
    claims = pd.read_csv(io.BytesIO(content))
    claims.loc[0, "rank_key"] = "0" * 32
    return claims.to_csv(index=False).encode()


def edited(change: Callable[[dict], None]) -> Callable[[str, bytes], bytes]:
    def of_record(name: str, content: bytes) -> bytes:
        if name != "manifest.json":
            return content
        record = json.loads(content)
        change(record["suite"])
        return json.dumps(record).encode()

    return of_record


def weaker(suite: dict) -> None:
    (climb,) = (attack for attack in suite["attacks"] if attack["label"] == "std-climb")
    climb["options"]["steps"] = 1


def boasting(name: str, content: bytes) -> bytes:
    """A place that it does not have."""
    return content.replace(b"\n1,toy", b"\n0,toy") if name == "leaderboard.csv" else content


def named(name: str, content: bytes) -> bytes:
    return content.replace(VICTIM.encode(), b"../../toy") if name == "card.yaml" else content


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (better, "claims do not hold; the first: .*mAP is .*claimed"),
        (fewer, "lacks 1 of the 3 cells of its suite; the first: std-climb"),
        (foreign, "1 of its 3 claims do not match this model, code and data"),
        (boasting, "leaderboard.csv, victim toy@plaza dataset plaza: rank is 1, claimed 0"),
        (edited(weaker), f"its attacks are not those of {NAME}: run the protocol as it is"),
        (edited(lambda suite: suite.update(protocol="")), f"its attacks are not those of {NAME}"),
        (edited(lambda suite: suite.update(protocol="reid-standard-1")), "no protocol is called 'reid-standard-1'"),
        (named, "name '../../toy' cannot be a folder"),
    ],
)
def test_what_does_not_hold_is_refused_and_leaves_no_trace(
    packed: Path, here: Path, tmp_path: Path, change: Callable[[str, bytes], bytes], says: str
) -> None:
    with pytest.raises(BenchError, match=says):
        accept.accepted(changed(packed, tmp_path / "sent.zip", change), here=here, given=GIVEN)
    assert {path.name for path in here.rglob("*")} == {"README.md"}
    assert (here / "README.md").read_text() == "as it was"


def test_a_suite_without_attacks_on_the_victim_itself_makes_no_row() -> None:
    suite = parse.parse(document())
    _of_a_protocol(suite, Path("sent.zip"))
    with pytest.raises(BenchError, match=r"sent\.zip is of a run without a protocol"):
        _of_a_protocol(replace(suite, protocol=""), Path("sent.zip"))
    with pytest.raises(BenchError, match="leaves out attacks on the victim itself"):
        _of_a_protocol(replace(suite, relations=("cross-model",)), Path("sent.zip"))


def test_a_row_is_replaced_whole_or_not_at_all(here: Path, tmp_path: Path, monkeypatch) -> None:
    place = here / "submissions" / "toy"
    place.mkdir(parents=True)
    (place / "old").touch()

    def made(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).touch()
        return folder

    def broken(_: Path) -> str:
        raise OSError("disk full")

    new = made("new")
    monkeypatch.setattr(accept, "index", broken)
    with pytest.raises(OSError, match="disk full"):
        accept._put(new, place, here, tmp_path / "former")
    assert [path.name for path in place.iterdir()] == ["old"]
    monkeypatch.setattr(accept, "index", lambda _: "a new list")
    accept._put(made("newer"), place, here, tmp_path / "former")
    assert [path.name for path in place.iterdir()] == ["newer"]
    assert (here / "README.md").read_text() == "a new list"

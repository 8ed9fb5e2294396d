"""A run with attacks on several sources at once, from the command line to the report."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.conftest import TOY, tiny_document
from tests.test_pipeline import bench

pytestmark = pytest.mark.e2e

BOTH = "toy@plaza+toy@station"


def document() -> dict:
    suite = tiny_document()
    suite["attacks"] = {
        "pgd": {"options": {"steps": 2}, "epsilon": [4, 8]},
        "joint": {"use": "pgd", "options": {"steps": 2}, "epsilon": [4, 8], "sources": "toy"},
        "rest": {"use": "metric_pgd", "options": {"steps": 2}, "epsilon": [4, 8], "sources": "others"},
    }
    return suite


@pytest.fixture(scope="module")
def joined(tmp_path_factory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("joined")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(document(), sort_keys=False))
    bench("run", "tiny.yaml", cwd=folder)
    return folder / "runs/tiny"


def test_several_sources_have_rows_of_their_own(joined: Path) -> None:
    matrix = pd.read_csv(joined / "matrix.csv")
    assert (matrix.status == "ok").all()
    rows = matrix[(matrix.attack == "joint") & (matrix.epsilon == 8)]
    assert len(rows) == 2 * 2
    assert set(rows.source) == {BOTH}
    assert set(rows.access) == {"white-box"}
    rest = matrix[matrix.attack == "rest"]
    assert set(rest.access) == {"transfer"}
    assert (rest.source == "all but " + rest.target).all()


def test_the_report_shows_them(joined: Path) -> None:
    assert BOTH in (joined / "report.md").read_text()
    page = (joined / "report.html").read_text().replace('": "', '":"')
    for name in (BOTH, "all but toy@plaza"):
        assert f'"name":"{name}"' in page
    for name in ("joint", "rest"):
        assert (joined / f"plots/matrix_{name}_e8_mAP.png").is_file()


def test_a_submission_holds(joined: Path) -> None:
    folder = joined.parents[1]
    submit = ("submit", "runs/tiny", "--victim", "toy@plaza")
    bench(*submit, cwd=folder, expect=1)
    card = yaml.safe_load((folder / "card.yaml").read_text())
    card |= {"paper": "none", "code": "none", "licence": "MIT", "contact": "me@example.org"}
    (folder / "card.yaml").write_text(yaml.safe_dump(card))
    bench(*submit, cwd=folder)
    said = bench("verify", "toy@plaza.zip", "--victim", f"toy={TOY}:ToyRecipe", "--sample", "100", cwd=folder).stdout
    assert "claims hold" in said

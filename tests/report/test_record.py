"""The record of a run: published ones of every version are readable, and none is lost on the way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reid_attack_bench.errors import BenchError
from reid_attack_bench.jobs.manifest import is_reported, read
from reid_attack_bench.report.record import models, parse_record, read_record
from reid_attack_bench.suites import parse

RESULTS = Path(__file__).parents[2] / "results"
PUBLISHED = sorted(path.parent.name for path in RESULTS.glob("*/manifest.json"))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_records_are_readable(name: str) -> None:
    record = read_record(RESULTS / name)
    plain = json.loads((RESULTS / name / "manifest.json").read_text())
    assert len(record.cells) == len(plain["cells"])
    assert len(record.suite.findings) == len(plain["suite"]["findings"])
    assert parse_record(record.to_json(), name) == record
    known = models(record.suite)
    alone = {cell.source for cell in record.cells if not cell.source.startswith("all but ")}
    for victim in {row.victim for row in record.clean} | alone:
        label, _, trained_on = victim.partition("@")
        assert (known[victim].label, known[victim].trained_on) == (label, trained_on)


def test_a_defence_leads_to_its_undefended_model() -> None:
    suite = parse.parse({
        "datasets": {"plaza": {}, "station": {}},
        "victims": {
            "osnet": {"use": "torchreid", "train_on": ["plaza", "station"]},
            "ready": {"use": "torchreid"},
            "guarded": {"use": "feature-noise", "defends": "osnet"},
            "wrapped": {"use": "feature-noise", "defends": "ready"},
        },
        "attacks": {"noise": {}},
    })  # fmt: skip
    undefended = {name: model.undefended.name for name, model in models(suite).items() if model.undefended}
    assert undefended == {
        "guarded@plaza": "osnet@plaza", "guarded@station": "osnet@station", "wrapped": "ready",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "is not the manifest of a run: .*must be a mapping"),
        ("{", "is not valid JSON"),
        ('{"clean": []}', "is not the manifest of a run: .* is missing"),
    ],
)
def test_other_files_are_refused_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="it has no manifest"):
        read_record(tmp_path)
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(BenchError, match=message) as caught:
        read_record(tmp_path)
    assert "\n" not in str(caught.value)
    assert read(tmp_path) is None
    assert not is_reported(read_record(RESULTS / "quick"), None, tmp_path)

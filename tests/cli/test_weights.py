"""Commands weights list, get and check."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from reid_attack_bench.cli import main as cli
from reid_attack_bench.errors import BenchError
from reid_attack_bench.victims.torchreid_zoo import untrained_model
from reid_attack_bench.zoo.catalogue import shipped
from tests.cli.test_help import completions
from tests.zoo.server import serving

ZOO = """
models:
  small:
    builder: torchreid
    architecture: {architecture}
    input: [64, 32]
    trained_on: [plaza, dukemtmc-reid]
    address: {address}
    figures: [{{tested_on: plaza, rank1: 90.5, mAP: 70.0}}]
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "weights"
    monkeypatch.setenv("REID_ATTACK_BENCH_WEIGHTS", str(path))
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    return path


def said(*arguments: object, fails: bool = False) -> Result:
    result = CliRunner().invoke(cli.cli, ["weights", *map(str, arguments)], terminal_width=200)
    assert (result.exit_code != 0) == fails, result.output
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture(scope="module")
def checkpoint() -> bytes:
    from io import BytesIO

    stream = BytesIO()
    torch.save(untrained_model("shufflenet_v2_x0_5", 8).state_dict(), stream)
    return stream.getvalue()


def own_zoo(tmp_path: Path, address: str, architecture: str = "shufflenet_v2_x0_5") -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(ZOO.format(address=address, architecture=architecture))
    return path


def test_every_model_is_listed_with_what_is_known_of_it(folder: Path) -> None:
    listed = {each["name"]: each for each in json.loads(said("list", "--json").stdout)}
    assert set(listed) == set(shipped())
    osnet = listed["osnet_x1_0-ms_d_c"]
    assert osnet["withdrawn"] == ["dukemtmc-reid"]
    assert osnet["figures"] == [{"tested_on": "market1501", "rank1": 72.5, "mAP": 44.2}]
    assert (osnet["licence"], osnet["path"]) == ("MIT", None)
    assert osnet["address"].startswith("https://drive.google.com/file/d/")


def test_a_part_of_the_list_is_shown_as_a_table(folder: Path, checkpoint: bytes) -> None:
    folder.mkdir()
    (folder / "hacnn-dukemtmc-reid.pth").write_bytes(checkpoint)
    text = said("list", "hacnn").stdout
    assert sum("hacnn" in line for line in text.splitlines()) == 3
    assert "dukemtmc-reid†" in text
    assert "80.1/63.2" in text
    assert [line.split()[-1] for line in text.splitlines() if line.strip().startswith("hacnn-")].count("yes") == 1
    assert str(folder) in text


def test_a_model_is_downloaded_checked_and_was_then_here(tmp_path: Path, folder: Path, checkpoint: bytes) -> None:
    with serving(content=checkpoint, drops=[1 << 15]) as server:
        zoo = own_zoo(tmp_path, server.url)
        assert said("get", "small", "--zoo", zoo).stdout.startswith(
            f"small: downloaded, {folder / 'small.pth'}, SHA-256 "
        )
        assert said("get", "small", "--zoo", zoo).stdout.startswith("small: was here")
        assert server.asked == ["", f"bytes={1 << 15}-"]
    assert said("check", "small", "--zoo", zoo).stdout.startswith("small: fits, ")
    (only,) = json.loads(said("check", "--zoo", zoo, "--json").stdout)
    assert (only["name"], only["state"], only["error"]) == ("small", "fits", "")


def test_check_says_what_is_wrong(tmp_path: Path, folder: Path, checkpoint: bytes) -> None:
    zoo = own_zoo(tmp_path, "https://example.org/a.pth", "osnet_x0_25")
    assert "weights of small are missing in" in said("check", "small", "--zoo", zoo, fails=True).stderr
    folder.mkdir()
    (folder / "small.pth").write_bytes(checkpoint)
    assert "as osnet_x0_25, does not fit" in said("check", "small", "--zoo", zoo, fails=True).stderr
    own_zoo(tmp_path, "https://example.org/a.pth")
    assert "small: fits, no digest to compare with" in said("check", "small", "--zoo", zoo).stdout
    (folder / "small.pth").write_bytes(checkpoint[:-9])
    assert "ends early" in said("check", "small", "--zoo", zoo, fails=True).stderr


def test_one_that_fails_stops_no_other(tmp_path: Path, folder: Path, checkpoint: bytes) -> None:
    source = tmp_path / "usb"
    source.mkdir()
    (source / "small.pth").write_bytes(checkpoint)
    (source / "hacnn-market1501").write_bytes(b"<html>")
    zoo = own_zoo(tmp_path, "https://example.org/a.pth")
    result = said("get", "hacnn-market1501", "small", "--from", source, "--zoo", zoo, fails=True)
    assert result.stdout.startswith("small: copied, ")
    (error,) = result.stderr.strip().splitlines()
    assert error.startswith("error: hacnn-market1501 from ")
    lines = json.loads(said("get", "hacnn-market1501", "--from", source, "--json", fails=True).stdout)
    assert "web page" in lines[0]["error"]


def test_all_that_a_suite_lacks_is_got(tmp_path: Path, folder: Path, checkpoint: bytes) -> None:
    source = tmp_path / "usb"
    source.mkdir()
    zoo = own_zoo(tmp_path, "https://example.org/a.pth")
    suite = tmp_path / "suite.yaml"
    suite.write_text(
        f"datasets: {{plaza: {{train_identities: 4, test_identities: 4}}}}\nattacks: {{noise: }}\nvictims:\n"
        f"  a: {{zoo: small, options: {{zoo_file: {zoo}}}}}\n  b: {{zoo: small, options: {{zoo_file: {zoo}}}}}\n"
    )
    (source / "small.bin").write_bytes(checkpoint)
    assert "small: copied" in said("get", "--suite", suite, "--from", source).stdout
    assert said("get", "--suite", suite).stdout == ""


def test_mistakes_in_names_are_said(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="did you mean 'osnet_x1_0-market1501'"):
        CliRunner().invoke(cli.cli, ["weights", "get", "osnet_x1_0-market"], catch_exceptions=False)
    with pytest.raises(BenchError, match="nothing to get: give names"):
        CliRunner().invoke(cli.cli, ["weights", "get"], catch_exceptions=False)


def test_names_are_completed(tmp_path: Path) -> None:
    assert completions("weights", "get", "hacnn-ma") == ["hacnn-market1501"]
    zoo: Any = own_zoo(tmp_path, "https://example.org/a.pth")
    assert completions("weights", "check", "--zoo", str(zoo), "sm") == ["small"]

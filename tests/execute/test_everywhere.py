"""One suite through one process, several, and a Ray cluster that loses a node or its driver: the same tables."""

from __future__ import annotations

import importlib.util
import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import TOY, tiny_document

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed"),
]

Event = dict[str, Any]


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two victims that train for seconds, three attacks."""
    document = tiny_document()
    del document["datasets"]["station"]
    recipe = {"use": f"{TOY}:ToyRecipe", "train_on": ["plaza"]}
    document["victims"] = {f"toy{i}": {**recipe, "options": {"seed": i, "steps": 600}} for i in range(2)}
    path = tmp_path_factory.mktemp("suite") / "tiny.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def alone(suite: Path) -> dict[str, bytes]:
    """Tables of one process."""
    folder = suite.parent / "alone"
    run(suite, folder, "--workers", "1")
    return tables(folder)


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Two nodes with one core each on this machine."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.lost = made.add_node(num_cpus=1)
    yield made
    made.shutdown()


def run(
    suite: Path, folder: Path, *options: str, look: Callable[[list[Event]], bool] = lambda events: False
) -> list[Event]:
    """Events of a run in a process of its own, which is killed once `look` at them returns True."""
    command = [sys.executable, "-m", "reid_attack_bench", "run", str(suite), "--json", *options]
    command += ["--store", str(folder / "store"), "--out", str(folder / "out")]
    events: list[Event] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            told = json.loads(line)
            events += [told] if "event" in told else []
            if look(events):
                process.kill()
                return events
        said = process.stderr.read()
    assert process.returncode == 0, said
    return events


def tables(folder: Path) -> dict[str, bytes]:
    """The tables of a report but the one of times."""
    found = {path.name: path.read_bytes() for path in (folder / "out").glob("*.csv") if path.name != "costs.csv"}
    assert {"matrix.csv", "clean.csv", "leaderboard.csv"} <= found.keys()
    return found


def keys(events: list[Event], event: str, kind: str = "") -> list[str]:
    return [told["key"] for told in events if told["event"] == event and kind in (told["kind"], "")]


def test_several_processes(suite: Path, alone: dict[str, bytes], tmp_path: Path) -> None:
    run(suite, tmp_path, "--workers", "3")
    assert tables(tmp_path) == alone


def test_two_nodes_of_which_one_is_lost(suite: Path, alone: dict[str, bytes], cluster: Any, tmp_path: Path) -> None:
    def lose_one(events: list[Event]) -> bool:
        if len(keys(events, "start", "victim")) == 2 and cluster.lost is not None:  # one on each node
            cluster.remove_node(cluster.lost, allow_graceful=False)
            cluster.lost = None
        return False

    events = run(suite, tmp_path, "--ray", cluster.address, look=lose_one)
    notes = [told["text"] for told in events if told["event"] == "note"]
    assert any("a worker or node was lost" in note and "is run again" in note for note in notes), notes
    assert {told["place"] for told in events if told["event"] == "place"} == {f"node {socket.gethostname()}"}
    assert tables(tmp_path) == alone


def test_a_driver_that_is_killed_and_started_again(
    suite: Path, alone: dict[str, bytes], cluster: Any, tmp_path: Path
) -> None:
    before = run(suite, tmp_path, "--ray", cluster.address, look=lambda events: "victim" in kinds_begun(events))
    assert not (tmp_path / "out/matrix.csv").exists()
    after = run(suite, tmp_path, "--ray", cluster.address)
    assert keys(before, "done")
    assert not set(keys(before, "done")) & set(keys(after, "start")), "what is finished is kept"
    assert tables(tmp_path) == alone


def kinds_begun(events: list[Event]) -> set[str]:
    return {told["kind"] for told in events if told["event"] == "start"}

"""A store of objects, behind a real HTTP endpoint: S3 as moto serves it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from reid_attack_bench.errors import BenchError
from reid_attack_bench.execute import executor
from reid_attack_bench.execute import ray as tasks
from reid_attack_bench.execute.assignment import Assignment, as_text, from_text
from reid_attack_bench.execute.events import Listener
from reid_attack_bench.plan.plan import Plan
from reid_attack_bench.steps.step import Step
from reid_attack_bench.store import CorruptArtefact, Held, Store, open_store
from reid_attack_bench.store.remote import CACHE, RemoteStore
from tests.conftest import tiny_document
from tests.execute.conftest import results

pytestmark = pytest.mark.e2e

CPU = torch.device("cpu")
URL = "s3://bench/runs"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The file system of an empty bucket."""
    import fsspec

    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    system = fsspec.filesystem("s3", use_listings_cache=False)
    system.mkdir("bench")
    yield system
    system.rm("bench", recursive=True)


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Another machine: the same store, without copies."""

    def elsewhere(name: str = "other") -> Store:
        monkeypatch.setenv(CACHE, str(tmp_path / name))
        return open_store(URL)

    return elsewhere


def fill(store: Store, text: str = "hello") -> None:
    with store.write("data", "k1", {"facts": {"n": 1}}) as folder:
        (folder / "a.txt").write_text(text)


class Notes(Listener):
    def __init__(self) -> None:
        self.said: list[str] = []
        self.done: list[str] = []

    def finish(self, step: Step, seconds: float) -> None:
        self.done.append(step.label)

    def note(self, text: str) -> None:
        self.said.append(text)


def test_what_one_machine_stores_another_reads(bucket: Any, empty_cache: Any) -> None:
    fill(open_store(URL))
    assert sorted(path.rpartition("-")[2] for path in bucket.find("bench")) == [
        "a.txt", "bench/runs/data/k1/manifest.json",
    ]  # fmt: skip
    other = empty_cache()
    assert other.has("data", "k1")
    assert not other.has("data", "k2")
    assert other.manifest("data", "k1")["facts"] == {"n": 1}
    other.check("data", "k1")
    assert not (other.folder("data", "k1")).exists(), "nothing was asked for yet"
    assert (other.open("data", "k1") / "a.txt").read_text() == "hello"
    bucket.rm("bench/runs", recursive=True)
    assert (other.open("data", "k1") / "a.txt").read_text() == "hello", "from the copy"


def test_a_result_is_stored_once_and_two_uploads_do_not_mix(bucket: Any, empty_cache: Any) -> None:
    fill(open_store(URL), "first")
    fill(empty_cache("b"), "second")
    assert (empty_cache("c").open("data", "k1") / "a.txt").read_text() == "first"


def test_an_upload_that_was_cut_short_does_not_count(bucket: Any, empty_cache: Any) -> None:
    bucket.pipe_file("bench/runs/data/k1/0123456789abcdef-a.txt", b"half")
    store = open_store(URL)
    assert not store.has("data", "k1")
    fill(store)
    assert (empty_cache().open("data", "k1") / "a.txt").read_text() == "hello"


@pytest.mark.parametrize("harm", ["changed", "removed", "manifest"])
def test_a_damaged_object_is_noticed_and_removed(bucket: Any, empty_cache: Any, harm: str) -> None:
    fill(open_store(URL))
    (path,) = [path for path in bucket.find("bench") if path.endswith("manifest.json" if harm == "manifest" else "txt")]
    if harm == "removed":
        bucket.rm_file(path)
    else:
        bucket.pipe_file(path, b"hellO")
    other = empty_cache()
    with pytest.raises(CorruptArtefact):
        other.open("data", "k1")
    assert not other.has("data", "k1")
    fill(other)
    assert (empty_cache("third").open("data", "k1") / "a.txt").read_text() == "hello"


def test_what_another_machine_made_again_is_not_taken_for_damage(bucket: Any, empty_cache: Any) -> None:
    one, two = open_store(URL), empty_cache()
    fill(one, "first")
    two.check("data", "k1")
    one.discard("data", "k1")
    assert bucket.find("bench") == []
    fill(one, "second")
    for store in (two, empty_cache()):
        store.prepare()
        store.check("data", "k1")
        assert (store.open("data", "k1") / "a.txt").read_text() == "second"
    assert (one.open("data", "k1") / "a.txt").read_text() == "second"


def test_claims_are_objects(bucket: Any, empty_cache: Any) -> None:
    one, two = open_store(URL), empty_cache()
    one.prepare()
    with one.claims.claim("k1"):
        assert bucket.find("bench/runs/claims") == ["bench/runs/claims/k1"]
        with pytest.raises(Held), two.claims.claim("k1"):
            pass
        two.prepare()
        assert two.claims.holder("k1")
    assert bucket.find("bench/runs/claims") == []
    bucket.pipe_file("bench/runs/claims/k1", b"node7-0.123.456 token")
    assert two.claims.holder("k1") == "node7-0.123.456"


def test_a_run_is_resumed_from_another_machine_and_heals(bucket: Any, empty_cache: Any, small_plan: Plan) -> None:
    store, listener = open_store(URL), Notes()
    assert executor.execute(small_plan, store, CPU).causes == []
    before = results(small_plan, store)
    other = empty_cache("b")
    assert executor.missing_steps(small_plan, other) == []
    assert executor.execute(small_plan, other, CPU).seconds == {}
    assert results(small_plan, other) == before
    craft, rank = ([s for s in small_plan.steps.values() if s.kind == kind][-1] for kind in ("craft", "rank"))
    (images,) = [path for path in bucket.find(f"bench/runs/craft/{craft.key}") if path.endswith(".npy")]
    bucket.pipe_file(images, b"damaged")
    third = empty_cache("c")
    for step in small_plan.steps.values():
        if step.kind == "features" and step.inputs["craft"] == craft.key:
            third.discard(step.kind, step.key)
    third.discard(rank.kind, rank.key)
    outcome = executor.execute(small_plan, third, CPU, listener, workers=2)  # spawned: they get the address as text
    assert outcome.causes == []
    assert outcome.rebuilt == [craft.label]
    assert {craft.label, rank.label} < set(listener.done)
    assert len(listener.done) == 3, "and the embeddings between them"
    assert results(small_plan, empty_cache("d")) == before
    assert bucket.find("bench/runs/claims") == []


def test_the_command_line_takes_an_address(
    bucket: Any, empty_cache: Any, write_suite: Any, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    from reid_attack_bench.cli.main import main

    def said(*arguments: str) -> str:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(tmp_path)
            patch.setattr(sys, "argv", ["reid-attack-bench", *arguments])
            with contextlib.suppress(SystemExit):
                main()
        return "".join(capsys.readouterr())

    document = tiny_document()
    document["datasets"] = {"plaza": document["datasets"]["plaza"]}
    document["victims"]["toy"]["train_on"] = ["plaza"]
    document["attacks"] = {"noise": {}}
    run = ("run", write_suite(document), "--store", URL, "--workers", "1")
    assert "nothing to do" not in said(*run)
    tables = {path: path.read_bytes() for path in (tmp_path / "runs/tiny").glob("*.csv")}
    assert tables
    assert bucket.find("bench/runs/rank")
    empty_cache()
    assert "nothing to do" in said(*run)
    for path in tables:
        path.unlink()
    empty_cache("third")
    said("report", "runs/tiny")
    assert {path: path.read_bytes() for path in tables} == tables


def test_an_assignment_carries_the_address(bucket: Any, small_plan: Plan) -> None:
    there = from_text(as_text(Assignment(small_plan, open_store(URL), CPU, 1, None)))
    assert there.store == open_store(Path(URL))
    assert isinstance(there.store, RemoteStore)


def test_a_task_of_a_cluster_claims_what_it_does(
    bucket: Any, empty_cache: Any, small_plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "settings_of_a_worker", lambda threads: None)
    monkeypatch.setattr(tasks, "_gpus", str)  # Ray would start itself to say which
    mailbox = SimpleNamespace(put=SimpleNamespace(remote=lambda message: None))
    data = next(step for step in small_plan.steps.values() if step.kind == "data")
    store = open_store(URL)
    text = as_text(Assignment(small_plan, store, CPU, 1, None))
    store.prepare()
    with store.claims.claim(data.key):
        assert tasks._run_step(text, data.key, mailbox, os.getcwd()) == [("held",)]
    messages = tasks._run_step(text, data.key, mailbox, os.getcwd())
    assert [message[0] for message in messages] == ["finish", "idle"]
    assert empty_cache().has("data", data.key)


@pytest.mark.usefixtures("bucket")
def test_a_missing_bucket_is_one_line(small_plan: Plan) -> None:
    with pytest.raises(BenchError, match="cannot use the store s3://none/x: The specified bucket does not exist"):
        executor.execute(small_plan, open_store("s3://none/x"), CPU)


@pytest.mark.usefixtures("bucket")
def test_missing_credentials_are_one_line(small_plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    fsspec.get_filesystem_class("s3").clear_instance_cache()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    with pytest.raises(BenchError, match=r"cannot use the store s3://bench/runs: Unable to locate credentials$"):
        executor.execute(small_plan, open_store(URL), CPU)


@pytest.mark.parametrize(("url", "package"), [("s3://a/b", "'reid-attack-bench.remote.'"), ("gs://a/b", "gcsfs")])
def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch, url: str, package: str) -> None:
    for name in ("s3fs", "gcsfs"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BenchError, match=rf"--store {url} requires \w+, which is not installed: pip install {package}"):
        open_store(url)


def test_other_places_are_folders(tmp_path: Path) -> None:
    for place in (tmp_path, "runs/store", "s3", "C:/store"):
        assert type(open_store(place)) is Store

"""Victims of the zoo: built from a file in the weights folder, and planned without the network."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import torch

from reid_attack_bench import registry
from reid_attack_bench.contracts import PublishedValues
from reid_attack_bench.errors import BenchError, MissingWeightsError
from reid_attack_bench.jobs.run import run
from reid_attack_bench.plan.planner import make_plan
from reid_attack_bench.suites import parse
from reid_attack_bench.victims.checkpoint import TorchreidCheckpoint
from reid_attack_bench.victims.torchreid_zoo import untrained_model
from reid_attack_bench.victims.zoo import ZooModel
from tests.conftest import TOY

REAL = Path(__file__).parents[3] / "shared" / "weights" / "osnet_x0_25_msmt17.safetensors"

ZOO = """
defaults: {{builder: torchreid, architecture: shufflenet_v2_x0_5, input: [64, 32], licence: MIT}}
models:
  small:
    trained_on: [plaza]
    figures: [{{tested_on: plaza, rank1: 91.5, mAP: 70}}]
    {more}
  shufflenet-imagenet: {{file: weights.pth}}
"""


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A weights folder of the test's own."""
    folder = tmp_path / "weights"
    monkeypatch.setenv("REID_ATTACK_BENCH_WEIGHTS", str(folder))
    folder.mkdir()
    return folder


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("opens a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def checkpoint(path: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    torch.save(untrained_model("shufflenet_v2_x0_5", 8).state_dict(), path)
    return path


def own_zoo(folder: Path, more: str = "") -> Path:
    path = folder / "mine.yaml"
    path.write_text(ZOO.format(more=more))
    return path


def images(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, 64, 32, generator=torch.Generator().manual_seed(1))


def test_a_model_is_built_with_what_the_zoo_says(tmp_path: Path, weights: Path) -> None:
    zoo, path = own_zoo(tmp_path), checkpoint(weights / "small.pth")
    victim = registry.find("victim", "zoo").build({"name": "small", "zoo_file": str(zoo)})
    assert (victim.name, victim.input_size, victim.distance, victim.trained_on) == (
        "small",
        (64, 32),
        "euclidean",
        "plaza",
    )
    assert victim.published == {"plaza": PublishedValues(91.5, 70)}
    plain = TorchreidCheckpoint("shufflenet_v2_x0_5", path, input_size=(64, 32))
    assert victim.classifies
    for ours, theirs in zip(victim.eval().outputs(images()), plain.eval().outputs(images()), strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(victim.embed(images()), plain.embed(images()))


def test_mean_and_deviation_of_the_zoo_are_used(tmp_path: Path, weights: Path) -> None:
    checkpoint(weights / "small.pth")
    other = ZooModel("small", zoo_file=own_zoo(tmp_path, "mean: [0.5, 0.5, 0.5]\n    std: [0.5, 0.5, 0.5]")).eval()
    plain = ZooModel("small", zoo_file=own_zoo(tmp_path)).eval()
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    same = ((images() - 0.5) / 0.5) * std + mean
    assert torch.allclose(other.embed(images()), plain.embed(same), atol=1e-4)


def test_a_models_own_file_is_relative_to_the_zoo_file_and_its_name_wins(tmp_path: Path, weights: Path) -> None:
    zoo = own_zoo(tmp_path)
    checkpoint(tmp_path / "weights.pth")
    assert ZooModel("shufflenet-imagenet", zoo_file=zoo).input_size == (64, 32)
    (tmp_path / "weights.pth").unlink()
    with pytest.raises(BenchError, match=r"mine.yaml: models.shufflenet-imagenet.file: .*weights.pth does not exist"):
        ZooModel("shufflenet-imagenet", zoo_file=zoo)


def test_models_of_several_data_sets_have_no_training_data_set(tmp_path: Path, weights: Path) -> None:
    checkpoint(weights / "small.pth")
    assert ZooModel("small", zoo_file=own_zoo(tmp_path, "all_images: true")).trained_on == ""
    (tmp_path / "mine.yaml").write_text(ZOO.format(more="").replace("[plaza]", "[plaza, station]"))
    several = ZooModel("small", zoo_file=tmp_path / "mine.yaml")
    assert several.trained_on == ""
    assert several.training_data == ("plaza", "station")


def suite(victims: dict[str, Any]) -> Any:
    return parse.parse(
        {
            "image_size": [64, 32],
            "datasets": {"plaza": {"train_identities": 4, "test_identities": 4, "images_per_camera": 1}},
            "victims": victims,
            "attacks": {"noise": {}},
        }
    )


def victim_key(victims: dict[str, Any]) -> str:
    return next(step.key for step in make_plan(suite(victims)).steps.values() if step.kind == "victim")


def test_a_key_depends_on_name_weights_and_what_decides_embeddings(tmp_path: Path, weights: Path) -> None:
    checkpoint(weights / "small.pth")
    use = {"a": {"zoo": "small", "options": {"zoo_file": str(own_zoo(tmp_path))}}}
    key = victim_key(use)
    own_zoo(tmp_path, "licence: unknown\n    note: new\n    address: 'https://example.org/a.pth'")
    text = (tmp_path / "mine.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(text.replace("91.5", "90.0"))
    assert victim_key(use) == key
    for more in ("distance: cosine", "input: [32, 32]", "mean: [0.5, 0.5, 0.5]"):
        own_zoo(tmp_path, more)
        assert victim_key(use) != key, more
    own_zoo(tmp_path)
    checkpoint(weights / "small.pth", seed=1)
    assert victim_key(use) != key


@pytest.mark.usefixtures("no_network")
def test_planning_downloads_nothing_and_names_all_that_is_missing(weights: Path, tmp_path: Path) -> None:
    victims = {"toy": {"use": f"{TOY}:ToyVictim"}} | {
        name: {"zoo": name} for name in ("resnet50-market1501", "osnet_x1_0-msmt17", "hacnn-market1501")
    }
    victims["jpeg"] = {"defends": "hacnn-market1501"}
    with pytest.raises(MissingWeightsError) as raised:
        make_plan(suite(victims))
    assert raised.value.names == ("resnet50-market1501", "osnet_x1_0-msmt17", "hacnn-market1501")
    says = str(raised.value)
    assert says.count("\n") == 0
    assert str(weights) in says
    assert (
        "reid-attack-bench weights get resnet50-market1501 osnet_x1_0-msmt17 hacnn-market1501 (or --from DIR)" in says
    )
    victims["mine"] = {"zoo": "small", "options": {"zoo_file": str(own_zoo(tmp_path))}}
    with pytest.raises(BenchError, match=r"weights get small --zoo .*mine.yaml"):
        make_plan(suite(victims))
    assert not any(weights.iterdir())


@pytest.mark.e2e
@pytest.mark.usefixtures("no_network")
def test_a_run_compares_published_figures_and_notes_withdrawn_training_data(tmp_path: Path, weights: Path) -> None:
    checkpoint(weights / "small.pth")
    zoo = own_zoo(tmp_path)
    zoo.write_text(zoo.read_text().replace("[plaza]", "[plaza, dukemtmc-reid]"))
    document = suite({"small": {"zoo": "small", "options": {"zoo_file": str(zoo)}}})
    result = run(document, out=tmp_path / "out", store=tmp_path / "store", workers=1, device="cpu")
    (row,) = result.clean.to_dict("records")
    assert row["victim"] == "small"
    assert "Trained on withdrawn data (dukemtmc-reid): small." in result.results.notes
    assert any("published Rank-1 91.5, mAP 70.0; here" in failure for failure in result.failures)


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"zoo": "resnet50-market1501", "use": "torchreid"}, "victims.a: zoo names the model already: remove use"),
        ({"zoo": "resnet50-market1501", "options": {"name": "b"}}, "remove options.name"),
    ],
)
def test_a_victim_is_named_once(entry: dict[str, Any], says: str) -> None:
    with pytest.raises(BenchError, match=says):
        suite({"a": entry})


def test_a_zoo_victim_replaces_the_one_below_it() -> None:
    assert suite({"a": {"zoo": "resnet50-market1501", "roles": "target"}}).victims[0].use == "zoo"
    documents = {"base": {"victims": {"a": {"use": "torchreid", "options": {"epochs": 3}, "train_on": "plaza"}}}}
    from reid_attack_bench.suites.compose import compose

    made = compose({"extends": "base", "victims": {"a": {"zoo": "small"}}}, lambda name: documents[name])
    assert made["victims"]["a"] == {"zoo": "small"}


@pytest.mark.usefixtures("weights")
def test_names_that_are_no_model_are_refused() -> None:
    with pytest.raises(BenchError, match="did you mean 'resnet50-market1501'"):
        ZooModel("resnet50-market")


@pytest.mark.skipif(not REAL.is_file(), reason="the real network is not here")
@pytest.mark.usefixtures("weights")
def test_the_real_osnet_is_used_through_a_zoo_file(tmp_path: Path) -> None:
    zoo = tmp_path / "real.yaml"
    zoo.write_text(
        f"models: {{osnet_x0_25-msmt17: {{builder: torchreid, architecture: osnet_x0_25, trained_on: msmt17, "
        f"file: {REAL}, figures: [{{tested_on: msmt17, rank1: 61.4, mAP: 29.5}}]}}}}"
    )
    victim = ZooModel("osnet_x0_25-msmt17", zoo_file=zoo).eval()
    plain = TorchreidCheckpoint("osnet_x0_25", REAL).eval()
    assert not victim.classifies
    assert victim.embed(images()).shape == (2, 512)
    assert torch.equal(victim.embed(images()), plain.embed(images()))

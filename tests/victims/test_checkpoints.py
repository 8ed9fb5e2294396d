"""Checkpoints as people have them: their prefixes, entries and arrays, and classifiers of any size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from reid_attack_bench.errors import BenchError
from reid_attack_bench.victims.checkpoint import TorchreidCheckpoint
from reid_attack_bench.victims.prefixes import PREFIXES, without_prefix
from reid_attack_bench.victims.torchreid_zoo import untrained_model
from reid_attack_bench.victims.weights import load_weights, read_weights

CASES = Path(__file__).parents[3] / "shared" / "cases"


class Net(nn.Module):
    """Names of several levels, some of which end alike."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 2, 1)
        self.body = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
        self.model = nn.Linear(2, 2)


STATE = Net().state_dict()


def loaded(state: dict[str, Any]) -> bool:
    """Whether exactly the weights of Net are loaded from a state dict."""
    net = Net()
    for value in net.state_dict().values():
        value.zero_()
    load_weights(net, state, "it")
    return all(torch.equal(value, STATE[name]) for name, value in net.state_dict().items())


# prefixes

WORDS = st.lists(st.sampled_from([*PREFIXES, "reid_net.", "body.", "lightning.system."]), max_size=4)


@given(WORDS, st.sampled_from([{}, {"n_averaged": torch.tensor(3)}, {"center_loss.centers": torch.ones(2)}]))
def test_prefixes_come_off_in_any_order(words: list[str], more: dict[str, Any]) -> None:
    assert loaded({**{"".join(words) + name: value for name, value in STATE.items()}, **more})


def test_what_training_wraps_a_model_in_comes_off(tmp_path: Path) -> None:
    compiled = torch.compile(Net())
    for wrapped in (AveragedModel(Net()), nn.DataParallel(Net()), compiled, nn.DataParallel(compiled)):
        torch.save(wrapped.state_dict(), tmp_path / "w.pth")
        assert loaded(read_weights(tmp_path / "w.pth"))


def test_without_the_names_of_the_model_known_prefixes_come_off_that_nearly_all_share() -> None:
    many = {f"module.net.{index}": torch.zeros(1) for index in range(99)}
    assert set(without_prefix(many)) == {str(index) for index in range(99)}
    assert "0" in without_prefix({**many, "head": torch.zeros(1)})
    few = {"module.model.a": torch.zeros(1), "module.model.b": torch.zeros(1)}
    assert set(without_prefix(few)) == {"a", "b"}
    assert set(without_prefix(few, ["model.a", "model.b"])) == {"model.a", "model.b"}
    assert set(without_prefix({**few, "head": torch.zeros(1)})) == {*few, "head"}
    assert set(without_prefix({"module.a": 0, "module.module.a": 0})) == {"a", "module.a"}  # type: ignore[dict-item]
    wrapped = nn.ModuleDict({"model": Net()})
    load_weights(wrapped, wrapped.state_dict(), "itself")


def test_what_has_no_prefix_is_named_and_not_dropped() -> None:
    with pytest.raises(BenchError, match=r"it does not fit: unexpected bottleneck\.weight"):
        loaded({**{f"module.{name}": value for name, value in STATE.items()}, "bottleneck.weight": torch.ones(2)})


def test_a_model_that_is_there_twice_is_a_choice(tmp_path: Path) -> None:
    both = {f"{who}.{name}": value for who in ("student", "ema.module") for name, value in STATE.items()}
    both |= {name: value + 1 for name, value in both.items() if name.startswith("student")}
    with pytest.raises(BenchError, match=r"several prefixes \(ema\.module\., student\.\): choose one with"):
        loaded(both)
    save_file(both, tmp_path / "w.safetensors")
    for entry in ("ema", "ema.module"):
        assert loaded(read_weights(tmp_path / "w.safetensors", entry=entry))
    assert not loaded(read_weights(tmp_path / "w.safetensors", entry="student"))


# entries

OTHER = {name: value + 1 for name, value in STATE.items()}


@pytest.mark.parametrize(
    ("content", "entry"),
    [
        ({"model": {"state_dict": STATE}, "optimizer": {"state": {0: {"m": torch.ones(2)}}, "param_groups": []}}, ""),
        ({"state_dict": STATE, "criterion": {"centers": torch.ones(3)}, "epoch": 3}, ""),
        ({"reid": STATE, "epoch": 3}, ""),  # there is no other
        ({"ema": {"module": STATE, "decay": 0.9}}, ""),
        ({"state_dict": OTHER, "state_dict_ema": STATE}, "state_dict_ema"),
        ({"model": OTHER, "ema": {"module": STATE, "updates": 3}}, "ema"),
        ({"model": OTHER, "ema": {"module": STATE, "teacher": OTHER}}, "ema.module"),
        ({"pytorch-lightning_version": "2.4", "state_dict": {f"net._orig_mod.{n}": v for n, v in STATE.items()}}, ""),
        ({"net": {name: value.numpy() for name, value in STATE.items()}}, ""),
        ({name: value.double().numpy().astype(">f8") for name, value in STATE.items()}, ""),
        ({**{n: v for n, v in STATE.items() if v.ndim}, "body.1.1.num_batches_tracked": np.int64(0)}, ""),
    ],
)
@pytest.mark.parametrize("legacy", [False, True])
def test_weights_are_found_in_a_checkpoint(tmp_path: Path, content: Any, entry: str, legacy: bool) -> None:
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
    assert loaded(read_weights(tmp_path / "w.pth", entry=entry))


@pytest.mark.parametrize(
    ("content", "entry", "says"),
    [
        (
            {"model": STATE, "ema": {"module": STATE}},
            "",
            r"several entries \(model, ema\): choose one with entry=",
        ),
        ({"gallery": STATE, "query": STATE}, "", r"several entries \(gallery, query\)"),
        ({"model": STATE}, "modell", "w.pth has no entry 'modell': did you mean 'model'"),
        ({"ema": {"module": STATE}}, "ema.net", "has no entry 'net': did you mean|has no entry 'net': known: module"),
        ({"model": np.array(["a"])}, "", "is not a readable PyTorch checkpoint|holds no state dict"),
    ],
)
def test_what_is_not_to_be_found_is_said(tmp_path: Path, content: Any, entry: str, says: str) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(BenchError, match=says) as caught:
        read_weights(tmp_path / "w.pth", entry=entry)
    assert "\n" not in str(caught.value)


def test_the_content_decides_and_not_the_suffix(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "w.pth")
    torch.save(STATE, tmp_path / "w.safetensors")
    assert loaded(read_weights(tmp_path / "w.pth"))
    assert loaded(read_weights(tmp_path / "w.safetensors"))


# torchreid

ARCH = "shufflenet_v2_x0_5"


@pytest.mark.parametrize("prefix", ["", "ema_model._orig_mod.", "reid.backbone."])
@pytest.mark.parametrize("identities", [1, 2, 7])
def test_a_classifier_of_any_size(tmp_path: Path, prefix: str, identities: int) -> None:
    torch.manual_seed(0)
    original = untrained_model(ARCH, identities)
    state = {prefix + name: value for name, value in original.state_dict().items()}
    torch.save({**state, "n_averaged": torch.tensor(1)}, tmp_path / "w.pth")
    victim = TorchreidCheckpoint(ARCH, tmp_path / "w.pth", input_size=(64, 32))
    assert victim.classifies == (identities > 1), "the class of an image cannot change where there is one"
    assert all(torch.equal(value, original.state_dict()[name]) for name, value in victim.model.state_dict().items())


def test_a_neck_in_the_classifier_of_torchreid_is_named(tmp_path: Path) -> None:
    model = untrained_model(ARCH, 7)
    model.classifier = nn.Sequential(nn.BatchNorm1d(1024), nn.Linear(1024, 7))
    torch.save(model.state_dict(), tmp_path / "w.pth")
    with pytest.raises(BenchError, match=r"missing classifier\.weight.*; unexpected classifier\.0\.weight"):
        TorchreidCheckpoint(ARCH, tmp_path / "w.pth")


@pytest.mark.skipif(not CASES.is_dir(), reason="the cases are not here")
def test_the_averaged_model_of_users_is_read() -> None:
    state = torch.load(CASES / "08-checkpoint-kinds" / "ema.pth", weights_only=True)
    victim = TorchreidCheckpoint("osnet_x0_25", CASES / "08-checkpoint-kinds" / "ema.pth")
    found = victim.model.state_dict()
    assert all(torch.equal(found[name.removeprefix("module.")], state[name]) for name in state if name != "n_averaged")

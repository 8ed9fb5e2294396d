"""evaluate and run from Python: the example of the package, modules in memory, results, and what is refused."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from torch import nn

import reid_attack_bench
from reid_attack_bench.errors import BenchError
from reid_attack_bench.execute.events import Listener
from reid_attack_bench.jobs.live import ModuleVictim, live_plugin
from tests.conftest import TOY, tiny_document
from tests.plugins.toy import ToyVictim

pytestmark = pytest.mark.e2e


class Net(nn.Module):
    """A network as a user has it: normalised images to embeddings."""

    gain = 1.0

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Conv2d(3, 8, 8, 8)
        self.dropout = nn.Dropout(0.5)

    def forward(self, images):
        return self.dropout(self.body(images)).flatten(1) * self.gain


class Steps(Listener):
    """Remembers the steps that were run."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def finish(self, step, seconds) -> None:
        self.done.append(step.label)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Holds tiny.yaml with one trained victim, and the store of every test here."""
    folder = tmp_path_factory.mktemp("api")
    document = tiny_document()
    document["victims"]["toy"]["train_on"] = ["plaza"]
    del document["datasets"]["station"]
    document["attacks"] = {"noise": {"epsilon": [4, 8]}, "learner": {"use": f"{TOY}:Learner"}}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    return folder


@pytest.fixture
def settings(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Runs are in a folder of the test's own, and share a store."""
    monkeypatch.chdir(tmp_path)
    yield {"suite": folder / "tiny.yaml", "store": folder / "store"}
    torch.use_deterministic_algorithms(False)


MODULE = {"input_size": (64, 32), "distance": "cosine"}


def example(text: str) -> str:
    """The indented block after "::"."""
    block = re.search(r"::\n\n((?: +.*\n)+)", text)
    assert block
    return textwrap.dedent(block[1])


def test_the_docstrings_show_one_example() -> None:
    """The README's test runs it."""
    code = example(reid_attack_bench.__doc__ or "")
    assert len(code.splitlines()) == 5
    assert example(reid_attack_bench.evaluate.__doc__ or "") == code


def test_the_package_is_imported_without_torch() -> None:
    code = "import reid_attack_bench, sys; assert not {'torch', 'pandas', 'numpy'} & set(sys.modules); print(reid_attack_bench.__version__, 'evaluate' in dir(reid_attack_bench))"  # noqa: E501
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.split() == [reid_attack_bench.__version__, "True"]
    with pytest.raises(AttributeError, match="no attribute 'evaluat'"):
        reid_attack_bench.evaluat  # noqa: B018


def test_a_second_call_does_no_work_and_a_changed_model_is_evaluated_anew(settings) -> None:
    def steps(model: nn.Module, **changed) -> list[str]:
        listener = Steps()
        reid_attack_bench.evaluate(model, **settings, **{**MODULE, **changed}, progress=listener)
        return listener.done

    assert any("Net" in label for label in steps(Net()))
    assert steps(Net()) == []
    model = Net()
    with torch.no_grad():
        model.body.weight[0, 0, 0, 0] += 1
    assert "victim Net" in steps(model)
    assert "victim Net" in steps(Net(), mean=(0.5, 0.5, 0.5))
    changed = Net()
    changed.gain = 2.0
    assert "victim Net" in steps(changed)
    edited = type("Net", (Net,), {"forward": lambda self, images: self.body(images).flatten(1)})
    assert "victim Net" in steps(edited())


def test_code_that_was_typed_in_is_identified_without_its_source() -> None:
    def typed(body: str) -> nn.Module:
        names: dict = {"nn": nn, "__name__": "__main__"}
        exec(f"class Typed(nn.Module):\n    def forward(self, x):\n        {body}\n", names)
        return names["Typed"]()

    one, same, other = (typed(body) for body in ("return (lambda: x)()", "return (lambda: x)()", "return x + 1"))
    digests = [live_plugin(ModuleVictim(each)).code for each in (one, same, other)]
    assert digests[0] == digests[1] != digests[2]


def test_a_model_is_left_as_it_was(settings) -> None:
    model = Net()
    model.dropout.eval()
    model.body.bias.requires_grad_(False)
    reid_attack_bench.evaluate(model, **settings, **MODULE, progress=False)
    assert (model.training, model.body.training, model.dropout.training) == (True, True, False)
    assert (model.body.weight.requires_grad, model.body.bias.requires_grad) == (True, False)


def test_the_tables_are_those_of_the_report(settings) -> None:
    result = reid_attack_bench.evaluate(Net(), **settings, **MODULE, name="mine", progress=False)
    assert result.failures == ()
    assert not (result.out / "report.html").exists()
    assert result.report() == Path("runs/tiny+mine/report.html")
    assert result.report().is_file()
    for name in ("leaderboard", "matrix", "clean"):
        table, written = getattr(result, name), pd.read_csv(result.out / f"{name}.csv")
        assert list(table.columns) == list(written.columns)
        assert len(table) == len(written)
    assert set(result.leaderboard.victim) == {"mine", "toy@plaza"}
    assert set(result.matrix[result.matrix.source == "mine"].target) == {"mine"}
    assert result.record.command.startswith("reid_attack_bench.evaluate(Net, ")
    assert json.loads((result.out / "manifest.json").read_text())["cells"]
    written = (result.out / "report.md").stat().st_mtime_ns
    again = reid_attack_bench.evaluate(Net(), **settings, **MODULE, name="mine", progress=False)
    again.report()
    assert (result.out / "report.md").stat().st_mtime_ns == written
    loaded = reid_attack_bench.Result.load(result.out)
    pd.testing.assert_frame_equal(loaded.matrix, result.matrix)


def test_it_is_shown_in_a_console_and_a_notebook(settings) -> None:
    result = reid_attack_bench.evaluate(Net(), **settings, **MODULE, progress=False)
    cells = len(result.matrix)
    assert f"suite tiny: {cells} of {cells} cells" in repr(result)
    assert "worst_e8_mAP" in repr(result)
    assert "Synthetic data" in repr(result)
    shown = result._repr_html_()
    assert "<table" in shown
    assert "<td>Net</td>" in shown


def test_images_are_those_that_were_evaluated(settings) -> None:
    result = reid_attack_bench.run(**settings, progress=False)
    images = result.images(attack="learner", dataset="plaza")
    assert images.clean.shape == images.adversarial.shape == (8, 64, 32, 3)
    assert images.clean.dtype == images.adversarial.dtype == np.uint8
    change = np.abs(images.clean.astype(int) - images.adversarial.astype(int))
    row = result.matrix[(result.matrix.attack == "learner") & (result.matrix.dataset == "plaza")].iloc[0]
    assert change.max() == row.linf == 8
    assert images.identities.shape == images.cameras.shape == (8,)
    noise = result.images(attack="noise", epsilon=4)  # the same for every source
    assert np.abs(noise.clean.astype(int) - noise.adversarial.astype(int)).max() <= 4
    for choice, says in (
        ({"attack": "nois"}, "no images with attack=nois: did you mean 'noise'"),
        ({"attack": "noise", "dataset": "plaza"}, r"several match: choose by epsilon: epsilon=4; epsilon=8"),
        ({"attack": "learner", "dataset": "plaza", "side": "gallery"}, "side 'gallery' was not attacked"),
    ):
        with pytest.raises(BenchError, match=says):
            result.images(**choice)


def test_what_fails_is_in_the_result(settings, tiny, tmp_path: Path) -> None:
    tiny["attacks"] = {"noise": {}, "cheat": {"use": f"{TOY}:Cheat"}}
    (tmp_path / "cheat.yaml").write_text(yaml.safe_dump(tiny))
    result = reid_attack_bench.run("cheat.yaml", store=settings["store"], only={"dataset": "plaza"}, progress=False)
    assert len(result.failures) == 1
    assert "exceeded its L-inf budget" in result.failures[0]
    assert result.failures[0] in repr(result)
    assert set(result.matrix[result.matrix.status != "ok"].attack) == {"cheat"}
    with pytest.raises(BenchError, match=r"no such images: .*exceeded"):
        result.images(attack="cheat")


def test_a_registered_name_takes_options(settings) -> None:
    result = reid_attack_bench.evaluate(
        f"{TOY}:ToyVictim", **settings, options={"seed": 3}, only={"dataset": ["plaza"]}, progress=False
    )
    assert "ToyVictim" in set(result.clean.victim)
    result = reid_attack_bench.evaluate(ToyVictim(seed=3), **settings, only={"dataset": "plaza"}, progress=False)
    assert "ToyVictim" in set(result.clean.victim)


@pytest.mark.parametrize("changed", [{}, {"flip": True}, {"feature": 0}, {"feature": "body", "pool": "mean"}])
def test_what_is_selected_of_a_module_is_part_of_what_it_is(changed) -> None:
    """`steps` of another selection would be found as stored, and its figures would be those of another embedding."""
    known = live_plugin(ModuleVictim(Net())).code
    assert (live_plugin(ModuleVictim(Net(), **changed)).code == known) == (not changed)


class Plain(nn.Module):
    def forward(self, images):
        return images.flatten(1)


def test_a_new_setting_does_not_change_what_a_stored_module_is() -> None:
    """A digest of before there was a choice of the feature: results under it are to be found."""
    assert live_plugin(ModuleVictim(Plain(), (64, 32), distance="cosine")).code == "7efdc7b7f5409bf0"


def test_a_module_without_gradient_can_be_a_target(settings) -> None:
    result = reid_attack_bench.evaluate(
        Blocked(), **settings, **MODULE, only={"attack": "noise"}, differentiable=False, progress=False
    )
    assert "Blocked" in set(result.matrix[result.matrix.status == "ok"].target)


class Pair(Net):
    def forward(self, images):
        return super().forward(images), None


class Blocked(Net):
    def forward(self, images):
        return super().forward(images).detach()


class Map(Net):
    def forward(self, images):
        return self.body(images)


@pytest.mark.parametrize(
    ("victim", "arguments", "says"),
    [
        (Pair(), {}, r"Pair \(in eval mode\) returned several outputs \(0: 2×4096, 1: NoneType\): select .* feature="),
        (Map(), {}, r"Map \(in eval mode\) gives shape 2×8×32×16, more than one axis .* with pool="),
        (Blocked(), {}, "Blocked: its embeddings carry no gradient .* differentiable = False"),
        (Net(), {"input_size": 64}, r"input_size must be \(height, width\) in pixels, not 64"),
        (Net(), {"input_size": (64, 32.5)}, "input_size must be"),
        (Net(), {"std": (1, 1, 0)}, "std positive"),
        (Net(), {"distance": "manhattan"}, "euclidean or cosine"),
        (Net(), {"options": {"a": 1}}, "given by name, not one in memory"),
        (Net(), {"name": "toy"}, "already has a victim 'toy'"),
        (Net(), {"precision": "float8"}, "precision must be one of"),
        (Net(), {"device": "tpu"}, "device tpu"),
        (Net(), {"data_root": "/nowhere"}, "data root /nowhere is not a folder"),
        (Net(), {"only": {"attack": "nois"}}, "did you mean 'noise'"),
        (ToyVictim(), {"distance": "cosine"}, "ToyVictim is a Victim and declares distance itself"),
        ("torchreidd", {}, "did you mean 'torchreid'"),
        (f"{TOY}:ToyVictim", {"mean": (0, 0, 0)}, "mean: only for a module in memory"),
        (f"{TOY}:ToyRecipe", {"train_on": ["plazza"]}, "train_on plazza: not a data set of suite tiny: did you mean"),
    ],
)
def test_mistakes_say_what_to_do(settings, victim, arguments, says) -> None:
    with pytest.raises(BenchError, match=says) as caught:
        reid_attack_bench.evaluate(victim, **settings, **arguments, progress=False)
    assert "\n" not in str(caught.value)


def test_a_run_in_which_nothing_succeeds_is_an_error(settings, tiny, tmp_path: Path) -> None:
    tiny["victims"] = {"bad": {"use": f"{TOY}:NanVictim"}}
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(tiny))
    with pytest.raises(BenchError, match=r"victim bad: .*NaN or infinity .*; no victim was evaluated"):
        reid_attack_bench.run("bad.yaml", store=settings["store"], progress=False)

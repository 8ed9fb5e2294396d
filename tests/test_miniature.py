"""Published networks at the real code path: layouts, checkpoints and suites on miniatures that are made here."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from reid_attack_bench.data.readers.export import write_market1501
from reid_attack_bench.execute.events import Outcome
from reid_attack_bench.execute.executor import execute
from reid_attack_bench.plan.planner import make_plan
from reid_attack_bench.store import Store
from reid_attack_bench.suites import parse
from tests import miniature

pytestmark = pytest.mark.e2e

REAL = Path(__file__).parents[2] / "shared" / "weights" / "osnet_x0_25_msmt17.safetensors"
ARCHITECTURE = "osnet_x0_25"


class Mini:
    """A data set in Market's layout, a network, and the figure of the one on the other by torchreid itself."""

    def __init__(self, folder: Path, real: bool) -> None:
        self.size = miniature.SIZE if real else (128, 64)
        counts = {"train_identities": 16, "test_identities": 10, "queries_per_identity": 2}
        # the real network finds everybody on plaza, whatever the cameras say
        splits = miniature.people("rush" if real else "plaza", self.size, **counts)
        self.root = write_market1501(splits, folder)
        if real:
            model = miniature.network(ARCHITECTURE, 1)
            own = {name: value for name, value in load_file(REAL).items() if not name.startswith("classifier")}
            model.load_state_dict(own, strict=False)
        else:
            model = miniature.trained(ARCHITECTURE, splits["train"])
        self.weights = miniature.save_checkpoint(model, folder / "net.pth")
        self.other = miniature.save_checkpoint(miniature.network(ARCHITECTURE, 1, seed=1), folder / "other.pth")
        self.rank1, self.mean = miniature.measured_by_torchreid(model, folder, self.size)

    def run(self, folder: Path, root: Path | None = None, **changes: object) -> Outcome:
        """The clean figure alone, as a suite asks for it that names the network in a zoo file of its own."""
        figure = {"tested_on": "mini", "rank1": self.rank1, "mAP": self.mean}
        entry = {
            "builder": "torchreid", "architecture": ARCHITECTURE, "file": str(self.weights), "figures": [figure],
            "input": list(self.size), **changes,
        }  # fmt: skip
        (folder / "zoo.yaml").write_text(yaml.safe_dump({"models": {"net": entry}}))
        suite = {
            "name": "mini",
            "image_size": list(self.size),
            "datasets": {"mini": {"layout": "market1501", "root": str(root or self.root)}},
            "victims": {"net": {"zoo": "net", "options": {"zoo_file": str(folder / "zoo.yaml")}}},
            "attacks": {"noise": {}},
        }
        plan = make_plan(parse.parse(suite))
        keys = tuple(key for row in plan.clean for key in row.figure_keys)
        assert len(keys) == 1
        return execute(replace(plan, wanted=keys), Store(folder / "store"), torch.device("cpu"))


@pytest.fixture(
    scope="module",
    params=[
        False,
        pytest.param(True, marks=pytest.mark.skipif(not REAL.is_file(), reason="no real weights here")),
    ],
    ids=["trained here", "real"],
)
def mini(request, tmp_path_factory) -> Mini:
    return Mini(tmp_path_factory.mktemp("mini"), request.param)


def test_a_figure_that_torchreid_measured_is_reproduced(mini: Mini, tmp_path: Path) -> None:
    assert 40 < mini.mean < 100, "far from chance"
    assert not mini.run(tmp_path).failed


def fell(mini: Mini, outcome: Outcome) -> None:
    (reason,) = set(outcome.failed.values())
    assert reason.startswith(f"clean figure not reproduced: published Rank-1 {mini.rank1}, mAP {mini.mean}; here ")
    assert reason.endswith(
        "net on mini: check weights, data, preprocessing (input size, channel order, normalisation) and cameras"
    )


def test_another_checkpoint_falls(mini: Mini, tmp_path: Path) -> None:
    fell(mini, mini.run(tmp_path, file=str(mini.other)))


def test_another_input_size_falls(mini: Mini, tmp_path: Path) -> None:
    fell(mini, mini.run(tmp_path, input=[192, 96]))


def rewritten(mini: Mini, folder: Path, change: Callable[[Path, np.random.Generator], None]) -> Path:
    """A copy of the data set in which `change` was made to every query and gallery image."""
    root = folder / "copy"
    shutil.copytree(mini.root, root)
    rng = np.random.default_rng(0)
    for path in sorted([*(root / "query").iterdir(), *(root / "bounding_box_test").iterdir()]):
        change(path, rng)
    return root


def as_bgr(path: Path, rng: np.random.Generator) -> None:
    pixels = np.asarray(Image.open(path))
    Image.fromarray(np.ascontiguousarray(pixels[..., ::-1])).save(path, quality=100, subsampling=0)


def with_another_camera(path: Path, rng: np.random.Generator) -> None:
    identity, _, rest = path.name.partition("_c")
    path.rename(path.with_name(f"{identity}_c{rng.integers(1, 7)}{rest[1:]}"))


def test_bgr_pixels_fall(mini: Mini, tmp_path: Path) -> None:
    fell(mini, mini.run(tmp_path, rewritten(mini, tmp_path, as_bgr)))


def test_shuffled_cameras_fall(mini: Mini, tmp_path: Path) -> None:
    fell(mini, mini.run(tmp_path, rewritten(mini, tmp_path, with_another_camera)))

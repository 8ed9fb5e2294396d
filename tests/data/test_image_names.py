"""An error names the file of an image: people look for it in the folder of the data set, not in an array."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from PIL import Image

import reid_attack_bench
from reid_attack_bench.cli import main as cli
from reid_attack_bench.data import catalogue
from reid_attack_bench.errors import BenchError
from tests.data.conftest import people, pictures

VICTIM = """
from torch import nn
from reid_attack_bench.contracts import Victim

class Mine(Victim):
    input_size = (32, 16)

    def embed(self, images):
        \"\"\"It divides by the deviation of an image.\"\"\"
        centred = images - images.mean((1, 2, 3), keepdim=True)
        return nn.functional.adaptive_avg_pool2d(centred / images.std((1, 2, 3), keepdim=True), (4, 2)).flatten(1)
"""


@pytest.fixture
def blank(tmp_path: Path) -> tuple[Path, str]:
    """A data root with one query of a single colour, and its name."""
    root = tmp_path / "root" / "market1501"
    names = people(range(1, 13), range(1, 5))
    pictures(root, names)
    name = sorted(each for each in names if each.startswith("query"))[-1]
    Image.new("RGB", (8, 16), (90, 90, 90)).save(root / name)
    return root.parent, name


def source(root: Path) -> Any:
    return catalogue.source("market1501", {}, size=(32, 16), seed=0, data_root=root)


def test_a_name_is_that_of_the_image_that_is_loaded(blank: tuple[Path, str]) -> None:
    root, name = blank
    found = source(root)
    images = found.load(lambda done, total, note: None, lambda part, shape: None)["query"].images
    (place,) = [index for index, image in enumerate(images) if image.std() == 0]
    assert found.image_name("query", place) == f"query image {place} ({name})"
    assert found.image_name("gallery", 10**6) == "gallery image 1000000"
    shutil.rmtree(root / "market1501")
    assert found.image_name("query", place) == f"query image {place}", "an error hides no other"
    rendered = catalogue.source("plaza", {}, size=(32, 16), seed=0, data_root=None)
    assert rendered.image_name("query", 3) == "query image 3"


@pytest.mark.e2e
def test_the_file_of_an_image_that_breaks_a_victim_is_named(blank: tuple[Path, str], tmp_path: Path) -> None:
    root, name = blank
    (tmp_path / "mine.py").write_text(VICTIM)
    document = {"name": "market", "image_size": [32, 16], "datasets": {"market1501": {}}, "attacks": {"noise": {}}}
    (tmp_path / "market.yaml").write_text(yaml.safe_dump(document))
    with pytest.raises(BenchError, match=rf"embed returned NaN or infinity for query image \d+ \({name}\)"):
        reid_attack_bench.evaluate(
            f"{tmp_path}/mine.py:Mine", tmp_path / "market.yaml", data_root=root, out=tmp_path / "out",
            store=tmp_path / "store", progress=False,
        )  # fmt: skip
    words = ["check-victim", f"{tmp_path}/mine.py:Mine", "--suite", f"{tmp_path}/market.yaml", "--data-root", str(root)]
    said = CliRunner().invoke(cli.cli, [*words, "--json"])
    assert said.exit_code != 0
    assert f"({name})" in said.stdout

"""Every kind of model of today as a victim of one file: through check-victim, and through the suite minute to a row."""

from __future__ import annotations

import importlib.util
import json
import textwrap
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn
from torch.nn import functional

from reid_attack_bench.cli import main as cli
from tests import miniature
from tests.test_docs import blocks, read
from tests.victims.exported.networks import Convolutions, onnx_file, openvino_file, scripted

pytestmark = pytest.mark.slow

SIZE = (64, 32)


def lines(text: str) -> str:
    return textwrap.dedent(text).lstrip()


def torchreid_checkpoint(folder: Path) -> str:
    miniature.save_checkpoint(miniature.network("shufflenet", 4), folder / "weights.pth.tar")
    return lines("""
        from pathlib import Path
        from reid_attack_bench.victims.checkpoint import TorchreidCheckpoint
        mine = TorchreidCheckpoint("shufflenet", Path(__file__).with_name("weights.pth.tar"), input_size=(64, 32))
    """)


def fastreid(folder: Path) -> str:
    return lines("""
        from reid_attack_bench.victims.fastreid import FastReidModel, fastreid_network
        network = fastreid_network({"MODEL.BACKBONE.DEPTH": "18x", "MODEL.BACKBONE.FEAT_DIM": 512,
                                    "MODEL.HEADS.EMBEDDING_DIM": 0})
        mine = FastReidModel(network, input_size=(64, 32), distance="cosine", resize="bicubic")
    """)


def timm_vit(folder: Path) -> str:
    return lines("""
        from reid_attack_bench.victims.backbones import TimmBackbone
        small = {"img_size": (64, 32), "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 4}
        mine = TimmBackbone("vit_tiny_patch16_224", untrained=True, input_size=(64, 32), settings=small)
    """)


def shown(title: str, name: str) -> Callable[[Path], str]:
    """A file of the documentation, in which `name` is the victim."""

    def text(folder: Path) -> str:
        (found,) = [block.text for block in blocks(read("add-victim.md")) if block.title == title]
        return f"{found}\n\nmine = {name}()\n"

    return text


class Stripes(nn.Module):
    """N×3×H×W → N×8×7: seven stripes, not normalised, as LightMBN returns them."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Convolutions().body

    def forward(self, images: Tensor) -> Tensor:
        return functional.adaptive_avg_pool2d(self.body(images), (7, 1)).squeeze(3)


def lightmbn(folder: Path) -> str:
    scripted(Stripes().eval(), folder / "parts.ts", SIZE)
    return lines("""
        from pathlib import Path
        from reid_attack_bench.victims.exported import TorchScriptModel
        mine = TorchScriptModel(Path(__file__).with_name("parts.ts"), input_size=(64, 32), normalise="parts",
                                parts_axis=2, flip="sum", trust_code=True)
    """)


def exported(
    suffix: str, kind: str, write: Callable[[nn.Module, Path], Path], options: str = ""
) -> Callable[[Path], str]:
    def text(folder: Path) -> str:
        write(Convolutions(32), folder / f"net{suffix}")
        return lines(f"""
            from pathlib import Path
            from reid_attack_bench.victims.exported import {kind}
            mine = {kind}(Path(__file__).with_name("net{suffix}"), input_size=(64, 32), convention="boxmot"{options})
        """)

    return text


def plain_module(folder: Path) -> str:
    return lines("""
        import torch
        from torch import nn
        torch.manual_seed(0)
        mine = nn.Sequential(nn.Conv2d(3, 32, 8, 8), nn.ReLU(), nn.AdaptiveAvgPool2d((4, 1)), nn.Flatten())
    """)


def hugging_face(folder: Path) -> str:
    return lines("""
        import torch
        from transformers import ViTConfig, ViTModel
        torch.manual_seed(0)
        mine = ViTModel(ViTConfig(hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
                                  image_size=(64, 32), patch_size=8))
    """)


KINDS: dict[str, Callable[[Path], str]] = {
    "torchreid-checkpoint": torchreid_checkpoint,
    "fastreid": fastreid,
    "timm-vit": timm_vit,
    "transreid-sie": shown("sie.py", "SmallTransReID"),
    "part-model": shown("parts.py", "PartModel"),
    "lightmbn": lightmbn,
    "onnx": exported(".onnx", "OnnxModel", onnx_file),
    "openvino": exported(".xml", "OpenVinoModel", openvino_file),
    "torchscript": exported(".ts", "TorchScriptModel", scripted, ", trust_code=True"),
    "plain-module": plain_module,
    "hugging-face": hugging_face,
}

OPTIONS = {
    "plain-module": ["input_size=[64, 32]", "distance=cosine"],
    "hugging-face": ["input_size=[64, 32]", "feature=last_hidden_state", "pool=cls"],
}

NEEDS = {"fastreid": "fastreid", "timm-vit": "timm", "onnx": "onnxruntime", "openvino": "openvino",
         "hugging-face": "transformers"}  # fmt: skip

TARGETS = ("onnx", "openvino")  # without gradients


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for all, so that the data are rendered once."""
    return tmp_path_factory.mktemp("store")


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_checked_and_becomes_a_row(kind: str, store: Path, tmp_path: Path, monkeypatch) -> None:
    if kind in NEEDS and importlib.util.find_spec(NEEDS[kind]) is None:
        pytest.skip(f"{NEEDS[kind]} is not installed")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(KINDS[kind](tmp_path))
    options = [part for option in OPTIONS.get(kind, []) for part in ("--option", option)]
    checked = CliRunner().invoke(cli.cli, ["check-victim", "mine.py:mine", *options, "--suite", "minute", "--json"])
    assert checked.exception is None, checked.output
    findings = json.loads(checked.stdout)["findings"]
    assert [each for each in findings if each["level"] == "fault"] == []
    arguments = ["--suite", "minute", "--name", kind, "--store", str(store), "--out", "out", "--workers", "1"]
    done = CliRunner().invoke(cli.cli, ["evaluate", "--victim", "mine.py:mine", *options, *arguments])
    torch.use_deterministic_algorithms(False)
    assert done.exception is None, done.output
    assert kind in set(pd.read_csv("out/leaderboard.csv")["victim"])
    cells = pd.read_csv("out/matrix.csv")
    judged = cells[cells.status == "ok"]
    assert (tmp_path / "out/report.md").is_file()
    if kind in TARGETS:
        assert cells.status.str.startswith("not applicable").any(), "attacks by gradients cannot be crafted on it"
    else:
        white_box = judged[judged.access == "white-box"]
        clean = float(pd.read_csv("out/clean.csv")["mAP"].iloc[0])
        assert float(white_box["mAP"].min()) < clean, "an attack by gradients takes something from every model"

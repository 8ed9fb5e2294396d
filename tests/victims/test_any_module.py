"""Models as people have them, without a class of ours: each through check-victim and a small evaluation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

import reid_attack_bench
from reid_attack_bench.checks.check import check
from reid_attack_bench.contracts import ModuleVictim, preprocess
from tests.conftest import tiny_document
from tests.victims.test_every_victim import CAMERAS, IMAGES, PEOPLE

pytestmark = pytest.mark.e2e

SIZE = (32, 16)
TRANSFORMER = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
               "image_size": SIZE, "patch_size": 8}  # fmt: skip


def hugging_face(kind: str, **settings: Any) -> nn.Module:
    """A vision model of transformers with random weights, of a configuration: nothing is downloaded."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**{**TRANSFORMER, **settings})
    return getattr(transformers, f"{kind}Model")(config)


def timm_vit() -> nn.Module:
    torch.manual_seed(0)
    small = {"img_size": SIZE, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": 0}
    return pytest.importorskip("timm").create_model("vit_tiny_patch16_224", **small)


class Parts(nn.Module):
    """Global and part features, as `container` has them: a list, a tuple, a dictionary, or the logits in training."""

    def __init__(self, container: Callable[..., Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 24, 8, 4), nn.ReLU(), nn.AdaptiveAvgPool2d((4, 1)))
        self.neck = nn.BatchNorm1d(24)
        self.container = container

    def forward(self, images: torch.Tensor) -> Any:
        parts = self.body(images)
        return self.container(self.neck(parts.mean(dim=(2, 3))), parts)


def named(feature: torch.Tensor, parts: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"feature": feature, "parts": parts}


def listed(*outputs: torch.Tensor) -> list[torch.Tensor]:
    return list(outputs)


def tupled(*outputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return outputs


MODELS: dict[str, tuple[Callable[[], nn.Module], dict[str, Any]]] = {
    "ViTModel": (lambda: hugging_face("ViT"), {"feature": "last_hidden_state", "pool": "cls"}),
    "ViTModel, pooler": (lambda: hugging_face("ViT"), {"feature": "pooler_output"}),
    "CLIPVisionModel": (lambda: hugging_face("CLIPVision", image_size=32), {"feature": 1, "input_size": (32, 32)}),
    "timm ViT": (timm_vit, {}),
    "timm ViT, tokens": (timm_vit, {"feature": "norm", "pool": "mean"}),
    "dictionary": (lambda: Parts(named), {"feature": "parts", "pool": "flatten"}),
    "list": (lambda: Parts(listed), {"feature": 0, "flip": True}),
    "tuple": (lambda: Parts(tupled), {"feature": "neck_before"}),
    "bfloat16": (lambda: Parts(tupled).bfloat16(), {"feature": "neck_after"}),
    "float16": (lambda: Parts(tupled).half(), {"feature": 0}),
}


@pytest.mark.parametrize("name", MODELS)
def test_it_passes_check_victim_and_is_attacked(name: str, tmp_path: Path) -> None:
    build, settings = MODELS[name]
    settings = {"input_size": SIZE, "distance": "cosine", **settings}
    victim = ModuleVictim(build(), **settings).eval().requires_grad_(False)
    found = check(victim, IMAGES, PEOPLE, CAMERAS)
    assert [each for each in found if each.level == "fault"] == []
    document = tiny_document()
    document |= {"victims": {}, "attacks": {"metric_pgd": {"options": {"steps": 2}}}}
    del document["datasets"]["station"]
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(document))
    result = reid_attack_bench.evaluate(
        build(), tmp_path / "tiny.yaml", **settings, out=tmp_path, store=tmp_path / "store", progress=False
    )
    torch.use_deterministic_algorithms(False)
    assert result.failures == ()
    (row,) = result.matrix.to_dict("records")
    assert row["status"] == "ok"
    assert row["linf"] > 0


def test_what_is_selected_of_a_transformer_is_what_the_library_says() -> None:
    model = hugging_face("ViT").eval()
    images = torch.rand(2, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(preprocess(images, SIZE))
        for settings, values in (
            ({"feature": "last_hidden_state", "pool": "cls"}, expected.last_hidden_state[:, 0]),
            ({"feature": "pooler_output"}, expected.pooler_output),
            ({"feature": 1}, expected[1]),
            ({"feature": "layernorm", "pool": "mean"}, expected.last_hidden_state.mean(dim=1)),
        ):
            torch.testing.assert_close(ModuleVictim(model, SIZE, **settings).embed(images), values)

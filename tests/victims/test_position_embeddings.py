"""A vision transformer that was trained at one size is used at another: its position embeddings are interpolated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision import models

from reid_attack_bench.contracts import preprocess
from reid_attack_bench.errors import BenchError
from reid_attack_bench.victims.backbones import TimmBackbone, TorchvisionBackbone
from reid_attack_bench.victims.position_embeddings import _grid_of

IMAGES = torch.rand(2, 3, 64, 32, generator=torch.Generator().manual_seed(0))
SMALL = {"embed_dim": 24, "depth": 1, "num_heads": 2, "patch_size": 16}
ARCH = "vit_tiny_patch16_224"


def timm_vit(**settings: Any) -> nn.Module:
    torch.manual_seed(1)
    model = pytest.importorskip("timm").create_model(ARCH, num_classes=7, **SMALL, **settings).eval()
    nn.init.normal_(model.pos_embed)
    return model


@pytest.mark.parametrize("trained_at", [(64, 64), (96, 96), (128, 64), (192, 64)])
def test_a_timm_transformer_of_another_size_is_what_timm_makes_of_it(tmp_path: Path, trained_at: Any) -> None:
    original = timm_vit(img_size=trained_at)
    torch.save(original.state_dict(), tmp_path / "w.pth")
    # of its own accord, and not through its weights
    original.set_input_size((64, 32))
    victim = TimmBackbone(ARCH, tmp_path / "w.pth", input_size=(64, 32), settings=SMALL).eval()
    with torch.no_grad():
        expected = original.forward_head(
            original.forward_features(preprocess(IMAGES, (64, 32), victim.mean, victim.std)), pre_logits=True
        )
        torch.testing.assert_close(victim.embed(IMAGES), expected)


def test_one_of_the_same_size_is_left_as_it_is(tmp_path: Path) -> None:
    original = timm_vit(img_size=(64, 32))
    neck = nn.BatchNorm1d(24).state_dict()
    state = {f"base.{name}": value for name, value in original.state_dict().items() if not name.startswith("head")}
    state |= {f"bottleneck.{name}": value for name, value in neck.items()}  # the names of TransReID
    torch.save({**state, "classifier.weight": torch.rand(7, 24)}, tmp_path / "w.pth")
    victim = TimmBackbone(ARCH, tmp_path / "w.pth", input_size=(64, 32), settings=SMALL, neck="after")
    assert torch.equal(victim.model.pos_embed, original.pos_embed)


def test_a_grid_of_no_known_shape_does_not_fit(tmp_path: Path) -> None:
    torch.save(timm_vit(img_size=(80, 48)).state_dict(), tmp_path / "w.pth")
    with pytest.raises(BenchError, match=r"of another shape pos_embed \(1×16×24 in the file, 1×9×24 in the model\)"):
        TimmBackbone(ARCH, tmp_path / "w.pth", input_size=(64, 32), settings=SMALL)


def test_the_grid_of_a_number_of_patches() -> None:
    grids = {
        rows * columns: (rows, columns) for columns in range(1, 30) for rows in (columns, 2 * columns, 3 * columns)
    }
    assert all(_grid_of(patches) == grid for patches, grid in grids.items())
    assert all(_grid_of(patches) is None for patches in range(-1, 90) if patches not in grids)


def test_a_torchvision_transformer_of_another_size(tmp_path: Path, monkeypatch) -> None:
    def small(weights: None = None, image_size: int = 64) -> nn.Module:
        return models.VisionTransformer(image_size, 16, 1, 2, 24, 48)

    monkeypatch.setattr(models, "get_model", lambda arch, **settings: small(**settings))
    torch.manual_seed(1)
    original = small(image_size=96).eval()
    nn.init.normal_(original.encoder.pos_embedding)
    torch.save(original.state_dict(), tmp_path / "w.pth")
    victim = TorchvisionBackbone("vit_b_16", tmp_path / "w.pth", input_size=(32, 32))
    grid = original.encoder.pos_embedding[:, 1:].reshape(1, 6, 6, 24).permute(0, 3, 1, 2)
    expected = nn.functional.interpolate(grid, size=(2, 2), mode="bicubic", align_corners=True)
    found = victim.model.encoder.pos_embedding[:, 1:].reshape(1, 2, 2, 24).permute(0, 3, 1, 2)
    torch.testing.assert_close(found, expected)
    assert victim.eval().embed(IMAGES).shape == (2, 24)
    untrained = TorchvisionBackbone("vit_b_16", untrained=True, input_size=(64, 64))
    assert untrained.eval().embed(IMAGES).shape == (2, 24)

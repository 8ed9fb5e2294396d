"""A plain module as a victim: its feature is an output, that of a layer, or its neck, in its own precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from reid_attack_bench import registry
from reid_attack_bench.contracts import ModuleVictim, preprocess
from reid_attack_bench.errors import BenchError, VictimError

SIZE = (16, 8)
IMAGES = torch.rand(3, 3, 20, 10, generator=torch.Generator().manual_seed(0))


class Strong(nn.Module):
    """As strong baselines: a backbone, a neck, a classifier; in training it returns logits and the feature."""

    def __init__(self, necks: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Conv2d(3, 5, 4, 4)
        self.norm = nn.BatchNorm2d(5)
        self.relu = nn.ReLU(inplace=True)
        self.bottleneck = nn.ModuleList([nn.BatchNorm1d(5) for _ in range(necks)])
        for neck in self.bottleneck:
            neck.running_mean.normal_()
            neck.running_var.uniform_(1, 2)
        self.classifier = nn.Linear(5, 7)
        self.unused = nn.Linear(5, 2)

    def maps(self, images: torch.Tensor) -> torch.Tensor:
        return self.norm(self.body(images))

    def pooled(self, images: torch.Tensor) -> torch.Tensor:
        return self.maps(images).relu().mean(dim=(2, 3))

    def forward(self, images: torch.Tensor) -> Any:
        pooled = self.relu(self.maps(images)).mean(dim=(2, 3))
        necks = [neck(pooled) for neck in self.bottleneck]
        logits = self.classifier(self.relu(necks[0].clone()))
        return (logits, pooled) if self.training else logits


class Outputs(Strong):
    def forward(self, images: torch.Tensor) -> Any:
        return {"logits": super().forward(images), "maps": self.maps(images), "classifier": self.pooled(images)}


def ready(images: torch.Tensor = IMAGES) -> torch.Tensor:
    return preprocess(images, SIZE)


def victim(module: nn.Module, **settings: Any) -> ModuleVictim:
    return ModuleVictim(module, SIZE, **settings).eval().requires_grad_(False)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, lambda net: net(ready())),
        ({"feature": "neck_before"}, lambda net: net.pooled(ready())),
        ({"feature": "neck_after"}, lambda net: net.bottleneck[0](net.pooled(ready()))),
        ({"feature": "bottleneck.0"}, lambda net: net.bottleneck[0](net.pooled(ready()))),
        ({"feature": "before:classifier"}, lambda net: net.bottleneck[0](net.pooled(ready())).relu()),
        ({"feature": "classifier"}, lambda net: net(ready())),
        # the layer after it works in place
        ({"feature": "norm", "pool": "mean"}, lambda net: net.maps(ready()).mean(dim=(2, 3))),
        ({"feature": "norm", "pool": "max"}, lambda net: net.maps(ready()).amax(dim=(2, 3))),
        ({"feature": "before:norm", "pool": "flatten"}, lambda net: net.body(ready()).flatten(1)),
        (
            {"feature": "neck_before", "flip": True},
            lambda net: (net.pooled(ready()) + net.pooled(ready(IMAGES.flip(-1)))) / 2,
        ),
    ],
)
def test_a_feature_is_what_the_layer_gives_in_eval_mode(settings: dict[str, Any], expected: Any) -> None:
    model = victim(Strong(), **settings)
    images = IMAGES.clone().requires_grad_(True)
    found = model.embed(images)
    torch.testing.assert_close(found, expected(Strong().eval()))
    (gradient,) = torch.autograd.grad(found.square().sum(), images)
    assert gradient.abs().sum() > 0
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in model.modules())


def test_a_key_of_the_output_comes_before_a_layer_of_that_name() -> None:
    net = Outputs().eval()
    torch.testing.assert_close(victim(Outputs(), feature="classifier").embed(IMAGES), net.pooled(ready()))
    torch.testing.assert_close(victim(Outputs(), feature=0).embed(IMAGES), net(ready())["logits"])
    found = victim(Outputs(), feature="before:classifier").embed(IMAGES)
    torch.testing.assert_close(found, net.bottleneck[0](net.pooled(ready())).relu())


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_a_module_in_another_precision_takes_float32_and_gives_it(kind: torch.dtype) -> None:
    images = IMAGES.clone().requires_grad_(True)
    found = victim(Strong().to(kind), feature="neck_after").embed(images)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, victim(Strong(), feature="neck_after").embed(IMAGES), atol=0.05, rtol=0.05)
    (gradient,) = torch.autograd.grad(found.square().sum(), images)
    assert gradient.dtype == torch.float32


def test_a_module_that_gives_something_else_in_training_is_used_in_eval_mode() -> None:
    class Zoo(Strong):
        def forward(self, images: torch.Tensor) -> Any:  # as torchreid: logits in training, features in eval mode
            return super().forward(images) if self.training else self.pooled(images)

    assert victim(Zoo().train()).embed(IMAGES).shape == (3, 5)
    with pytest.raises(VictimError, match=r"Outputs \(in eval mode\) returned several outputs \('logits': 3×7, 'maps'"):
        victim(Outputs()).embed(IMAGES)


@pytest.mark.parametrize(
    ("module", "settings", "says"),
    [
        (Strong(), {"feature": "clasifier"}, "no such output or layer: did you mean 'classifier'"),
        (Strong(), {"feature": "before:neck"}, "Strong has no layer 'neck': did you mean"),
        (Strong(), {"feature": 1.5}, "feature must be a layer's name, an output's key or position, or None, not 1.5"),
        (Strong(), {"feature": 0}, "returned one Tensor: leave out feature=0"),
        (Strong(), {"feature": "unused"}, "layer unused of Strong does not run: name a layer that runs once"),
        (Strong(), {"feature": "relu"}, "layer relu of Strong runs 2 times in one pass"),
        (Strong(), {"feature": "norm"}, r"output of layer norm of Strong .* gives shape 3×5×4×2, .* pool="),
        (Strong(2), {"feature": "neck_after"}, r"no single BatchNorm1d .*, but 2 \(bottleneck.0, bottleneck.1\)"),
        (nn.Flatten(), {"feature": "neck_before"}, "Flatten has no single BatchNorm1d that .*, but none: name the"),
        (Outputs(), {"feature": "maps"}, "output 'maps' of Outputs .* gives shape 3×5×4×2"),
        (nn.Linear(3, 3), {}, "Linear does not run on 3 images of 16×8: mat1 and mat2"),
        (nn.Flatten(0, 1), {}, "Flatten .* gives shape 9×16×8"),
        (nn.Sequential(nn.Flatten(0, 1), nn.Flatten()), {}, "Sequential returned 9×128 for 3 images, expected one row"),
        (Strong(), {"pool": "gem"}, "pool must be mean, max"),
    ],
)
def test_what_is_wrong_is_said(module: nn.Module, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(BenchError, match=says) as caught:
        victim(module, **settings).embed(IMAGES)
    assert "\n" not in str(caught.value)


def test_the_key_of_a_victim_says_only_what_was_chosen() -> None:
    assert ModuleVictim(Strong()).key_settings == {}
    chosen = ModuleVictim(Strong(), feature=0, flip=True)
    assert chosen.key_settings == {"feature": 0, "flip": True}
    assert not ModuleVictim(Strong(), differentiable=False).differentiable


FILE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Conv2d(3, 6, 4, 4)
    def forward(self, images):
        return self.body(images), None

model = Net()
"""


def test_a_file_may_name_a_plain_module_and_gives_its_settings_as_options(tmp_path: Path) -> None:
    path = tmp_path / "plain.py"
    path.write_text(FILE)
    plugin = registry.find("victim", f"{path}:model")
    options = {"input_size": [16, 8], "distance": "cosine", "feature": 0, "pool": "mean"}
    made = plugin.build(options)
    assert (made.input_size, made.distance, made.name) == ((16, 8), "cosine", "Net")
    assert made.eval().embed(IMAGES).shape == (3, 6)
    assert registry.configuration(made) == {"feature": 0, "pool": "mean"}
    for mistaken, says in (
        ({"input_sise": [16, 8]}, "plain.py:model has no option 'input_sise': did you mean 'input_size'"),
        ({"distance": "manhattan"}, "plain.py:model: distance must be one of euclidean, cosine, not"),
        ({"flip": "yes"}, "plain.py:model: flip must be true or false"),
    ):
        with pytest.raises(BenchError, match=says):
            plugin.build(mistaken)
    with pytest.raises(BenchError, match=r"write class Net\(Victim\), or name an instance of it"):
        registry.find("victim", f"{path}:Net").build({})
    with pytest.raises(BenchError, match="has no 'modell': did you mean 'model'"):
        registry.find("victim", f"{path}:modell")

"""The torchreid adapter: what it trains, what it returns, every architecture of the factory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reid_attack_bench.contracts import FitContext, TrainingData
from reid_attack_bench.errors import BenchError
from reid_attack_bench.steps.examine import examine
from reid_attack_bench.victims.augmentation import flip_shift_erase
from reid_attack_bench.victims.torchreid_zoo import ARCHITECTURES, TorchreidModel, TorchreidVictim, architectures

OWN_SIZE = {"hacnn": (160, 64), "mudeep": (256, 128), "inceptionv4": (256, 128), "inceptionresnetv2": (256, 128)}
BIG = {"densenet161", "se_resnet152", "senet154", "nasnsetmobile", "resnet152", "resnet101", "resnext101_32x8d"}


def untrained(arch: str, size: tuple[int, int] = (128, 64), classes: int = 5) -> TorchreidModel:
    torch.manual_seed(0)
    recipe = TorchreidVictim(arch=arch, input_size=size)
    return TorchreidModel(recipe._build(classes), arch, size, "cosine").eval().requires_grad_(False)


def check(arch: str) -> None:
    victim = untrained(arch, OWN_SIZE.get(arch, (128, 64)))
    examine(victim, torch.device("cpu"))
    images = torch.rand(3, 3, 128, 64)
    embeddings, logits = victim.embed(images), victim.logits(images)
    assert logits.shape == (3, 5)
    both = victim.outputs(images)
    torch.testing.assert_close(both[0], embeddings)
    torch.testing.assert_close(both[1], logits)
    assert torch.equal(victim.embed(images), embeddings), "eval mode: nothing random, nothing remembered"
    # an image's embedding does not depend on its neighbours: no layer is left in training mode by the logits
    alone, beside = victim.embed(images[:1]), embeddings[:1]
    assert (alone - beside).norm() < 1e-3 * beside.norm(), "deep untrained networks round differently, but no more"


@pytest.mark.e2e
@pytest.mark.parametrize("arch", ["osnet_x0_25", "shufflenet_v2_x1_0", "mobilenetv2_x1_0", "pcb_p4", "hacnn", "mlfn"])
def test_a_model_of_each_shape_behind_the_contract(arch: str) -> None:
    check(arch)


@pytest.mark.slow
@pytest.mark.parametrize("arch", architectures())
def test_every_architecture_of_the_factory(arch: str) -> None:
    check(arch)


def toy_data(people: int = 8, each: int = 6) -> TrainingData:
    """Each person is a colour, under noise."""
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (people, 1, 1, 3))
    identities = np.repeat(np.arange(people), each)
    images = np.clip(colours[identities] + rng.normal(0, 10, (people * each, 32, 16, 3)), 0, 255).astype(np.uint8)
    return TrainingData("toy", images, identities, np.zeros(len(images), np.int64))


def fit(data: TrainingData, **options):
    torch.manual_seed(0)
    settings = {"arch": "shufflenet_v2_x0_5", "input_size": (32, 16), "epochs": 40, "batch_identities": 4}
    recipe = TorchreidVictim(**{**settings, **options})
    seen: list[tuple[int, int]] = []
    context = FitContext(
        torch.device("cpu"), torch.Generator().manual_seed(0), lambda done, total, _: seen.append((done, total))
    )
    return recipe, recipe.fit(data, context), seen


@pytest.mark.e2e
def test_training_learns_reports_and_repeats() -> None:
    data = toy_data()
    recipe, state, seen = fit(data)
    assert seen[-1][0] == seen[-1][1] == 120
    victim = recipe.load(state).eval()
    images, identities = data.batch(range(len(data.images)))
    with torch.no_grad():
        accuracy = (victim.logits(images).argmax(1) == identities).float().mean().item()
    assert accuracy > 0.6, "chance is 0.125"
    once, twice = (fit(data, epochs=2)[1] for _ in range(2))
    assert all(torch.equal(once[name], twice[name]) for name in once)


def test_the_first_steps_see_half_the_input_size(monkeypatch) -> None:
    seen: list[tuple[int, ...]] = []
    forward = TorchreidVictim._forward

    def recorded(self, model, images):
        seen.append(tuple(images.shape[-2:]))
        return forward(self, model, images)

    monkeypatch.setattr(TorchreidVictim, "_forward", recorded)
    fit(toy_data(), input_size=(64, 32), epochs=4, half_size=0.5)
    assert seen == [(32, 16)] * 6 + [(64, 32)] * 6
    seen.clear()
    fit(toy_data(), input_size=(64, 32), epochs=2)
    assert set(seen) == {(64, 32)}


def test_unknown_architecture_names_the_nearest() -> None:
    with pytest.raises(BenchError, match="did you mean 'osnet_x0_25'"):
        TorchreidVictim(arch="osnet_x0_2")


def test_an_input_size_that_the_architecture_refuses_is_said() -> None:
    with pytest.raises(BenchError, match="hacnn does not run at input size 32×16"):
        fit(toy_data(), arch="hacnn", epochs=1)


def test_too_few_identities_for_a_batch() -> None:
    with pytest.raises(BenchError, match="needs 16 identities but the training data has 8"):
        fit(toy_data(), batch_identities=16)


def test_nothing_is_downloaded(monkeypatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a download")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    untrained("resnet18")


def test_known_architectures_are_those_of_the_factory() -> None:
    assert set(architectures()) >= ARCHITECTURES


@pytest.mark.parametrize("size", [(64, 32), (128, 64), (40, 20), (17, 9)])
@pytest.mark.parametrize("erasing", [0.0, 0.5, 1.0])
def test_a_batch_is_augmented_as_torchvision_does_one_image_after_the_other(size: tuple[int, int], erasing) -> None:
    from torchvision.transforms import v2

    height, width = size
    padding = (width // 16, height // 16)
    one = v2.Compose(
        [
            v2.RandomHorizontalFlip(),
            v2.RandomCrop(size, padding=padding, padding_mode="edge"),
            v2.RandomErasing(p=erasing, scale=(0.02, 0.2), value=0.5),
        ]
    )
    images = torch.rand(12, 3, *size, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(2)
    expected = torch.stack([one(image) for image in images])
    left = torch.rand(1)
    torch.manual_seed(2)
    assert torch.equal(flip_shift_erase(images, erasing), expected)
    assert torch.rand(1) == left, "as many numbers drawn"

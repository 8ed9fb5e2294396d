"""Every registered attack on a victim that uses cameras: each image that it embeds comes with its own camera."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from reid_attack_bench.adversary.access import Asker, Counted, Gallery, Granted
from reid_attack_bench.adversary.adaptive import adapt
from reid_attack_bench.adversary.budget import enforce
from reid_attack_bench.adversary.cost import Cost, Metered
from reid_attack_bench.contracts import (
    Batch,
    Ensemble,
    FitContext,
    LearnedAttack,
    QueryAttack,
    ReferenceImages,
    State,
    Targets,
    ThreatModel,
    TrainingData,
    Victim,
    bound,
    each_member,
    to_float,
    with_cameras,
)
from reid_attack_bench.steps.passes import Chunked
from tests.attacks.test_every_attack import EVERY, build, seen_by
from tests.plugins import camera_aware
from tests.plugins.camera_aware import CameraAware, Seen, coloured
from tests.plugins.toy import ToyVictim

PEOPLE, CAMERAS = np.arange(6) // 2, np.array([0, 2, 1, 1, 0, 2])
OTHERS, OTHER_CAMERAS = np.arange(9) // 3, np.array([2, 0, 1, 0, 1, 2, 1, 2, 0])
MANY, MANY_CAMERAS = np.repeat(np.arange(10), 4), np.tile([0, 1, 2, 1], 10)


def images(people: np.ndarray, cameras: np.ndarray) -> np.ndarray:
    return with_cameras(coloured(cameras, people, (32, 16)), cameras)


CLEAN, GALLERY = images(PEOPLE, CAMERAS), ReferenceImages(images(OTHERS, OTHER_CAMERAS), OTHERS, OTHER_CAMERAS)
TRAINING = TrainingData("coloured", images(MANY, MANY_CAMERAS), MANY, MANY_CAMERAS)


@pytest.fixture(autouse=True)
def seen(monkeypatch) -> Iterator[Seen]:
    """What the victim has seen; after each test none of it may be with the camera of another."""
    seen = Seen()
    monkeypatch.setattr(camera_aware, "SEEN", seen)
    yield seen
    assert seen.wrong == []


def source(name: str, wrap=lambda victim: victim, victims: int = 1) -> Victim:
    members = [
        Granted(
            wrap(Metered(bound(CameraAware(10, seed).eval().requires_grad_(False)), Cost())), build(name).needs, name
        )
        for seed in range(victims)
    ]
    return members[0] if victims == 1 else Ensemble(members)


def crafted(name: str, model: Victim, threat: ThreatModel, state: State | None) -> torch.Tensor:
    attack, generator = build(name), torch.Generator().manual_seed(0)
    threat = seen_by(attack, threat)
    targets = Targets(torch.from_numpy((PEOPLE + 1) % 3), GALLERY) if threat.impersonate else None
    labels = torch.from_numpy(PEOPLE) if "labels" in attack.needs else None
    batch = Batch(to_float(CLEAN), labels, GALLERY if "gallery" in attack.needs else None, targets)
    if isinstance(attack, QueryAttack):
        asker = Asker(name, torch.from_numpy(PEOPLE), torch.from_numpy(CAMERAS))
        gallery = Gallery(GALLERY, lambda shown: model.embed(to_float(shown)))
        return attack.search(
            Counted(model, threat, asker, gallery, labels=labels is not None), batch, threat, generator
        )
    return attack.craft(model, batch, threat, generator, **({} if state is None else {"state": state}))


def fitted(name: str, model: Victim, threat: ThreatModel) -> State | None:
    attack = build(name)
    if not isinstance(attack, LearnedAttack):
        return None
    torch.manual_seed(0)
    return attack.fit(model, TRAINING, threat, FitContext(torch.device("cpu"), torch.Generator().manual_seed(0)))


def attacked(name: str, model: Victim, threat: ThreatModel) -> None:
    state = fitted(name, model, threat)
    assert all(type(each) is torch.Tensor for each in (state or {}).values())
    adversarial = crafted(name, model, threat, state)
    assert (enforce(adversarial, np.asarray(CLEAN), threat, attack=name) != CLEAN).any()


def in_parts(model: Victim) -> Victim:
    return each_member(model, lambda member: Chunked(member, 2))


NEED_A_SOURCE = [name for name in EVERY if build(name).needs]


@pytest.mark.parametrize("name", NEED_A_SOURCE)
def test_an_attack_hands_each_image_its_camera(name: str, seen: Seen) -> None:
    attacked(name, source(name), ThreatModel(8))
    assert seen.right > 0
    assert seen.unknown == 0


@pytest.mark.parametrize("name", ["metric_pgd", "misranking", "muap", "square"])
def test_in_parts_and_with_few_pixels_it_does_too(name: str, seen: Seen) -> None:
    attacked(name, in_parts(source(name)), ThreatModel(8, pixels=60))
    assert seen.right > 0
    assert seen.unknown == 0


@pytest.mark.parametrize("name", [name for name in NEED_A_SOURCE if build(name).impersonates])
def test_guides_have_their_own_cameras(name: str, seen: Seen) -> None:
    attacked(name, source(name), ThreatModel(8, impersonate="random"))
    assert seen.right > 0
    assert seen.unknown == 0


@pytest.mark.parametrize("name", ["fgsm", "metric_pgd", "misranking", "nes"])
def test_an_adaptive_attack_does_too(name: str, seen: Seen) -> None:
    attacked(name, source(name, lambda victim: adapt(victim, 2, randomised=True)), ThreatModel(8))
    assert seen.right > 0
    assert seen.unknown == 0


@pytest.mark.parametrize("name", ["fgsm", "pgd", "metric_pgd", "apgd", "muap"])
def test_of_several_sources_those_that_use_cameras_are_told(name: str, seen: Seen) -> None:
    class Watched(ToyVictim):
        def embed(self, images):
            assert type(images) is torch.Tensor, "a model without cameras gets plain images"
            return super().embed(images)

    attack = build(name)
    granted = list(source(name, victims=2).members)
    granted.append(Granted(Watched(10).eval().requires_grad_(False), attack.needs, name))
    attacked(name, Ensemble(granted), ThreatModel(8))
    assert seen.right > 0
    assert seen.unknown == 0


def test_images_without_cameras_are_unknown_and_counted(seen: Seen) -> None:
    cost = Cost()
    model = Metered(bound(CameraAware()), cost)
    model.embed(to_float(np.asarray(CLEAN)))
    mixed = to_float(CLEAN)
    mixed[0] = 0.5 * (mixed[0] + mixed[1])
    model.outputs(mixed)
    assert (cost.forward, cost.without_camera) == (12, 7)
    assert seen.unknown == 6
    assert seen.grey == 2, "a mixture of two images shows no camera, and has none"


def test_the_answer_depends_on_the_camera() -> None:
    """Or these tests would show nothing."""
    model, wrong = (
        bound(CameraAware()),
        replace(TRAINING, images=with_cameras(np.asarray(TRAINING.images), MANY_CAMERAS)),
    )
    shown, _ = wrong.batch([0, 1, 2])
    with torch.no_grad():
        right = model.embed(shown)
        unknown = model.embed(to_float(np.asarray(TRAINING.images[:3])))
    assert (right - unknown).abs().amax(dim=1).min() > 0.01

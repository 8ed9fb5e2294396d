"""Several victims as one source: what its distance means, and what follows from its members."""

from __future__ import annotations

import pytest
import torch

from reid_attack_bench.contracts import Ensemble, Victim, WrappedVictim, distances, each_member
from tests.plugins.toy import DetachedVictim, TargetOnly, ToyVictim

IMAGES = torch.rand(5, 3, 64, 32, generator=torch.Generator().manual_seed(3))


class Scaled(WrappedVictim):
    """A Euclidean victim whose embeddings are a thousand times as large."""

    def __init__(self, victim: Victim) -> None:
        super().__init__(victim)
        self.distance = "euclidean"

    def embed(self, images):
        return 1000.0 * self.victim.embed(images)


class Alarmed(ToyVictim):
    """A detector that suspects bright images, from `level`."""

    def __init__(self, level: float) -> None:
        super().__init__()
        self.level = level

    def suspicion(self, images):
        return images.mean(dim=(1, 2, 3)) - self.level


def two() -> tuple[Victim, Victim]:
    return ToyVictim(seed=1).eval(), ToyVictim(seed=2).eval()


def apart(victim: Victim, distance: str = "cosine") -> torch.Tensor:
    with torch.no_grad():
        return distances(victim.embed(IMAGES), victim.embed(IMAGES.flip(0)), distance)  # type: ignore[arg-type]


def test_its_distance_is_the_mean_of_its_members_cosine_distances() -> None:
    first, second = two()
    joint = Ensemble([first, second])
    assert joint.distance == "cosine"
    torch.testing.assert_close(apart(joint), (apart(first) + apart(second)) / 2, atol=1e-6, rtol=0)


def test_a_member_with_large_embeddings_does_not_dominate() -> None:
    first, second = two()
    torch.testing.assert_close(apart(Ensemble([first, Scaled(second)])), apart(Ensemble([first, second])))


def test_an_embedding_does_not_depend_on_the_batch() -> None:
    joint = Ensemble([*two()])
    with torch.no_grad():
        together, alone = joint.embed(IMAGES), torch.cat([joint.embed(image[None]) for image in IMAGES])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(5))


def test_its_attributes_follow_from_its_members() -> None:
    first, second = two()
    joint = Ensemble([first, second])
    assert (joint.differentiable, joint.randomised, joint.classifies, joint.adapted) == (True, False, True, False)
    assert joint.members == (first, second)
    assert joint.max_batch is None
    assert joint.logits(IMAGES) is None
    assert joint.outputs(IMAGES)[1] is None
    assert not Ensemble([first, TargetOnly()]).differentiable
    second.classifies, second.randomised, second.max_batch = False, True, 3
    joint = Ensemble([first, second])
    assert (joint.randomised, joint.classifies, joint.max_batch) == (True, False, 3)
    assert joint.suspicion(IMAGES) is None
    assert joint.rejects(IMAGES) is None


def test_it_refuses_what_one_of_its_members_refuses() -> None:
    light, plain = IMAGES.mean(dim=(1, 2, 3)), ToyVictim()
    low, high = float(light.min()), float(light.max())
    joint = Ensemble([Alarmed(high + 0.1), plain, Alarmed((low + high) / 2)])
    torch.testing.assert_close(joint.suspicion(IMAGES), light - (low + high) / 2)
    refused = joint.rejects(IMAGES)
    assert refused is not None
    assert refused.tolist() == (light > (low + high) / 2).tolist()


def test_each_member_is_wrapped() -> None:
    first, second = two()
    wrapped = each_member(Ensemble([first, second]), Scaled)
    assert isinstance(wrapped, Ensemble)
    assert [type(member) for member in wrapped.members] == [Scaled, Scaled]
    assert isinstance(each_member(first, Scaled), Scaled)


@pytest.mark.parametrize("kind", [ToyVictim, DetachedVictim])
def test_gradients_reach_the_images_through_every_member(kind) -> None:
    images = IMAGES.clone().requires_grad_(True)
    Ensemble([kind(seed=1), kind(seed=2)]).embed(images).sum().requires_grad_().backward()
    assert (images.grad is not None) == (kind is ToyVictim)

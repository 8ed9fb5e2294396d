"""Enforced access: gradients, logits and detectors only as declared, and answers counted for each image."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reid_attack_bench.adversary.access import Asker, Counted, Gallery, Granted
from reid_attack_bench.adversary.adaptive import adapt
from reid_attack_bench.adversary.cost import Cost, Metered
from reid_attack_bench.contracts import ReferenceImages, ThreatModel, Victim, distances, to_float
from reid_attack_bench.errors import AccessError
from tests.plugins.toy import ToyVictim

RNG = np.random.default_rng(0)
IMAGES = to_float(RNG.integers(0, 256, (3, 64, 32, 3), dtype=np.uint8))
PEOPLE, CAMERAS = torch.tensor([0, 1, 2]), torch.tensor([0, 0, 1])
GALLERY = ReferenceImages(
    RNG.integers(0, 256, (6, 64, 32, 3), dtype=np.uint8), np.array([0, 0, 1, 1, 3, 2]), np.array([0, 1, 1, 1, 0, 1])
)


@pytest.fixture
def toy() -> Victim:
    return ToyVictim().eval().requires_grad_(False)


def oracle(toy: Victim, sees: str, queries: int = 2, *, labels: bool = False, top: int = 10) -> Counted:
    gallery = Gallery(GALLERY, lambda images: toy.embed(to_float(images)))
    asker = Asker("nosy", PEOPLE, CAMERAS)
    return Counted(toy, ThreatModel(sees=sees, queries=queries, top=top), asker, gallery, labels=labels)


def test_gradients_and_logits_only_if_declared(toy) -> None:
    leaf = IMAGES.clone().requires_grad_(True)
    whole = Granted(toy, frozenset({"gradients", "logits"}), "nosy")
    assert all(values.requires_grad for values in (whole.embed(leaf), whole.logits(leaf), *whole.outputs(leaf)))
    blind = Granted(toy, frozenset({"logits"}), "nosy")
    assert not any(values.requires_grad for values in (blind.embed(leaf), blind.logits(leaf), *blind.outputs(leaf)))
    metric = Granted(toy, frozenset({"gradients"}), "nosy")
    assert not metric.classifies
    assert metric.outputs(leaf)[1] is None
    with pytest.raises(AccessError, match='attack nosy asks for logits, which it does not declare: add "logits"'):
        metric.logits(leaf)


def test_only_an_adaptive_attack_sees_a_detector(toy) -> None:
    needs = frozenset({"gradients"})
    for ask in (Granted(toy, needs, "nosy").suspicion, Granted(toy, needs, "nosy").rejects):
        with pytest.raises(AccessError, match="which only an adaptive attack knows: set adaptive"):
            ask(IMAGES)
    assert Granted(adapt(toy, 1, randomised=False), needs, "nosy").suspicion(IMAGES) is None


def test_answers_are_those_of_the_evaluation_without_gradients(toy) -> None:
    leaf = IMAGES.clone().requires_grad_(True)
    assert not oracle(toy, "embedding").embed(leaf).requires_grad
    apart = oracle(toy, "distances").distances(leaf)
    expected = distances(toy.embed(IMAGES), toy.embed(to_float(GALLERY.images)), toy.distance)
    junk = torch.zeros(3, 6, dtype=torch.bool)
    junk[0, 0] = junk[2, 5] = True  # same identity, same camera
    assert torch.equal(apart.isinf(), junk)
    assert torch.allclose(apart[~junk], expected[~junk])
    listed = oracle(toy, "ranking", top=6).ranking(IMAGES)
    order = expected.masked_fill(junk, float("inf")).argsort(dim=1)
    people = torch.from_numpy(GALLERY.identities)[order]
    people[[0, 2], -1] = -1
    assert torch.equal(listed, people)
    assert oracle(toy, "ranking", top=8).ranking(IMAGES)[:, 6:].eq(-1).all()
    assert torch.equal(oracle(toy, "ranking", top=2).ranking(IMAGES), people[:, :2])


def test_each_image_has_its_own_budget(toy) -> None:
    asked = oracle(toy, "embedding", queries=3)
    asked.embed(IMAGES)
    asked.embed(IMAGES[:2], torch.tensor([1, 1]))
    assert asked.asked.tolist() == [1, 3, 1]
    assert asked.remaining.tolist() == [2, 0, 2]
    with pytest.raises(AccessError, match="passed its budget of 3 queries on image 1 of the batch"):
        asked.embed(IMAGES)
    assert asked.asked.tolist() == [1, 3, 1], "a refused query is not answered"
    asked.asked[:] = 0
    asked.remaining[:] = 9
    assert asked.remaining.tolist() == [2, 0, 2], "the count is not the attack's to change"
    with pytest.raises(AccessError, match="asks about 2 images for 3 of the batch"):
        asked.embed(IMAGES[:2])


@pytest.mark.parametrize("form", ["embedding", "distances", "ranking"])
def test_other_forms_of_answer_are_refused(toy, form) -> None:
    asked = oracle(toy, form)
    for other, ask in (("embedding", asked.embed), ("distances", asked.distances), ("ranking", asked.ranking)):
        if other != form:
            with pytest.raises(AccessError, match=f"asks for {other}, and its threat model gives {form} only"):
                ask(IMAGES)
    with pytest.raises(AccessError, match="labels"):
        asked.correct()
    correct = oracle(toy, form, labels=True).correct()
    assert torch.equal(correct, PEOPLE[:, None] == torch.from_numpy(GALLERY.identities))


def test_no_attribute_of_an_oracle_leads_to_the_model(toy) -> None:
    asked = oracle(toy, "embedding")
    seen, left = set(), [asked]
    while left:
        value = left.pop()
        if id(value) in seen or not hasattr(value, "__dict__"):
            continue
        seen.add(id(value))
        assert not isinstance(value, torch.nn.Module)
        left += vars(value).values()


def test_cost_counts_passes_not_calls(toy) -> None:
    cost = Cost()
    victim = Metered(toy, cost)
    leaf = IMAGES.clone().requires_grad_(True)
    embeddings, logits = victim.outputs(leaf)
    (embeddings.sum() + logits.sum()).backward()
    assert (cost.forward, cost.backward) == (3, 3), "one pass, whichever outputs are used"
    with torch.no_grad():
        victim.embed(IMAGES[:1])
    assert (cost.forward, cost.backward) == (4, 3)
    torch.autograd.grad(victim.logits(leaf).sum(), leaf)
    assert (cost.forward, cost.backward) == (7, 6)

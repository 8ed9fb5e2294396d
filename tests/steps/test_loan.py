"""A source comes back from an attack as it was, and the right one is blamed for what changed."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from reid_attack_bench.attacks.metric import MetricPGD
from reid_attack_bench.contracts import Victim
from reid_attack_bench.errors import BenchError, VictimError
from reid_attack_bench.steps.artefacts import read_crafted
from reid_attack_bench.steps.condition import Condition
from reid_attack_bench.steps.craft import craft_step
from reid_attack_bench.steps.embed import clean_step
from reid_attack_bench.steps.fit import fit_step
from reid_attack_bench.steps.step import Configured, Step
from reid_attack_bench.steps.victim import ready_step
from tests.plugins import hostile
from tests.steps.conftest import attacked


def ready(victim: Victim) -> Step:
    name = type(victim).__name__
    return ready_step(name.lower(), Configured(name, "v1", {}, victim))


@pytest.mark.parametrize("what", hostile.CHANGES)
@pytest.mark.parametrize("adaptive", [0, 2])
def test_a_craft_that_changes_its_source_fails_and_the_change_is_undone(lab, data, what, adaptive) -> None:
    victim = hostile.Quiet()
    source, images = ready(victim), torch.rand(2, 3, 64, 32)
    step = craft_step(attacked(hostile.Changing(what), adaptive=adaptive), [source], data, None, {}, 5, ())
    lab.run(source)
    before, embeddings = Condition(lab.workspace.victim(source.key)), victim(images)
    with pytest.raises(BenchError) as raised:
        lab.run(step)
    assert str(raised.value).startswith("attack Changing changed quiet: ")
    assert hostile.CHANGES[what][1] in str(raised.value)
    assert before.changes() == set()
    assert torch.equal(victim(images), embeddings)


def test_a_fit_that_changes_its_source_fails(lab, data) -> None:
    source = ready(hostile.Quiet())
    with pytest.raises(BenchError, match=r"attack ChangingInFit changed quiet: weights \(body\.0\.weight\)"):
        lab.run(fit_step(attacked(hostile.ChangingInFit("weights")), [source], data, ()))


def test_gradients_left_in_a_source_are_dropped(lab, data) -> None:
    victim = hostile.Quiet()

    class Backward(hostile.Changing):
        def craft(self, source, batch, threat, generator):
            hostile.inner(source).body[0].weight.grad = torch.ones(8, 3, 5, 5)
            return batch.images

    lab.run(craft_step(attacked(Backward("")), [ready(victim)], data, None, {}, 5, ()))
    assert victim.body[0].weight.grad is None


def test_hooks_that_are_removed_and_copies_that_are_changed_are_no_change(lab, data) -> None:
    class Tidy(hostile.Changing):
        def craft(self, source, batch, threat, generator):
            first = hostile.inner(source).body[0]
            handles = [
                first.register_forward_hook(lambda module, given, found: None),
                first.register_full_backward_hook(lambda module, given, found: None),
            ]
            images = batch.images.clone().requires_grad_(True)
            torch.autograd.grad(source.embed(images).sum(), images)
            for handle in handles:
                handle.remove()
            hostile.add_to_weights(copy.deepcopy(source))
            return batch.images

    lab.run(craft_step(attacked(Tidy("")), [ready(hostile.Quiet())], data, None, {}, 5, ()))


@pytest.mark.parametrize(
    ("victim", "words"),
    [
        (hostile.WritesIntoImages, "victim writesintoimages: embed changes the images that it is given"),
        (hostile.Trains, "victim trains: embed changes the victim itself: .*training mode"),
        (hostile.Counts, r"victim counts: embed changes the victim itself: weights \(passes\)"),
    ],
)
def test_a_victim_that_changes_what_it_may_not_is_blamed(lab, data, victim, words) -> None:
    source = ready(victim())
    with pytest.raises(VictimError, match=words):
        lab.run(craft_step(attacked(MetricPGD(steps=2)), [source], data, None, {}, 5, ()))


@pytest.mark.parametrize("kind", [hostile.Remembers, hostile.Tables])
def test_a_victim_may_keep_what_it_made(lab, data, kind) -> None:
    source = ready(kind())
    lab.run(craft_step(attacked(MetricPGD(steps=2)), [source], data, None, {}, 5, ()))
    with pytest.raises(BenchError, match=rf"attack Changing changed {kind.__name__.lower()}: weights"):
        lab.run(craft_step(attacked(hostile.Changing("weights")), [source], data, None, {}, 5, ()))


def test_what_a_victim_counts_reaches_no_other_step(lab, data) -> None:
    victim = hostile.Counts()
    source = ready(victim)
    lab.run(clean_step(source, data, {}, ()))
    assert float(victim.passes) == 0


def test_what_an_attack_writes_into_its_images_and_labels_stays_with_it(lab, data) -> None:
    source = ready(hostile.Quiet())
    step = craft_step(attacked(hostile.Scribbling()), [source], data, None, {}, 5, ())
    images = read_crafted(lab.run(step))["query"]
    splits = lab.workspace.splits(data.key)
    assert np.array_equal(images, splits["query"].images)
    for split in (splits["gallery"], splits["query"]):
        assert split.images.any()
        assert np.array_equal(split.identities, np.arange(len(split.images)) % 4)


def test_an_attack_cannot_allow_itself_another_budget(lab, data) -> None:
    with pytest.raises(BenchError, match=r"Greedy.* exceeded its L-inf budget"):
        lab.run(craft_step(attacked(hostile.Greedy()), [], data, None, {}, 5, ()))

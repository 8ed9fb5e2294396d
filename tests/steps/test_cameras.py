"""A victim that uses cameras in every step: whoever embeds an image tells it the camera of that image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from reid_attack_bench import registry
from reid_attack_bench.attacks.metric import MetricPGD
from reid_attack_bench.attacks.pgd import PGD
from reid_attack_bench.contracts import Attack, Defence, ThreatModel, Victim, WrappedVictim, to_float
from reid_attack_bench.data.catalogue import DataSource
from reid_attack_bench.data.split import Split
from reid_attack_bench.errors import VictimError
from reid_attack_bench.steps.check import check_step
from reid_attack_bench.steps.craft import craft_step
from reid_attack_bench.steps.data import data_step
from reid_attack_bench.steps.embed import clean_step, features_step
from reid_attack_bench.steps.fit import fit_step
from reid_attack_bench.steps.step import Configured, Step
from reid_attack_bench.steps.victim import defended_step, ready_step, trained_step
from reid_attack_bench.victims.defences.input_defences import GaussianSmoothing
from tests.plugins import camera_aware
from tests.plugins.camera_aware import (
    CameraAware,
    CameraRecipe,
    Deaf,
    Forgetful,
    Narrow,
    Seen,
    Suspicious,
    coloured,
)
from tests.plugins.toy import Asker, Learner, ToyVictim
from tests.steps.conftest import Lab, attacked
from tests.victims.test_every_victim import SMALL

COUNTS = {"train": 12, "query": 8, "gallery": 12}


def split_of(part: str, known: bool = True) -> Split:
    rows = np.arange(COUNTS[part])
    identities, cameras = rows % 4, (rows + rows // 4 + (part == "gallery")) % 3
    return Split(coloured(cameras, identities), identities, cameras, cameras_known=known)


def coloured_data(name: str = "plaza", known: bool = True) -> Step:
    def load(progress, allocate):
        splits = {part: split_of(part, known) for part in COUNTS}
        return {
            part: replace(split, images=filled(allocate(part, split.images.shape), split.images))
            for part, split in splits.items()
        }

    return data_step(DataSource(name, True, "market1501", {"made": "here", "known": known}, COUNTS, load))


def filled(place: np.ndarray, images: np.ndarray) -> np.ndarray:
    place[:] = images
    return place


@pytest.fixture
def data() -> Step:
    return coloured_data()


@pytest.fixture(autouse=True)
def seen(monkeypatch) -> Iterator[Seen]:
    seen = Seen()
    monkeypatch.setattr(camera_aware, "SEEN", seen)
    yield seen
    assert seen.wrong == [], "an image came with the camera of another"


def aware(victim: Victim | None = None, name: str = "aware") -> Step:
    return ready_step(name, Configured(name, "v1", {}, victim or CameraAware()))


def told_all(seen: Seen) -> None:
    assert seen.right > 0
    assert seen.unknown == 0


def defended(lab: Lab, data: Step, defence: Defence, inner: Step | None = None) -> Step:
    use = Configured(type(defence).__name__, "v1", {}, defence)
    return defended_step(type(defence).__name__, use, inner or aware(), data, seed=0)


def test_clean_images_come_with_their_cameras(lab, data, seen) -> None:
    step = clean_step(aware(), data, {}, ())
    folder = lab.run(step)
    told_all(seen)
    assert seen.right == COUNTS["query"] + COUNTS["gallery"]
    assert (folder / "features.safetensors").is_file()
    plain = clean_step(ready_step("toy", Configured("toy", "v1", {}, ToyVictim())), data, {}, ())
    lab.run(plain)


@pytest.mark.parametrize("perturbs", ["query", "both"])
@pytest.mark.parametrize("adaptive", [0, 2])
def test_attacks_and_judges_are_told_them(lab, data, seen, perturbs, adaptive) -> None:
    run = attacked(MetricPGD(steps=2, references="same_identity"), ThreatModel(8, perturbs=perturbs), adaptive=adaptive)
    craft = craft_step(run, [aware()], data, None, {}, 3, ())
    lab.run(craft)
    told_all(seen)
    judge = aware(Suspicious(), "suspicious")
    lab.run(features_step(craft, judge, data, {}, ()))
    told_all(seen)
    assert lab.notes == []


@pytest.mark.parametrize("form", ["embedding", "distances", "ranking"])
def test_a_system_that_is_asked_is_told_them(lab, data, seen, form) -> None:
    lab.run(
        craft_step(attacked(Asker(form), ThreatModel(8, sees=form, queries=4, top=3)), [aware()], data, None, {}, 3, ())
    )
    told_all(seen)


@pytest.mark.parametrize("goal", ["random", "hardest"])
def test_targets_and_guides_are_too(lab, data, seen, goal) -> None:
    toy = ready_step("toy", Configured("toy", "v1", {}, ToyVictim()))
    run = attacked(MetricPGD(steps=2), ThreatModel(8, impersonate=goal))
    for sources in ([aware()], [aware(), toy]):
        lab.run(craft_step(run, sources, data, None, {}, 3, ()))
    told_all(seen)


def test_a_learned_attack_and_a_recipe_are_trained_with_them(lab, data, seen) -> None:
    trained = trained_step("aware@plaza", Configured("recipe", "v1", {}, CameraRecipe()), data, seed=0)
    fit = fit_step(attacked(Learner()), [trained], data, ())
    lab.run(fit)
    lab.run(craft_step(attacked(Learner()), [trained], data, fit, {}, 3, ()))
    lab.run(clean_step(trained, data, {}, ()))
    told_all(seen)


DEFENCES = [name for name in registry.available("victim") if registry.find("victim", name).makes(Defence)]


@pytest.mark.parametrize("name", DEFENCES)
def test_a_defended_victim_is_told_them(lab, data, seen, name, tmp_path) -> None:
    """Every registered defence; JPEG goes through NumPy, where cameras are lost on the way."""
    options = {**SMALL.get(name, lambda folder: {})(tmp_path)}
    if "batch_identities" in options:
        options["batch_identities"] = 2
    victim = defended(lab, data, registry.find("victim", name).build(options), aware(CameraAware(4)))
    craft = craft_step(attacked(PGD(steps=2), adaptive=2), [victim], data, None, {}, 3, ())
    lab.run(craft)
    lab.run(features_step(craft, victim, data, {}, ()))
    told_all(seen)
    twice = defended(lab, data, GaussianSmoothing(), victim)
    lab.run(clean_step(twice, data, {}, ()))
    told_all(seen)
    assert lab.facts[twice.key]["name"] == "CameraAware"


class Voting(WrappedVictim):
    """Embeds several versions of each image, made by `duplicate`, and takes the mean."""

    def __init__(self, victim: Victim, duplicate) -> None:
        super().__init__(victim, "voting")
        self.duplicate = duplicate

    def embed(self, images):
        many, mean = self.duplicate(images)
        return mean(self.victim.embed(many))

    def logits(self, images):
        return None


VOTES = {
    "in rows": lambda x: (x.repeat_interleave(2, dim=0), lambda e: e.unflatten(0, (-1, 2)).mean(dim=1)),
    "in turns": lambda x: (torch.cat([x, x.flip(-1)]), lambda e: e.unflatten(0, (2, -1)).mean(dim=0)),
}


@dataclass(frozen=True)
class Votes(Defence):
    kind: str = "in rows"

    def defend(self, victim, state=None):
        made = Voting(victim, VOTES[self.kind])
        made.differentiable = self.kind != "lost"
        return made


@pytest.mark.parametrize("kind", VOTES)
def test_a_defence_that_duplicates_images_duplicates_their_cameras(lab, data, seen, kind) -> None:
    lab.run(clean_step(defended(lab, data, Votes(kind)), data, {}, ()))
    told_all(seen)


def test_images_whose_cameras_a_defence_loses_are_not_guessed(lab, data, monkeypatch) -> None:
    def lose(x):
        return torch.from_numpy(np.repeat(x.detach().numpy(), 2, axis=0)), lambda e: e.unflatten(0, (-1, 2)).mean(dim=1)

    monkeypatch.setitem(VOTES, "lost", lose)
    with pytest.raises(VictimError, match="its defence gives it 16 images for 8, and their cameras are lost: make"):
        lab.run(clean_step(defended(lab, data, Votes("lost")), data, {}, ()))


@pytest.mark.parametrize("victim", [CameraAware(), Suspicious()])
def test_the_checks_are_told_them(lab, data, seen, victim) -> None:
    step = check_step(aware(victim), data, 4)
    lab.run(step)
    assert seen.right > 0
    results = lab.facts[step.key]["results"]
    assert [each for each in results if each["level"] == "fault"] == []
    (found,) = [each for each in results if each["name"] == "cameras"]
    assert found["level"] == "ok"
    assert "a wrong camera moves an embedding by up to" in found["evidence"]
    seen.wrong.clear()  # that check gives wrong ones


def test_a_check_notes_a_victim_that_ignores_cameras(lab, data) -> None:
    step = check_step(aware(Deaf()), data, 4)
    lab.run(step)
    (found,) = [each for each in lab.facts[step.key]["results"] if each["name"] == "cameras"]
    assert (found["level"], found["evidence"]) == (
        "note", "it declares uses_cameras, but an embedding is the same for every camera",
    )  # fmt: skip


def test_a_victim_abroad_and_data_without_cameras_are_unknown(lab, data, seen) -> None:
    away = CameraAware()
    away.trained_on = "station"
    lab.run(clean_step(aware(away), data, {}, ()))
    assert (seen.right, seen.unknown) == (0, COUNTS["query"] + COUNTS["gallery"])
    unlabelled = coloured_data("unlabelled", known=False)
    here = aware(name="here")
    step = craft_step(attacked(MetricPGD(steps=1)), [here], unlabelled, None, {}, 8, ())
    lab.run(step)
    assert seen.right == 0
    assert "was not told the camera of 16 of 16 images" in lab.notes[0]
    assert not lab.workspace.splits(unlabelled.key)["query"].cameras_known
    check = check_step(here, unlabelled, 4)
    lab.run(check)
    (found,) = [each for each in lab.facts[check.key]["results"] if each["name"] == "cameras"]
    assert found["evidence"] == "not checked: it does not know the cameras of these images"


@dataclass(frozen=True)
class InNumpy(Attack):
    """Leaves torch, and so loses the cameras."""

    needs = frozenset({"gradients"})

    def craft(self, source, batch, threat, generator, state=None):
        noisy = torch.from_numpy(batch.images.numpy() + 4 / 255).clamp(0, 1)
        source.embed(noisy)
        return noisy


def test_an_attack_that_loses_them_is_noted(lab, data, seen) -> None:
    lab.run(craft_step(attacked(InNumpy()), [aware()], data, None, {}, 4, ()))
    assert seen.unknown == COUNTS["query"]
    assert lab.notes == [
        "craft innumpy 8/255 on aware, plaza: the source was not told the camera of 8 of 8 images, because the data "
        "set has none or the attack made them without torch; it took them for unknown"
    ]


def test_torch_compile_is_not_used(lab, data, seen) -> None:
    lab.run(clean_step(aware(), data, {"compile": True}, ()))
    told_all(seen)
    assert lab.notes == ["torch.compile is not used on aware, which uses cameras; it runs as it is"]


def test_half_precision_is(lab, data, seen) -> None:
    lab.run(clean_step(aware(), data, {"precision": "bfloat16"}, ()))
    told_all(seen)


def test_one_that_does_not_take_cameras_is_told_how(lab) -> None:
    with pytest.raises(VictimError, match=r"declares uses_cameras: define embed\(self, images, cameras\)"):
        lab.run(aware(Forgetful()))


def test_one_that_has_no_answer_for_an_unknown_camera_is_told(lab) -> None:
    with pytest.raises(VictimError, match=r"embed raised IndexError .* for cameras \[-1\]: it must answer for every"):
        lab.run(aware(Narrow()))


def test_its_weights_are_those_that_decide_its_key(lab) -> None:
    step = aware()
    lab.run(step)
    assert lab.facts[step.key]["weights"] == step.config["weights"]
    assert lab.facts[step.key]["name"] == "CameraAware"


def test_images_of_a_split_stay_plain_for_others() -> None:
    split = split_of("query")
    assert split.images_for(ToyVictim()) is split.images
    assert split.images_for(None) is split.images
    assert type(to_float(split.images_for(ToyVictim()))) is torch.Tensor

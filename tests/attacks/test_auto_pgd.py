"""The engine, and every iterative attack where the best there is is known."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from reid_attack_bench import registry
from reid_attack_bench.adversary.cost import Cost, Metered
from reid_attack_bench.attacks.apgd import APGD
from reid_attack_bench.attacks.common.ascent import uniform_start
from reid_attack_bench.attacks.common.auto_pgd import auto_pgd, checkpoints
from reid_attack_bench.attacks.common.objectives import NEEDS, RANKS, View, misclassification, objective_for
from reid_attack_bench.contracts import Attack, Batch, LearnedAttack, QueryAttack, ReferenceImages, ThreatModel, Victim
from reid_attack_bench.errors import BenchError
from tests.plugins.toy import ToyVictim

THREAT = ThreatModel(8)
RADIUS = 8 / 255


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(count: int = 6, seed: int = 0, levels: tuple[int, int] = (0, 256)) -> np.ndarray:
    return np.random.default_rng(seed).integers(*levels, (count, 32, 16, 3), dtype=np.uint8)


def images(count: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(noise(count, seed)).permute(0, 3, 1, 2).float() / 255


# the engine


def test_the_checkpoints_are_those_of_the_paper() -> None:
    assert sorted(checkpoints(100)) == [22, 41, 57, 70, 80, 87, 93, 99]
    # 0.22, 0.41, 0.57, 0.70, 0.80, 0.87, 0.93 and 0.99 of 20, rounded upwards
    assert sorted(checkpoints(20)) == [5, 9, 12, 14, 16, 18, 19, 20]
    assert sorted(checkpoints(1)) == [1]
    assert not checkpoints(0) - {0}


def test_by_hand_on_a_line() -> None:
    """One pixel value, epsilon 0.2 and the height −|x − 0.58|: momentum, halved steps and the way back to the best."""
    seen: list[float] = []

    def height(x: torch.Tensor) -> torch.Tensor:
        seen.append(float(x.detach()))
        return -(x - 0.58).abs().flatten(1).sum(dim=1)

    clean = torch.full((1, 1, 1, 1), 0.5)
    best = auto_pgd(height, ToyVictim(), clean, clean, ThreatModel(51), steps=10)
    by_hand = [
        0.5,
        0.7,  # a step of 0.4, cut
        0.45,  # 0.7 + 0.75·(0.3 − 0.7) + 0.25·(0.7 − 0.5)
        # checkpoint ⌈0.22·9⌉: no step rose, so the step is 0.2 and the next starts from 0.5, the best point
        0.6,  # 0.5 + 0.75·0.2 + 0.25·(0.5 − 0.7)
        0.475,  # 0.6 − 0.75·0.2 + 0.25·(0.6 − 0.5)
        # checkpoint ⌈0.41·9⌉: one step of two rose; 0.1, from 0.6
        0.525,  # 0.6 − 0.75·0.1
        0.58125,  # 0.525 + 0.75·0.1 + 0.25·(0.525 − 0.6)
    ]
    assert seen[: len(by_hand)] == pytest.approx(by_hand, abs=1e-6)
    assert float(best.values) >= -0.00125 - 1e-6
    assert len(seen) == 10


def test_the_best_point_is_kept_and_never_falls() -> None:
    source, clean = ToyVictim().eval().requires_grad_(False), images()
    start = uniform_start(clean, RADIUS, generator())
    seen: list[torch.Tensor] = []
    inner = objective_for("self", View(source, Batch(clean)))

    def objective(points: torch.Tensor) -> torch.Tensor:
        values = inner(points)
        seen.append(values.detach())
        return values

    best = auto_pgd(objective, source, clean, start, THREAT, steps=15)
    torch.testing.assert_close(best.values, torch.stack(seen).amax(dim=0))
    torch.testing.assert_close(inner(best.images), best.values)
    assert len(seen) == 15
    # fewer points are not the first of more, since checkpoints are shares; but more must not do worse by much
    few = auto_pgd(inner, source, clean, start, THREAT, steps=5)
    assert (best.values >= few.values).all()


def test_linear_steps_by_hand() -> None:
    """One pixel value, epsilon 0.2 and a ridge at 0.65: steps of 0.4, 0.3, 0.2 and 0.1."""
    seen: list[float] = []

    def slope(x: torch.Tensor) -> torch.Tensor:
        seen.append(float(x.detach()))
        return torch.where(x < 0.65, x, 1.3 - x).flatten(1).sum(dim=1)

    clean = torch.full((1, 1, 1, 1), 0.5)
    auto_pgd(slope, ToyVictim(), clean, clean, ThreatModel(51), steps=5, schedule="linear")
    # 0.7 + 0.75·(0.4 − 0.7) + 0.25·(0.7 − 0.5); 0.525 + 0.75·(0.7 − 0.525) + 0.25·(0.525 − 0.7); and both cut at 0.7
    assert seen == pytest.approx([0.5, 0.7, 0.525, 0.6125, 0.7], abs=1e-6)


def test_of_a_randomised_source_the_last_point_is_kept() -> None:
    source, clean = ToyVictim().eval().requires_grad_(False), images()
    source.randomised = True
    seen: list[torch.Tensor] = []

    def lucky(points: torch.Tensor) -> torch.Tensor:
        seen.append(points.detach())
        return points.mean(dim=(1, 2, 3)) + (9.0 if len(seen) == 2 else 0.0)

    found = auto_pgd(lucky, source, clean, clean, THREAT, steps=6, schedule="linear")
    assert torch.equal(found.images, seen[-1])


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_steps_are_passes(steps: int) -> None:
    cost = Cost()
    source, clean = Metered(ToyVictim().eval().requires_grad_(False), cost), images()
    view = View(source, Batch(clean))
    assert len(view.own) == 6
    auto_pgd(objective_for("self", view), source, clean, clean, THREAT, steps=steps)
    assert (cost.forward, cost.backward) == (6 * (steps + 1), 6 * (steps - 1))


def test_same_points_as_torchattacks() -> None:
    """At 100 updates, where the checkpoints of their code are those of the paper."""
    torchattacks = pytest.importorskip("torchattacks")
    source, clean = ToyVictim().eval().requires_grad_(False), images()

    class Logits(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return source.logits(x)

    theirs = torchattacks.APGD(Logits().eval(), eps=RADIUS, steps=100, loss="ce")
    predicted = source.logits(clean).argmax(dim=1)
    torch.manual_seed(0)
    best, _, values, _ = theirs.attack_single_run(clean, predicted)
    torch.manual_seed(0)
    start = 2 * torch.rand(clean.shape) - 1
    start = clean + RADIUS * start / start.flatten(1).abs().amax(dim=1).view(-1, 1, 1, 1)
    ours = auto_pgd(misclassification(source, clean), source, clean, start, THREAT, steps=101)
    torch.testing.assert_close(ours.values, values, rtol=1e-3, atol=1e-4)
    assert ((ours.images - best).abs() < 1e-4).float().mean() > 0.99


def test_an_image_does_not_depend_on_the_others() -> None:
    source, clean = ToyVictim().eval().requires_grad_(False), images()
    start = uniform_start(clean, RADIUS, generator())
    view = View(source, Batch(clean))
    whole = auto_pgd(objective_for("self", view), source, clean, start, THREAT, steps=12)
    for row in range(len(clean)):
        part = slice(row, row + 1)
        alone = View(source, Batch(clean[part]))
        found = auto_pgd(objective_for("self", alone), source, clean[part], start[part], THREAT, steps=12)
        torch.testing.assert_close(found.values, whole.values[part], rtol=1e-4, atol=1e-6)


class Guarded(ToyVictim):
    """Refuses what is brighter than the first image that it saw, by the mean of its left half."""

    adapted = True
    limit = 0.5

    def suspicion(self, images: torch.Tensor) -> torch.Tensor:
        return images[..., :8].mean(dim=(1, 2, 3)) - self.limit


def test_a_detector_is_evaded_and_an_accepted_point_wins() -> None:
    source, clean = Guarded().eval().requires_grad_(False), torch.full((4, 3, 32, 16), 0.5)
    start = uniform_start(clean, RADIUS, generator()).add_(0.01)
    assert (source.suspicion(start) > 0).all()
    objective = objective_for("self", View(source, Batch(clean)))
    best = auto_pgd(lambda x: objective(x) + x.mean(dim=(1, 2, 3)), source, clean, start, THREAT, steps=20)
    assert not best.refused.any()
    assert (source.suspicion(best.images) <= 0).all()
    assert (best.values > objective(clean) + 0.5).all()


# the best there is


class Linear(Victim):
    """A linear map to one embedding value, and three classes that are linear in it."""

    distance = "euclidean"
    input_size = (32, 16)

    def __init__(self) -> None:
        super().__init__()
        weights = torch.randn(3, 32, 16, generator=generator(3))
        self.register_buffer("weights", weights / weights.abs().sum())

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        return 100 * (images * self.weights).sum(dim=(1, 2, 3))[:, None]

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        return self.embed(images) * torch.tensor([1.0, -1.0, 0.2]) + torch.tensor([0.0, 0.0, -1.0])


FARTHEST = 100 * RADIUS
"""Largest change of the embedding of `Linear` within the ball, where no value is cut at 0 or 1."""

PEOPLE = torch.arange(6) // 2


@functools.cache
def batch(attack: Attack) -> Batch:
    clean = torch.from_numpy(noise(6, 0, (60, 196))).permute(0, 3, 1, 2).float() / 255
    gallery = ReferenceImages(noise(40, 1, (60, 196)), np.arange(40) // 4, np.zeros(40, np.int64))
    return Batch(clean, PEOPLE if "labels" in attack.needs else None, gallery if "gallery" in attack.needs else None)


def iterative() -> dict[str, Attack]:
    found: dict[str, Attack] = {f"apgd-{name}": APGD(objectives=(name,), restarts=1, steps=20) for name in NEEDS}
    plain = {"kernel": 1, "diversity": 0}  # a smooth gradient is not that of a model of independent weights
    found["apgd-checkpoints"] = APGD(objectives=("self",), steps=20, schedule="checkpoints")
    for name in registry.available("attack"):
        attack: Any = registry.find("attack", name).build(plain if name == "ti-dim" else {})
        if (
            "gradients" in attack.needs
            and attack.steps_within(THREAT) > 1
            and not isinstance(attack, (LearnedAttack, QueryAttack))
        ):
            found[name] = attack
    return found


ITERATIVE = iterative()


def test_there_are_iterative_attacks() -> None:
    assert {"pgd", "metric_pgd", "apgd", "apgd-ranking", "apgd-dlr"} <= set(ITERATIVE)


@pytest.mark.parametrize("name", [name for name in ITERATIVE if name != "apgd-misranking"])
def test_it_finds_the_best_there_is_on_a_linear_victim(name: str) -> None:
    """Objectives rise with the distance of the one embedding value from where it was; see below for mis-ranking."""
    attack, source = ITERATIVE[name], Linear()
    given = batch(attack)
    crafted = attack.craft(source, given, THREAT, generator())
    moved = (source.embed(crafted) - source.embed(given.images)).abs().flatten()
    assert (moved >= 0.9 * FARTHEST).all(), f"{(moved / FARTHEST).tolist()} of the way"
    assert (moved <= 1.001 * FARTHEST).all()


def test_it_finds_the_best_there_is_between_the_ends() -> None:
    """Mis-ranking peaks between own and other identities; the images of a line cover the range of the embedding."""
    attack, source = ITERATIVE["apgd-misranking"], Linear()
    given = batch(attack)
    objective = objective_for("misranking", View(source, given))
    line = [given.images + step * RADIUS * source.weights.sign() for step in torch.linspace(-1, 1, 401)]
    best, clean = torch.stack([objective(each) for each in line]).amax(dim=0), objective(given.images)
    found = objective(attack.craft(source, given, THREAT, generator()))
    assert (found - clean >= 0.9 * (best - clean)).all(), f"{((found - clean) / (best - clean)).tolist()} of the way"


def test_it_finds_the_best_pixels_of_a_linear_victim() -> None:
    attack, source, threat = APGD(objectives=("self",), restarts=1, steps=20), Linear(), ThreatModel(8, pixels=50)
    given = batch(attack)
    crafted = attack.craft(source, given, threat, generator())
    moved = (source.embed(crafted) - source.embed(given.images)).abs().flatten()
    farthest = 100 * RADIUS * source.weights.abs().sum(dim=0).flatten().topk(50).values.sum()
    assert (moved >= 0.9 * farthest).all()
    assert (moved <= 1.001 * farthest).all()


# the attack


def test_settings_decide_what_it_needs() -> None:
    assert APGD(objectives=("self",)).needs == {"gradients"}
    assert APGD(objectives=("ranking", "self")).needs == {"gradients", "gallery"}
    assert APGD(objectives=("fna",)).needs == {"gradients", "gallery", "labels"}
    assert APGD(objectives=("dlr", "self")).needs == {"gradients", "logits"}
    assert APGD(objectives=("dlr",)).family == "logits"
    assert APGD(objectives=("dlr", "self")).family == "embedding"


def test_without_logits_it_climbs_the_rest() -> None:
    mixed = APGD(objectives=("dlr", "ranking"), steps=3).without_logits()
    assert mixed == APGD(objectives=("ranking",), steps=3)
    assert APGD(objectives=("dlr",)).without_logits() == APGD(objectives=("self",))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"objectives": ()}, "objectives is empty"),
        ({"objectives": ("rank",)}, "ranking"),
        ({"near": 31}, "near < first <= last"),
        ({"steps": 0}, "steps"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(BenchError, match=says):
        APGD(**settings)


def test_a_gallery_is_embedded_once_for_all_batches() -> None:
    attack, cost = APGD(objectives=("ranking", "self"), restarts=2, steps=3), Cost()
    source = Metered(ToyVictim().eval().requires_grad_(False), cost)
    given = batch(attack)
    gallery = ReferenceImages(given.references.images, given.references.identities, given.references.cameras)
    for _ in range(2):
        attack.craft(source, Batch(given.images, None, gallery), THREAT, generator())
    # per batch: the clean images once, three points per restart, and the last of each by the yardstick
    assert cost.forward == 40 + 2 * 6 * (1 + 2 * 3 + 2)
    assert cost.backward == 2 * 6 * 2 * 2


def test_restarts_do_no_harm_by_the_yardstick() -> None:
    source = ToyVictim().eval().requires_grad_(False)
    one, more = (APGD(objectives=("self",), restarts=count, steps=4) for count in (1, 4))
    given = batch(one)
    own = source.embed(given.images)
    few, many = (
        1 - functional.cosine_similarity(source.embed(attack.craft(source, given, THREAT, generator())), own)
        for attack in (one, more)
    )
    assert (many >= few - 1e-6).all()
    assert (many > few + 1e-6).any()


def test_ranks_fit_any_gallery() -> None:
    assert RANKS.slices(640) == (slice(0, 8), slice(30, 200))
    assert RANKS.slices(100) == (slice(0, 8), slice(30, 100))
    assert RANKS.slices(16) == (slice(0, 2), slice(8, 16))
    for gallery in range(2, 300):
        near, wrong = RANKS.slices(gallery)
        assert 0 < near.stop <= wrong.start < wrong.stop <= gallery

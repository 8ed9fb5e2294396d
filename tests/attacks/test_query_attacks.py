"""Query attacks: margins and their references, budgets to the query, and what they find without gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from reid_attack_bench.adversary.access import Asker, Counted, Gallery
from reid_attack_bench.attacks.common.draws import Draws
from reid_attack_bench.attacks.common.margins import margin_of, needs_of
from reid_attack_bench.attacks.metric import MetricPGD
from reid_attack_bench.attacks.nes import NES
from reid_attack_bench.attacks.pgd import PGD
from reid_attack_bench.attacks.square import Square, SquareDistances, SquareTopK, share_changed
from reid_attack_bench.contracts import Batch, ReferenceImages, Targets, ThreatModel, Victim, distances, to_float
from reid_attack_bench.errors import AccessError, BenchError

RNG = np.random.default_rng(0)
PEOPLE = np.arange(8)
GALLERY_PEOPLE = np.repeat(PEOPLE, 3)
LOOKS = RNG.integers(116, 140, (8, 8, 4, 3)).repeat(4, axis=1).repeat(4, axis=2)


def photos(people: np.ndarray) -> np.ndarray:
    """Images of identities, with the noise of a camera."""
    return np.clip(LOOKS[people] + RNG.integers(-6, 7, (len(people), 32, 16, 3)), 0, 255).astype(np.uint8)


QUERY = photos(PEOPLE)
GALLERY = ReferenceImages(photos(GALLERY_PEOPLE), GALLERY_PEOPLE, np.ones(24, np.int64))
GUIDES = ReferenceImages(photos(np.repeat(PEOPLE, 2)), np.repeat(PEOPLE, 2), np.zeros(16, np.int64))
TARGETS = torch.from_numpy(np.roll(PEOPLE, 3))
FORMS = ["embedding", "distances", "ranking"]


class Plain(Victim):
    """Averages of blocks, and a classifier."""

    input_size = (32, 16)
    distance = "cosine"

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.weights = nn.Parameter(torch.randn(32, 96, generator=generator))
        self.classifier = nn.Parameter(torch.randn(8, 32, generator=generator))

    def embed(self, images):
        return functional.avg_pool2d(images - 0.5, 4).flatten(1) @ self.weights.T

    def logits(self, images):
        return self.embed(images) @ self.classifier.T


class _Reversed(torch.autograd.Function):
    @staticmethod
    def forward(context, images):
        return images.clone()

    @staticmethod
    def backward(context, gradient):
        return -gradient


class WrongSign(Plain):
    """A gradient of the wrong sign: gradient ascent goes down."""

    def embed(self, images):
        return super().embed(_Reversed.apply(images))


class ZeroGradient(Plain):
    """A gradient of zero, from rounding to 32 levels."""

    def embed(self, images):
        return super().embed(images.detach().mul(31).round().div(31) + 0.0 * images)


def ready(victim: Victim) -> Victim:
    return victim.eval().requires_grad_(False)


def oracle_of(victim: Victim, threat: ThreatModel, *, labels: bool = False, rows: slice = slice(None)) -> Counted:
    gallery = Gallery(GALLERY, lambda images: victim.embed(to_float(images)))
    people = torch.from_numpy(PEOPLE[rows])
    return Counted(victim, threat, Asker("nosy", people, torch.zeros_like(people)), gallery, labels=labels)


def batch_of(rows: slice = slice(None), *, impersonate: bool = False) -> Batch:
    return Batch(to_float(QUERY[rows]), targets=Targets(TARGETS[rows], GUIDES) if impersonate else None)


def threat_for(attack, queries: int, **options) -> ThreatModel:
    [form] = set(attack.needs) & set(FORMS)
    return ThreatModel(options.pop("epsilon", 8), sees=form, queries=queries, top=5, **options)


def searched(attack, threat: ThreatModel, victim: Victim | None = None, rows: slice = slice(None), seed: int = 0):
    """The images that an attack finds, and the queries it asked."""
    oracle = oracle_of(ready(victim or Plain()), threat, labels="labels" in attack.needs, rows=rows)
    batch = batch_of(rows, impersonate=threat.impersonate is not None)
    found = attack.search(oracle, batch, threat, torch.Generator().manual_seed(seed))
    return found, oracle.asked


def moved(victim: Victim, images: torch.Tensor) -> float:
    with torch.no_grad():
        apart = 1 - functional.cosine_similarity(victim.embed(images), victim.embed(to_float(QUERY)))
    return float(apart.mean())


def rank1(victim: Victim, images: torch.Tensor, people: np.ndarray = PEOPLE) -> float:
    with torch.no_grad():
        apart = distances(victim.embed(images), victim.embed(to_float(GALLERY.images)), victim.distance)
    return float((GALLERY_PEOPLE[apart.argmin(dim=1).numpy()] == people).mean())


EVERY = [Square(), SquareDistances(), SquareTopK(), NES(samples=4), NES("distances", 4), NES("ranking", 4)]
NAMES = ["square", "square-distances", "square-topk", "nes", "nes-distances", "nes-ranking"]
each_attack = pytest.mark.parametrize("attack", EVERY, ids=NAMES)


@each_attack
@pytest.mark.parametrize("impersonate", [None, "random"])
@pytest.mark.parametrize("queries", [1, 2, 7, 30])
def test_the_budget_is_used_and_never_passed(attack, impersonate, queries: int) -> None:
    threat = threat_for(attack, queries, epsilon=2, impersonate=impersonate)
    found, asked = searched(attack, threat)
    assert (asked <= queries).all()
    assert torch.equal(found, threat.project(found, to_float(QUERY)))
    if isinstance(attack, NES):  # in pairs
        assert (asked >= queries - 1).all()
    elif attack.margin != "ranking":
        assert (asked == queries).all()


def test_a_search_ends_where_the_margin_cannot_fall() -> None:
    found, asked = searched(SquareTopK(), threat_for(SquareTopK(), 300, epsilon=40))
    assert asked.min() < 300
    listed = oracle_of(ready(Plain()), ThreatModel(sees="ranking", queries=2, top=5))
    lists = [listed.ranking(images).tolist() for images in (to_float(QUERY), found)]
    overlap = [bool(set(before) & set(after)) for before, after in zip(*lists, strict=True)]
    assert [count < 300 for count in asked.tolist()] == [not some for some in overlap]


@each_attack
@pytest.mark.parametrize("pixels", [None, 60])
def test_images_are_attacked_on_their_own_and_reproducibly(attack, pixels) -> None:
    threat = threat_for(attack, 20, pixels=pixels)
    whole, asked = searched(attack, threat)
    again, _ = searched(attack, threat)
    some, asked_of_some = searched(attack, threat, rows=slice(0, 3))
    other, _ = searched(attack, threat, seed=1)
    assert torch.equal(whole, again)
    assert torch.equal(whole[:3], some)
    assert torch.equal(asked[:3], asked_of_some)
    assert not torch.equal(whole, other)


@pytest.mark.parametrize("pixels", [1, 60, 500])
def test_a_pixel_budget_is_kept_and_searched(pixels: int) -> None:
    victim, clean = ready(Plain()), to_float(QUERY)
    short, long = (searched(Square(), threat_for(Square(), queries, pixels=pixels))[0] for queries in (2, 300))
    changed = (long != clean).any(dim=1).flatten(1).sum(dim=1)
    assert (changed <= pixels).all()
    assert changed.float().mean() > 0.9 * pixels
    assert moved(victim, long) > 1.5 * moved(victim, short)


def test_the_share_follows_the_schedule_of_the_paper() -> None:
    budget = torch.tensor([10_000])
    halvings = [round(float(torch.log2(0.8 / share_changed(0.8, torch.tensor([asked]), budget)))) for asked in
                (1, 10, 11, 50, 51, 200, 201, 501, 1001, 2001, 4001, 6001, 8000, 8001, 9999)]  # fmt: skip
    assert halvings == [0, 0, 1, 1, 2, 2, 3, 4, 5, 6, 7, 8, 8, 9, 9]
    scaled = share_changed(0.8, torch.tensor([6, 11, 21]), torch.tensor([1000, 1000, 1000]))
    assert scaled.tolist() == pytest.approx([0.2, 0.2, 0.1])


def test_the_share_is_that_of_torchattacks() -> None:
    theirs = pytest.importorskip("torchattacks").Square(nn.Identity(), n_queries=10_000, p_init=0.8).p_selection
    asked = torch.arange(1, 10_000)
    ours = share_changed(0.8, asked, torch.full_like(asked, 10_000))
    assert np.allclose(ours.numpy(), [theirs(each) for each in asked.tolist()])


def test_squares_and_stripes() -> None:
    """The start is stripes; a query changes one square, in one sign per colour."""
    clean = torch.full((4, 3, 32, 16), 0.5)
    asked: list[torch.Tensor] = []

    class Watched(Plain):
        def embed(self, images):
            asked.append(images.clone())
            return super().embed(images)

    threat = ThreatModel(8, sees="embedding", queries=12)
    oracle = oracle_of(ready(Watched()), threat, rows=slice(0, 4))
    Square(p_init=0.125).search(oracle, Batch(clean), threat, torch.Generator().manual_seed(0))
    signs = torch.stack(asked[1:]).sub(0.5).mul(255 / 8)
    assert torch.allclose(signs.abs(), torch.ones(()), atol=1e-4)
    stripes = signs[0].round()
    assert torch.equal(stripes, stripes[:, :, :1].expand_as(stripes))
    assert stripes[:, :, 0].unique(dim=2).shape[2] > 4, "columns differ"
    for image in range(4):
        change = (signs[1, image].round() != stripes[image]).any(dim=0)
        rows, columns = change.any(dim=1).nonzero().flatten(), change.any(dim=0).nonzero().flatten()
        # p is halved at the second of 12 queries, so the side is round(√(0.0625·32·16)), or one halving later 4
        assert rows[-1] - rows[0] < 6
        assert columns[-1] - columns[0] < 6
        square = signs[1, image, :, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].round().flatten(1)
        assert (square == square[:, :1]).float().mean() > 0.7


@pytest.mark.parametrize("name", FORMS)
def test_margins_of_clean_images(name: str) -> None:
    victim, rows = ready(Plain()), torch.arange(8)
    oracle = oracle_of(victim, ThreatModel(sees=name, queries=2, top=5), labels=True)
    value = margin_of(name, oracle, batch_of(), 4).of(to_float(QUERY), rows)
    if name == "embedding":
        assert torch.allclose(value, torch.zeros(8), atol=1e-5)
    elif name == "ranking":
        assert torch.allclose(value, torch.ones(8))
    else:
        apart = oracle.distances(to_float(QUERY))
        same = torch.from_numpy(PEOPLE[:, None] == GALLERY_PEOPLE)
        expected = [row[~own].min() - row[own].min() for row, own in zip(apart, same, strict=True)]
        assert torch.allclose(value, torch.stack(expected))
        assert (value > 0).all(), "their first match is correct"
    assert (oracle.asked == (1 if name == "distances" else 2) + (name == "distances")).all()


@pytest.mark.parametrize("name", FORMS)
def test_margins_to_impersonate_fall_towards_the_target(name: str) -> None:
    victim, rows = ready(Plain()), torch.arange(8)
    oracle = oracle_of(victim, ThreatModel(sees=name, queries=20, top=5), labels=True)
    margin = margin_of(name, oracle, batch_of(impersonate=True), 4)
    paid = 0 if name == "distances" else 2
    assert (oracle.asked == paid).all(), "each guide image is a query"
    own, target = (margin.of(to_float(photos(people)), rows) for people in (PEOPLE, TARGETS.numpy()))
    assert (target < own).all()
    assert (target >= margin.least - 1e-6).all()


def test_guides_are_limited_and_must_exist() -> None:
    threat = ThreatModel(sees="embedding", queries=20)
    for limit, queries, paid in ((1, 20, 1), (4, 20, 2), (4, 3, 1), (4, 1, 1)):
        oracle = oracle_of(ready(Plain()), ThreatModel(sees="embedding", queries=queries))
        margin_of("embedding", oracle, batch_of(impersonate=True), limit)
        assert (oracle.asked == paid).all()
    lost = Batch(to_float(QUERY), targets=Targets(torch.full((8,), 99), GUIDES))
    with pytest.raises(BenchError, match="no guide image of identity 99"):
        margin_of("embedding", oracle_of(ready(Plain()), threat), lost, 4)


@pytest.mark.parametrize("attack", [Square(), NES(samples=4)], ids=["square", "nes"])
def test_targets_may_have_different_numbers_of_guides(attack) -> None:
    keep = np.array([0, 2, 3, 4, 6, 7, 8, 10, 11, 12, 14, 15])
    guides = ReferenceImages(GUIDES.images[keep], GUIDES.identities[keep], GUIDES.cameras[keep])
    threat, found = threat_for(attack, 25, impersonate="random"), []
    for rows in (slice(0, 8), slice(0, 3)):
        oracle = oracle_of(ready(Plain()), threat, rows=rows)
        batch = Batch(to_float(QUERY[rows]), targets=Targets(TARGETS[rows], guides))
        found.append(attack.search(oracle, batch, threat, torch.Generator().manual_seed(0)))
        assert (oracle.remaining <= 1).all()
    assert torch.equal(found[0][:3], found[1])


def test_an_image_without_correct_matches_has_a_distance_margin() -> None:
    threat = ThreatModel(sees="distances", queries=2)
    victim = ready(Plain())
    people = torch.arange(8) + 100
    oracle = Counted(
        victim,
        threat,
        Asker("nosy", people, people),
        Gallery(GALLERY, lambda x: victim.embed(to_float(x))),
        labels=True,
    )
    value = margin_of("distances", oracle, batch_of(), 4).of(to_float(QUERY), torch.arange(8))
    assert value.isfinite().all()


def test_labels_are_an_oracle_and_declared() -> None:
    assert needs_of("distances") == {"distances", "labels"}
    assert needs_of("embedding") == {"embedding"}
    assert needs_of("ranking") == {"ranking"}
    threat = ThreatModel(sees="distances", queries=5)
    with pytest.raises(AccessError, match='takes "labels"'):
        SquareDistances().search(oracle_of(ready(Plain()), threat), batch_of(), threat, torch.Generator())


@pytest.mark.parametrize("victim", [WrongSign, ZeroGradient])
def test_queries_find_what_masked_gradients_hide(victim) -> None:
    masked, threat = ready(victim()), ThreatModel(8)
    gradients = [
        attack.craft(masked, Batch(to_float(QUERY)), threat, torch.Generator().manual_seed(0))
        for attack in (PGD(), MetricPGD())
    ]
    found, _ = searched(Square(), threat_for(Square(), 300), masked)
    assert moved(masked, found) > 1.8 * max(moved(masked, images) for images in gradients)
    assert [rank1(masked, images) for images in gradients] == [1, 1]
    assert rank1(masked, found) <= 0.5
    found, _ = searched(SquareDistances(), threat_for(SquareDistances(), 300), masked)
    assert rank1(masked, found) == 0


@pytest.mark.parametrize("attack", [Square(), NES(samples=20)], ids=["square", "nes"])
def test_it_nears_the_optimum_of_a_linear_victim(attack) -> None:
    """The embedding is one number, the sum of the image under weights: the optimum is epsilon times their norm."""

    class Linear(Victim):
        input_size, distance = (32, 16), "euclidean"

        def __init__(self) -> None:
            super().__init__()
            coarse = torch.randn(1, 3, 8, 4, generator=torch.Generator().manual_seed(2))
            self.weights = nn.Parameter(functional.interpolate(coarse, (32, 16)).flatten(1))

        def embed(self, images):
            return images.flatten(1) @ self.weights.T

    victim, clean = ready(Linear()), torch.full((8, 3, 32, 16), 0.5)
    threat = ThreatModel(8, sees="embedding", queries=2000)
    oracle = oracle_of(victim, threat)
    found = attack.search(oracle, Batch(clean), threat, torch.Generator().manual_seed(0))
    optimum = threat.radius * victim.weights.abs().sum()
    with torch.no_grad():
        reached = (victim.embed(found) - victim.embed(clean)).abs().flatten() / optimum
    assert reached.min() > 0.8


def test_the_list_alone_is_enough_to_lose_the_identity() -> None:
    victim = ready(Plain())
    found, _ = searched(SquareTopK(), threat_for(SquareTopK(), 300, epsilon=24), victim)
    assert rank1(victim, to_float(QUERY)) == 1
    assert rank1(victim, found) < 0.5


def test_impersonation_retrieves_the_target() -> None:
    victim = ready(Plain())
    for attack, epsilon in ((Square(), 8), (SquareDistances(), 8), (NES(samples=20), 8), (SquareTopK(), 30)):
        threat = threat_for(attack, 400, epsilon=epsilon, impersonate="random")
        found, _ = searched(attack, threat, victim)
        assert rank1(victim, found, TARGETS.numpy()) > rank1(victim, to_float(QUERY), TARGETS.numpy()) + 0.5, attack


def test_draws_of_an_image_are_its_own() -> None:
    few, many = (Draws(count, torch.Generator().manual_seed(0)) for count in (2, 5))
    assert torch.equal(few.uniform(torch.tensor([0, 1]), 3), many.uniform(torch.arange(5), 3)[:2])
    assert not torch.equal(few.uniform(torch.tensor([0]), 3), few.uniform(torch.tensor([0]), 3))


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Square(p_init=0.0), "p_init must be a number above 0"),
        (lambda: Square(margin="cosine"), "margin must be"),
        (lambda: NES(samples=5), "samples must be even, not 5"),
        (lambda: NES(tile=0), "tile must be"),
    ],
)
def test_wrong_settings(build, words: str) -> None:
    with pytest.raises(BenchError, match=words):
        build()

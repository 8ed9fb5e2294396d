"""Options for transfer: nothing changes at their defaults, and each does what its paper defines."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from torch.nn import functional

from reid_attack_bench.adversary.budget import enforce
from reid_attack_bench.attacks.apgd import APGD
from reid_attack_bench.attacks.common import transfer
from reid_attack_bench.attacks.common.ascent import Steps, ascend
from reid_attack_bench.attacks.metric import MetricFGSM, MetricPGD, objective_on
from reid_attack_bench.attacks.pgd import FGSM, PGD
from reid_attack_bench.contracts import Batch, Ensemble, ReferenceImages, ThreatModel, Victim, to_float, to_uint8
from reid_attack_bench.errors import BenchError
from reid_attack_bench.registry import configuration
from reid_attack_bench.steps.passes import Chunked

RNG = np.random.default_rng(3)
CLEAN = RNG.integers(0, 256, (5, 32, 16, 3), dtype=np.uint8)
PEOPLE = np.array([0, 0, 1, 2, 3])
GALLERY = ReferenceImages(
    RNG.integers(0, 256, (6, 32, 16, 3), dtype=np.uint8), np.array([0, 0, 1, 1, 2, 9]), np.zeros(6, np.int64)
)


class Exact(Victim):
    """Computes in double precision, so that rounding decides the sign of no gradient."""

    def __init__(self, distance: str = "euclidean") -> None:
        super().__init__()
        self.distance = distance
        generator = torch.Generator().manual_seed(0)
        self.first = torch.randn(24, 3, 4, 4, generator=generator, dtype=torch.float64) / 7
        self.last = torch.randn(10, 24, generator=generator, dtype=torch.float64)

    def embed(self, images):
        return functional.conv2d(images.double(), self.first, stride=4).tanh().mean((2, 3))

    def logits(self, images):
        return 5 * self.embed(images) @ self.last.T


def crafted(attack, source: Victim | None = None, epsilon: int = 8, seed: int = 7) -> torch.Tensor:
    batch = Batch(
        to_float(CLEAN),
        torch.from_numpy(PEOPLE) if "labels" in attack.needs else None,
        GALLERY if "gallery" in attack.needs else None,
    )
    return attack.craft(source or Exact().eval(), batch, ThreatModel(epsilon), torch.Generator().manual_seed(seed))


# Digests of the images as of the commit before there were options, in 8 bits: Euclidean and cosine. Where the order of
# a sum decides the sign of a gradient that is nearly zero, processors differ: both were measured before there was a
# comparison of the victim's own.
BEFORE = [
    (FGSM(), "081c9a2c3c81361d", "081c9a2c3c81361d"),
    (PGD(steps=5), "7ca37c0f7f8001f9", "7ca37c0f7f8001f9"),
    (PGD(steps=4, random_start=False, step_size=2), "7c9f3e1254fd507b", "7c9f3e1254fd507b"),
    (PGD(steps=3, objective="least_likely"), "c43a2cb489f29a0a", "c43a2cb489f29a0a"),
    (PGD(steps=3, objective="cosine"), "62bdb062feca48ea", "62bdb062feca48ea"),
    (PGD(steps=4, stop_early=True), "b4373870562e438f", "b4373870562e438f"),
    (MetricFGSM(), "42c6ab905959645d", "6e04ce7823a14389"),
    (MetricPGD(steps=5), "03896d5c16665423", "54d4d759f3eb0085"),
    (MetricFGSM(references="same_identity"), "9a603e8c3e0ab535", ("3429b44d51aa04e6", "d70c00183c63a839")),
    (
        MetricPGD(steps=4, references="same_identity", start=0, step_size=1),
        "c2cfab4156a8d3b5",
        ("ab37ce947f72d885", "febc5b3378073bf5"),
    ),
]


@pytest.mark.parametrize(("attack", "euclidean", "cosine"), BEFORE, ids=lambda value: str(value))
def test_at_the_defaults_the_images_are_those_of_before(attack, euclidean: str, cosine: str | tuple[str, ...]) -> None:
    for distance, digests in (("euclidean", euclidean), ("cosine", cosine)):
        stored = to_uint8(crafted(attack, Exact(distance).eval()))
        assert hashlib.sha256(stored.tobytes()).hexdigest()[:16] in (
            (digests,) if isinstance(digests, str) else digests
        )


@pytest.mark.parametrize("attack", [FGSM(), PGD(), MetricFGSM(), MetricPGD(), APGD()], ids=str)
def test_options_at_their_defaults_are_in_no_key(attack) -> None:
    assert not {each.name for each in transfer.fields(transfer.TransferOptions)} & set(configuration(attack))


ALL = {"diversity": 0.7, "kernel": 5, "scales": 2}
MOVES = {"momentum": 1.0, "nesterov": True, "step_decay": "linear"}


@pytest.mark.parametrize(
    "attack",
    [
        FGSM(**ALL), MetricFGSM(**ALL), PGD(steps=3, **ALL, **MOVES), MetricPGD(steps=3, **ALL, **MOVES),
        MetricPGD(steps=3, references="same_identity", **ALL, **MOVES), APGD(steps=3, **ALL),
        PGD(steps=3, objective="cosine", diversity=1),
    ],
    ids=str,
)  # fmt: skip
def test_all_options_together_keep_the_budget_and_do_not_depend_on_chunks(attack) -> None:
    whole = crafted(attack)
    enforce(whole, CLEAN, ThreatModel(8), attack="x")
    assert torch.equal(whole, crafted(attack))
    parts = crafted(attack, Chunked(Exact().eval(), 2))
    assert ((whole - parts).abs() < 1e-6).float().mean() > 0.999
    assert not torch.equal(whole, crafted(attack, seed=8))


@pytest.mark.parametrize("option", [{"diversity": 0.7}, {"kernel": 5}, {"scales": 3}, {"momentum": 1.0}])
def test_each_option_changes_the_images(option) -> None:
    assert not torch.equal(crafted(PGD(steps=4)), crafted(PGD(steps=4, **option)))
    assert not torch.equal(crafted(MetricPGD(steps=4)), crafted(MetricPGD(steps=4, **option)))
    if "momentum" not in option:
        assert not torch.equal(crafted(APGD(steps=4)), crafted(APGD(steps=4, **option)))


def test_a_literal_loop_of_momentum_and_look_ahead_gives_the_same() -> None:
    """MI and NI as their papers write them, with the predicted class and a step that falls."""
    source, clean = Exact().eval(), to_float(CLEAN)
    for nesterov, falling in ((False, False), (True, False), (True, True)):
        decay = "linear" if falling else "none"
        attack = PGD(steps=4, step_size=2, random_start=False, momentum=0.9, nesterov=nesterov, step_decay=decay)
        x, m, predicted = clean, torch.zeros(()), source.logits(clean).argmax(1)
        for step in range(4):
            size = 2 / 255 * (1 - step / 4 if falling else 1)
            point = (x + size * 0.9 * m).clamp(0, 1) if nesterov else x
            point = point.detach().requires_grad_(True)
            loss = functional.cross_entropy(source.logits(point), predicted, reduction="sum")
            (g,) = torch.autograd.grad(loss, point)
            m = 0.9 * m + g / g.abs().mean(dim=(1, 2, 3), keepdim=True)
            x = (clean + (x + size * m.sign() - clean).clamp(-8 / 255, 8 / 255)).clamp(0, 1)
        torch.testing.assert_close(crafted(attack), x, atol=1e-6, rtol=0)


def test_scales_average_the_gradient_of_smaller_values() -> None:
    images = to_float(CLEAN).requires_grad_(True)

    def objective(seen):
        return seen.pow(3).flatten(1).sum(dim=1)

    boosted = transfer.GradientOptions(scales=3).boosted(objective, transfer.seen_through(objective), None)
    (got,) = torch.autograd.grad(boosted(images).sum(), images)
    expected = sum(3 * images**2 * factor**3 for factor in (1, 1 / 2, 1 / 4)) / 3
    torch.testing.assert_close(got, expected.detach())


def test_the_kernel_is_a_gaussian_of_three_pixels_that_keeps_the_sum() -> None:
    point = torch.zeros(1, 3, 21, 21)
    point[:, 1, 10, 10] = 1.0
    spread = transfer.smoothed(point, 7)
    assert spread.sum().item() == pytest.approx(1.0)
    assert (spread[0, 1] > 0).sum() == 49
    assert not spread[0, 0].any()
    assert (spread[0, 1, 10, 13] / spread[0, 1, 10, 10]).item() == pytest.approx(np.exp(-9 / 18))
    images = to_float(CLEAN).requires_grad_(True)
    option = transfer.GradientOptions(kernel=7)
    weights = torch.rand(images.shape)
    boosted = option.boosted(lambda seen: (seen * weights).flatten(1).sum(1), None, None)
    values = boosted(images)
    torch.testing.assert_close(values, (images * weights).flatten(1).sum(1))
    (got,) = torch.autograd.grad(values.sum(), images)
    torch.testing.assert_close(got, transfer.smoothed(weights, 7))


def test_diversity_shrinks_in_proportion_within_a_black_border() -> None:
    images = torch.ones(200, 3, 64, 32)
    option = transfer.GradientOptions(diversity=0.7, diversity_resize=0.8)
    drawn = option.drawn(1, 200, torch.Generator().manual_seed(0))
    seen = option._diverse(drawn[0], images)(images)
    moved = ~torch.isclose(seen, images).flatten(1).all(dim=1)
    assert 0.6 < moved.float().mean() < 0.8
    heights = (seen[moved][:, 0].amax(2) > 0).sum(1) / 64
    widths = (seen[moved][:, 0].amax(1) > 0).sum(1) / 32
    assert 0.79 <= heights.min() < 0.83
    assert (heights - widths).abs().max() <= 2 / 32
    assert {0.0, 1.0} <= set(seen[moved][:, 0, 0, 0].tolist()), "the border is on either side"
    assert torch.equal(option._diverse(drawn[0], images)(images)[~moved], images[~moved])


def test_diversity_of_one_image_resizes_as_torch_does() -> None:
    image = torch.rand(1, 3, 40, 20, generator=torch.Generator().manual_seed(0))
    matrix = transfer._resampling(40, torch.tensor([0.9]), torch.tensor([0.0]))
    across = transfer._resampling(20, torch.tensor([0.9]), torch.tensor([1.0]))
    seen = matrix.unsqueeze(1) @ image @ across.unsqueeze(1).mT
    smaller = functional.interpolate(image, (36, 18), mode="bilinear", align_corners=False)
    torch.testing.assert_close(seen[..., :36, 2:], smaller, atol=1e-5, rtol=0)
    assert not seen[..., 36:, :].any()
    assert not seen[..., :2].any()


def test_the_clean_embedding_is_seen_through_the_same_transformation() -> None:
    """Otherwise the distance to the own clean image would not be zero without a perturbation."""
    clean = to_float(CLEAN)
    objective, under = objective_on(Exact().eval(), Batch(clean), "self")
    option = transfer.GradientOptions(diversity=1.0, scales=2)
    boosted = option.boosted(objective, under, option.drawn(2, 5, torch.Generator().manual_seed(0)))
    assert boosted(clean).abs().max() < 1e-12
    assert boosted((clean + 0.05).clamp(0, 1)).min() > 1e-4


def test_a_falling_step_starts_at_twice_epsilon_and_a_fixed_one_is_as_before() -> None:
    threat = ThreatModel(8)
    falling = MetricPGD(step_decay="linear", steps=4).steps_of(threat, 4, None)
    assert [falling.size_of(step) * 255 for step in range(4)] == pytest.approx([16, 12, 8, 4])
    assert PGD().steps_of(threat, 20, None) == Steps(20, 2.5 * threat.radius / 20)
    assert PGD(step_decay="linear").steps_of(threat, 20, 3.0).size == 3 / 255


def test_momentum_and_a_falling_step_climb_higher_than_a_fixed_step() -> None:
    source, clean = Exact("cosine").eval(), to_float(CLEAN)
    before = source.embed(clean)

    def moved(attack) -> float:
        return float((1 - functional.cosine_similarity(source.embed(crafted(attack, source)), before)).mean())

    assert moved(MetricPGD(steps=20, momentum=0.75, step_decay="linear")) > moved(MetricPGD(steps=20))


def test_a_zero_gradient_stays_finite_under_momentum() -> None:
    clean = to_float(CLEAN)
    got = ascend(
        lambda images: (images * 0.0).sum((1, 2, 3)), Exact(), clean, clean, ThreatModel(8), Steps(2, 0.1, 1.0)
    )
    assert torch.equal(got, clean)


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: FGSM(kernel=4), "fgsm: kernel must be odd, so that it has a centre, not 4"),
        (lambda: PGD(nesterov=True), "pgd: nesterov looks ahead along the momentum: set momentum, usually to 1"),
        (lambda: PGD(stop_early=True, momentum=1), "pgd: stop_early takes the plain gradient: leave out the options"),
        (lambda: MetricPGD(diversity=1.5), "metric_pgd: diversity must be a number from 0 to 1, not 1.5"),
        (lambda: MetricFGSM(diversity_resize=1.0), "metric_fgsm: diversity_resize must be .*below 1"),
        (lambda: MetricPGD(step_decay="cosine"), "metric_pgd: step_decay must be one of none, linear"),
    ],
)
def test_wrong_options_are_named(build, says: str) -> None:
    with pytest.raises(BenchError, match=says):
        build()


def test_several_sources_at_once_take_the_options_too() -> None:
    source = Ensemble([Exact("cosine"), Exact("euclidean")]).eval()
    for attack in (FGSM(**ALL), PGD(steps=3, **ALL, **MOVES), MetricPGD(steps=3, **ALL), APGD(steps=3, **ALL)):
        enforce(crafted(attack, source), CLEAN, ThreatModel(8), attack="x")
    assert PGD().takes_members
    assert not PGD(stop_early=True).takes_members, "classes differ, so there is no moment to stop at"


class Float(Exact):
    """The logits of `Exact` in single precision, as other libraries take them."""

    def logits(self, images):
        return super().logits(images).float()


class Logits(torch.nn.Module):
    def forward(self, images):
        return Float().logits(images)


def test_fgsm_and_pgd_are_those_of_torchattacks() -> None:
    library = pytest.importorskip("torchattacks")
    clean, model = to_float(CLEAN), Logits().eval()
    predicted, radius, step = model(clean).argmax(1), 8 / 255, 2 / 255
    pairs = [
        (FGSM(), library.FGSM(model, eps=radius)),
        (PGD(steps=5, step_size=2, random_start=False), library.PGD(model, radius, step, 5, random_start=False)),
        (
            PGD(steps=5, step_size=2, random_start=False, momentum=1.0),
            library.MIFGSM(model, eps=radius, alpha=step, steps=5, decay=1.0),
        ),
    ]
    for ours, theirs in pairs:
        assert np.array_equal(to_uint8(crafted(ours, Float())), to_uint8(theirs(clean, predicted)))


@pytest.mark.e2e  # importing foolbox starts git
def test_fgsm_and_pgd_are_those_of_foolbox() -> None:
    library = pytest.importorskip("foolbox")
    clean, radius = to_float(CLEAN), 8 / 255
    model = library.PyTorchModel(Logits().eval(), bounds=(0, 1), device="cpu")
    predicted = Logits()(clean).argmax(1)
    pairs = [
        (FGSM(), library.attacks.LinfFastGradientAttack(random_start=False)),
        (
            PGD(steps=5, step_size=2, random_start=False),
            library.attacks.LinfPGD(abs_stepsize=2 / 255, steps=5, random_start=False),
        ),
    ]
    for ours, theirs in pairs:
        _, images, _ = theirs(model, clean, predicted, epsilons=radius)
        assert np.array_equal(to_uint8(crafted(ours, Float())), to_uint8(images))


class Guarded(Exact):
    """Refuses images that have become brighter or darker on average."""

    adapted = True

    def suspicion(self, images):
        return (images - to_float(CLEAN)).mean((1, 2, 3)).abs() - 0.4 / 255


def test_momentum_follows_a_detector_and_does_not_look_ahead_of_it() -> None:
    source = Guarded("cosine").eval()
    attack = {"steps": 6, "momentum": 1.0, "diversity": 0.5}
    plain, ahead = crafted(MetricPGD(**attack), source), crafted(MetricPGD(**attack, nesterov=True), source)
    assert torch.equal(plain, ahead)
    assert not torch.equal(plain, crafted(MetricPGD(**attack), Exact("cosine").eval()))
    assert (source.suspicion(plain) <= 0).all(), "what is returned is accepted"

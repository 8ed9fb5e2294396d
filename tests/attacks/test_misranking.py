"""Deep Mis-Ranking: networks, mask, losses against slow transcriptions, budgets, and what training changes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from reid_attack_bench.adversary import budget
from reid_attack_bench.attacks.common.generator import Generator, count_parameters
from reid_attack_bench.attacks.misranking import MisRanking, attack, losses
from reid_attack_bench.attacks.misranking.discriminators import Discriminator, PatchGAN, score_maps
from reid_attack_bench.attacks.misranking.mask import MaskHead, gumbel, straight_through_top_k, top_k
from reid_attack_bench.attacks.misranking.networks import Networks, fresh_networks
from reid_attack_bench.attacks.misranking.objective import Objective
from reid_attack_bench.attacks.misranking.training import _decay, flip_and_translate, mask_size
from reid_attack_bench.contracts import Batch, FitContext, State, ThreatModel, TrainingData, Victim, distances, to_uint8
from reid_attack_bench.errors import BenchError
from reid_attack_bench.metrics.ssim import ms_ssim, ssim

CPU = torch.device("cpu")
CLASSES = 6
TINY = MisRanking(
    width=4,
    discriminator_width=2,
    residual_blocks=1,
    steps=3,
    batch_identities=3,
    batch_instances=2,
    held_out=0.0,  # of six people none is left over
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def changed(config: MisRanking, **fields: object) -> MisRanking:
    return MisRanking(**(vars(config) | fields))  # type: ignore[arg-type]


class ToyVictim(Victim):
    """Two convolutions, average pooling, a linear classifier."""

    def __init__(self, classes: int | None = CLASSES) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(7)
            self.layers = nn.Sequential(
                nn.Conv2d(3, 8, 5, 2, 2),
                nn.ReLU(),
                nn.Conv2d(8, 16, 3, 2, 1),
                nn.AdaptiveAvgPool2d((4, 2)),
                nn.Flatten(),
            )
            self.classifier = None if classes is None else nn.Linear(128, classes)
        self.eval().requires_grad_(False)

    def embed(self, images: Tensor) -> Tensor:
        return 10.0 * self.layers(images)

    def logits(self, images: Tensor) -> Tensor | None:
        return None if self.classifier is None else self.classifier(self.embed(images))


def toy_data(height: int = 32, width: int = 16, per_identity: int = 4) -> TrainingData:
    """One smooth random pattern per identity, with pixel noise."""
    rng = np.random.default_rng(0)
    identities = np.repeat(np.arange(CLASSES), per_identity)
    patterns = rng.uniform(40, 215, (CLASSES, height // 8, width // 8, 3)).repeat(8, axis=1).repeat(8, axis=2)
    images = patterns[identities] + rng.normal(0, 12, (len(identities), height, width, 3))
    return TrainingData("toy", images.clip(0, 255).astype(np.uint8), identities, np.zeros_like(identities))


def fit(
    config: MisRanking, threat: ThreatModel, source: Victim | None = None, seed: int = 0, notes: list[str] | None = None
) -> State:
    def progress(done: int, total: int, note: str) -> None:
        if notes is not None:
            notes.append(note)

    return config.fit(source or ToyVictim(), toy_data(), threat, FitContext(CPU, seeded(seed), progress))


# networks


def test_parameter_counts_are_the_released_ones() -> None:
    generator, discriminator, head = Generator(), Discriminator(), MaskHead()
    assert count_parameters(generator) == 1_966_915
    assert count_parameters(discriminator) == 3 * 2_768_641
    assert count_parameters(head) == 4_528_898
    assert count_parameters(discriminator, head) == 12_834_821
    assert count_parameters(PatchGAN()) == 2_768_705
    assert count_parameters(Generator(64)) == 7_841_411
    assert count_parameters(Generator(normalisation="instance")) == 1_965_059
    assert count_parameters(Generator(upsampling="resize")) == 1_966_915


@pytest.mark.parametrize(
    ("size", "scores"),
    [
        ((256, 128), [(32, 16), (16, 8), (8, 4)]),
        ((128, 64), [(16, 8), (8, 4), (4, 2)]),
        ((384, 192), [(48, 24), (24, 12), (12, 6)]),
        ((160, 64), [(20, 8), (10, 4), (5, 2)]),
        ((288, 144), [(36, 18), (18, 9), (9, 5)]),
        ((67, 35), [(9, 5), (5, 3), (3, 2)]),
    ],
)
def test_map_shapes(size: tuple[int, int], scores: list[tuple[int, int]]) -> None:
    images = torch.rand(2, 3, *size, generator=seeded())
    for upsampling in ("transposed", "resize"):
        noise = Generator(2, 1, "batch", upsampling)(images)
        assert noise.shape == images.shape
        assert noise.abs().max() <= 1
    maps = Discriminator(2)(images, images)
    assert [tuple(score.shape) for score in score_maps(maps)] == [(2, 1, *shape) for shape in scores]
    assert MaskHead(2)(maps, size).shape == (2, *size)
    assert [tuple(score.shape) for score in score_maps(PatchGAN(2)(images, images))] == [(2, 1, *scores[0])]


@pytest.mark.parametrize(("network", "sides"), [(PatchGAN, [70]), (Discriminator, [70, 141, 283])])
def test_how_much_of_the_image_one_score_sees(network: type[nn.Module], sides: list[int]) -> None:
    """70×70 patches; a 3×3 pooling of stride 2 before makes n into 2n + 1."""
    judge = network(2, "batch").eval()
    for scale, side in enumerate(sides):
        other = torch.rand(1, 3, 384, 384, generator=seeded()).requires_grad_()
        score = score_maps(judge(other.detach(), other))[scale]
        (seen,) = torch.autograd.grad(score[0, 0, score.shape[2] // 2, score.shape[3] // 2], other)
        rows, columns = seen[0].abs().sum(dim=0).nonzero(as_tuple=True)
        assert [int(x.max() - x.min()) + 1 for x in (rows, columns)] == [side, side]


def test_every_convolution_but_the_last_has_spectral_norm_one() -> None:
    for network, free in ((Generator(4, 1), 1), (Discriminator(4), 3), (MaskHead(4), 1)):
        for _ in range(200):  # power iterations
            for module in network.modules():
                if nn.utils.parametrize.is_parametrized(module):
                    _ = module.weight
        plain = 0
        for module in network.modules():
            if not isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                continue
            if not nn.utils.parametrize.is_parametrized(module):
                plain += 1
                continue
            weight = module.weight.detach()
            matrix = (weight.transpose(0, 1) if isinstance(module, nn.ConvTranspose2d) else weight).flatten(1)
            assert torch.linalg.matrix_norm(matrix, ord=2).item() == pytest.approx(1.0, abs=0.05)
        assert plain == free


def test_the_generator_starts_unsaturated() -> None:
    noise = Generator(16, 2)(torch.rand(4, 3, 64, 32, generator=seeded()))
    assert (noise.abs() > 0.95).float().mean() < 0.01
    assert noise.abs().mean() > 0.05


# mask


@given(k=st.integers(1, 80), seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_the_mask_has_exactly_k_ones(k: int, seed: int) -> None:
    logits = torch.randn(3, 8, 6, generator=seeded(seed)).mul(3).round()  # with ties
    mask = straight_through_top_k(logits + gumbel(logits.shape, seeded(seed)), k)
    for result in (mask, top_k(logits, k)):
        assert result.shape == (3, 1, 8, 6)
        assert set(result.unique().tolist()) <= {0.0, 1.0}
        assert result.sum(dim=(1, 2, 3)).tolist() == [min(k, 48)] * 3
    kept = torch.where(top_k(logits, k)[:, 0] == 1, logits, torch.inf).flatten(1).amin(1)
    dropped = torch.where(top_k(logits, k)[:, 0] == 0, logits, -torch.inf).flatten(1).amax(1)
    assert (kept >= dropped).all()


def test_the_mask_passes_the_gradient_of_the_softmax() -> None:
    weights = torch.randn(1, 1, 4, 3, dtype=torch.float64, generator=seeded(1))
    logits = torch.randn(1, 4, 3, dtype=torch.float64, generator=seeded(2)).requires_grad_()
    (straight_through_top_k(logits, 5) * weights).sum().backward()
    assert logits.grad is not None

    def soft(values: Tensor) -> float:
        exponentials = values.exp()
        return float((exponentials / exponentials.sum() * weights[0, 0]).sum())

    step = 1e-6
    for row in range(4):
        for column in range(3):
            bump = torch.zeros(4, 3, dtype=torch.float64)
            bump[row, column] = step
            slope = (soft(logits.detach()[0] + bump) - soft(logits.detach()[0] - bump)) / (2 * step)
            assert logits.grad[0, row, column].item() == pytest.approx(slope, abs=1e-8)


def test_gumbel_noise_has_the_gumbel_distribution() -> None:
    drawn = gumbel(torch.Size([200_000]), seeded())
    assert drawn.mean().item() == pytest.approx(0.57722, abs=0.01)
    assert drawn.var().item() == pytest.approx(math.pi**2 / 6, abs=0.03)


# losses


def slow_misranking(anchors: Tensor, references: Tensor, identities: list[int], margin: float) -> float:
    def square(a: Tensor, b: Tensor) -> float:
        return sum((x - y) ** 2 for x, y in zip(a.tolist(), b.tolist(), strict=True))

    total = 0.0
    for i, identity in enumerate(identities):
        different = [square(anchors[i], references[j]) for j, other in enumerate(identities) if other != identity]
        same = [square(anchors[i], references[j]) for j, o in enumerate(identities) if o == identity and j != i]
        total += max(0.0, max(different) - min(same) + margin)
    return total / len(identities)


@given(seed=st.integers(0, 10_000), margin=st.floats(0, 3), scale=st.floats(0.1, 3))
@settings(max_examples=25, deadline=None)
def test_misranking_loss(seed: int, margin: float, scale: float) -> None:
    identities = [0, 0, 0, 1, 1, 2, 2]
    anchors = scale * torch.randn(7, 3, dtype=torch.float64, generator=seeded(seed))
    references = torch.randn(7, 3, dtype=torch.float64, generator=seeded(seed + 1))
    labels = torch.tensor(identities)
    for other in (anchors, references):
        expected = slow_misranking(anchors, other, identities, margin)
        assert losses.misranking_loss(anchors, other, labels, margin).item() == pytest.approx(expected, abs=1e-9)
    unit = [x / x.norm(dim=1, keepdim=True) for x in (anchors, references)]
    expected = slow_misranking(unit[0], unit[1], identities, margin)
    cosine = losses.misranking_loss(anchors, references, labels, margin, "cosine").item()
    assert cosine == pytest.approx(expected, abs=1e-9)


def test_free_features_end_misranked_and_not_collapsed() -> None:
    identities = torch.arange(4).repeat_interleave(3)
    same = (identities[:, None] == identities) & ~torch.eye(12, dtype=torch.bool)
    different = identities[:, None] != identities

    def optimise(self_pair: bool) -> tuple[float, float]:
        features = torch.randn(12, 8, generator=seeded(3)).requires_grad_()
        optimiser = torch.optim.Adam([features], 0.02)
        for _ in range(300):
            optimiser.zero_grad()
            if self_pair:  # what the released code does: the nearest of the same identity is the anchor itself
                squares = distances(features, features, "euclidean").masked_fill(~different, -torch.inf)
                loss = (squares.amax(1) + 0.3).mean().log()
            else:
                loss = losses.misranking_loss(features, features, identities)
            loss.backward()
            optimiser.step()
        apart = torch.cdist(features, features).detach()
        return apart[same].mean().item(), apart[different].mean().item()

    near, far = optimise(self_pair=False)
    assert near > far > 0.5
    collapsed_near, collapsed_far = optimise(self_pair=True)
    assert max(collapsed_near, collapsed_far) < 0.3


@given(seed=st.integers(0, 10_000), smoothing=st.floats(0, 1))
@settings(max_examples=25, deadline=None)
def test_misclassification_loss(seed: int, smoothing: float) -> None:
    clean = torch.randn(5, 4, dtype=torch.float64, generator=seeded(seed))
    adversarial = torch.randn(5, 4, dtype=torch.float64, generator=seeded(seed + 1))
    true = torch.randint(0, 4, (5,), generator=seeded(seed + 2))
    total = 0.0
    for i in range(5):
        candidates = [c for c in range(4) if c != true[i]]
        aim = min(candidates, key=lambda c, row=clean[i]: row[c].item())
        normaliser = math.log(sum(math.exp(z) for z in adversarial[i].tolist()))
        for c in range(4):
            target = (1 - smoothing) * (c == aim) + smoothing * (0 if c == true[i] else 1 / 3)
            total -= target * (adversarial[i, c].item() - normaliser)
    target = losses.misclassification_target(clean, true, smoothing)
    assert target.sum(1).tolist() == pytest.approx([1.0] * 5)
    assert target.gather(1, true[:, None]).abs().max() == 0
    assert losses.misclassification_loss(adversarial, target).item() == pytest.approx(total / 5, abs=1e-9)


def test_gan_losses_weigh_every_scale_alike() -> None:
    real = [torch.randn(2, 1, 3 * n, n, generator=seeded(n)) for n in (4, 2, 1)]
    fake = [torch.randn(2, 1, 3 * n, n, generator=seeded(n + 9)) for n in (4, 2, 1)]

    def slow(scores: list[Tensor], aim: float) -> float:
        per_scale = []
        for score in scores:
            values = [(value - aim) ** 2 for value in score.flatten().tolist()]
            per_scale.append(sum(values) / len(values))
        return sum(per_scale) / 3

    assert losses.generator_gan_loss(fake).item() == pytest.approx(slow(fake, 1), rel=1e-5)
    expected = (slow(real, 1) + slow(fake, 0)) / 2
    assert losses.discriminator_gan_loss(real, fake).item() == pytest.approx(expected, rel=1e-5)


def test_perception_loss() -> None:
    clean = torch.rand(3, 3, 32, 16, generator=seeded())
    other = (clean + 0.1 * torch.randn(clean.shape, generator=seeded(1))).clamp(0, 1)
    for kind, similarity in (("ms-ssim", ms_ssim), ("ssim", ssim)):
        expected = 1 - sum(similarity(clean[i : i + 1], other[i : i + 1]).item() for i in range(3)) / 3
        assert losses.perception_loss(clean, other, kind).item() == pytest.approx(expected, abs=1e-5)
        assert losses.perception_loss(clean, clean, kind).item() == pytest.approx(0, abs=1e-5)
    assert losses.perception_loss(clean, other, "none").item() == 0


@pytest.mark.parametrize("references", ["adversarial", "clean"])
def test_the_objective_adds_up(references: str) -> None:
    config = changed(
        TINY,
        references=references,
        gan_weight=0.7,
        reid_weight=3.0,
        misranking_weight=2.0,
        misclassification_weight=0.5,
        perception_weight=0.4,
        distance="cosine",
    )
    source, data = ToyVictim(), toy_data()
    clean, identities = data.batch([0, 1, 4, 5, 8, 9])
    networks = fresh_networks(config, ThreatModel(16), seeded(), CPU).eval()
    with torch.no_grad():
        objective = Objective(config, source, networks, ThreatModel(16), seeded(), "toy", CLASSES)
        total = objective(clean, identities)
        adversarial = (clean + 16 / 255 * networks.generator(clean)).clamp(0, 1)
        anchors = source.embed(adversarial)
        compared = anchors if references == "adversarial" else source.embed(clean)
        ranking = losses.misranking_loss(anchors, compared, identities, 0.3, "cosine")
        target = losses.misclassification_target(source.classifier(source.embed(clean)), identities)
        classification = losses.misclassification_loss(source.classifier(anchors), target)
        fake = score_maps(networks.discriminator(clean, adversarial))
        assert (identities[:3] != identities[3:]).all()
        real = score_maps(networks.discriminator(clean[:3], clean[3:]))  # two people, as in the paper
        perception = losses.perception_loss(clean, adversarial, "ms-ssim")
    expected = 0.7 * losses.generator_gan_loss(fake) + 3 * (2 * ranking + 0.5 * classification) + 0.4 * perception
    assert total.generator.item() == pytest.approx(expected.item(), rel=1e-5)
    assert total.discriminator.item() == pytest.approx(losses.discriminator_gan_loss(real, fake).item(), rel=1e-5)
    assert total.largest_noise == pytest.approx((adversarial - clean).abs().max().item())


# crafting


def random_state(config: MisRanking, threat: ThreatModel, seed: int = 0) -> State:
    """Fresh weights, with a last layer far into the tanh so that the budget binds."""
    networks = fresh_networks(config, threat, seeded(seed), CPU)
    last = [module for module in networks.generator.modules() if isinstance(module, nn.Conv2d)][-1]
    with torch.no_grad():
        last.weight.mul_(1e5)
    return dict(networks.kept.state_dict())


@pytest.mark.e2e
@given(
    epsilon=st.integers(0, 255),
    pixels=st.none() | st.integers(1, 700),
    seed=st.integers(0, 50),
    size=st.sampled_from([(32, 16), (24, 17), (31, 21)]),
)
@settings(max_examples=25, deadline=None)
def test_budgets_hold_in_8_bits(epsilon: int, pixels: int | None, seed: int, size: tuple[int, int]) -> None:
    threat = ThreatModel(epsilon, pixels)
    levels = torch.randint(0, 256, (2, 3, *size), generator=seeded(seed))
    levels[0, :, :8] = torch.randint(0, 2, (3, 8, size[1]), generator=seeded(seed)) * 255  # black and white
    crafted = TINY.craft(
        ToyVictim(), Batch(levels / 255.0), threat, seeded(), random_state(TINY, ThreatModel(8, pixels), seed)
    )
    assert crafted.min() >= 0
    assert crafted.max() <= 1
    stored = crafted * 255
    assert torch.allclose(stored, stored.round(), atol=1e-4, rtol=0)
    change = stored.round().long() - levels
    assert change.abs().max() <= epsilon
    touched = (change != 0).any(dim=1).flatten(1).sum(1)
    if pixels is not None:
        assert touched.max() <= pixels
    if epsilon >= 16 and (pixels or 700) >= 100:  # of a few pixels, those already white or black may be most
        assert touched.min() >= 0.8 * min(pixels or math.inf, size[0] * size[1])
        assert change.max() == epsilon or pixels is not None
        assert change.min() == -epsilon or pixels is not None


@pytest.mark.parametrize("pixels", [None, 60])
@pytest.mark.parametrize("normalisation", ["batch", "instance"])
def test_crafting_is_deterministic_and_every_image_alone(pixels: int | None, normalisation: str) -> None:
    config, threat = changed(TINY, normalisation=normalisation), ThreatModel(16, pixels)
    state = random_state(config, threat)
    before = {name: tensor.clone() for name, tensor in state.items()}
    images = toy_data(64, 32).batch(range(5))[0]
    global_state = torch.random.get_rng_state()
    together = config.craft(ToyVictim(), Batch(images), threat, seeded(1), state)
    again = config.craft(ToyVictim(), Batch(images), threat, seeded(2), state)
    assert torch.equal(together, again)
    assert not torch.equal(together, images)
    order = [3, 0]
    assert torch.equal(config.craft(ToyVictim(), Batch(images[order]), threat, seeded(), state), together[order])
    assert torch.equal(torch.random.get_rng_state(), global_state)
    assert all(torch.equal(state[name], before[name]) for name in state)
    assert config.craft(ToyVictim(), Batch(images[:0]), threat, seeded(), state).shape == (0, 3, 64, 32)


# training


@pytest.mark.e2e
@pytest.mark.parametrize("pixels", [None, 100])
def test_fit_is_reproducible_and_leaves_the_victim_alone(pixels: int | None) -> None:
    source = ToyVictim()
    before = {name: tensor.clone() for name, tensor in source.state_dict().items()}
    torch.manual_seed(0)
    first = fit(TINY, ThreatModel(16, pixels), source)
    torch.manual_seed(1)
    second = fit(TINY, ThreatModel(16, pixels))
    other = fit(TINY, ThreatModel(16, pixels), seed=1)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    assert all(torch.equal(before[name], tensor) for name, tensor in source.state_dict().items())
    assert all(parameter.grad is None for parameter in source.parameters())
    assert {name.split(".")[0] for name in first} == (
        {"generator", "history"} if pixels is None else {"generator", "discriminator", "mask_head", "history"}
    )
    assert all(tensor.is_contiguous() for tensor in first.values())


def test_every_part_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """All three scales and the mask head, which the released code leaves at their initialisation in part."""
    made: list[nn.Module] = []
    start: list[State] = []
    build = fresh_networks

    def spy(*arguments: object) -> nn.Module:
        networks = build(*arguments)  # type: ignore[arg-type]
        made.append(networks)
        start.append({name: p.detach().clone() for name, p in networks.named_parameters()})
        return networks

    monkeypatch.setattr(attack, "fresh_networks", spy)
    fit(TINY, ThreatModel(16, 100))
    (networks,), (before,) = made, start
    for name, parameter in networks.named_parameters():
        if "norm" not in name and parameter.ndim < 2 and name.endswith("bias"):
            continue  # a bias before a normalisation has no effect, and no gradient beyond rounding
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
        assert not torch.equal(parameter, before[name]), name


@pytest.mark.e2e
def test_the_mask_head_learns_through_the_straight_through_gradient() -> None:
    """Only bright pixels pay: the head must come to choose them, without noise at test time."""
    images, generator = toy_data().batch(range(24))[0], seeded()
    bright = (images[:, 0] > 0.5).float()
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(0)
        discriminator, head = Discriminator(4), MaskHead(4)
    optimiser = torch.optim.Adam(head.parameters(), 5e-3, (0.5, 0.999))
    shares = []
    for _ in range(30):
        with torch.no_grad():
            maps = discriminator(images, images)
        logits = head(maps, (32, 16))
        mask = straight_through_top_k(logits + gumbel(logits.shape, generator), 64)
        optimiser.zero_grad()
        (-(mask[:, 0] * bright).mean()).backward()
        optimiser.step()
        shares.append(((top_k(logits, 64)[:, 0] * bright).sum() / (64 * 24)).item())
    assert shares[0] < 0.7
    assert shares[-1] > 0.9


@pytest.mark.e2e
@pytest.mark.parametrize("references", ["adversarial", "clean"])
def test_training_inverts_the_ranking(references: str) -> None:
    config = changed(
        TINY, width=8, steps=60, learning_rate=3e-3, references=references, misclassification_weight=0.0, gan_weight=0.1
    )
    source, threat = ToyVictim(None), ThreatModel(32)
    notes: list[str] = []
    state = fit(config, threat, source, notes=notes)
    objective = [float(note.split()[1]) for note in notes]
    assert len(notes) == 60
    assert np.mean(objective[-10:]) < 0.8 * np.mean(objective[:5])
    images, identities = toy_data().batch(range(24))
    crafted = config.craft(source, Batch(images), threat, seeded(), state)
    clean_features, features = source.embed(images), source.embed(crafted)
    noise = (images + 32 / 255 * (2 * torch.rand(images.shape, generator=seeded()) - 1)).clamp(0, 1)
    moved = (features - clean_features).norm(dim=1).mean()
    assert moved > 3 * (source.embed(noise) - clean_features).norm(dim=1).mean()
    trained, untrained = (
        losses.misranking_loss(f, f if references == "adversarial" else clean_features, identities)
        for f in (features, clean_features)
    )
    assert trained < 0.8 * untrained


def test_the_annealed_mask_comes_down_geometrically_and_then_stays() -> None:
    images, threat, annealed = torch.zeros(1, 3, 32, 16), ThreatModel(16, 8), changed(TINY, pixel_schedule="annealed")
    assert [mask_size(annealed, threat, images, done, 12) for done in range(12)] == [512, 256, 128, 64, 32, 16] + 6 * [
        8
    ]
    direct = changed(TINY, pixel_schedule="direct")
    assert {mask_size(direct, threat, images, done, 12) for done in range(12)} == {8}
    assert MisRanking().pixel_schedule == "direct", "the paper does not anneal"
    assert mask_size(annealed, ThreatModel(16), images, 0, 12) is None
    assert mask_size(annealed, ThreatModel(16, 600), images, 3, 12) == 600


@pytest.mark.e2e
def test_the_annealed_mask_is_trained_with(monkeypatch: pytest.MonkeyPatch) -> None:
    touched: list[int] = []
    adversarial = Networks.adversarial

    def spy(self: Networks, clean: Tensor, *arguments: object) -> Tensor:
        images = adversarial(self, clean, *arguments)  # type: ignore[arg-type]
        touched.append(int((images != clean).any(dim=1).flatten(1).sum(1).max()))
        return images

    monkeypatch.setattr(Networks, "adversarial", spy)
    fit(changed(TINY, steps=8, pixel_schedule="annealed"), ThreatModel(16, 32))
    assert touched == [512, 256, 128, 64, 32, 32, 32, 32]


trained_masks: dict[str, State] = {}


@pytest.mark.e2e
@given(pixels=st.integers(1, 512), schedule=st.sampled_from(["direct", "annealed"]), seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_a_trained_attack_never_changes_more_than_k_pixels(pixels: int, schedule: str, seed: int) -> None:
    """At any k, also one it was not trained for, in what the harness stores; and it is deterministic."""
    config = changed(TINY, pixel_schedule=schedule)
    state = trained_masks.get(schedule) or trained_masks.setdefault(schedule, fit(config, ThreatModel(16, 50)))
    levels = torch.randint(0, 256, (2, 3, 32, 16), generator=seeded(seed))
    threat, clean = ThreatModel(16, pixels), levels / 255.0
    crafted = config.craft(ToyVictim(), Batch(clean), threat, seeded(), state)
    stored = budget.enforce(crafted, to_uint8(clean), threat, attack="misranking")
    touched = (stored != to_uint8(clean)).any(axis=3).sum(axis=(1, 2))
    assert 0 < touched.max() <= pixels
    assert torch.equal(config.craft(ToyVictim(), Batch(clean), threat, seeded(1), state), crafted)


def test_an_empty_budget_needs_no_training() -> None:
    images = toy_data().batch(range(2))[0]
    state = fit(TINY, ThreatModel(0))
    assert torch.equal(TINY.craft(ToyVictim(), Batch(images), ThreatModel(0), seeded(), state), images)


def test_augmentation_flips_and_translates_some() -> None:
    images = torch.rand(200, 3, 16, 8, generator=seeded())
    result = flip_and_translate(images, seeded(1))
    assert result.shape == images.shape
    assert result.min() >= 0
    assert result.max() <= 1
    kept = (result == images).flatten(1).all(1)
    flipped = (result == images.flip(-1)).flatten(1).all(1)
    assert 25 <= kept.sum() <= 75
    assert 25 <= flipped.sum() <= 75


def test_patchgan_trains_and_crafts_and_has_no_mask() -> None:
    config, threat = changed(TINY, discriminator="patchgan"), ThreatModel(16)
    state, other = fit(config, threat), fit(TINY, threat)
    assert any(not torch.equal(state[name], other[name]) for name in state)
    images = toy_data().batch(range(2))[0]
    assert not torch.equal(config.craft(ToyVictim(), Batch(images), threat, seeded(), state), images)
    for use in (fit, random_state):
        with pytest.raises(BenchError, match="a budget of 60 pixels requires discriminator multi-stage"):
            use(config, ThreatModel(16, 60))


# errors


def test_divergence_is_reported() -> None:
    class Broken(ToyVictim):
        def embed(self, images: Tensor) -> Tensor:
            return super().embed(images) * torch.inf

    with pytest.raises(BenchError, match=r"not finite at step 1 of 3.*lower learning_rate \(0.0002\)"):
        fit(TINY, ThreatModel(16), Broken())


@pytest.mark.e2e
def test_vanished_noise_is_reported() -> None:
    config = changed(
        TINY, steps=300, learning_rate=0.03, reid_weight=0.0, gan_weight=0.0, perception="ssim", perception_weight=100.0
    )
    with pytest.raises(BenchError, match=r"the noise has vanished .* raise reid_weight \(0\)"):
        fit(config, ThreatModel(4))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch_instances": 1}, "batch_instances must be a whole number of at least 2, not 1"),
        ({"batch_identities": 1}, "batch_identities must be a whole number of at least 2"),
        ({"steps": 0}, "steps must be"),
        ({"real_pairs": "other"}, "real_pairs must be one of different, same"),
        ({"pixel_schedule": "linear"}, "pixel_schedule must be one of direct, annealed"),
        ({"discriminator": "pixel"}, "discriminator must be one of multi-stage, patchgan"),
        ({"normalisation": "layer"}, "normalisation must be one of batch, instance, not 'layer'"),
        ({"references": "both"}, "references must be one of adversarial, clean"),
        ({"label_smoothing": 1.5}, "label_smoothing must be a number from 0 to 1"),
        ({"reid_weight": float("nan")}, "reid_weight must be a number of at least 0"),
        ({"betas": [0.5, 1.0]}, r"betas\[1\] must be a number of at least 0 and below 1"),
        ({"learning_rate": 0.0}, "learning_rate must be a positive number"),
    ],
)
def test_wrong_settings_are_named(fields: dict[str, object], message: str) -> None:
    with pytest.raises(BenchError, match=message):
        changed(TINY, **fields)


def test_needs_follow_the_misclassification_loss() -> None:
    assert MisRanking().needs == {"gradients", "logits"}
    assert MisRanking(misclassification_weight=0).needs == {"gradients"}
    with pytest.raises(BenchError, match=r"has no classifier, .* set misclassification_weight to 0"):
        fit(TINY, ThreatModel(8), ToyVictim(None))
    with pytest.raises(BenchError, match="has a classifier of 1 class"):
        fit(TINY, ThreatModel(8), ToyVictim(1))


@pytest.mark.e2e
def test_labels_of_other_data_are_not_taken_for_the_source_s_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that knows other people is attacked away from the class it predicts; its own labels count at home."""
    seen: list[Tensor] = []
    target = losses.misclassification_target

    def spy(logits: Tensor, true: Tensor, smoothing: float) -> Tensor:
        seen.append(torch.stack([logits.argmax(dim=1), true]))
        return target(logits, true, smoothing)

    monkeypatch.setattr(losses, "misclassification_target", spy)
    for trained_on, classes, own in (
        ("toy", CLASSES, True),
        ("", CLASSES, True),
        ("other", CLASSES, False),
        ("", 2, False),
    ):
        source = ToyVictim(classes)
        source.trained_on = trained_on
        seen.clear()
        fit(TINY, ThreatModel(8), source)
        assert all(torch.equal(predicted, true) for predicted, true in seen) != own


def test_wrong_states_are_refused() -> None:
    batch = Batch(toy_data().batch(range(2))[0])
    state = random_state(TINY, ThreatModel(8))
    with pytest.raises(BenchError, match="call fit"):
        TINY.craft(ToyVictim(), batch, ThreatModel(8), seeded())
    with pytest.raises(BenchError, match="without a pixel budget"):
        TINY.craft(ToyVictim(), batch, ThreatModel(8, 10), seeded(), state)
    with pytest.raises(BenchError, match="does not belong to these settings"):
        changed(TINY, width=5).craft(ToyVictim(), batch, ThreatModel(8), seeded(), state)
    with pytest.raises(BenchError, match="at least 16×16"):
        TINY.craft(ToyVictim(), Batch(batch.images[..., :12]), ThreatModel(8), seeded(), state)


def test_decay_ends_near_zero_and_none_is_constant() -> None:
    assert [_decay(0.0, step, 10) for step in range(10)] == [1.0] * 10
    factors = [_decay(0.5, step, 10) for step in range(10)]
    assert factors[:6] == [1.0] * 6
    np.testing.assert_allclose(factors[5:], [1.0, 0.8, 0.6, 0.4, 0.2])


@pytest.mark.e2e
@pytest.mark.parametrize("pixels", [None, 40])
def test_bfloat16_trains_close_to_float32_and_stores_float32(pixels: int | None) -> None:
    threat = ThreatModel(16, pixels)
    exact = fit(changed(TINY, steps=2), threat)
    rough = fit(changed(TINY, steps=2, precision="bfloat16"), threat)
    assert all(tensor.dtype == exact[name].dtype for name, tensor in rough.items())
    assert any(not torch.equal(tensor, exact[name]) for name, tensor in rough.items())
    before = fit(changed(TINY, steps=2), ThreatModel(0, pixels))  # untrained: nothing to learn within epsilon 0
    name = "generator.body.1.parametrizations.weight.original"
    moved, apart = (exact[name] - before[name]).norm(), (rough[name] - exact[name]).norm()
    assert apart < 0.5 * moved

"""Each behaviour of the released Deep Mis-Ranking code, against a literal transcription of its formula."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from reid_attack_bench.adversary import budget
from reid_attack_bench.attacks.misranking import MisRanking, attack, losses, objective, released
from reid_attack_bench.attacks.misranking.discriminators import score_maps
from reid_attack_bench.attacks.misranking.networks import Networks, fresh_networks
from reid_attack_bench.attacks.misranking.objective import Losses, Objective
from reid_attack_bench.contracts import Batch, FitContext, ThreatModel, to_uint8
from reid_attack_bench.errors import BenchError
from tests.attacks.test_misranking import CLASSES, CPU, TINY, ToyVictim, changed, fit, random_state, seeded, toy_data

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def only(*names: str, **fields: object) -> MisRanking:
    return changed(TINY, released=names, **fields)


def objective_of(config: MisRanking, seed: int = 0, threat: ThreatModel | None = None) -> Objective:
    threat = threat or ThreatModel(16)
    networks = fresh_networks(config, threat, seeded(seed), CPU)
    return Objective(config, ToyVictim(), networks, threat, seeded(), "toy", CLASSES)


def evaluate(config: MisRanking) -> tuple[Losses, Objective, Tensor, Tensor]:
    """The losses of one batch of three people with two images each, the networks in eval mode."""
    objective = objective_of(config)
    objective.networks.eval()
    clean, identities = toy_data().batch([0, 1, 4, 5, 8, 9])
    with torch.no_grad():
        return objective(clean, identities), objective, clean, identities


# the two ReID losses


def triplet(features: Tensor, identities: list[int], margin: float, with_self: bool, root: bool) -> float:
    def apart(a: Tensor, b: Tensor) -> float:
        square = sum((x - y) ** 2 for x, y in zip(a.tolist(), b.tolist(), strict=True))
        return math.sqrt(square) if root else square

    total = 0.0
    for i, own in enumerate(identities):
        far = max(apart(features[i], features[j]) for j, other in enumerate(identities) if other != own)
        same = [j for j, other in enumerate(identities) if other == own and (with_self or j != i)]
        near = min(apart(features[i], features[j]) for j in same)
        total += max(0.0, far - near + margin)
    return total / len(identities)


@given(seed=st.integers(0, 1000), margin=st.floats(0.05, 2))
@settings(max_examples=15, deadline=None)
def test_self_pair_and_log_losses(seed: int, margin: float) -> None:
    features = torch.randn(6, 4, dtype=torch.float64, generator=seeded(seed)).requires_grad_()
    people = [0, 0, 1, 1, 2, 2]

    def ours(self_pair: bool, log_losses: bool) -> Tensor:
        return released.misranking_loss(
            features, features, torch.tensor(people), margin, "euclidean", self_pair=self_pair, log_losses=log_losses
        )

    assert ours(True, False).item() == pytest.approx(triplet(features, people, margin, True, False))
    assert ours(True, True).item() == pytest.approx(math.log(triplet(features, people, margin, True, True)), abs=1e-5)
    ours(True, True).backward()
    assert features.grad is not None
    assert features.grad.isfinite().all()  # the root of the self pair's 0 has none of its own


def test_log_losses_and_raw_embeddings_reach_the_objective() -> None:
    both = {"misclassification_weight": 0.5, "reid_weight": 3.0, "gan_weight": 0.0, "perception": "none"}
    config = only("self_pair", "log_losses", **both)
    now, objective, clean, identities = evaluate(config)
    source = objective.source
    with torch.no_grad():
        adversarial = (clean + 16 / 255 * objective.networks.generator(clean)).clamp(0, 1)
        features = source.embed(adversarial)
        target = losses.misclassification_target(source.logits(clean), identities)
        entropy = losses.misclassification_loss(source.logits(adversarial), target)
    ranking = math.log(triplet(features, identities.tolist(), 0.3, True, True))
    assert now.parts["mis-ranking"].item() == pytest.approx(3 * ranking, rel=1e-4)
    assert now.parts["misclassification"].item() == pytest.approx(1.5 * entropy.log().item(), rel=1e-4)

    for raw in (False, True):
        config = only("self_pair", *(["raw_embeddings"] if raw else []), **both)
        objective = objective_of(config)
        objective.networks.eval()
        objective.source.distance = "cosine"  # the paper ranks where the victim does
        with torch.no_grad():
            got = objective(clean, identities).parts["mis-ranking"].item()
        compared = features if raw else features / features.norm(dim=1, keepdim=True)
        assert got == pytest.approx(3 * triplet(compared, identities.tolist(), 0.3, True, False), rel=1e-3)


@given(seed=st.integers(0, 1000), smoothing=st.floats(0, 1), moving=st.booleans(), batch=st.booleans())
@settings(max_examples=25, deadline=None)
def test_moving_target_and_batch_smoothing(seed: int, smoothing: float, moving: bool, batch: bool) -> None:
    clean, adversarial = (torch.randn(4, 7, dtype=torch.float64, generator=seeded(seed + i)) for i in range(2))
    true = [0, 0, 3, 3]
    got = released.misclassification_target(
        clean, adversarial, torch.tensor(true), smoothing, moving_target=moving, batch_smoothing=batch
    )
    for row in range(4):
        looked_at = adversarial if moving else clean
        classes = range(7) if moving else [c for c in range(7) if c != true[row]]
        aim = min(classes, key=lambda c, x=looked_at[row]: x[c].item())
        for c in range(7):
            left_out = c in true if batch else c == true[row]
            expected = (1 - smoothing) * (c == aim) + smoothing * (0 if left_out else 1 / 6)
            assert got[row, c].item() == pytest.approx(expected)


@pytest.mark.parametrize("name", ["moving_target", "batch_smoothing"])
def test_targets_reach_the_objective(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, bool]] = []
    target = released.misclassification_target

    def spy(*arguments: Any, **switches: bool) -> Tensor:
        seen.append(switches)
        return target(*arguments, **switches)

    monkeypatch.setattr(released, "misclassification_target", spy)
    evaluate(TINY)
    assert seen == []
    evaluate(only(name))
    assert seen == [{"moving_target": name == "moving_target", "batch_smoothing": name == "batch_smoothing"}]


# perception


def window_means(image: Tensor, side: int, sigma: float = 1.5) -> list[tuple[float, Any]]:
    """(weight, position) of every offset of a Gaussian window centred at side // 2."""
    bell = [math.exp(-((i - side // 2) ** 2) / (2 * sigma**2)) for i in range(side)]
    total = sum(bell)
    return [(bell[y] * bell[x] / total**2, (y, x)) for y in range(side) for x in range(side)]


def slow_ms_ssim(clean: Tensor, adversarial: Tensor) -> float:
    """Position by position, on normalised images: range 2, batch mean before the powers, last SSIM in each factor."""
    shift, scale = torch.tensor(MEAN).view(3, 1, 1).double(), torch.tensor(STD).view(3, 1, 1).double()
    x, y = (clean.double() - shift) / scale, (adversarial.double() - shift) / scale
    exponents = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
    c1, c2 = 0.02**2, 0.06**2
    structures, similarities = [], []
    for _ in exponents:
        height, width = x.shape[-2:]
        side = min(11, height, width)
        weights = window_means(x, side)
        cs, full = [], []
        for top in range(height - side + 1):
            for left in range(width - side + 1):

                def mean(values: Tensor, top: int = top, left: int = left, weights: Any = weights) -> Tensor:
                    return sum(w * values[..., top + dy, left + dx] for w, (dy, dx) in weights)

                mx, my = mean(x), mean(y)
                vx, vy, vxy = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
                part = (2 * vxy + c2) / (vx + vy + c2)
                cs.append(part)
                full.append((2 * mx * my + c1) / (mx**2 + my**2 + c1) * part)
        structures.append(torch.stack(cs).mean().item())
        similarities.append(torch.stack(full).mean().item())

        def halved(images: Tensor) -> Tensor:
            even = images[..., : images.shape[-2] // 2 * 2, : images.shape[-1] // 2 * 2]
            return (even[..., ::2, ::2] + even[..., 1::2, ::2] + even[..., ::2, 1::2] + even[..., 1::2, 1::2]) / 4

        if height > 1:
            x, y = halved(x), halved(y)
    result = 1.0
    for level in range(4):
        result *= structures[level] ** exponents[level] * similarities[4] ** exponents[4]
    return result


@pytest.mark.e2e
def test_normalised_ms_ssim() -> None:
    clean = torch.rand(2, 3, 16, 17, generator=seeded(), dtype=torch.float64)
    noise = 0.2 * torch.randn(clean.shape, generator=seeded(1), dtype=torch.float64)
    other = clean + noise
    assert released.ms_ssim(clean, other).item() == pytest.approx(slow_ms_ssim(clean, other), rel=1e-6)
    assert released.ms_ssim(clean, clean).item() == pytest.approx(1)
    with_it, without = (evaluate(config)[0].parts["perception"] for config in (only("normalised_ms_ssim"), TINY))
    _, objective, batch, _ = evaluate(TINY)
    with torch.no_grad():
        adversarial = (batch + 16 / 255 * objective.networks.generator(batch)).clamp(0, 1)
    assert with_it.item() == pytest.approx(0.1 * (1 - slow_ms_ssim(batch, adversarial)), rel=1e-3)
    assert with_it.item() != pytest.approx(without.item(), rel=0.05)


# GAN


def test_quarter_scale_alone_is_read_and_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    now, objective, clean, _ = evaluate(only("quarter_scale"))
    with torch.no_grad():
        adversarial = (clean + 16 / 255 * objective.networks.generator(clean)).clamp(0, 1)
        pairs = ((clean, adversarial), (clean[:3], clean[3:]))
        fake, real = (score_maps(objective.networks.discriminator(*pair))[2] for pair in pairs)
    assert now.parts["gan"].item() == pytest.approx((fake - 1).square().mean().item(), rel=1e-5)
    expected = ((real - 1).square().mean() + fake.square().mean()).item() / 2
    assert now.discriminator.item() == pytest.approx(expected, rel=1e-5)

    learnt = moved_parts(only("quarter_scale"), ThreatModel(16), monkeypatch)
    assert {name for name in learnt if "scales" in name} == {"discriminator.scales.2"}


@pytest.mark.parametrize(("settings_", "same"), [({}, False), ({"real_pairs": "same"}, True)])
def test_the_real_pair_is_two_people_or_one(settings_: dict[str, object], same: bool) -> None:
    now, objective, clean, identities = evaluate(changed(TINY, **settings_))
    first, other = (range(6), [1, 0, 3, 2, 5, 4]) if same else (range(3), range(3, 6))
    assert ((identities[list(first)] == identities[list(other)]) == same).all()
    with torch.no_grad():
        adversarial = (clean + 16 / 255 * objective.networks.generator(clean)).clamp(0, 1)
        fake = score_maps(objective.networks.discriminator(clean, adversarial))
        real = score_maps(objective.networks.discriminator(clean[list(first)], clean[list(other)]))
    assert now.discriminator.item() == pytest.approx(losses.discriminator_gan_loss(real, fake).item(), rel=1e-5)
    differs = changed(TINY, real_pairs="different" if same else "same")
    assert now.discriminator.item() != pytest.approx(evaluate(differs)[0].discriminator.item(), rel=1e-4)


@pytest.mark.parametrize(("people", "each"), [(2, 2), (3, 3), (5, 3), (8, 4)])
def test_real_pairs_of_two_people_never_show_one(people: int, each: int) -> None:
    identities = torch.arange(people).repeat_interleave(each).view(-1, 1, 1, 1)
    config = changed(TINY, batch_identities=people, batch_instances=each)
    first, other = objective.real_pairs(identities, config)
    assert (first != other).all()
    first, other = objective.real_pairs(identities, changed(config, real_pairs="same"))
    assert (first == other).all()


# networks


def test_the_zero_padded_pyramid() -> None:
    networks, plain = (fresh_networks(c, ThreatModel(16), seeded(), CPU) for c in (only("zero_padded_pyramid"), TINY))
    pair = torch.rand(2, 6, 32, 16, generator=seeded())
    seen: list[Tensor] = []
    for each in (networks, plain):
        handle = each.discriminator.scales[1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        each.judged(pair[:, :3], pair[:, 3:])
        handle.remove()
    for got, mode in zip(seen, ("constant", "replicate"), strict=True):
        larger = nn.functional.pad(2 * pair - 1, (0, 1, 0, 1), mode=mode)
        for y, x in ((0, 0), (15, 3), (15, 7), (4, 7)):
            window = larger[..., 2 * y : 2 * y + 3, 2 * x : 2 * x + 3]
            assert torch.allclose(got[..., y, x], window.mean((-2, -1)), atol=1e-6)
    assert torch.allclose(seen[0][..., :15, :7], seen[1][..., :15, :7])
    assert not torch.allclose(seen[0][..., 15, :], seen[1][..., 15, :], atol=0.01)


def test_the_normalised_input_reaches_both_networks() -> None:
    networks = fresh_networks(only("normalised_input"), ThreatModel(16, 60), seeded(), CPU).eval()
    clean = torch.rand(2, 3, 32, 16, generator=seeded())
    seen: dict[str, Tensor] = {}
    first = {"generator": networks.generator.body[1], "discriminator": networks.discriminator.scales[0].layers[0]}
    for name, layer in first.items():
        layer.register_forward_pre_hook(lambda _, inputs, name=name: seen.setdefault(name, inputs[0]))
    networks.adversarial(clean, ThreatModel(16, 60))
    expected = torch.stack([(clean[:, c] - MEAN[c]) / STD[c] for c in range(3)], dim=1)
    assert torch.allclose(seen["generator"][..., 3:-3, 3:-3], expected, atol=1e-5)
    assert torch.allclose(seen["discriminator"][:, :3], expected, atol=1e-5)


def test_the_spectral_norm_of_transposed_convolutions_is_by_input_channels() -> None:
    threat = ThreatModel(16, 60)
    for config, by_rows in ((only("spectral_dimension"), True), (TINY, False)):
        networks = fresh_networks(config, threat, seeded(), CPU).train()
        transposed = [m for m in networks.modules() if isinstance(m, nn.ConvTranspose2d)]
        assert len(transposed) == 4
        for module in transposed:
            for _ in range(30):
                weight = module.weight.detach()  # each access in training is one power iteration
            by_input, by_output = weight.flatten(1), weight.transpose(0, 1).flatten(1)
            one, other = (by_input, by_output) if by_rows else (by_output, by_input)
            assert torch.linalg.matrix_norm(one, 2).item() == pytest.approx(1, abs=1e-3)
            assert torch.linalg.matrix_norm(other, 2).item() != pytest.approx(1, abs=1e-2)


def moved_parts(config: MisRanking, threat: ThreatModel, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The parts (and scales of the discriminator) of which a fit changes any weight."""
    made: list[tuple[Networks, dict[str, Tensor]]] = []
    build = fresh_networks

    def spy(*arguments: Any) -> Networks:
        networks = build(*arguments)
        made.append((networks, {name: p.detach().clone() for name, p in networks.named_parameters()}))
        return networks

    monkeypatch.setattr(attack, "fresh_networks", spy)
    fit(config, threat)
    networks, before = made[0]
    moved = {name for name, p in networks.named_parameters() if not torch.equal(p, before[name])}
    return {".".join(name.split(".")[: 3 if "scales" in name else 1]) for name in moved}


# mask


def test_the_mask_head_stays_untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    threat = ThreatModel(16, 60)
    assert "mask_head" in moved_parts(TINY, threat, monkeypatch)
    assert "mask_head" not in moved_parts(only("untrained_mask"), threat, monkeypatch)


def test_gumbel_noise_at_test_chooses_other_pixels_of_the_same_number() -> None:
    threat, clean = ThreatModel(32, 60), toy_data(64, 32).batch(range(3))[0]
    config = only("gumbel_at_test")
    state = random_state(config, threat)

    def touched(seed: int) -> Tensor:
        crafted = config.craft(ToyVictim(), Batch(clean), threat, seeded(seed), state)
        return (crafted != clean).any(dim=1)

    first, again, other = touched(0), touched(0), touched(1)
    assert torch.equal(first, again)
    assert first.flatten(1).sum(1).tolist() == other.flatten(1).sum(1).tolist() == [60] * 3
    assert (first & other).sum() < 0.5 * first.sum()


# the bound


@given(seed=st.integers(0, 1000), epsilon=st.integers(0, 255), spread=st.sampled_from([0.01, 1.0, 30.0]))
@settings(max_examples=20, deadline=None)
def test_the_asymmetric_bound(seed: int, epsilon: int, spread: float) -> None:
    z = spread * torch.randn(2, 3, 5, 4, dtype=torch.float64, generator=seeded(seed))
    got = released.bounded_noise(z, epsilon / 255, asymmetric_bound=True, straight_through=False)
    for n in range(2):
        for c in range(3):
            raw = [(math.tanh(v) + 1) / 2 - MEAN[c] for v in z[n, c].flatten().tolist()]
            scale = min(1.0, (epsilon / 255) / max(abs(v) for v in raw))
            assert got[n, c].flatten().tolist() == pytest.approx([scale * v for v in raw], abs=1e-12)
    assert got.abs().max() <= epsilon / 255 + 1e-12


def test_the_asymmetric_bound_falls_short_on_the_dark_side() -> None:
    z = torch.tensor([-1e3, 1e3]).expand(1, 3, 1, 2)
    noise = 255 * released.bounded_noise(z, 16 / 255, asymmetric_bound=True, straight_through=False)
    assert noise[0, :, 0, 1].tolist() == pytest.approx([16.0] * 3)
    assert noise[0, :, 0, 0].tolist() == pytest.approx([-15.07, -13.41, -10.94], abs=0.01)


@pytest.mark.parametrize("asymmetric", [True, False])
def test_the_gradient_goes_straight_through(asymmetric: bool) -> None:
    z = (20 * torch.randn(2, 3, 6, 5, generator=seeded())).requires_grad_()
    noise = released.bounded_noise(z, 16 / 255, asymmetric_bound=asymmetric, straight_through=True)
    plain = released.bounded_noise(z, 16 / 255, asymmetric_bound=asymmetric, straight_through=False)
    assert torch.equal(noise, plain)
    wanted = torch.randn(z.shape, generator=seeded(1))
    (got,) = torch.autograd.grad((noise * wanted).sum(), z)
    (dead,) = torch.autograd.grad((plain * wanted).sum(), z)
    assert (dead == 0).float().mean() > 0.5  # most of tanh is saturated
    places = torch.cartesian_prod(*map(torch.arange, z.shape)).tolist()
    for (n, c, y, x), slope in zip(places, got.flatten(), strict=True):
        normalised = noise[n, c, y, x].item() / STD[c]
        expected = wanted[n, c, y, x].item() * STD[c] * (1 - normalised**2)
        assert slope.item() == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(
    "names", [("asymmetric_bound",), ("straight_through",), ("asymmetric_bound", "straight_through")]
)
def test_bounds_reach_the_images(names: tuple[str, ...]) -> None:
    networks = fresh_networks(only(*names), ThreatModel(16), seeded(), CPU).eval()
    clean = 0.2 + 0.6 * torch.rand(2, 3, 30, 17, generator=seeded())
    z = networks.generator.before_tanh(clean)
    assert torch.allclose(z.tanh(), networks.generator(clean))
    expected = released.bounded_noise(
        z, 16 / 255, asymmetric_bound=names[0] == "asymmetric_bound", straight_through=False
    )
    assert torch.allclose(networks.adversarial(clean, ThreatModel(16)), clean + expected, atol=1e-6)

    def slope() -> Tensor:
        last = networks.generator.body[-2].weight
        return torch.autograd.grad(networks.adversarial(clean, ThreatModel(16)).square().sum(), last)[0]

    with_names = slope()
    networks.behaviours = networks.behaviours ^ {"straight_through"}
    assert not torch.allclose(with_names, slope(), rtol=0.1)


def test_unit_initialisation_saturates_the_generator() -> None:
    config = changed(TINY, width=32, discriminator_width=16, released=("unit_initialisation",))
    networks = fresh_networks(config, ThreatModel(16, 50), seeded(), CPU)
    last = networks.generator.body[-2]
    assert last.weight.std().item() == pytest.approx(1, abs=0.05)
    free = [m for m in networks.modules() if isinstance(m, nn.Conv2d) and not nn.utils.parametrize.is_parametrized(m)]
    assert len(free) == 1 + 3 + 1  # the last ones of the generator, of each scale, of the mask head
    assert all(0.8 < conv.weight.std() < 1.2 for conv in free)
    norms = torch.cat([m.weight.detach() for m in networks.modules() if isinstance(m, nn.BatchNorm2d)])
    assert norms.mean().item() == pytest.approx(1, abs=0.005)
    assert norms.std().item() == pytest.approx(0.02, abs=0.003)
    with torch.no_grad():
        output = networks.generator(torch.rand(4, 3, 64, 32, generator=seeded()))
    assert 0.85 < (output.abs() > 0.99).float().mean() < 0.97  # 90 to 95 % in the released code


def test_training_unclamped_and_crafting_within_range() -> None:
    class Extremes(ToyVictim):
        low, high = 0.0, 1.0

        def embed(self, images: Tensor) -> Tensor:
            self.low, self.high = min(self.low, images.min().item()), max(self.high, images.max().item())
            return super().embed(images)

    data = toy_data()
    data.images[:, ::2], data.images[:, 1::2] = 0, 255
    for names, leaves in (((), False), (("unclamped",), True)):
        source, config, threat = Extremes(), only(*names), ThreatModel(16)
        objective = Objective(
            config, source, fresh_networks(config, threat, seeded(), CPU), threat, seeded(), data.name, CLASSES
        )
        clean, identities = data.batch([0, 1, 4, 5, 8, 9])
        objective(clean, identities)
        assert (source.low < -0.01) == (source.high > 1.01) == leaves
        crafted = config.craft(source, Batch(clean), threat, seeded(), random_state(config, threat))
        assert crafted.min() >= 0
        assert crafted.max() <= 1


# all together


@pytest.mark.e2e
@pytest.mark.parametrize("pixels", [None, 60])
def test_the_released_variant_is_all_of_it_and_stays_within_the_budget(pixels: int | None) -> None:
    threat, clean = ThreatModel(16, pixels), toy_data().batch(range(6))[0]
    config, listed = changed(TINY, variant="released"), only(*released.BEHAVIOURS)
    assert config.behaviours == listed.behaviours == frozenset(released.BEHAVIOURS)
    state, same, paper = (fit(each, threat) for each in (config, listed, TINY))
    assert all(torch.equal(state[name], same[name]) for name in state)
    assert not any(torch.equal(state[name], paper[name]) for name in state if name.endswith(".original"))
    crafted = config.craft(ToyVictim(), Batch(clean), threat, seeded(), state)
    stored = budget.enforce(crafted, to_uint8(clean), threat, attack="misranking")
    assert (stored != to_uint8(clean)).any()


@pytest.mark.e2e
def test_each_behaviour_changes_what_a_fit_or_a_craft_gives() -> None:
    threat, source = ThreatModel(16, 60), ToyVictim()
    source.distance = "cosine"
    data = toy_data()
    data.images[::2, ::2] = 0  # something to clamp
    clean = data.batch(range(2))[0]

    def result(*names: str) -> list[Tensor]:
        config = only(*names, steps=2)
        state = config.fit(source, data, threat, FitContext(CPU, seeded()))
        return [config.craft(source, Batch(clean), threat, seeded(), state), *state.values()]

    for name in released.BEHAVIOURS:
        beside = ("self_pair",) if name == "log_losses" else ()
        pairs = zip(result(name, *beside), result(*beside), strict=True)
        assert not all(torch.equal(one, other) for one, other in pairs), name


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"released": ("log_losses",)}, "log_losses requires self_pair: .* minus infinity"),
        ({"released": ("self_pair",), "references": "clean"}, "self_pair requires references adversarial"),
        ({"variant": "released", "references": "clean"}, "self_pair requires references adversarial"),
        ({"released": ("raw_embeddings",), "distance": "cosine"}, "raw_embeddings contradicts distance cosine"),
        ({"released": ("normalised_ms_ssim",), "perception": "ssim"}, "normalised_ms_ssim requires perception ms-ssim"),
        ({"variant": "released", "released": ("self_pair",)}, "variant released already includes every behaviour"),
        (
            {"released": ("quarter_scale",), "discriminator": "patchgan"},
            "quarter_scale requires discriminator multi-stage",
        ),
        (
            {"released": ("different_people",)},
            r"'different_people' is no longer .* the default, so leave it out .*`real_pairs: same`",
        ),
        ({"variant": "released", "real_pairs": "same"}, "variant released requires real_pairs different"),
        ({"variant": "released", "pixel_schedule": "annealed"}, "variant released requires pixel_schedule direct"),
        ({"released": ("selfpair",)}, r"no behaviour 'selfpair': did you mean 'self_pair'\?"),
        ({"released": "self_pair"}, "released must be a list, not 'self_pair'"),
        ({"variant": "code"}, "variant must be one of paper, released"),
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(BenchError, match=message):
        changed(TINY, **fields)


def test_the_order_of_behaviours_is_no_setting() -> None:
    assert only("log_losses", "self_pair", "self_pair") == only("self_pair", "log_losses")
    assert only("log_losses", "self_pair", misranking_weight=0.0).released == ("self_pair", "log_losses")
    assert only("log_losses", misranking_weight=0.0).behaviours == {"log_losses"}

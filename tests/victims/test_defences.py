"""Defences, honest and pretended: what plain attacks say of them, what adaptive ones do, and what the audit sees."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from reid_attack_bench.adversary.adaptive import Adapted, adapt, opaque
from reid_attack_bench.attacks.metric import MetricPGD
from reid_attack_bench.contracts import (
    Batch,
    FitContext,
    ThreatModel,
    TrainingData,
    Victim,
    WrappedVictim,
    to_float,
    to_uint8,
)
from reid_attack_bench.errors import BenchError, VictimError
from reid_attack_bench.metrics.ranking import rank, summary, with_misses
from reid_attack_bench.plan.planner import make_plan
from reid_attack_bench.report.analysis import defences
from reid_attack_bench.report.analysis.audit import audit, unverified
from reid_attack_bench.report.analysis.leaderboard import leaderboard
from reid_attack_bench.report.collect import collect
from reid_attack_bench.store import Store
from reid_attack_bench.suites import parse
from reid_attack_bench.victims.defences.adversarial_training import AdversarialTraining
from reid_attack_bench.victims.defences.detector import SqueezingDetector
from reid_attack_bench.victims.defences.feature_noise import FeatureNoise
from reid_attack_bench.victims.defences.input_defences import (
    BitDepth,
    GaussianSmoothing,
    Jpeg,
    MedianSmoothing,
    RandomResizePad,
    ResizeChain,
)
from tests.conftest import TOY
from tests.plugins.defended import Detached, Jittered, Paranoid, Rounded
from tests.plugins.toy import ToyVictim
from tests.test_pipeline import run_here

PRETEND = f"{TOY.parent / 'defended.py'}:Pretend"
INPUT_DEFENCES = [Jpeg(), BitDepth(), MedianSmoothing(), GaussianSmoothing(), RandomResizePad()]
INPUT_DEFENCES += [ResizeChain(sizes=((27, 13), (55, 26), (27, 13)))]  # of the paper's ratios, at the size of the toy


@pytest.fixture
def toy() -> Victim:
    return ToyVictim(seed=1).eval().requires_grad_(False)


@pytest.fixture
def images() -> torch.Tensor:
    pixels = torch.randint(0, 256, (4, 16, 8, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return torch.nn.functional.interpolate(to_float(pixels), size=(64, 32), mode="bilinear")


def gradient(victim: Victim, images: torch.Tensor) -> torch.Tensor:
    leaf = images.clone().requires_grad_(True)
    direction = torch.randn(victim.embed(leaf).shape, generator=torch.Generator().manual_seed(3))
    (value,) = torch.autograd.grad((victim.embed(leaf) * direction).sum(), leaf)
    return value


@pytest.mark.parametrize("defence", INPUT_DEFENCES, ids=lambda defence: type(defence).__name__)
def test_an_input_defence_changes_the_image_and_not_the_model(defence, toy, images) -> None:
    defended = defence.defend(toy)
    torch.manual_seed(0)
    purified = defended.purify(images)
    assert purified.shape == images.shape
    assert purified.min() >= 0
    assert purified.max() <= 1
    assert (purified - images).abs().mean() > 0.003
    torch.manual_seed(0)
    embeddings = defended.embed(images)
    torch.testing.assert_close(embeddings, toy.embed(purified))
    assert defended.defence
    assert toy.defence == ""
    assert defended.randomised == isinstance(defence, RandomResizePad)


def test_the_resize_chain_is_that_of_the_paper_and_back(toy, images) -> None:
    """PIL, as in the released code, which rounds to 8 bits after each step."""
    large = torch.nn.functional.interpolate(images, (256, 128), mode="bilinear")
    found = to_uint8(ResizeChain().defend(toy).purify(large)).astype(int)
    for image, ours in zip(to_uint8(large), found, strict=True):
        resized = Image.fromarray(image)
        for height, width in ((110, 50), (220, 100), (110, 50), (256, 128)):
            resized = resized.resize((width, height), Image.Resampling.BICUBIC)
        apart = np.abs(ours - np.asarray(resized))
        assert apart.max() <= 3
        assert apart.mean() < 0.5


def test_attacks_pass_through_the_resize_chain_without_adapting(toy, images) -> None:
    defended = ResizeChain(sizes=((5, 3), (10, 6), (5, 3))).defend(toy)
    assert opaque(defended, images) == []
    inside = (0.4 + 0.2 * images[:1, :, ::8, ::8]).double().requires_grad_(True)  # nothing is clipped
    assert torch.autograd.gradcheck(defended.purify, inside)


def test_a_resize_chain_has_sizes() -> None:
    with pytest.raises(BenchError, match=r"sizes"):
        ResizeChain(sizes=())


def test_random_resize_pad_draws_for_each_image(toy, images) -> None:
    """Each image is shrunk and pasted by draws of its own, which do not depend on how the images are batched."""
    defended = RandomResizePad().defend(toy)
    same = images[:1].expand(24, -1, -1, -1).clone()
    torch.manual_seed(2)
    placed = defended.purify(same)
    assert len({image.numpy().tobytes() for image in placed}) == len(placed)
    covered = [(image != 0.5).any(0) for image in placed]
    sizes = {(int(mask.any(1).sum()), int(mask.any(0).sum())) for mask in covered}
    assert len(sizes) > 8
    torch.manual_seed(2)
    parts = torch.cat([defended.purify(part) for part in same.split([1, 7, 16])])
    torch.testing.assert_close(parts, placed)


def test_random_resize_pad_is_an_antialiased_resize_and_padding(toy, images) -> None:
    defended = RandomResizePad(smallest=0.3).defend(toy)
    torch.manual_seed(5)
    placed = defended.purify(images)
    torch.manual_seed(5)
    for image, found, (factor, down, right) in zip(images, placed, torch.rand(len(images), 3).tolist(), strict=True):
        height, width = (round((0.3 + 0.7 * factor) * side) for side in (64, 32))
        small = torch.nn.functional.interpolate(image[None], (height, width), mode="bilinear", antialias=True)
        top, left = int(down * (65 - height)), int(right * (33 - width))
        around = (left, 32 - width - left, top, 64 - height - top)
        expected = torch.nn.functional.pad(small, around, value=0.5)[0]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_random_resize_pad_keeps_its_precision_under_autocast(toy, images) -> None:
    defended = RandomResizePad().defend(toy)
    torch.manual_seed(5)
    placed = defended.purify(images)
    torch.manual_seed(5)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(defended.purify(images), placed)


def test_feature_noise_draws_for_each_image(toy, images) -> None:
    same = images[:1].expand(6, -1, -1, -1).clone()
    moved = FeatureNoise().defend(toy).embed(same) - toy.embed(same)
    assert len({row.numpy().tobytes() for row in moved}) == len(moved)


@pytest.mark.parametrize("defence", [*INPUT_DEFENCES, FeatureNoise()], ids=lambda defence: type(defence).__name__)
def test_a_defence_says_before_it_is_made_whether_it_draws(defence, toy) -> None:
    """The plan asks the defence, the run asks the victim: stored results of one draw must not serve for ten."""
    assert defence.randomised == defence.defend(toy).randomised


def test_jpeg_passes_no_gradient_and_bit_depth_a_zero_one(toy, images) -> None:
    leaf = images.clone().requires_grad_(True)
    assert not Jpeg().defend(toy).embed(leaf).requires_grad
    assert gradient(BitDepth().defend(toy), images).abs().max() == 0
    assert gradient(MedianSmoothing().defend(toy), images).abs().max() > 0


class Numpy(WrappedVictim):
    """Leaves torch on the way: nothing differentiates that."""

    def purify(self, images):
        return to_float(to_uint8(images))

    def embed(self, images):
        return self.victim.embed(self.purify(images))


def test_an_adaptive_attack_adds_what_survives_jpeg(toy, images) -> None:
    """The gradient of its answer leads further through it than the identity's does."""
    adapted = adapt(Jpeg(quality=30).defend(toy), 1, randomised=False)
    start = toy.embed(adapted.purify(images))
    moved = []
    for answers in (True, False):
        for layer in opaque(adapted.victim, images):
            layer.randomised = not answers
        stepped = (images + 8 / 255 * gradient(adapted, images).sign()).clamp(0, 1)
        direction = torch.randn(start.shape, generator=torch.Generator().manual_seed(3))
        moved.append(float(((adapted.embed(stepped) - start) * direction).sum()))
    assert moved[0] > moved[1]


def test_what_has_a_gradient_keeps_it(toy, images) -> None:
    """The identity in its place would point an attack elsewhere."""
    for defence in (GaussianSmoothing(), MedianSmoothing(), RandomResizePad()):
        assert opaque(defence.defend(toy), images) == []
    for hidden in (Jpeg().defend(toy), Numpy(toy)):
        assert opaque(hidden, images) == [hidden]
    assert opaque(BitDepth(bits=2).defend(toy), images) == []  # its rounding is what is differentiated as the identity


@pytest.mark.parametrize("defend", [Numpy, BitDepth(bits=7).defend, Rounded, Detached])
def test_bpda_goes_through_with_the_identity_s_gradient(defend, toy, images) -> None:
    defended = defend(toy)
    adapted = adapt(defended, 8, randomised=False)
    torch.testing.assert_close(adapted.embed(images), defended.embed(images))  # forward as it is
    honest = gradient(toy, images)
    agreement = torch.nn.functional.cosine_similarity(gradient(adapted, images).flatten(), honest.flatten(), dim=0)
    assert agreement > 0.9
    assert "purify" not in vars(defended)  # nothing is left behind
    assert defended.embed(images.clone().requires_grad_(True)).grad_fn is None or (
        gradient(defended, images).abs().max() == 0
    )


@pytest.mark.parametrize("outer", [GaussianSmoothing(sigma=0.2), FeatureNoise(sigma=1e-6)])
def test_bpda_reaches_the_purify_of_a_victim_within(outer, toy, images) -> None:
    adapted = adapt(outer.defend(Numpy(toy)), 1, randomised=False)
    honest = gradient(toy, images)
    agreement = torch.nn.functional.cosine_similarity(gradient(adapted, images).flatten(), honest.flatten(), dim=0)
    assert agreement > 0.9


def test_eot_averages_draws(toy, images) -> None:
    noisy = FeatureNoise(sigma=0.5).defend(toy)
    clean = toy.embed(images)
    torch.manual_seed(0)
    one, many = Adapted(noisy, 1).embed(images), Adapted(noisy, 100).embed(images)
    assert (many - clean).abs().mean() < 0.2 * (one - clean).abs().mean()
    assert adapt(noisy, 8, randomised=False).samples == 1


def test_a_detector_refuses_at_its_rate_and_more_of_what_is_fragile(toy) -> None:
    rng = np.random.default_rng(0)
    smooth = rng.integers(0, 256, (200, 4, 2, 3)).repeat(16, axis=1).repeat(16, axis=2).astype(np.uint8)
    data = TrainingData("blocks", smooth, np.arange(200) % 8, np.zeros(200, np.int64))
    detector = SqueezingDetector(refused=0.1)
    context = FitContext(torch.device("cpu"), torch.Generator().manual_seed(0))
    guarded = detector.defend(toy, detector.fit(toy, data, context))
    clean = to_float(smooth)
    assert 0.05 <= guarded.rejects(clean).float().mean() <= 0.15
    noisy = (clean + 0.2 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    assert guarded.rejects(noisy).float().mean() > 0.5


class Blocky(ToyVictim):
    """Refuses what is not smooth along a row."""

    def suspicion(self, images):
        return (images[..., 1:] - images[..., :-1]).abs().flatten(1).mean(dim=1) - 0.02


def test_an_adaptive_attack_passes_a_detector_that_refuses_the_plain_one() -> None:
    rng = np.random.default_rng(0)
    blocks = rng.integers(64, 192, (8, 2, 1, 3)).repeat(32, axis=1).repeat(32, axis=2).astype(np.uint8)
    clean, victim, threat = to_float(blocks), Blocky().eval().requires_grad_(False), ThreatModel(epsilon=8)
    attack, batch = MetricPGD(steps=20), Batch(to_float(blocks))
    plain = attack.craft(victim, batch, threat, torch.Generator().manual_seed(0))
    adaptive = attack.craft(adapt(victim, 1, randomised=False), batch, threat, torch.Generator().manual_seed(0))
    assert not victim.rejects(clean).any()
    assert victim.rejects(plain).all()
    assert victim.rejects(adaptive).float().mean() <= 0.5
    moved = (victim.embed(adaptive) - victim.embed(clean)).norm(dim=1)
    assert (moved > 0.3 * (victim.embed(plain) - victim.embed(clean)).norm(dim=1)).all()


def test_a_wrapped_victim_refuses_as_the_one_within(toy) -> None:
    images = torch.rand(4, 3, 64, 32, generator=torch.Generator().manual_seed(0))
    assert WrappedVictim(toy).rejects(images) is None
    assert WrappedVictim(Blocky()).rejects(images).all()
    assert WrappedVictim(Paranoid(toy)).rejects(images).all()  # which has no suspicion


def test_a_refused_query_is_a_miss() -> None:
    distances = np.array([[0.1, 0.9], [0.8, 0.2]])
    ranking = rank(distances, np.array([0, 1]), np.array([0, 1]), np.zeros(2, int), np.ones(2, int))
    assert summary(ranking)["rank1"] == 100
    missed = with_misses(ranking, np.array([True, False]), 2)
    assert summary(missed)["rank1"] == summary(missed)["mAP"] == 50
    assert missed.first.tolist() == [2, 0]


@pytest.mark.e2e
@pytest.mark.parametrize("objective", ["metric", "mis-ranking"])
def test_adversarial_training_makes_the_embedding_steadier(objective) -> None:
    rng = np.random.default_rng(0)
    colours = rng.integers(40, 216, (8, 4, 2, 3)).repeat(16, axis=1).repeat(16, axis=2)
    images = np.clip(colours[np.arange(64) % 8] + rng.integers(-12, 13, (64, 64, 32, 3)), 0, 255).astype(np.uint8)
    data = TrainingData("blocks", images, np.arange(64) % 8, np.zeros(64, np.int64))
    victim = ToyVictim(seed=1).eval().requires_grad_(False)
    before = {name: value.clone() for name, value in victim.state_dict().items()}
    recipe = AdversarialTraining(objective, steps=40, batch_identities=4, learning_rate=3e-3)
    context = FitContext(torch.device("cpu"), torch.Generator().manual_seed(0))
    defended = recipe.defend(victim, recipe.fit(victim, data, context)).eval().requires_grad_(False)
    for name, value in victim.state_dict().items():
        torch.testing.assert_close(value, before[name])  # the twin is as it was

    def moved(model: Victim) -> float:
        clean = to_float(images[:16])
        attack, threat = MetricPGD(steps=5), ThreatModel(epsilon=8)
        adversarial = attack.craft(model, Batch(clean), threat, torch.Generator().manual_seed(0))
        return float(1 - torch.nn.functional.cosine_similarity(model.embed(clean), model.embed(adversarial)).mean())

    assert moved(defended) < 0.7 * moved(victim)


def document() -> dict:
    people = {"train_identities": 16, "test_identities": 24, "images_per_camera": 1, "queries_per_identity": 2}
    pretend = {"use": PRETEND, "defends": "toy", "roles": ["white-box", "target"]}
    return {
        "name": "pretenders",
        "image_size": [64, 32],
        "headline_epsilon": 16,
        "datasets": {"plaza": people},
        "victims": {
            "toy": {"use": f"{TOY}:ToyRecipe", "train_on": "plaza", "options": {"steps": 150}},
            "trained": {
                "use": "adversarial-training",
                "defends": "toy",
                "options": {"steps": 120, "batch_identities": 4, "learning_rate": 0.003},
                "roles": ["white-box", "target"],
            },
            "rounded": {**pretend, "options": {"kind": "rounded"}},
            "jittered": {**pretend, "options": {"kind": "jittered"}},
        },
        "attacks": {
            "noise": {"epsilon": 16},
            "metric_fgsm": {"epsilon": 16},
            "metric_pgd": {"epsilon": [16, 96], "options": {"steps": 20}},
        },
    }


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


def results_of(document: dict, store) -> object:
    from reid_attack_bench.jobs import manifest

    plan, outcome, listener = run_here(document, store)
    assert listener.failures == []
    return collect(manifest.describe(plan, Store(store), outcome, torch.device("cpu"), ""), Store(store))


def mean_ap(results, attack: str, target: str, epsilon: int = 16) -> float:
    wanted = (attack, epsilon, f"{target}@plaza", f"{target}@plaza")
    return next(c.value("mAP") for c in results.cells if (c.attack, c.epsilon, c.source, c.target) == wanted)


@pytest.mark.e2e
def test_pretenders_look_robust_are_caught_and_are_broken(store) -> None:
    plain = results_of(document(), store)
    honest, clean = mean_ap(plain, "metric_pgd", "toy"), {row.victim: row.value("mAP") for row in plain.clean}
    for fake in ("rounded", "jittered"):
        assert mean_ap(plain, "metric_pgd", fake) > honest + 0.5 * (clean[f"{fake}@plaza"] - honest)
    flags = unverified(audit(plain))
    assert "zero gradients" in flags["rounded@plaza", "plaza"]
    assert "transfer stronger than white-box" in flags["rounded@plaza", "plaza"]
    assert "randomised without EOT" in flags["jittered@plaza", "plaza"]
    assert ("trained@plaza", "plaza") not in flags
    assert ("toy@plaza", "plaza") not in flags

    adaptive = document()
    adaptive["attacks"] |= {
        "knowing": {
            "use": "metric_pgd", "epsilon": [16, 96], "options": {"steps": 20}, "adaptive": 64,
        },
    }  # fmt: skip
    results = results_of(adaptive, store)
    for fake in ("rounded", "jittered"):
        broken = mean_ap(results, "knowing", fake)
        assert broken < honest + 0.25 * (clean[f"{fake}@plaza"] - honest), fake
    assert mean_ap(results, "knowing", "trained") > honest + 1
    gains = defences.robustness_gains(results).set_index("victim")
    assert set(gains.index) == {"trained@plaza", "rounded@plaza", "jittered@plaza"}
    assert set(gains.twin) == {"toy@plaza"}
    for fake in ("rounded@plaza", "jittered@plaza"):
        assert gains.loc[fake, "adaptive_mAP"] < gains.loc[fake, "plain_mAP"]
    row = gains.loc["trained@plaza"]
    assert row.gain_mAP == pytest.approx(row.worst_mAP - row.twin_worst_mAP, abs=1e-6)
    assert row.gain_mAP_low <= row.gain_mAP <= row.gain_mAP_high
    assert ("trained@plaza", "plaza") not in unverified(audit(results))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"use": PRETEND}, "victim fake is a defence.*defends.*there: toy"),
        ({"use": PRETEND, "defends": "tpy"}, "victim fake is a defence"),
        (
            {"use": PRETEND, "defends": "toy", "train_on": "plaza"},
            "a defence is trained on the data sets of its victim toy: remove train_on",
        ),
        ({"use": f"{TOY}:ToyRecipe", "defends": "toy"}, "has no defend"),
        ({"use": "jpeg", "defends": "toy", "options": {"quality": 0}}, "quality must be a whole number from 1 to 95"),
    ],
)
def test_mistakes_in_a_defence(change, says) -> None:
    changed = document()
    changed["victims"] = {"toy": changed["victims"]["toy"], "fake": change}
    with pytest.raises(BenchError, match=says):
        make_plan(parse.parse(changed))


def test_a_victim_without_gradients_is_a_source_of_adaptive_attacks_only() -> None:
    changed = document()
    changed["victims"] = {"toy": changed["victims"]["toy"], "jpeg": {"use": "jpeg", "defends": "toy"}}
    changed["attacks"] = {"plain": {"use": "metric_pgd"}, "adaptive": {"use": "metric_pgd", "adaptive": True}}
    cells = make_plan(parse.parse(changed)).cells
    reasons = {cell.attack: cell.impossible for cell in cells if cell.source == "jpeg@plaza"}
    assert "unless that is adaptive" in reasons["plain"]
    assert reasons["adaptive"] == ""
    assert {cell.adaptive for cell in cells if cell.attack == "adaptive"} == {8}


def test_rejects_must_return_one_bool_each(toy, store) -> None:
    from reid_attack_bench.steps.embed import _refusals

    class Chatty(ToyVictim):
        def rejects(self, images):
            return torch.zeros(len(images))

    with pytest.raises(VictimError, match="rejects must return a bool tensor of 3"):
        _refusals(Chatty(), to_uint8(torch.rand(3, 3, 64, 32)), "chatty", torch.device("cpu"))


def test_jitter_is_small_and_its_gradient_is_not(toy, images) -> None:
    """The pretender of the tests is what it claims to be."""
    jittered = Jittered(toy)
    change = (jittered.embed(images) - toy.embed(images)).abs().mean() / toy.embed(images).abs().mean()
    assert change < 0.01
    assert not math.isnan(float(change))


@pytest.mark.e2e
def test_a_detector_gains_nothing_by_refusing_everybody(store) -> None:
    changed = document()
    pretend = {"use": PRETEND, "defends": "toy", "roles": ["white-box", "target"]}
    changed["victims"] = {
        "toy": changed["victims"]["toy"],
        "paranoid": {**pretend, "options": {"kind": "paranoid"}},
        "wary": {**pretend, "options": {"kind": "wary"}},
    }
    changed["attacks"] = {"noise": {"epsilon": 96}}
    changed["headline_epsilon"] = 96
    results = results_of(changed, store)
    clean = {row.victim: row for row in results.clean}
    cells = {cell.target: cell for cell in reversed(results.cells)}  # the first of each target
    assert clean["paranoid@plaza"].value("rank1") == cells["paranoid@plaza"].value("rank1") == 0
    assert cells["paranoid@plaza"].value("rejected") == 100
    assert np.isnan(cells["toy@plaza"].value("rejected"))
    assert {row.detector for row in results.clean} == {"", "rejects"}
    # who refuses only what is attacked finds nobody; as the clean versions, they keep what they scored
    wary = cells["wary@plaza"]
    assert wary.value("rejected") > 90
    assert wary.value("rank1") <= 100 - wary.value("rejected")
    assert wary.value("rank1_as_clean") > cells["toy@plaza"].value("rank1")
    assert wary.value("rank1_as_clean") <= clean["wary@plaza"].value("rank1") + 1
    assert np.isnan(cells["toy@plaza"].value("mAP_as_clean"))
    outcome = results.per_query[wary.rank_key]
    assert 100 * outcome.hit[outcome.valid].mean() == pytest.approx(wary.value("rank1"))
    assert 100 * outcome.ap_as_clean[outcome.valid].mean() == pytest.approx(wary.value("mAP_as_clean"))
    assert (outcome.hit <= outcome.hit_as_clean)[outcome.valid].all()
    board = leaderboard(results).set_index("victim")
    assert board.loc["wary@plaza", "worst_e96_mAP"] < board.loc["toy@plaza", "worst_e96_mAP"]
    assert board.loc["wary@plaza", "worst_e96_mAP"] < board.loc["wary@plaza", "worst_e96_mAP_as_clean"]
    assert np.isnan(board.loc["toy@plaza", "worst_e96_mAP_as_clean"])
    gains = defences.robustness_gains(results).set_index("victim")
    assert gains.loc["wary@plaza", "gain_mAP_high"] < 0, "to refuse what is attacked is no gain"
    assert gains.loc["wary@plaza", "worst_mAP_as_clean"] == board.loc["wary@plaza", "worst_e96_mAP_as_clean"]


@pytest.mark.e2e
def test_a_detector_that_no_attack_can_pass_is_unverified(store) -> None:
    changed = document()
    changed["victims"] = {
        "toy": changed["victims"]["toy"],
        "wary": {"use": PRETEND, "defends": "toy", "roles": ["white-box", "target"], "options": {"kind": "wary"}},
    }
    plain = {"metric_pgd": {"epsilon": 8, "options": {"steps": 2}}}
    for attacks, why in (
        (plain, "no adaptive attack was run"),
        ({"adaptive": {**plain["metric_pgd"], "use": "metric_pgd", "adaptive": True}}, "without a suspicion score"),
    ):
        changed["attacks"] = attacks
        found = {flag.name: flag.evidence for flag in audit(results_of(changed, store)) if flag.victim == "wary@plaza"}
        assert why in found["detector not attacked"]


@pytest.mark.e2e
def test_a_doubtful_victim_stands_below_the_line(store) -> None:
    from reid_attack_bench.report.analysis.conclude import conclude
    from reid_attack_bench.report.markdown import report_text
    from reid_attack_bench.report.terminal import leaderboard_table

    results = results_of(document(), store)
    concluded = conclude(results)
    text = report_text(results, {}, concluded)
    board = text[text.index("## Leaderboard") : text.index("## Audit")]
    assert board.index("trained@plaza") < board.index("**unverified**") < board.index("rounded@plaza")
    assert "| rounded@plaza | plaza | red | zero gradients | 100 % of the image values" in text
    shown = [str(cell) for cell in leaderboard_table(results, concluded.board).columns[1].cells]
    assert "rounded@plaza (!)" in shown
    assert "toy@plaza" in shown


def test_attacks_on_logits_take_their_other_form_on_a_victim_without_any_or_pass_over_it() -> None:
    changed = document()
    changed["victims"] |= {"ready": {"use": f"{TOY.parent / 'defended.py'}:Headless"}}
    changed["attacks"] = {"pgd": {}, "metric_pgd": {}, "stubborn": {"use": f"{TOY}:Stubborn"}}
    cells = make_plan(parse.parse(changed)).cells
    reasons = {cell.attack: cell.impossible for cell in cells if cell.source == "ready"}
    assert "ready has no logits, so it can only be a target of stubborn" in reasons["stubborn"]
    assert reasons["metric_pgd"] == ""
    assert reasons["pgd"] == ""
    assert {cell.needs for cell in cells if cell.source == "ready" and cell.attack == "pgd"} == {("gradients",)}

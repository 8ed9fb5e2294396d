"""What a matrix costs, counted; and how victims are computed: in parts, in bfloat16, compiled."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from reid_attack_bench import registry
from reid_attack_bench.adversary.cost import Cost, Metered
from reid_attack_bench.attacks.metric import MetricPGD
from reid_attack_bench.attacks.pgd import FGSM, PGD
from reid_attack_bench.contracts import Batch, ThreatModel, Victim
from reid_attack_bench.data import catalogue as datasets
from reid_attack_bench.errors import BenchError
from reid_attack_bench.plan.planner import make_plan
from reid_attack_bench.steps import check
from reid_attack_bench.steps.artefacts import read_splits
from reid_attack_bench.steps.passes import Chunked, MixedPrecision, compiled, with_smaller_batches
from reid_attack_bench.store import Store
from reid_attack_bench.suites import parse
from tests.plugins.toy import ToyVictim
from tests.test_pipeline import run_here

COUNTING = Path(__file__).parent.parent / "plugins" / "counting.py"


@pytest.fixture
def counted(tiny: dict):
    """A suite of two counting victims, two attacks and two data sets, and the module that counts."""
    tiny["victims"] = {f"v{seed}": {"use": f"{COUNTING}:Counting", "options": {"seed": seed}} for seed in (0, 1)}
    tiny["attacks"] = {f"a{steps}": {"use": f"{COUNTING}:CountingPGD", "options": {"steps": steps}} for steps in (1, 3)}
    module = sys.modules[registry.find("victim", f"{COUNTING}:Counting").factory.__module__]
    for count in (module.PASSED, module.CRAFTED, module.LIMIT):
        count.clear()
    yield tiny, module
    module.LIMIT.clear()


@pytest.mark.e2e
def test_a_matrix_costs_one_craft_a_source_and_one_pass_a_target(counted, tmp_path: Path, monkeypatch) -> None:
    document, module = counted
    rendered: list[str] = []
    render = datasets.render_domain
    monkeypatch.setattr(datasets, "render_domain", lambda name, **about: rendered.append(name) or render(name, **about))
    monkeypatch.setattr(check, "check", lambda *images, **options: [])  # its passes are counted with its tests
    plan, outcome, _ = run_here(document, tmp_path)
    assert not outcome.failed
    assert sorted(rendered) == ["plaza", "station"], "each image is made or decoded once"
    queries = gallery = 0
    for step in plan.steps.values():
        if step.kind == "data":
            splits = read_splits(tmp_path / "data" / step.key)
            assert all(
                isinstance(split.images, np.memmap) and split.images.dtype == np.uint8 for split in splits.values()
            )
            assert all(split.images.shape[1:] == (64, 32, 3) for split in splits.values())
            queries, gallery = queries + len(splits["query"].images), gallery + len(splits["gallery"].images)
    # attacks × sources crafts of every query, in batches; attacks × sources × targets passes, beside the clean ones
    sources, targets, attacks = ("v0", "v1"), (0, 1), (1, 3)
    assert Counter(
        {(a, s): sum(n for a2, s2, n in module.CRAFTED if (a, s) == (a2, s2)) for a in attacks for s in sources}
    ) == Counter({(a, s): queries for a in attacks for s in sources})
    planned = 1 + 6  # images: one whose logits say how many classes there are, and those of the probe
    examined = 2  # images, at the step of each victim: with gradients twice, embeddings and logits
    for victim in targets:
        evaluated = queries + gallery + len(attacks) * len(sources) * queries
        assert module.PASSED[victim, False] == evaluated + planned
        assert module.PASSED[victim, True] == sum(attacks) * queries + 3 * examined
    before = (module.PASSED.copy(), list(module.CRAFTED))
    _, outcome, listener = run_here(document, tmp_path)
    module.PASSED.subtract({(victim, False): planned for victim in targets})
    assert before == (module.PASSED, module.CRAFTED), "a second run does no work with models"
    assert listener.done == []
    assert len(rendered) == 2


SHIPPED = {
    "fgsm": {},
    "pgd": {"options": {"steps": 3}},
    "metric_pgd": {"options": {"steps": 2}},
    "oracle": {"use": "metric_pgd", "options": {"steps": 2, "references": "same_identity"}},
}


@pytest.mark.e2e
def test_what_does_not_fit_into_memory_is_halved_and_gives_the_same_bytes(counted, tmp_path: Path) -> None:
    document, module = counted
    document["attacks"] = {"a1": document["attacks"]["a1"], **SHIPPED}
    document["datasets"].pop("station")
    document["batch_size"] = 8
    results = []
    for limit, place in ((None, "a"), (3, "b")):
        module.LIMIT[:] = [] if limit is None else [limit]
        plan, outcome, listener = run_here(document, tmp_path / place)
        assert not outcome.failed
        store = Store(tmp_path / place)
        kinds = ("clean", "craft", "features", "rank")
        results.append({key: store.manifest(s.kind, key)["files"] for key, s in plan.steps.items() if s.kind in kinds})
        said = [note for note in listener.notes if "out of GPU memory" in note]
        assert bool(said) == (limit is not None)
    assert any("going on with 2 images at once" in note for note in said)
    assert results[0] == results[1]


def test_an_image_that_does_not_fit_alone_is_said() -> None:
    class Full(Victim):
        def embed(self, images):
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(BenchError, match=r"craft x: a single image does not fit .* --device cpu"):
        with_smaller_batches(lambda size: Full().embed(torch.rand(size, 3, 8, 4)), 8, "craft x", lambda text: None)


def test_a_shipped_attack_on_parts_makes_no_pass_twice(counted) -> None:
    _, module = counted
    images = torch.rand(8, 3, 64, 32)
    for attack, clean, climbed in ((FGSM(), 0, 8), (PGD(steps=3), 8, 24), (MetricPGD(steps=2), 8, 16)):
        victim = module.Counting(0).requires_grad_(False)
        module.PASSED.clear()
        crafted = [
            attack.craft(source, Batch(images), ThreatModel(8), torch.Generator().manual_seed(0))
            for source in (victim, Chunked(victim, 3))
        ]
        assert torch.equal(*crafted)
        assert module.PASSED[0, False] == 2 * clean
        assert module.PASSED[0, True] == 2 * climbed


def test_parts_have_the_gradient_of_the_whole() -> None:
    victim = ToyVictim().eval().requires_grad_(False)
    images = torch.rand(5, 3, 64, 32, requires_grad=True)
    expected = torch.autograd.grad(victim.embed(images).square().sum(), images)[0]
    parts = Chunked(victim, 2)
    torch.testing.assert_close(torch.autograd.grad(parts.embed(images).square().sum(), images)[0], expected)
    both = parts.outputs(images)
    torch.testing.assert_close(torch.autograd.grad(both[0].square().sum(), images)[0], expected)
    torch.testing.assert_close(both[1], victim.logits(images))
    assert parts.suspicion(images) is None


def test_an_image_that_is_broken_is_left_alone(counted) -> None:
    _, module = counted
    images = torch.rand(12, 3, 64, 32)
    victim, threat = module.Counting(0).requires_grad_(False), ThreatModel(8)
    predicted = victim.logits(images).argmax(1)

    def craft(**options) -> tuple[torch.Tensor, int]:
        module.PASSED.clear()
        made = PGD(steps=12, step_size=1, **options).craft(
            victim, Batch(images), threat, torch.Generator().manual_seed(0)
        )
        return made, module.PASSED[0, True]

    (full, passes), (early, fewer) = craft(), craft(stop_early=True)
    broken = victim.logits(early).argmax(1) != predicted
    assert torch.equal(broken, victim.logits(full).argmax(1) != predicted), "as many are broken"
    assert broken.any()
    assert fewer < passes == 12 * 12
    assert torch.equal(early[~broken], full[~broken])
    assert not torch.equal(early[broken], full[broken])
    assert ((early - images).abs() <= 8 / 255 + 1e-6).all()
    with pytest.raises(BenchError, match="stop_early requires objective untargeted"):
        PGD(stop_early=True, objective="cosine")


def test_only_what_is_asked_for_changes_the_keys(tiny) -> None:
    def keys(document: dict) -> dict[str, str]:
        return {step.label: key for key, step in make_plan(parse.parse(document)).steps.items()}

    before = keys(tiny)
    tiny["attacks"]["pgd"]["options"] = {"steps": 2}
    assert keys({**tiny, "precision": "float32", "compile": False}) == before
    reduced, fast = keys({**tiny, "precision": "bfloat16"}), keys({**tiny, "compile": True})
    for other in (reduced, fast):
        same = {label for label in before if other[label] == before[label]}
        trained = ("data ", "train ", "check ", "fit ", "craft noise", "measure noise")
        assert same == {label for label in before if label.startswith(trained)}
    assert not set(reduced.values()) & set(fast.values()) - set(before.values())
    early = {**tiny, "attacks": {"pgd": {"options": {"steps": 2, "stop_early": True}}}}
    assert keys(early)["craft pgd 8/255 on toy@plaza, plaza"] != before["craft pgd 8/255 on toy@plaza, plaza"]
    for name, value in (("precision", "float16"), ("compile", "yes")):
        with pytest.raises(BenchError, match=f"{name} must be"):
            parse.parse({**tiny, name: value})


def test_bfloat16_is_near_and_differentiable() -> None:
    victim = ToyVictim().eval().requires_grad_(False)
    images = torch.rand(4, 3, 64, 32, requires_grad=True)
    for work in ("embed", "logits"):
        exact, near = getattr(victim, work)(images), getattr(MixedPrecision(victim), work)(images)
        assert near.dtype == torch.float32
        assert not torch.equal(exact, near)
        torch.testing.assert_close(near, exact, rtol=0.05, atol=0.02)
        assert torch.autograd.grad(near.sum(), images)[0].isfinite().all()


@pytest.mark.e2e
def test_a_run_in_bfloat16_says_so(tiny, tmp_path: Path) -> None:
    from reid_attack_bench.jobs.manifest import notes

    tiny["precision"] = "bfloat16"
    plan, outcome, _ = run_here(tiny, tmp_path, only={"dataset": ["plaza"], "attack": ["pgd"]})
    assert not outcome.failed
    assert "Victims were attacked and evaluated in bfloat16, not in float32." in notes(plan, outcome)


def test_what_cannot_be_compiled_runs_as_it_is_and_says_so(monkeypatch) -> None:
    said: list[str] = []
    victim = ToyVictim().eval().requires_grad_(False)

    def refuse(function):
        def fails(images):
            raise RuntimeError("no C++ compiler\nand more")

        return fails

    monkeypatch.setattr(torch, "compile", refuse)
    assert compiled(victim, "toy@plaza", torch.device("cpu"), said.append) is victim
    assert said == ["torch.compile does not work on toy@plaza (RuntimeError: no C++ compiler); it runs as it is"]


@pytest.mark.slow
def test_compiled_is_near() -> None:
    said: list[str] = []
    victim = ToyVictim().eval().requires_grad_(False)
    fast = compiled(victim, "toy", torch.device("cpu"), said.append)
    assert said == []
    images = torch.rand(4, 3, 64, 32, requires_grad=True)
    torch.testing.assert_close(fast.embed(images), victim.embed(images))
    torch.testing.assert_close(
        torch.autograd.grad(fast.logits(images).sum(), images), torch.autograd.grad(victim.logits(images).sum(), images)
    )


class Remembers(Victim):
    """Makes a table in its first pass, as models with positions do."""

    input_size = (64, 32)

    def __init__(self) -> None:
        super().__init__()
        self.table: torch.Tensor | None = None

    def embed(self, images):
        if self.table is None:
            self.table = torch.linspace(1, 2, 3, device=images.device).view(1, 3, 1, 1) * images.mean().detach()
        return (images * self.table).flatten(2).mean(2)


def test_a_victim_judged_first_can_be_attacked_afterwards() -> None:
    from reid_attack_bench.steps.embed import _embed_all

    victim, images = Remembers(), np.zeros((70, 64, 32, 3), np.uint8) + 100
    quiet = (lambda done, total, text: None), (lambda text: None), str
    assert _embed_all(victim, images, "x", torch.device("cpu"), *quiet).shape == (70, 3)
    attacked = torch.rand(2, 3, 64, 32, requires_grad=True)
    torch.autograd.grad(victim.embed(attacked).sum(), attacked)


@pytest.mark.e2e
def test_planning_a_finished_run_imports_no_training_code() -> None:
    """What a second run of the `quick` suite needs; the rest takes longer to import than it to run."""
    code = (
        "import sys\n"
        "from reid_attack_bench.cli import main\n"
        "from reid_attack_bench.execute import executor\n"
        "from reid_attack_bench.jobs import manifest\n"
        "from reid_attack_bench.suites import parse\n"
        "from reid_attack_bench.plan.planner import make_plan\n"
        "make_plan(parse.load('quick')); make_plan(parse.load('defended'))\n"
        "slow = ('torchreid', 'torchvision', 'pandas', 'matplotlib', 'torch._dynamo', 'torch._inductor')\n"
        "print(*(name for name in slow if name in sys.modules))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.split() == []


def test_passes_made_again_for_want_of_memory_are_no_cost() -> None:
    cost, images = Cost(), torch.rand(5, 3, 64, 32, requires_grad=True)
    Chunked(Metered(ToyVictim().eval(), cost), 2).embed(images).square().sum().backward()
    assert (cost.forward, cost.backward) == (5, 5)

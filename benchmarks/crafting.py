"""Overhead of attacks over the forward and backward passes of the source, and effects of faster passes.

The bare loop has only the passes of the attack through the source: one of the clean images without gradients if the
attack needs it (for the class or embedding to move away from), then one forward and backward pass per step.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.side_by_side import RUNS, Clock, Line, in_turn, line, not_measured, seconds
from reid_attack_bench.adversary.budget import enforce
from reid_attack_bench.attacks.apgd import APGD
from reid_attack_bench.attacks.common.ascent import uniform_start
from reid_attack_bench.attacks.metric import MetricFGSM, MetricPGD
from reid_attack_bench.attacks.pgd import FGSM, PGD
from reid_attack_bench.contracts import Batch, FitContext, ThreatModel, TrainingData, Victim, distances, to_float
from reid_attack_bench.data.split import Split
from reid_attack_bench.data.synthetic import render_domain
from reid_attack_bench.execute.device import keep_freed_memory, use_deterministic_kernels
from reid_attack_bench.metrics.ranking import rank, summary
from reid_attack_bench.steps.passes import MixedPrecision, compiled
from reid_attack_bench.victims.torchreid_zoo import TorchreidModel, TorchreidVictim, untrained_model

TARGET = "≤ 1.05"
THREAT = ThreatModel(8)
WHAT = "crafting"


def measure() -> Iterator[Line]:
    use_deterministic_kernels()
    keep_freed_memory()
    gpu = torch.cuda.is_available()
    device = torch.device("cuda" if gpu else "cpu")
    clock: Clock = time.perf_counter if gpu else time.process_time
    torch.set_num_threads(torch.get_num_threads() if gpu else 1)
    size, batch = ((256, 128), 64) if gpu else ((128, 64), 16)
    yield from _against_bare(size, batch, device, clock)
    yield from _against_torchattacks(size, batch, device, clock)
    yield from _layouts(size, batch, device, clock)
    yield from _effects(device, clock)
    if not gpu:
        for what in ("pgd", "metric_pgd"):
            yield not_measured(WHAT, f"{what}, on a GPU", "a bare loop", "× the time", TARGET, "no GPU here")
        for what in ("bfloat16", "torch.compile"):
            yield not_measured(WHAT, f"pgd in {what}, on a GPU", "float32, as it is", "× the time", "", "no GPU here")


def _untrained(arch: str, size: tuple[int, int], device: torch.device) -> TorchreidModel:
    torch.manual_seed(0)
    model = TorchreidModel(untrained_model(arch, 100), arch, size, "cosine")
    return model.to(device).eval().requires_grad_(False)


def _bare(passes: Callable[[Tensor], Tensor | None], images: Tensor, steps: int, clean: bool) -> Callable[[], None]:
    def loop() -> None:
        if clean:
            with torch.no_grad():
                passes(images)
        for _ in range(steps):
            current = images.detach().requires_grad_(True)
            values = passes(current)
            assert values is not None
            torch.autograd.grad(values.sum(), current)

    return loop


def _repeat(work: Callable[[], object], times: int) -> None:
    for _ in range(times):
        work()


def _against_bare(size: tuple[int, int], batch: int, device: torch.device, clock: Clock) -> Iterator[Line]:
    stored = np.random.default_rng(0).integers(0, 256, (batch, *size, 3), dtype=np.uint8)
    images = to_float(stored, device)
    generator = torch.Generator().manual_seed(0)
    cases: list[tuple[str, Any, int, bool]] = [
        ("shufflenet_v2_x1_0", FGSM(), 1, False),
        ("shufflenet_v2_x1_0", MetricFGSM(), 1, True),
        ("shufflenet_v2_x1_0", PGD(steps=8), 8, True),
        ("shufflenet_v2_x1_0", MetricPGD(steps=8), 8, True),
        ("shufflenet_v2_x1_0", APGD(objectives=("self",), steps=8), 8, True),
        ("resnet50", PGD(steps=4), 4, True),
        ("resnet50", MetricPGD(steps=4), 4, True),
        ("resnet50", APGD(objectives=("self",), restarts=1, steps=4), 4, True),
    ]
    for arch, attack, steps, clean in cases:
        victim = _untrained(arch, size, device)
        passes = victim.logits if "logits" in attack.needs else victim.embed

        craft = functools.partial(attack.craft, victim, Batch(images), THREAT, generator)

        def step(craft: Callable[[], Tensor] = craft) -> None:
            to_float(stored, device)
            enforce(craft(), stored, THREAT, attack="x")

        # repeat one-step attacks, which are too short to time
        several, bare = (
            functools.partial(_repeat, work, 8 // steps) for work in (craft, _bare(passes, images, steps, clean))
        )
        name = f"{type(attack).__name__}, {steps} steps, {arch}, {batch} × {size[0]}×{size[1]}"
        note = "both with one pass of the clean images" if clean else ""
        if attack == MetricFGSM():
            note += "; includes the overhead of the line below, and the distance, for a single step of a small network"
        ratios = in_turn(several, bare, clock=clock)
        yield line(WHAT, name, "a bare loop", ratios, "× the time", TARGET, lambda ratio: ratio <= 1.05, note)
        if attack == MetricFGSM():
            overhead = functools.partial(_repeat, functools.partial(_overhead, images, generator), 8)
            shares = [100 * seconds(overhead, clock) / seconds(bare, clock) for _ in range(RUNS)]
            what = f"random start, two projections and a step, {arch}, {batch} × {size[0]}×{size[1]}"
            yield line(WHAT, what, "a bare loop of one step", shares, "% of the time")
        if attack == PGD(steps=8):
            ratios = in_turn(step, bare, clock=clock)
            yield line(WHAT, f"{name}, with rounding and budget check", "a bare loop", ratios, "× the time")
            ratios = in_turn(craft, _bare(passes, images, steps, False), clock=clock)
            yield line(WHAT, f"{name}", "a bare loop without the clean pass", ratios, "× the time")


def _overhead(images: Tensor, generator: torch.Generator) -> None:
    """Work of a one-step attack other than passes of the source."""
    current = THREAT.project(uniform_start(images, THREAT.radius, generator), images)
    THREAT.project(torch.add(current, current.sign(), alpha=THREAT.radius), images)


def _against_torchattacks(
    size: tuple[int, int], batch: int, device: torch.device, clock: Clock, steps: int = 8
) -> Iterator[Line]:
    """Auto-PGD on cross entropy against torchattacks' PGD of as many steps."""
    arch, target = "shufflenet_v2_x1_0", "≤ 1"
    what, against = f"APGD, {steps} steps, {arch}, {batch} × {size[0]}×{size[1]}", "torchattacks' PGD"
    if importlib.util.find_spec("torchattacks") is None:
        yield not_measured(WHAT, what, against, "× the time", target, "torchattacks is not installed")
        return
    torchattacks = importlib.import_module("torchattacks")
    victim = _untrained(arch, size, device)
    images = torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(0)).to(device)
    labels = victim.logits(images).argmax(dim=1)
    theirs = torchattacks.PGD(_Logits(victim).eval(), eps=THREAT.radius, alpha=2 / 255, steps=steps)
    ours = APGD(objectives=("cross_entropy",), restarts=1, steps=steps)
    generator = torch.Generator().manual_seed(0)
    ratios = in_turn(
        lambda: ours.craft(victim, Batch(images), THREAT, generator), lambda: theirs(images, labels), clock=clock
    )
    yield line(WHAT, what, against, ratios, "× the time", target, lambda ratio: ratio <= 1.0)


class _Logits(nn.Module):
    """The classifier of a victim, as other packages take one."""

    def __init__(self, victim: Victim) -> None:
        super().__init__()
        self.victim = victim
        self.anchor = nn.Parameter(torch.zeros(()))  # they read its device

    def forward(self, images: Tensor) -> Tensor:
        logits = self.victim.logits(images)
        assert logits is not None
        return logits


def _layouts(size: tuple[int, int], batch: int, device: torch.device, clock: Clock) -> Iterator[Line]:
    images = torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(0)).to(device)
    for arch in ("shufflenet_v2_x1_0", "mobilenetv2_x1_0", "osnet_x0_25", "resnet50"):
        last, first = (_untrained(arch, size, device) for _ in range(2))
        for victim, layout in ((last, torch.channels_last), (first, torch.contiguous_format)):
            victim.layout, victim.model = layout, victim.model.to(memory_format=layout)
        used = " (used)" if _untrained(arch, size, device).layout == torch.channels_last else " (not used)"
        ratios = in_turn(_bare(last.embed, images, 1, False), _bare(first.embed, images, 1, False), clock=clock)
        yield line(WHAT, f"channels last{used}, {arch}, a step", "channels first", ratios, "× the time")
    victim = _untrained("shufflenet_v2_x1_0", size, device)

    def embedding(mode: Callable[[], Any]) -> Callable[[], None]:
        def embed() -> None:
            with mode():
                victim.embed(images)

        return embed

    ratios = in_turn(embedding(torch.inference_mode), embedding(torch.no_grad), runs=9, clock=clock)
    yield line(WHAT, "inference mode, shufflenet_v2_x1_0, an embedding", "no_grad", ratios, "× the time")


@dataclass(frozen=True)
class _Trial:
    """Test images and functions to craft and evaluate on them."""

    splits: dict[str, Split]
    device: torch.device

    def embeddings(self, victim: Victim, images: np.ndarray) -> Tensor:
        with torch.inference_mode():
            parts = [
                victim.embed(to_float(images[first : first + 32], self.device)).cpu()
                for first in range(0, len(images), 32)
            ]
        return torch.cat(parts)

    def rank1(self, victim: Victim, queries: np.ndarray) -> float:
        query, gallery = self.splits["query"], self.splits["gallery"]
        matrix = distances(
            self.embeddings(victim, queries), self.embeddings(victim, gallery.images), victim.distance
        ).numpy()
        found = rank(matrix, query.identities, gallery.identities, query.cameras, gallery.cameras)
        return float(summary(found)["rank1"])

    def crafted(self, attack: Any, victim: Victim) -> np.ndarray:
        images, generator = self.splits["query"].images, torch.Generator().manual_seed(0)
        parts = []
        for first in range(0, len(images), 32):
            clean = images[first : first + 32]
            made = attack.craft(victim, Batch(to_float(clean, self.device)), THREAT, generator)
            parts.append(enforce(made, clean, THREAT, attack="x"))
        return np.concatenate(parts)


def _effects(device: torch.device, clock: Clock) -> Iterator[Line]:
    """Effect of bfloat16, torch.compile and early stopping on Rank-1, for a victim trained on synthetic data."""
    size, seed = (64, 32), 0
    splits = render_domain(
        "plaza", seed=seed, size=size, train_identities=64, test_identities=48, images_per_camera=2,
        queries_per_identity=2,
    )  # fmt: skip
    trial = _Trial(splits, device)
    source, other = (
        _trained(arch, splits["train"], size, device) for arch in ("shufflenet_v2_x1_0", "mobilenetv2_x1_0")
    )
    notes: list[str] = []
    fast = compiled(source, "shufflenet_v2_x1_0", device, notes.append)
    clean = splits["query"].images
    of = f"{len(clean)} queries of plaza (synthetic), shufflenet_v2_x1_0 at 64×32"
    attacks = {"fgsm": FGSM(), "metric_pgd, 4 steps": MetricPGD(steps=4)}
    exact = {name: trial.rank1(source, trial.crafted(attack, source)) for name, attack in attacks.items()}
    exact["no attack"] = trial.rank1(source, clean)
    for way, victim in (("bfloat16", MixedPrecision(source)), ("torch.compile", fast)):
        works = victim is not source
        why = "; ".join(notes) if not works else ""
        for name, before in exact.items():
            what, against = f"Rank-1 in {way}, {name}, {of}", "float32, as it is"
            if not works:
                yield not_measured(WHAT, what, against, "points", "", why)
                continue
            images = trial.crafted(attacks[name], victim) if name in attacks else clean
            after = trial.rank1(victim, images)
            yield line(WHAT, what, against, [after - before], "points", note=f"{before:.1f} → {after:.1f}")
        if works:
            few = Batch(to_float(clean[:32], device))
            faster, plain = (functools.partial(_few_steps, each, few) for each in (victim, source))
            ratios = in_turn(faster, plain, clock=clock)
            yield line(WHAT, f"pgd in {way}, shufflenet_v2_x1_0 at 64×32", "float32, as it is", ratios, "× the time")
    full, early = PGD(steps=8, step_size=1.0), PGD(steps=8, step_size=1.0, stop_early=True)
    ratios = in_turn(lambda: trial.crafted(early, source), lambda: trial.crafted(full, source), clock=clock)
    yield line(WHAT, f"pgd that stops early, {of}", "pgd", ratios, "× the time")
    made = [trial.crafted(attack, source) for attack in (full, early)]
    for name, target in (("white-box", source), ("on mobilenetv2_x1_0", other)):
        before, after = (trial.rank1(target, each) for each in made)
        what = f"Rank-1 under pgd that stops early, {name}, {of}"
        yield line(WHAT, what, "pgd", [after - before], "points", note=f"{before:.1f} → {after:.1f}")


def _few_steps(victim: Victim, batch: Batch) -> Tensor:
    return PGD(steps=4).craft(victim, batch, THREAT, torch.Generator().manual_seed(0))


def _trained(arch: str, train: Split, size: tuple[int, int], device: torch.device) -> Victim:
    labels = np.unique(train.identities, return_inverse=True)[1].astype(np.int64)
    data = TrainingData("plaza", train.images, labels, train.cameras)
    torch.manual_seed(0)
    recipe = TorchreidVictim(arch, size, epochs=8, batch_instances=2, triplet_from=0.6, erasing=0.0)
    victim = recipe.load(recipe.fit(data, FitContext(device, torch.Generator().manual_seed(0))))
    return victim.to(device).eval().requires_grad_(False)

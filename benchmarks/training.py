"""Overhead of training: each fit against the bare training steps of the same networks.

The bare loop runs the same forward and backward passes, losses and optimisers on one batch in memory. A fit also has
data loading, augmentation, checks that the loss is finite, history and progress.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch.nn import functional

from benchmarks.side_by_side import Clock, Line, in_turn, line, not_measured, seconds
from reid_attack_bench.attacks.gap import GAP, gap_loss
from reid_attack_bench.attacks.misranking import MisRanking
from reid_attack_bench.attacks.misranking.networks import fresh_networks
from reid_attack_bench.attacks.misranking.objective import Objective
from reid_attack_bench.attacks.misranking.training import flip_and_translate
from reid_attack_bench.contracts import FitContext, ThreatModel, TrainingData, Victim, preprocess
from reid_attack_bench.execute.device import keep_freed_memory, use_deterministic_kernels
from reid_attack_bench.torchreid_import import torchreid_module
from reid_attack_bench.victims.augmentation import flip_shift_erase
from reid_attack_bench.victims.torchreid_zoo import TorchreidModel, TorchreidVictim, _layout, untrained_model

TARGET = "≤ 1.10"
ARCH, IDENTITIES, EACH = "shufflenet_v2_x1_0", 32, 8


def measure() -> Iterator[Line]:
    use_deterministic_kernels()
    keep_freed_memory()
    gpu = torch.cuda.is_available()
    device, clock = torch.device("cuda" if gpu else "cpu"), time.perf_counter if gpu else time.process_time
    torch.set_num_threads(torch.get_num_threads() if gpu else 1)
    size, k, steps = ((256, 128), 4, 40) if gpu else ((128, 64), 2, 5)
    data = _data(size)
    yield from _victim(data, size, k, steps, device, clock)
    source = _source(size, device)
    yield from _misranking(data, source, k, steps, device, clock)
    yield from _gap(data, source, 8 * k, steps, device, clock)
    if not gpu:
        for what in (ARCH, "misranking", "gap"):
            yield not_measured("training", f"{what}, on a GPU", "bare steps", "× the time", TARGET, "no GPU here")


def _data(size: tuple[int, int]) -> TrainingData:
    images = np.random.default_rng(0).integers(0, 256, (IDENTITIES * EACH, *size, 3), dtype=np.uint8)
    return TrainingData("noise", images, np.repeat(np.arange(IDENTITIES), EACH), np.tile(np.arange(EACH), IDENTITIES))


def _source(size: tuple[int, int], device: torch.device) -> Victim:
    torch.manual_seed(0)
    return (
        TorchreidModel(untrained_model(ARCH, IDENTITIES), ARCH, size, "cosine").to(device).eval().requires_grad_(False)
    )


def _context(device: torch.device) -> FitContext:
    torch.manual_seed(0)
    return FitContext(device, torch.Generator().manual_seed(0))


def _judged(what: str, fit: Callable[[], object], bare: Callable[[], object], clock: Clock) -> Line:
    ratios = in_turn(fit, bare, clock=clock)
    return line("training", what, "bare steps", ratios, "× the time", TARGET, lambda ratio: ratio <= 1.10)


def _share(what: str, prepare: Callable[[], object], bare: Callable[[], object], steps: int, clock: Clock) -> Line:
    shares = [100 * steps * seconds(prepare, clock) / seconds(bare, clock) for _ in range(5)]
    return line("training", f"{what}: reading and augmentation", "bare steps", shares, "% of the time")


def _victim(
    data: TrainingData, size: tuple[int, int], k: int, steps: int, device: torch.device, clock: Clock
) -> Iterator[Line]:
    epochs = steps * 8 * k // len(data.images) or 1
    recipe = TorchreidVictim(
        ARCH, size, epochs=epochs, batch_instances=k, triplet_from=0.0, learning_rate=1e-4, distance="euclidean"
    )
    steps = epochs * len(data.images) // (8 * k)
    triplet = torchreid_module("losses").TripletLoss(margin=0.3)
    rows = np.arange(8 * k) * (len(data.images) // (8 * k))

    def bare() -> None:
        model = untrained_model(ARCH, IDENTITIES).to(device).to(memory_format=_layout(ARCH)).train()
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=5e-4)
        images, identities = data.batch(rows, device)
        inputs = preprocess(images, size).contiguous(memory_format=_layout(ARCH))
        for _ in range(steps):
            scores, features = model(inputs)
            loss = functional.cross_entropy(scores, identities, label_smoothing=0.1) + triplet(features, identities)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()

    def prepare() -> None:
        images, _ = data.batch(rows, device)
        preprocess(flip_shift_erase(images, recipe.erasing), size).contiguous(memory_format=_layout(ARCH))

    what = f"victim {ARCH}, {8 * k} × {size[0]}×{size[1]}, {steps} steps"
    yield _judged(what, lambda: recipe.fit(data, _context(device)), bare, clock)
    yield _share(what, prepare, bare, steps, clock)


def _misranking(
    data: TrainingData, source: Victim, k: int, steps: int, device: torch.device, clock: Clock
) -> Iterator[Line]:
    threat = ThreatModel(16)
    attack = MisRanking(width=16, discriminator_width=32, steps=steps, batch_instances=k, held_out=0.0)
    rows = (np.arange(8)[:, None] * EACH + np.arange(k)).ravel()

    def bare() -> None:
        context = _context(device)
        networks = fresh_networks(attack, threat, context.generator, device).train()
        objective = Objective(attack, source, networks, threat, context.generator, data.name, IDENTITIES)
        discriminator_weights = list(networks.discriminator.parameters())
        generator, discriminator = (
            torch.optim.Adam(w, 2e-4, (0.5, 0.999)) for w in (networks.generator_weights, discriminator_weights)
        )
        clean, identities = data.batch(rows, device)
        clean = clean.contiguous(memory_format=torch.channels_last)
        for _ in range(steps):
            losses = objective(clean, identities)
            generator.zero_grad(set_to_none=True)
            losses.generator.backward(inputs=networks.generator_weights, retain_graph=True)
            discriminator.zero_grad(set_to_none=True)
            losses.discriminator.backward(inputs=discriminator_weights)
            discriminator.step()
            generator.step()

    def prepare() -> None:
        images, _ = data.batch(rows, device)
        flip_and_translate(images, torch.Generator()).contiguous(memory_format=torch.channels_last)

    what = f"misranking, half width, {8 * k} images, {steps} steps"
    yield _judged(what, lambda: attack.fit(source, data, threat, _context(device)), bare, clock)
    yield _share(what, prepare, bare, steps, clock)


def _gap(
    data: TrainingData, source: Victim, batch: int, steps: int, device: torch.device, clock: Clock
) -> Iterator[Line]:
    attack, threat = GAP(width=16, steps=steps, batch=batch), ThreatModel(16)

    def bare() -> None:
        network = attack._network(_context(device).generator).to(device).train()
        optimiser = torch.optim.Adam(network.parameters(), 2e-4, (0.5, 0.999))
        clean, _ = data.batch(np.arange(batch), device)
        clean = clean.contiguous(memory_format=torch.channels_last)
        for _ in range(steps):
            with torch.no_grad():
                known = source.logits(clean)
            adversarial = threat.project(clean + threat.radius * network(clean), clean)
            logits = source.logits(adversarial)
            assert known is not None
            assert logits is not None
            optimiser.zero_grad(set_to_none=True)
            gap_loss(logits, known).backward(inputs=list(network.parameters()))
            optimiser.step()

    def prepare() -> None:
        images, _ = data.batch(np.arange(batch), device)
        torch.where(torch.rand(batch, 1, 1, 1).to(device) < 0.5, images.flip(-1), images)

    what = f"gap, half width, {batch} images, {steps} steps"
    yield _judged(what, lambda: attack.fit(source, data, threat, _context(device)), bare, clock)
    yield _share(what, prepare, bare, steps, clock)

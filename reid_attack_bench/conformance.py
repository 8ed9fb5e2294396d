"""Is a victim what the bench takes it for? Checked on a few clean images before any attack is spent on it.

A fault breaks the contract of `contracts.Victim`, or makes every figure of the victim suspect; a note is for the user
to judge. Where two ways to feed or to rank a victim are compared, it is by the AP of the same queries.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from reid_attack_bench.adaptive import shadowed_purify
from reid_attack_bench.contracts import IMAGENET_MEAN, IMAGENET_STD, Distance, Victim, distances, preprocess, to_float
from reid_attack_bench.data.synthetic import Split
from reid_attack_bench.errors import BenchError, VictimError
from reid_attack_bench.metrics.bootstrap import interval
from reid_attack_bench.metrics.ranking import rank
from reid_attack_bench.plan import weights_digest
from reid_attack_bench.report.audit import ZERO_GRADIENTS
from reid_attack_bench.steps import embed

Level = Literal["ok", "note", "fault"]

BETTER = 5.0
"""Points of mAP by which another input must rank better, beyond chance, to be worth a note."""
MUCH_BETTER = 10.0
"""The same to be a fault: on data far from its own, a victim may like a wrong input a little better by accident."""
ENOUGH = 30
"""Queries from which such a comparison can make a fault; with fewer it is a note."""
BETTER_DISTANCE = 2.0
"""Points of mAP by which the other distance must rank better to be worth a note."""
MOVED = 0.01
"""How far an embedding may move for no reason, as a share of the distance between those of different images."""
WRONG_GRADIENT = 0.3
"""Relative error against finite differences from which a gradient is looked at more closely; kinks make 0.1 or 0.2."""
REFUSED = 0.2
"""Share of clean images that a detector may refuse without a note."""

UNDONE = "with ImageNet's mean and std undone"
SWAPPED = "as BGR"

_BATCH = 32
_FEW = 8  # images that most checks look at
_Said = tuple[Level, str, str]  # a finding before it has a name
_STEPS = (2 / 255, 0.5 / 255, 0.125 / 255)  # of finite differences: long ones meet kinks, short ones rounding


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        name: of the check.
        level: "ok", "note" (for the user to judge) or "fault".
        evidence: what was seen, with figures.
        advice: what to do; empty where nothing is.
    """

    name: str
    level: Level
    evidence: str
    advice: str = ""


@dataclass(frozen=True)
class _Score:
    """How embeddings rank their images: AP per query in % (NaN where there is no match), Rank-1 in %."""

    ap: np.ndarray
    rank1: float

    @property
    def mean(self) -> float:
        return float(np.nanmean(self.ap))

    def better_than(self, other: _Score, margin: float) -> bool:
        difference = self.ap - other.ap
        return float(np.nanmean(difference)) >= margin and interval(difference, seed=0)[0] > 0.0


@dataclass(frozen=True)
class _Subject:
    """A victim and what it is looked at with: images N×3×H×W in [0, 1] on its device, int64 N labels."""

    victim: Victim
    images: Tensor
    identities: np.ndarray
    cameras: np.ndarray

    @property
    def name(self) -> str:
        return self.victim.name or type(self.victim).__name__

    def overrides(self, method: str) -> bool:
        return getattr(type(self.victim), method) is not getattr(Victim, method)

    def embed(self, images: Tensor) -> Tensor:
        """Checked, without gradients, in batches; copies, for one that writes to its images."""
        with torch.no_grad():
            return torch.cat([embed(self.victim, part.clone(), self.name).float() for part in images.split(_BATCH)])

    @functools.cached_property
    def few(self) -> Tensor:
        return self.images[:_FEW]

    @functools.cached_property
    def apart(self) -> float:
        """The distance between embeddings of different images: the median of a few; never nothing, for it divides."""
        embeddings = self.embed(self.few)
        between = torch.cdist(embeddings, embeddings).flatten()
        median = float(between[between > 0].median()) if (between > 0).any() else 0.0
        return max(median, 1e-3 * float(embeddings.norm(dim=1).mean()), 1e-12)

    def moved(self, one: Tensor, other: Tensor) -> float:
        """The largest distance between two embeddings of one image, as a share of `apart`."""
        return float((one.float() - other.float()).norm(dim=1).max()) / self.apart

    @functools.cached_property
    def varies(self) -> float:
        """How far two passes over the same images are apart, as `moved`."""
        return self.moved(self.embed(self.few), self.embed(self.few))

    @functools.cached_property
    def declared(self) -> Distance:
        return self.victim.distance if self.victim.distance in get_args(Distance) else "euclidean"

    @functools.cached_property
    def embeddings(self) -> Tensor:
        return self.embed(self.images)

    @functools.cached_property
    def collapsed(self) -> bool:
        """True where all images have the same embedding, so that nothing ranks."""
        mean = self.embeddings.mean(dim=0)
        return float((self.embeddings - mean).norm(dim=1).max()) <= 1e-5 * float(mean.norm())

    def score(self, embeddings: Tensor, distance: Distance) -> _Score:
        between = distances(embeddings, embeddings, distance).cpu().numpy()
        ranking = rank(between, self.identities, self.identities, self.cameras, self.cameras)
        return _Score(100.0 * ranking.ap, 100.0 * float(ranking.hits[ranking.valid, 0].mean()))

    @functools.cached_property
    def base(self) -> _Score:
        return self.score(self.embeddings, self.declared)

    @functools.cached_property
    def other_inputs(self) -> dict[str, _Score]:
        """How it ranks when it is given images as in _INPUTS; without those that it refuses."""
        scores = {}
        for what, (_, change, _) in _INPUTS.items():
            try:
                scores[what] = self.score(self.embed(change(self.images)), self.declared)
            except Exception:  # it may refuse what it was never promised
                continue
        return scores


def check(
    victim: Victim,
    images: np.ndarray,
    identities: np.ndarray,
    cameras: np.ndarray,
    *,
    device: torch.device | str = "cpu",
) -> list[Finding]:
    """Hold `victim` against its contract, and against what usually goes wrong.

    The victim is put on `device`, in eval mode and frozen, as the bench does. Every image is a query to all others;
    as always, those of its identity in its camera are junk.

    Args:
        images: uint8 RGB N×H×W×3, clean; a few dozen identities with two or more images each tell enough.
        identities, cameras: int N.

    Returns:
        What each check found, in order. Where embed does not give embeddings, nothing else is checked.

    Raises:
        BenchError: no identity is seen by two cameras, so that nothing can be ranked.
    """
    victim.to(device).eval().requires_grad_(False)
    subject = _Subject(victim, to_float(images, device), np.asarray(identities), np.asarray(cameras))
    findings: list[Finding] = []
    for name, function in _CHECKS.items():
        findings += _attempt(name, function, subject)
        if findings[-1:] and findings[-1].name == "output" and findings[-1].level == "fault":
            break
    return findings


def sample(query: Split, gallery: Split, queries: int = 64, matches: int = 2) -> Split:
    """A few images of a data set for `check`: queries of as many identities as there are, and their gallery images.

    Args:
        queries: at most so many query images.
        matches: at most so many gallery images of each identity, from other cameras than its query.
    """
    _, firsts = np.unique(query.identities, return_index=True)
    spread = firsts[np.unique(np.linspace(0, len(firsts) - 1, min(queries, len(firsts))).round().astype(int))]
    chosen: list[int] = []
    for row in spread:
        other = (gallery.identities == query.identities[row]) & (gallery.cameras != query.cameras[row])
        places = np.flatnonzero(other)
        _, one_each = np.unique(gallery.cameras[places], return_index=True)
        chosen += list(places[one_each][:matches])
    return Split(
        np.concatenate((np.array(query.images[spread]), np.array(gallery.images[chosen]))),
        np.concatenate((query.identities[spread], gallery.identities[chosen])),
        np.concatenate((query.cameras[spread], gallery.cameras[chosen])),
    )


def ready(subject: Any, key: str) -> Victim:
    """`subject` itself, if it is a victim that needs no training.

    Raises:
        BenchError: the bench would have to train it first, or it is no victim.
    """
    if isinstance(subject, Victim):
        return subject
    if hasattr(subject, "fit") or hasattr(subject, "defend"):
        what = "is made by the bench of another victim" if hasattr(subject, "defend") else "is trained by the bench"
        raise BenchError(
            f"check-victim is for models that are ready, and {key} {what}: the bench checks it when it has made it"
        )
    raise BenchError(f"{key} is a {type(subject).__name__}: it must be a reid_attack_bench.contracts.Victim")


def _attempt(name: str, function: Callable[[_Subject], Iterable[_Said]], subject: _Subject) -> Iterator[Finding]:
    """What a check finds, or that the victim fails in it."""
    try:
        for level, evidence, advice in function(subject):
            yield Finding(name, level, evidence, advice)
    except VictimError as error:
        yield Finding(name, "fault", str(error), "it must do so for every batch of clean images")
    except BenchError:
        raise
    except Exception as error:  # whatever the user's code does wrong is a finding
        reason = " ".join(str(error).split())[:300]
        yield Finding(name, "fault", f"it fails with {type(error).__name__}: {reason}", "repair it and check again")


def _ok(evidence: str) -> _Said:
    return "ok", evidence, ""


def _note(evidence: str, advice: str = "") -> _Said:
    return "note", evidence, advice


def _fault(evidence: str, advice: str) -> _Said:
    return "fault", evidence, advice


def _declarations(subject: _Subject) -> Iterator[_Said]:
    size = subject.victim.input_size
    if subject.victim.distance not in get_args(Distance):
        yield _fault(f"distance is {subject.victim.distance!r}", 'declare distance = "euclidean" or "cosine"')
    if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        yield _fault(f"input_size is {size!r}", "declare (height, width) in pixels")
    elif size[0] < size[1]:
        yield _note(f"input_size is {size[0]} high and {size[1]} wide", "people stand: is it (height, width)?")


def _output(subject: _Subject) -> Iterator[_Said]:
    """Shape, type and finiteness, for a batch, for one image, and for random images of its own input size."""
    generator = torch.Generator().manual_seed(0)
    random = torch.rand(2, 3, *subject.victim.input_size, generator=generator).to(subject.images)
    result: Any = None
    for what, images in (("2 images", subject.few[:2]), ("1 image", subject.few[:1]), ("2 random images", random)):
        with torch.no_grad():
            result = subject.victim.embed(images.clone())
        if advice := _misshapen(result, len(images)):
            yield _fault(f"embed returned {_kind(result)} for {what}", advice)
            return
        if not torch.isfinite(result).all():
            yield _fault(
                f"embed returned NaN or infinity for {what}",
                "look for divisions by zero and roots of negative numbers; are its weights loaded?",
            )
            return
    subject.embed(subject.images)  # raises for the image that is not finite
    yield _ok(f"N×{result.shape[1]}, {_type(result)}, finite")


def _misshapen(result: Any, count: int) -> str:
    """What to do about a result that is no float tensor N×D; empty where it is one."""
    if isinstance(result, (tuple, list, dict)):
        return f"return the embedding alone, N×D: pick it out of the {type(result).__name__}"
    if isinstance(result, np.ndarray):
        return "return a torch tensor, for NumPy cuts the gradient: replace it by torch functions"
    if not isinstance(result, Tensor):
        return "return a torch tensor, N×D"
    if result.ndim > 2 and len(result) == count:
        return "return N×D: pool over space, or end with .flatten(1)"
    if result.ndim != 2 or len(result) != count:
        return "return one row for each image, N×D; squeeze() drops the batch of a single image"
    if not result.is_floating_point():
        return "return floating point: what comes before rounding, hashing or argmax"
    return ""


def _kind(result: Any) -> str:
    if isinstance(result, Tensor):
        return f"{_type(result)} of shape {tuple(result.shape)}"
    return f"a NumPy array of shape {result.shape}" if isinstance(result, np.ndarray) else f"a {type(result).__name__}"


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _eval_mode(subject: _Subject) -> Iterator[_Said]:
    subject.embed(subject.few[:2])
    training = [(name, module) for name, module in subject.victim.named_modules() if module.training]
    hidden = [
        name
        for name, value in vars(subject.victim).items()
        if not name.startswith("_") and isinstance(value, (list, tuple, dict))
        for part in (value.values() if isinstance(value, dict) else value)
        if isinstance(part, nn.Module)
    ]
    if hidden:
        yield _fault(
            f"the modules in {hidden[0]} are hidden in a list or dict: no .eval(), no .to(device) reaches them",
            "use nn.ModuleList or nn.ModuleDict",
        )
    if training:
        kinds = sorted({type(module).__name__ for _, module in training})
        dropout = any("Dropout" in kind for kind in kinds)
        yield _fault(
            f"{len(training)} modules are in training mode after .eval(): {', '.join(kinds[:4])}"
            f"{', so dropout is active' if dropout else ''} (first: {training[0][0] or 'the victim itself'})",
            "call no .train() in embed, and let train(mode) go to every module",
        )
    if not hidden and not training:
        yield _ok("every module is in eval mode, after embed too")


def _side_effects(subject: _Subject) -> Iterator[_Said]:
    images, before = subject.few.clone(), weights_digest(subject.victim)
    with torch.no_grad():
        subject.victim.embed(images)
    changes = not torch.equal(images, subject.few), weights_digest(subject.victim) != before
    if changes[0]:
        yield _fault(
            "embed changes the images that it is given",
            "replace in-place operations on them (sub_, div_, clamp_, +=), or start from images.clone()",
        )
    if changes[1]:
        yield _fault(
            "embed changes the victim's own parameters or buffers",
            "keep no state between calls, or results depend on their order; is batch normalisation in eval mode?",
        )
    if not any(changes):
        yield _ok("embed leaves the images and the victim as they were")


def _determinism(subject: _Subject) -> Iterator[_Said]:
    seen = f"two passes over the same images differ by {100 * subject.varies:.2g} % of the distance between images"
    randomised = subject.victim.randomised
    if subject.varies > MOVED and not randomised:
        yield _fault(seen, "declare randomised = True if the defence is random; else look for active dropout or noise")
    elif randomised and subject.varies <= MOVED:
        yield _note(
            f"it declares randomised = True, and {seen}",
            "leave it out, or draw anew in each pass: adaptive attacks average over the draws",
        )
    else:
        yield _ok(f"{seen}{', as declared' if randomised else ''}")


def _batch_independence(subject: _Subject) -> Iterator[_Said]:
    if subject.varies > MOVED:
        yield _note("not judged: two passes over one image differ already")
        return
    watched, others = subject.few[:3], subject.few[3:]
    noise = torch.rand(others.shape, generator=torch.Generator().manual_seed(0)).to(others)
    neighbours = {
        "other images": others,
        "black images": torch.zeros_like(noise),
        "white images": torch.ones_like(noise),
        "noise": noise,
    }
    alone = torch.cat([subject.embed(image[None]) for image in watched])
    moved = {}
    for what, beside in neighbours.items():
        first, last = subject.embed(torch.cat((watched, beside))), subject.embed(torch.cat((beside, watched)))
        moved[what] = max(subject.moved(first[:3], alone), subject.moved(last[-3:], alone))
    worst = max(moved, key=lambda what: moved[what])
    seen = f"an embedding moves by {100 * moved[worst]:.2g} % of the distance between images"
    if moved[worst] > MOVED:
        yield _fault(
            f"{seen} when its image is beside {worst} instead of alone",
            "take statistics over each image or from training, never over the batch: batch normalisation with running "
            "statistics, sums and norms over dim=1 and not dim=0",
        )
    else:
        yield _ok(f"{seen} at most, beside {', '.join(moved)} instead of alone")


def _gradient(subject: _Subject) -> Iterator[_Said]:
    """Present, finite, not zero, and what finite differences say it is."""
    victim = subject.victim
    if not victim.differentiable:
        yield _note("it declares differentiable = False: attacks that need gradients can only transfer to it")
        return
    images = (0.02 + 0.96 * subject.few[:4]).requires_grad_(True)  # room for a step on both sides
    with _same_draw(images.device):
        embeddings = embed(victim, images, subject.name)
    if not embeddings.requires_grad:
        yield _fault(
            "the embeddings carry no gradient",
            "look for detach, no_grad, .data or NumPy on the way; or declare differentiable = False to have it as a "
            "target only",
        )
        return
    generator = torch.Generator().manual_seed(0)
    # along a random direction: the length of a normalised embedding never changes
    weights = torch.randn(embeddings.shape, generator=generator).to(embeddings)
    (gradient,) = torch.autograd.grad((embeddings * weights).sum(), images, allow_unused=True)
    if gradient is None:
        yield _fault("no gradient reaches the images", "look for detach; or declare differentiable = False")
    elif not torch.isfinite(gradient).all():
        yield _fault(
            "the gradient is NaN or infinite",
            "look for square roots, norms and divisions of zero, and add a small number there",
        )
    else:
        yield _judged(subject, images.detach(), gradient, weights, generator)


def _judged(subject: _Subject, images: Tensor, gradient: Tensor, weights: Tensor, generator: torch.Generator) -> _Said:
    excused = subject.overrides("purify") or subject.victim.randomised
    advice = (
        "attack it with adaptive: true, which takes the gradient of purify for the identity's"
        if subject.overrides("purify")
        else "put the transformation into purify and attack it with adaptive: true, or declare differentiable = False"
    )
    zero = float((gradient == 0).float().mean())
    if zero == 1.0:
        noise = torch.rand(images.shape, generator=generator).to(images).sub(0.5).mul(16 / 255)
        with _same_draw(images.device):
            base = subject.embed(images)
        with _same_draw(images.device):
            moved = subject.moved(subject.embed((images + noise).clamp(0, 1)), base)
        seen = f"the gradient is zero everywhere, though noise of 8/255 moves embeddings by {100 * moved:.2g} % of the "
        return (_note if excused else _fault)(f"{seen}distance between images: something rounds or counts", advice)
    error, uphill = _against_differences(subject, images, gradient, weights, generator)
    drawn = subject.victim.randomised or subject.varies > MOVED
    seen = f"it differs from finite differences by {100 * error:.2g} %"
    seen += ", with the same random draw in each pass" if drawn else ""
    if error > WRONG_GRADIENT and not uphill:
        return (_note if excused else _fault)(
            f"{seen} and leads nowhere: attacks would look weaker than they are", advice
        )
    if error > WRONG_GRADIENT:
        return _note(f"{seen}, yet leads uphill", "is the backward pass an approximation on purpose? Else repair it")
    if zero >= ZERO_GRADIENTS:
        return _note(
            f"{100 * zero:.0f} % of the images' values have no gradient; {seen}",
            "is part of the image cut off, or resized without antialias? If something rounds: " + advice,
        )
    return _ok(f"finite, {100 * (1 - zero):.0f} % of values have one; {seen}")


def _against_differences(
    subject: _Subject, images: Tensor, gradient: Tensor, weights: Tensor, generator: torch.Generator
) -> tuple[float, bool]:
    """Relative error of the gradient along directions in which it is large, and whether it beats random ones."""

    def difference(direction: Tensor, step: float) -> Tensor:
        ends = []
        for end in (images + step * direction, images - step * direction):
            with _same_draw(images.device):
                ends.append((subject.embed(end).double() * weights).sum(dim=1))
        return (ends[0] - ends[1]) / (2 * step)

    sign = gradient.sign()
    half = (torch.rand(images[:, :1].shape, generator=generator) < 0.5).to(images)
    directions = (sign, sign * half, gradient / gradient.abs().amax())
    claimed = torch.stack([(gradient * direction).flatten(1).double().sum(dim=1) for direction in directions])
    errors = []
    for step in _STEPS:
        seen = torch.stack([difference(direction, step) for direction in directions])
        errors.append(float((seen - claimed).norm() / claimed.norm()))
    far = 4 / 255
    draws = [(torch.rand(images.shape, generator=generator) - 0.5).sign().to(images) for _ in range(3)]
    random = torch.stack([difference(draw, far).abs().mean() for draw in draws]).mean()
    return min(errors), float(difference(sign, far).mean()) > 2.0 * float(random)


@contextmanager
def _same_draw(device: torch.device) -> Iterator[None]:
    """What a victim draws from torch's own generators is the same each time."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        yield


def _logits(subject: _Subject) -> Iterator[_Said]:
    images = subject.few[:4]
    with torch.no_grad():
        scores = subject.victim.logits(images.clone())
    if scores is None:
        yield _note(
            "none: attacks that need logits cannot be crafted on it", "has it a classifier? Then implement logits"
        )
        return
    if not isinstance(scores, Tensor) or scores.ndim != 2 or len(scores) != len(images):
        yield _fault(
            f"logits returned {_kind(scores)} for {len(images)} images",
            f"return {len(images)}×K, the scores over its own training identities, or None",
        )
        return
    if not scores.is_floating_point() or not torch.isfinite(scores).all():
        yield _fault("logits are NaN, infinite or whole numbers", "are the classifier's weights loaded?")
        return
    with torch.no_grad():
        together, scores_together = subject.victim.outputs(images.clone())
    if subject.varies <= MOVED:
        apart = subject.moved(together, subject.embed(images)) > MOVED
        same = scores_together is not None and torch.allclose(scores_together, scores, rtol=1e-2, atol=1e-3)
        if apart or not same:
            yield _fault(
                f"outputs gives other {'embeddings than embed' if apart else 'scores than logits'}",
                "make outputs agree with embed and logits, or leave it out",
            )
            return
    yield _ok(f"N×{scores.shape[1]}, finite")


def _purify(subject: _Subject) -> Iterator[_Said]:
    if not subject.overrides("purify"):
        return
    victim, images = subject.victim, subject.few[:4]
    with torch.no_grad():
        result = victim.purify(images.clone())
    if not isinstance(result, Tensor) or result.shape != images.shape:
        yield _fault(f"purify returned {_kind(result)} for images {tuple(images.shape)}", "return images of that shape")
        return
    if not torch.isfinite(result).all() or result.min() < -0.01 or result.max() > 1.01:
        yield _fault(
            f"purify returned values from {float(result.min()):.2f} to {float(result.max()):.2f}",
            "stay in [0, 1]: normalise after purify, in embed",
        )
        return
    seen = []

    def watched(purify: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        seen.append(len(images))
        return purify(images)

    with shadowed_purify(victim, watched):
        subject.embed(images)
    if seen:
        yield _ok("it stays in [0, 1], and embed goes through it")
    else:
        yield _fault("embed does not call purify", "call self.purify(images) in embed and in logits")


def _rejects(subject: _Subject) -> Iterator[_Said]:
    parts = []
    for images in subject.images.split(_BATCH):
        with torch.no_grad():
            refused = subject.victim.rejects(images.clone())
        if refused is None:
            return
        if not isinstance(refused, Tensor) or refused.dtype != torch.bool or refused.shape != images.shape[:1]:
            yield _fault(f"rejects returned {_kind(refused)} for {len(images)} images", "return a bool tensor of N")
            return
        parts.append(refused)
    suspicion = subject.victim.suspicion(subject.images[:2].clone().requires_grad_(True))
    if suspicion is None or not suspicion.requires_grad:
        what = "give suspicion, N values that are positive where it refuses and differentiable in the images"
        yield _note("no attack can try to evade its detector", what)
    share = float(torch.cat(parts).float().mean())
    seen = f"{100 * share:.1f} % of clean images are refused"
    yield _ok(seen) if share <= REFUSED else _note(seen, "each refused clean query is a miss: loosen the threshold")


def _ranking(subject: _Subject) -> Iterator[_Said]:
    if subject.collapsed:
        yield _fault("all images have the same embedding", "are its weights loaded? Does it take images in [0, 1]?")
        return
    base, chance = subject.base, _chance(subject)
    people = len(np.unique(subject.identities))
    seen = f"Rank-1 {base.rank1:.1f} %, mAP {base.mean:.1f} % on {len(subject.images)} clean images of {people} people"
    if base.rank1 < 3.0 * chance:
        yield _note(
            f"{seen}; chance is Rank-1 {chance:.1f} %",
            "a model that finds nobody says nothing about attacks: are its weights loaded?",
        )
    else:
        yield _ok(seen)


def _chance(subject: _Subject) -> float:
    """Rank-1 in % of a random order."""
    same = subject.identities[:, None] == subject.identities
    junk = same & (subject.cameras[:, None] == subject.cameras)
    correct = (same & ~junk).sum(axis=1)
    valid = correct > 0
    return 100.0 * float((correct[valid] / (~junk).sum(axis=1)[valid]).mean())


def _distance(subject: _Subject) -> Iterator[_Said]:
    if subject.collapsed:
        return
    other: Distance = "cosine" if subject.declared == "euclidean" else "euclidean"
    score = subject.score(subject.embeddings, other)
    seen = f"mAP {subject.base.mean:.1f} % by the declared {subject.declared} distance, {score.mean:.1f} % by {other}"
    if score.better_than(subject.base, BETTER_DISTANCE):
        yield _note(seen, f'declare distance = "{other}", if the model was not meant otherwise')
    else:
        yield _ok(seen)


def _input(name: str, subject: _Subject) -> Iterator[_Said]:
    """Images as the model may have been meant to get them: the best one, if better, says what is wrong."""
    if subject.collapsed:
        return
    base = subject.base
    better = {what: score for what, score in subject.other_inputs.items() if score.better_than(base, BETTER)}
    best = max(better, key=lambda what: better[what].mean, default="")
    tried = {what: score for what, score in subject.other_inputs.items() if _INPUTS[what][0] == name}
    others = ", ".join(f"{score.mean:.1f} % {what}" for what, score in tried.items()) or "it refuses any other"
    seen = f"mAP {base.mean:.1f} % on images as the bench gives them, {others}"
    if best not in tried:
        yield _ok(seen)
        return
    # red and blue in exchange may rank better by accident where a camera has a cast, and more contrast under a defence
    # that adds noise or rounds
    defended = subject.overrides("purify") or subject.victim.randomised
    accident = best == SWAPPED or (defended and best != UNDONE)
    enough = np.isfinite(base.ap).sum() >= ENOUGH and better[best].better_than(base, MUCH_BETTER)
    yield (_fault if enough and not accident else _note)(seen, _INPUTS[best][2])


def _normalised(images: Tensor) -> Tensor:
    height, width = images.shape[-2:]
    return preprocess(images, (height, width))


def _undone(images: Tensor) -> Tensor:
    mean, std = (torch.tensor(value).view(1, 3, 1, 1).to(images) for value in (IMAGENET_MEAN, IMAGENET_STD))
    return images * std + mean


_INPUTS: dict[str, tuple[str, Callable[[Tensor], Tensor], str]] = {
    "from 0 to 255": (
        "value range",
        lambda images: 255.0 * images,
        "the model expects 0 to 255, it seems: multiply by 255 in embed, as victims.fastreid.FastReidModel does",
    ),
    "from -1 to 1": (
        "value range",
        lambda images: 2.0 * images - 1.0,
        "the model expects -1 to 1, it seems: use preprocess with mean and std of 0.5",
    ),
    UNDONE: (
        "normalisation",
        _undone,
        "the images are normalised twice, it seems: leave out one of the two, here or in the model",
    ),
    "normalised by ImageNet's mean and std": (
        "normalisation",
        _normalised,
        "the model expects normalised images, it seems: use preprocess in embed",
    ),
    SWAPPED: (
        "colour order",
        lambda images: images.flip(1),
        "was it trained on BGR, as OpenCV reads? Then give it images.flip(1); on data with other colours than its own "
        "it can be an accident",
    ),
}
"""What else a model may have been meant to get: which check it belongs to, how to make it, what to do."""


def _speed(subject: _Subject) -> Iterator[_Said]:
    images = subject.images[:_BATCH]
    device = images.device
    seen = f"{len(images) / _seconds(lambda: subject.embed(images), device):.0f} images/s forward"
    if subject.victim.differentiable:
        leaf = images.clone().requires_grad_(True)

        def both() -> None:
            torch.autograd.grad(subject.victim.embed(leaf).sum(), leaf, allow_unused=True)

        with contextlib.suppress(RuntimeError):  # no gradient, as another check says
            seen += f", {len(images) / _seconds(both, device):.0f} forward and backward"
    where = f"{torch.get_num_threads()} threads of a CPU" if device.type == "cpu" else device.type
    yield _ok(f"{seen}, on {where}, {len(images)} at a time")


def _seconds(work: Callable[[], Any], device: torch.device) -> float:
    wait = functools.partial(torch.cuda.synchronize, device) if device.type == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    work()
    wait()
    return max(time.perf_counter() - start, 1e-9)


_CHECKS: dict[str, Callable[[_Subject], Iterable[_Said]]] = {
    "declarations": _declarations,
    "output": _output,
    "eval mode": _eval_mode,
    "side effects": _side_effects,
    "determinism": _determinism,
    "batch independence": _batch_independence,
    "gradient": _gradient,
    "logits": _logits,
    "purify": _purify,
    "rejects": _rejects,
    "ranking": _ranking,
    **{name: functools.partial(_input, name) for name in ("value range", "normalisation", "colour order")},
    "distance": _distance,
    "speed": _speed,
}


__all__ = ["Finding", "check", "ready", "sample"]

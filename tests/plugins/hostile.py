"""Attacks and victims that harm more than themselves, if they are let."""

import gc
import os
import random
import signal
import sys
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from reid_attack_bench.contracts import Attack, LearnedAttack, Victim


class Quiet(Victim):
    """An honest victim with batch normalisation; deterministic weights."""

    input_size = (64, 32)

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 8, 5, 4, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5))
        with torch.no_grad():
            for parameter in self.body.parameters():
                parameter.copy_(torch.rand(parameter.shape, generator=generator) - 0.3)
        self.settings = {"pool": [4, 2]}

    def embed(self, images):
        return functional.adaptive_avg_pool2d(self.body(images), self.settings["pool"]).flatten(1)


def inner(source):
    """The victim behind the source that an attack is given."""
    return next(part for part in source.modules() if not hasattr(part, "victim") and isinstance(part, Victim))


def add_to_weights(source):
    inner(source).body[0].weight.data.add_(1)


def add_to_buffers(source):
    inner(source).body[1].running_mean.add_(1)


def halve(source):
    source.half()


def leave_hook(source):
    inner(source).body[0].register_forward_hook(lambda module, given, found: found * 2)


def leave_pre_hook(source):
    inner(source).register_forward_pre_hook(lambda module, given: None)


def set_distance(source):
    for part in source.modules():
        part.distance = "cosine"


def set_attribute(source):
    inner(source).more = 1


def change_settings(source):
    inner(source).settings["pool"][0] = 1


def replace_method(source):
    inner(source).embed = lambda images: images.flatten(1)


def replace_method_of_class(source):
    type(inner(source)).embed = lambda self, images: images.flatten(1)


def replace_module(source):
    inner(source).body[0] = nn.Conv2d(3, 8, 5, 4, 2)


def change_and_raise(source):
    add_to_weights(source)
    raise ValueError("after the change")


CHANGES = {
    "train": (lambda source: source.train(), "training mode ("),
    "weights": (add_to_weights, "weights (body.0.weight)"),
    "buffers": (add_to_buffers, "weights (body.1.running_mean)"),
    "halve": (halve, "weights ("),
    "hook": (leave_hook, "hooks (body.0)"),
    "pre_hook": (leave_pre_hook, "hooks (of the victim itself)"),
    "distance": (set_distance, "distance"),
    "attribute": (set_attribute, "attributes (more)"),
    "settings": (change_settings, "attributes (settings)"),
    "method": (replace_method, "attributes (embed)"),
    "method_of_class": (replace_method_of_class, "methods (Quiet.embed)"),
    "module": (replace_module, "modules (body.0"),
    "requires_grad": (lambda source: source.requires_grad_(True), "requires_grad ("),
    "raises": (change_and_raise, "weights (body.0.weight)"),
}
"""Change of the source → what the step says of it."""


def end(how):
    if how == "sys.exit":
        sys.exit(0)
    if how == "os._exit":
        os._exit(0)
    raise {"KeyboardInterrupt": KeyboardInterrupt, "GeneratorExit": GeneratorExit, "StopIteration": StopIteration}[how]


ENDS = {
    "sys.exit": "sys.exit(0) was called",
    "os._exit": "os._exit(0) was called",
    "KeyboardInterrupt": "KeyboardInterrupt was raised",
    "GeneratorExit": "GeneratorExit was raised",
    "StopIteration": "StopIteration",
}
"""End of a program → what the step says of it."""


@dataclass(frozen=True)
class Changing(Attack):
    """Changes its source."""

    what: str
    needs: ClassVar[frozenset[str]] = frozenset({"gradients"})

    def craft(self, source, batch, threat, generator):
        CHANGES[self.what][0](source)
        return batch.images


@dataclass(frozen=True)
class ChangingInFit(LearnedAttack):
    """Changes its source in `fit`."""

    what: str
    needs: ClassVar[frozenset[str]] = frozenset({"gradients"})

    def fit(self, source, data, threat, context):
        CHANGES[self.what][0](source)
        return {}

    def craft(self, source, batch, threat, generator, state=None):
        return batch.images


@dataclass(frozen=True)
class Ending(Attack):
    """Ends the program."""

    how: str
    needs: ClassVar[frozenset[str]] = frozenset()

    def craft(self, source, batch, threat, generator):
        end(self.how)


@dataclass(frozen=True)
class Greedy(Attack):
    """Allows itself another budget."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def craft(self, source, batch, threat, generator):
        object.__setattr__(threat, "epsilon", 255)
        return 1 - batch.images


@dataclass(frozen=True)
class Scribbling(Attack):
    """Writes into all that it is given."""

    needs: ClassVar[frozenset[str]] = frozenset({"gradients", "labels", "gallery"})

    def craft(self, source, batch, threat, generator):
        adversarial = batch.images.clone()
        batch.images.zero_()
        batch.identities.zero_()
        for values in (batch.references.images, batch.references.identities, batch.references.cameras):
            torch.from_numpy(values).zero_()
        if batch.targets is not None:
            batch.targets.identities.zero_()
            torch.from_numpy(batch.targets.guides.images).zero_()
        return adversarial


@dataclass(frozen=True)
class Untidy(Attack):
    """Leaves the process in disorder."""

    needs: ClassVar[frozenset[str]] = frozenset({"gradients"})

    def craft(self, source, batch, threat, generator):
        disorder()
        return batch.images


def disorder():
    print("this is not JSON")
    os.write(1, b"nor is this\n")
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(3)
    torch.use_deterministic_algorithms(False)
    torch.set_float32_matmul_precision("medium")
    torch.autograd.set_detect_anomaly(True)
    torch.nn.modules.module.register_module_forward_hook(lambda module, given, found: found * 2)
    torch.set_autocast_enabled("cpu", True)
    torch.inference_mode().__enter__()
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    np.seterr(all="raise")
    gc.disable()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.environ["LEFT"] = "here"
    sys.path.insert(0, "/nowhere")
    os.chdir("/")
    os.umask(0o077)
    sys.stdout.close()
    sys.stderr.close()
    os.close(1)
    torch.set_default_device("meta")


class WritesIntoImages(Quiet):
    """Normalises its images in place."""

    def embed(self, images):
        with torch.no_grad():
            images.data.sub_(0.2)
        return super().embed(images)


class Trains(Quiet):
    """Embeds in training mode."""

    def embed(self, images):
        self.train()
        return super().embed(images)


class Counts(Quiet):
    """Counts its passes in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("passes", torch.zeros(()))

    def embed(self, images):
        self.passes += 1
        return super().embed(images)


class Tables(Quiet):
    """Keeps a table for each size of its images, one from the start, and its last distances."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = {self.input_size: torch.ones(self.input_size)}

    def embed(self, images):
        size = tuple(images.shape[-2:])
        return super().embed(images * self.tables.setdefault(size, torch.ones(size)))

    def compare(self, query, gallery):
        self.distances = torch.cdist(query, gallery)
        return self.distances


class Remembers(Quiet):
    """Keeps its last embeddings, as many models do."""

    def embed(self, images):
        self.last = super().embed(images)
        return self.last

"""Stand-ins for published data and weights that are not here, to plan suites that name them.

Data sets have their published number of images and are genuine; networks have their name, training data, input and
published values. Keys then pin all that a suite asks for, but not the bytes of files, which a run digests.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from reid_attack_bench import registry
from reid_attack_bench.contracts import PublishedValues, Victim, preprocess
from reid_attack_bench.data import catalogue
from reid_attack_bench.data.source import DataSource
from reid_attack_bench.data.synthetic import DOMAINS
from reid_attack_bench.plan.plan import Plan
from reid_attack_bench.plan.planner import make_plan
from reid_attack_bench.suites.suite import Suite
from reid_attack_bench.zoo.catalogue import find


class Network(Victim):
    """A zoo model without its weights: mean colours."""

    classifies = True

    def __init__(self, name: str, zoo_file: str | None = None) -> None:
        super().__init__()
        entry = find(name, zoo_file)
        self.name, self.distance, self.input_size = name, entry.distance, entry.input
        self.trained_on = entry.trained_on[0] if len(entry.trained_on) == 1 and not entry.all_images else ""
        self.published = {each.tested_on: PublishedValues(each.rank1, each.mAP) for each in entry.figures}
        self.architecture = entry.architecture
        self.key_settings = {"architecture": entry.architecture}
        self.register_buffer("scale", torch.ones(1))

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        return preprocess(images, self.input_size).mean(dim=(2, 3)) * self.scale

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        return self.embed(images)


def data_like(name: str, options: Mapping[str, Any], *, size: tuple[int, int], **_: Any) -> DataSource:
    entry = registry.find("data set", name).build(options)

    def load(progress: object, allocate: object) -> dict:
        raise AssertionError("a stand-in has no images")

    identity = {"reader": name, "options": dict(options), "content": "published", "size": list(size)}
    return DataSource(name, False, entry.protocol, identity, entry.images, load, title=entry.title)


@contextmanager
def published_data() -> Iterator[None]:
    """Every data set that is not rendered is a stand-in."""
    rendered = catalogue.source

    def source(name: str, options: Mapping[str, Any], **others: Any) -> DataSource:
        return (rendered if name in DOMAINS else data_like)(name, options, **others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue, "source", source)
        yield


def plan_with_stand_ins(suite: Suite, **only: list[str]) -> Plan:
    live = {
        entry.label: registry.Plugin("victim", "zoo", Network, "v1", "stand-in")
        for entry in suite.victims
        if entry.use == "zoo"
    }
    with published_data():
        return make_plan(suite, live=live, only=only)

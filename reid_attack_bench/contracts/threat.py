"""Threat models: the budget and the access of an adversary."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from reid_attack_bench.contracts.cameras import versions_of
from reid_attack_bench.errors import BenchError
from reid_attack_bench.files import plain

Sees = Literal["gradients", "embedding", "distances", "ranking"]
"""Part of the source that an attack sees, see `ThreatModel`."""


@dataclass(frozen=True)
class ThreatModel:
    """Budget, knowledge and goal of an adversary.

    Attributes:
        epsilon: L-inf budget per colour value, a whole number of 8-bit steps (units of 1/255).
        pixels: at most this many pixel positions may change (counted on H×W); None for all.
        perturbs: the attacked side, "query", "gallery" or "both"; attacks on ReID usually perturb queries.
        access: evaluated targets: "transfer" for every target, "white-box" for the source alone.
        sees: part of the source that the attack sees: "gradients", the model itself; or answers to queries, counted
            for each image: "embedding"; "distances" to the gallery, as ranked; "ranking", the identities of the nearest
            `top` gallery images in order. See `contracts.Oracle`.
        queries: largest number of queries per image; required unless `sees` is "gradients".
        top: length of the list that a query returns; only with `sees` "ranking".
        impersonate: None to hide; or the identity that a query is to retrieve instead of its own: "random", or
            "hardest", the nearest other identity by the clean embeddings of the source. See `contracts.Targets`.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  # read back, a field of a later version is refused
    epsilon: int = 8
    pixels: int | None = None
    perturbs: Literal["query", "gallery", "both"] = "query"
    access: Literal["transfer", "white-box"] = "transfer"
    sees: Sees = "gradients"
    queries: int | None = None
    top: int = 10
    impersonate: Literal["random", "hardest"] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.epsilon, bool) or self.epsilon != int(self.epsilon) or not 0 <= self.epsilon <= 255:
            raise BenchError(
                f"epsilon must be a whole number of 8-bit steps from 0 to 255, not {self.epsilon!r}: images are stored "
                "in 8 bits, so write 8 for 8/255"
            )
        object.__setattr__(self, "epsilon", int(self.epsilon))
        if self.pixels is not None and (self.pixels != int(self.pixels) or self.pixels < 1):
            raise BenchError(f"pixels must be a positive whole number or null for all, not {self.pixels!r}")
        if self.access == "query":  # a value of version 0.1
            raise BenchError("access: query is now sees: embedding (or distances, or ranking) with a number of queries")
        for field, allowed in (
            ("perturbs", ("query", "gallery", "both")),
            ("access", ("transfer", "white-box")),
            ("sees", get_args(Sees)),
        ):
            if getattr(self, field) not in allowed:
                raise BenchError(f"{field} must be one of {', '.join(allowed)}, not {getattr(self, field)!r}")
        self._check_queries()
        self._check_goal()

    def _check_queries(self) -> None:
        for field in ("queries", "top"):
            value = getattr(self, field)
            if value is not None and (isinstance(value, bool) or value != int(value) or value < 1):
                raise BenchError(f"{field} must be a positive whole number, not {value!r}")
        if self.sees == "gradients" and self.queries is not None:
            raise BenchError(
                "queries limits an attack that only sees answers: set sees to embedding, distances or ranking"
            )
        if self.sees != "gradients" and self.queries is None:
            raise BenchError(f"sees: {self.sees} needs a budget: set queries, for example to 1000")
        if self.sees in ("distances", "ranking") and self.perturbs != "query":
            raise BenchError(f"sees: {self.sees} shows the answer to a query, so perturbs must be query")

    def _check_goal(self) -> None:
        if self.impersonate not in (None, "random", "hardest"):
            raise BenchError(f"impersonate must be random, hardest or null, not {self.impersonate!r}")
        if self.impersonate is not None and self.perturbs != "query":
            raise BenchError("impersonate makes a query retrieve another identity, so perturbs must be query")

    @property
    def radius(self) -> float:
        """epsilon in the [0, 1] range of the images."""
        return self.epsilon / 255.0

    @property
    def sides(self) -> tuple[str, ...]:
        """Attacked sides of a data set: "query", "gallery" or both."""
        return ("query", "gallery") if self.perturbs == "both" else (self.perturbs,)

    def project(self, adversarial: Tensor, clean: Tensor, scores: Tensor | None = None) -> Tensor:
        """Project onto the budget: the L-inf ball around `clean`, [0, 1], and at most `pixels` positions.

        Args:
            adversarial: N×3×H×W.
            clean: N×3×H×W in [0, 1].
            scores: N×H×W; with a pixel budget the positions with the largest scores are kept. By default the change
                summed over R, G, B.
        """
        change = (adversarial - clean).clamp_(-self.radius, self.radius)
        if self.pixels is not None and self.pixels < clean.shape[-1] * clean.shape[-2]:
            if scores is None:
                scores = change.detach().abs().sum(dim=1)
            kept = scores.flatten(1).topk(self.pixels, dim=1).indices
            mask = torch.zeros_like(scores).flatten(1).scatter_(1, kept, 1.0).view_as(scores)
            change = change * mask.unsqueeze(1)
        return versions_of(change.add_(clean).clamp_(0.0, 1.0), clean)


def fit_threat(threat: ThreatModel) -> ThreatModel:
    """The part of a threat model that `fit` sees: the budget. Threat models with one budget share the fit."""
    return ThreatModel(epsilon=threat.epsilon, pixels=threat.pixels)


def craft_threat(threat: ThreatModel) -> ThreatModel:
    """The part of a threat model that `craft` sees: all but the evaluated targets, which share the crafted images."""
    return replace(threat, access="transfer")


def threat_values(threat: ThreatModel) -> dict[str, Any]:
    """A threat model as plain values: epsilon, and every other field that differs from its default.

    A new field with a default therefore changes no key.
    """
    default = type(threat)()
    values = {each.name: getattr(threat, each.name) for each in fields(threat)}
    return {
        name: plain(value) for name, value in values.items() if name == "epsilon" or value != getattr(default, name)
    }

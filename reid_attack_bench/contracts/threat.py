"""Threat models: the budget and the access of an adversary."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import torch
from torch import Tensor

from reid_attack_bench.errors import BenchError
from reid_attack_bench.files import plain


@dataclass(frozen=True)
class ThreatModel:
    """What an adversary may do.

    Attributes:
        epsilon: L-inf budget per colour value, a whole number of 8-bit steps (units of 1/255).
        pixels: at most this many pixel positions may change (counted on H×W); None for all.
        perturbs: which images are attacked; the field's default is the query.
        access: "transfer" crafts on a source and evaluates on every target; "white-box" evaluates only
            where source and target are the same; "query" lets the attack see that model's outputs
            but no gradients.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  # read back, a field of a later version is refused
    epsilon: int = 8
    pixels: int | None = None
    perturbs: Literal["query", "gallery", "both"] = "query"
    access: Literal["transfer", "white-box", "query"] = "transfer"

    def __post_init__(self) -> None:
        if isinstance(self.epsilon, bool) or self.epsilon != int(self.epsilon) or not 0 <= self.epsilon <= 255:
            raise BenchError(
                f"epsilon must be a whole number of 8-bit steps from 0 to 255, not {self.epsilon!r}: images are stored "
                "in 8 bits, so write 8 for 8/255"
            )
        object.__setattr__(self, "epsilon", int(self.epsilon))
        if self.pixels is not None and (self.pixels != int(self.pixels) or self.pixels < 1):
            raise BenchError(f"pixels must be a positive whole number or null for all, not {self.pixels!r}")
        for field, allowed in (
            ("perturbs", ("query", "gallery", "both")),
            ("access", ("transfer", "white-box", "query")),
        ):
            if getattr(self, field) not in allowed:
                raise BenchError(f"{field} must be one of {', '.join(allowed)}, not {getattr(self, field)!r}")

    @property
    def radius(self) -> float:
        """epsilon in the [0, 1] range of the images."""
        return self.epsilon / 255.0

    def project(self, adversarial: Tensor, clean: Tensor, scores: Tensor | None = None) -> Tensor:
        """The nearest images inside the budget: L-inf ball, [0, 1], and at most `pixels` positions.

        With a pixel budget the positions kept are those with the largest `scores` (N×H×W), by
        default the largest summed change over R, G, B.
        """
        change = (adversarial - clean).clamp_(-self.radius, self.radius)
        if self.pixels is not None and self.pixels < clean.shape[-1] * clean.shape[-2]:
            if scores is None:
                scores = change.detach().abs().sum(dim=1)
            kept = scores.flatten(1).topk(self.pixels, dim=1).indices
            mask = torch.zeros_like(scores).flatten(1).scatter_(1, kept, 1.0).view_as(scores)
            change = change * mask.unsqueeze(1)
        return change.add_(clean).clamp_(0.0, 1.0)


def fit_threat(threat: ThreatModel) -> ThreatModel:
    """The part of a threat that an attack may see while it learns: its budget, so that all with one budget share it."""
    return ThreatModel(epsilon=threat.epsilon, pixels=threat.pixels)


def craft_threat(threat: ThreatModel) -> ThreatModel:
    """The part of a threat that an attack may see while it crafts.

    "transfer" and "white-box" say only which targets are judged, so they share what is crafted.
    """
    return threat if threat.access == "query" else replace(threat, access="transfer")


def threat_values(threat: ThreatModel) -> dict[str, Any]:
    """A threat as plain values: epsilon, and what differs from its default, so that a new field changes no key."""
    default = type(threat)()
    values = {each.name: getattr(threat, each.name) for each in fields(threat)}
    return {
        name: plain(value) for name, value in values.items() if name == "epsilon" or value != getattr(default, name)
    }

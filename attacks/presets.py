"""Attacks of the literature by the names that papers use: `metric_pgd` with the values of a paper.

Every value can be changed as an option. Epsilon and the attacked side belong to the threat model: each docstring says
what the paper takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from reid_attack_bench.contracts import Batch, Reads, ThreatModel, Victim
from reid_attack_bench.errors import BenchError
from reid_attack_bench.validation import Count, NonNegative, Positive, Share

from .common.objectives import References, View
from .common.objectives.identity import fna_sum
from .common.transfer import seen_through
from .metric import MetricPGD, Objectives

StepsOrRule = Annotated[int, Field(ge=0)]


def kurakin_steps(epsilon: int) -> float:
    """min(1.25·epsilon, epsilon + 4), the steps of size 1/255 of Kurakin et al. (arXiv 1607.02533); at least 1."""
    return max(1.0, min(1.25 * epsilon, epsilon + 4.0))


@dataclass(frozen=True)
class SMA(MetricPGD):
    """Self metric attack (Bouniot et al., CVPRW 2020): away from the own clean embedding, without labels.

    15 steps of 1/255 from a uniform start in the ball; the paper takes epsilon 5 and attacks queries. Its distance is
    the squared Euclidean one of embeddings as they are; here it is that of the source.
    """

    name: ClassVar[str] = "sma"
    version: ClassVar[int] = 1
    citation: ClassVar[str] = "Bouniot et al., CVPRW 2020"
    steps: Count = 15
    step_size: Positive | None = 1.0


@dataclass(frozen=True)
class ODFA(MetricPGD):
    """Opposite-direction feature attack, U-turn (Zheng et al., arXiv 1809.02681), without labels; attacks queries.

    Steps of 1/255, as many as min(1.25·epsilon, epsilon + 4), rounded; the paper takes epsilon 2 to 16. It minimises
    ‖f(x′)/|f(x′)| + f(x)/|f(x)|‖² = 2 + 2 cos, so for a source that ranks by the cosine distance it is the objective of
    `metric_pgd` itself; for others the distance of the source takes its place. The released code starts at the clean
    image, where this gradient is zero and rounding decides the first step; here uniform noise of epsilon/10 does.

    Attributes:
        steps: 0 for the number above.
    """

    name: ClassVar[str] = "odfa"
    version: ClassVar[int] = 1
    citation: ClassVar[str] = "Zheng et al., arXiv 1809.02681"
    steps: StepsOrRule = 0
    step_size: Positive | None = 1.0
    start: Share = 0.1

    def steps_within(self, threat: ThreatModel) -> int:
        return self.steps or round(kurakin_steps(threat.epsilon))


@dataclass(frozen=True)
class BaiIFGSM(MetricPGD):
    """I-FGSM on the metric (Bai et al., arXiv 1901.10650): away from all images of the own identity of the other side.

    An oracle: it reads labels, and the images of the side that is not attacked. Steps of 1/255 from the clean image, as
    many as min(1.25·epsilon, epsilon + 4), rounded down. The paper takes epsilon 5 and attacks the gallery (`perturbs:
    gallery`). Its distance is the squared Euclidean one of unit embeddings, twice the cosine distance.

    Attributes:
        steps: 0 for the number above.
    """

    name: ClassVar[str] = "i-fgsm-bai"
    version: ClassVar[int] = 1
    family: ClassVar[str] = "same identity"  # an objective of its own, so the audit compares it with no other
    citation: ClassVar[str] = "Bai et al., arXiv 1901.10650"
    steps: StepsOrRule = 0
    step_size: Positive | None = 1.0
    references: References = "same_identity"
    start: Share = 0.0

    def steps_within(self, threat: ThreatModel) -> int:
        return self.steps or int(kurakin_steps(threat.epsilon))


@dataclass(frozen=True)
class BaiMIFGSM(BaiIFGSM):
    """MI-FGSM on the metric (Bai et al., arXiv 1901.10650): `i-fgsm-bai` with momentum 1."""

    name: ClassVar[str] = "mi-fgsm-bai"
    version: ClassVar[int] = 1
    momentum: NonNegative = 1.0


@dataclass(frozen=True)
class FNA(MetricPGD):
    """Farthest negative attack (Bouniot et al., CVPRW 2020), by which defences of ReID are usually judged.

    It raises the sum of the distances to all images of the own identity, minus the distance to the mean embedding of
    the identity that is farthest from the clean image. An oracle: it reads labels and images. 15 steps of 1/255 from
    the clean image; the paper takes epsilon 5 and attacks queries, and its distance is the squared Euclidean one of
    embeddings as they are. Its images of the own and the farthest identity are those of the attacked side; here they
    are those of the other side, as for `i-fgsm-bai`.
    """

    name: ClassVar[str] = "fna"
    version: ClassVar[int] = 1
    family: ClassVar[str] = "farthest negative"
    citation: ClassVar[str] = "Bouniot et al., CVPRW 2020"
    steps: Count = 15
    step_size: Positive | None = 1.0
    references: References = "same_identity"
    start: Share = 0.0

    def __post_init__(self) -> None:
        if self.references == "self":
            raise BenchError("fna: references self leaves out other people, by which it is defined: use metric_pgd")
        super().__post_init__()

    @property
    def reads(self) -> Reads:
        return "embeddings"

    def objective_on(self, source: Victim, batch: Batch) -> Objectives:
        if batch.targets is not None:
            return super().objective_on(source, batch)
        objective = fna_sum(View(source, batch))
        return objective, seen_through(objective)


@dataclass(frozen=True)
class TIDIM(MetricPGD):
    """TI-DIM for ReID, the transfer baseline of the PRCV 2022 paper on query-based universal attacks; without labels.

    10 steps of 1.6/255 with momentum 1, input diversity with probability 0.7 and smallest side 0.9, and a Gaussian
    kernel of 7 pixels; the paper takes epsilon 10 and attacks queries. Clean and adversarial image see the same
    transformation. It minimises the cosine similarity of embeddings; here it moves by the distance of the source. Its
    code starts at the clean image, where this gradient is zero; here at uniform noise of epsilon/10. Made for transfer:
    against its own source, `metric_pgd` is stronger.
    """

    name: ClassVar[str] = "ti-dim"
    version: ClassVar[int] = 1
    family: ClassVar[str] = "embedding, transformed"
    citation: ClassVar[str] = "PRCV 2022; Dong et al., arXiv 1904.02884; Xie et al., arXiv 1803.06978"
    steps: Count = 10
    step_size: Positive | None = 1.6
    start: Share = 0.1
    momentum: NonNegative = 1.0
    diversity: Share = 0.7
    kernel: Count = 7

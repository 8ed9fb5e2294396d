"""Types that parts exchange: victims, attacks, threat models, images and training data.

Images between parts are float32 RGB, N×3×H×W, in [0, 1]. Stored images are uint8 RGB, N×H×W×3.
"""

from reid_attack_bench.contracts.attack import (
    ADDED_LATER,
    DRAW_BATCH,
    Attack,
    Batch,
    LearnedAttack,
    Need,
    QueryAttack,
    Reads,
    ReferenceImages,
    Targets,
)
from reid_attack_bench.contracts.bound import bound, unbound
from reid_attack_bench.contracts.cameras import cameras_of, with_cameras, without_cameras
from reid_attack_bench.contracts.dataset import DataSet, ImageList, Listing, RankingProtocol
from reid_attack_bench.contracts.distance import Distance, distances
from reid_attack_bench.contracts.ensemble import Ensemble, each_member
from reid_attack_bench.contracts.features import packed, paired
from reid_attack_bench.contracts.images import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Interpolation,
    preprocess,
    to_float,
    to_uint8,
)
from reid_attack_bench.contracts.module import ModuleVictim
from reid_attack_bench.contracts.oracle import Oracle
from reid_attack_bench.contracts.selection import Pool, embedding_in, output_in
from reid_attack_bench.contracts.threat import ThreatModel, craft_threat, fit_threat, threat_values
from reid_attack_bench.contracts.training import Checkpoint, FitContext, State, TrainingData, to_cpu
from reid_attack_bench.contracts.victim import (
    Defence,
    LearnedDefence,
    PublishedValues,
    Recipe,
    Victim,
    WrappedVictim,
    weights_digest,
)

__all__ = [
    "ADDED_LATER",
    "DRAW_BATCH",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "Attack",
    "Batch",
    "Checkpoint",
    "DataSet",
    "Defence",
    "Distance",
    "Ensemble",
    "FitContext",
    "ImageList",
    "Interpolation",
    "LearnedAttack",
    "LearnedDefence",
    "Listing",
    "ModuleVictim",
    "Need",
    "Oracle",
    "Pool",
    "PublishedValues",
    "QueryAttack",
    "RankingProtocol",
    "Reads",
    "Recipe",
    "ReferenceImages",
    "State",
    "Targets",
    "ThreatModel",
    "TrainingData",
    "Victim",
    "WrappedVictim",
    "bound",
    "cameras_of",
    "craft_threat",
    "distances",
    "each_member",
    "embedding_in",
    "fit_threat",
    "output_in",
    "packed",
    "paired",
    "preprocess",
    "threat_values",
    "to_cpu",
    "to_float",
    "to_uint8",
    "unbound",
    "weights_digest",
    "with_cameras",
    "without_cameras",
]

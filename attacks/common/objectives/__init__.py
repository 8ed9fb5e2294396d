"""Objectives that gradient attacks maximise: functions of images N×3×H×W with N values, one per image.

`objective_for` makes one by name; `yardstick` compares points that climbed different ones.
"""

from __future__ import annotations

from .embedding import References, embedding_distance
from .logits import Objective, logits_of, misclassification, require_logits
from .named import LOGITS, NEEDS, Name, objective_for, part_of, yardstick
from .ranking import RANKS, Ranks
from .targeted import TargetReference
from .view import View

__all__ = [
    "LOGITS",
    "NEEDS",
    "RANKS",
    "Name",
    "Objective",
    "Ranks",
    "References",
    "TargetReference",
    "View",
    "embedding_distance",
    "logits_of",
    "misclassification",
    "objective_for",
    "part_of",
    "require_logits",
    "yardstick",
]

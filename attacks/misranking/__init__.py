"""Deep Mis-Ranking (Wang et al., CVPR 2020, arXiv 2004.04199)."""

from .attack import MisRanking
from .recommended import RecommendedMisRanking

__all__ = [
    "MisRanking",
    "RecommendedMisRanking",
]

"""Deep Mis-Ranking (Wang et al., CVPR 2020, arXiv 2004.04199)."""

from .attack import MisRanking

__all__ = ["MisRanking"]

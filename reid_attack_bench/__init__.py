"""reid-attack-bench: how robust is a person re-identification model?"""

from __future__ import annotations

__version__ = "0.1.0"

"""reid-attack-bench: how robust is a person re-identification model?"""

__version__ = "0.1.0"

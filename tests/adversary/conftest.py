"""Steps run here too."""

from tests.steps.conftest import lab

__all__ = ["lab"]

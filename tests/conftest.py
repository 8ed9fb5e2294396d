"""Shared by all tests: one thread for small tensors, and a small suite that a run ends in seconds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

torch.set_num_threads(1)

TOY = Path(__file__).parent / "plugins" / "toy.py"


def tiny_document() -> dict:
    """A suite document: two domains of a dozen people, one toy architecture, one attack of each kind."""
    people = {"train_identities": 8, "test_identities": 4, "images_per_camera": 1, "queries_per_identity": 2}
    return {
        "name": "tiny",
        "image_size": [64, 32],
        "batch_size": 5,
        "headline_epsilon": 8,
        "datasets": {"plaza": dict(people), "station": dict(people)},
        "victims": {"toy": {"use": f"{TOY}:ToyRecipe", "train_on": ["plaza", "station"]}},
        "attacks": {
            "noise": {"epsilon": [4, 8]},
            "pgd": {"options": {"steps": 2}},
            "learner": {"use": f"{TOY}:Learner"},
        },
    }


@pytest.fixture
def tiny() -> dict:
    return tiny_document()


@pytest.fixture
def write_suite(tmp_path: Path):
    def write(document: dict, name: str = "tiny.yaml") -> str:
        path = tmp_path / name
        path.write_text(yaml.safe_dump(document, sort_keys=False))
        return str(path)

    return write

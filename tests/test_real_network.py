"""A network that its authors trained on photographs, on rendered people; its weights are not in this repository."""

from __future__ import annotations

from pathlib import Path

import pytest

from reid_attack_bench.jobs.run import run
from tests.conftest import TOY

WEIGHTS = Path(__file__).parents[2] / "shared" / "weights" / "osnet_x0_25_msmt17.safetensors"


@pytest.mark.slow
@pytest.mark.skipif(not WEIGHTS.is_file(), reason="the weights of a real network are not here")
def test_it_finds_rendered_people_and_falls_to_auto_pgd(tmp_path: Path, write_suite) -> None:
    suite = {
        "name": "real",
        "image_size": [128, 64],
        "datasets": {
            "plaza": {
                "train_identities": 8, "test_identities": 48, "images_per_camera": 1, "queries_per_identity": 1
            }
        },
        "victims": {
            "osnet": {"use": "torchreid-checkpoint", "options": {"arch": "osnet_x0_25", "file": str(WEIGHTS)}},
            "toy": {"use": f"{TOY}:ToyRecipe", "train_on": ["plaza"]},
        },
        "attacks": {
            "noise": {"epsilon": 8},
            "apgd": {"epsilon": 8, "options": {"objectives": ["ranking"], "restarts": 1, "steps": 20}},
        },
    }  # fmt: skip
    result = run(write_suite(suite), out=tmp_path / "out", store=tmp_path / "store")
    cells = result.matrix[result.matrix.target == "osnet"].set_index(["attack", "source"])
    assert cells.clean_rank1.min() > 95
    assert cells.loc[("noise", "osnet"), "rank1"] > 90
    assert cells.loc[("apgd", "osnet"), "rank1"] <= 2
    assert cells.loc[("apgd", "toy@plaza"), "rank1"] > 90  # transferred from a network of rendered people

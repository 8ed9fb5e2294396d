"""Steps clean and features: embeddings of both sides, and the queries that a detector refuses."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from reid_attack_bench.attacks.noise import Noise
from reid_attack_bench.contracts import ThreatModel, to_float
from reid_attack_bench.errors import VictimError
from reid_attack_bench.steps.artefacts import REFUSED
from reid_attack_bench.steps.craft import craft_step
from reid_attack_bench.steps.embed import clean_step, features_step
from tests.plugins.toy import ToyVictim
from tests.steps.conftest import COUNTS, attacked, toy


class Refusing(ToyVictim):
    def suspicion(self, images):
        return images.mean(dim=(1, 2, 3)) - 0.5


def test_clean_embeds_query_and_gallery(lab, data) -> None:
    victim = toy()
    step = clean_step(victim, data, {}, ("gate",))
    assert step.label == "clean features toy0 on plaza"
    assert (step.after, step.work) == (("gate",), 16)
    features = load_file(lab.run(step) / "features.safetensors")
    assert {name: len(values) for name, values in features.items()} == {"query": 4, "gallery": 12}
    assert lab.facts[step.key] == {"dimensions": features["query"].shape[1]}
    images = to_float(lab.workspace.splits(data.key)["query"].images)
    assert torch.allclose(features["query"], victim.plugin.embed(images), atol=1e-5)


@pytest.mark.parametrize(
    ("perturbs", "parts"), [("query", {"query"}), ("gallery", {"gallery"}), ("both", {"query", "gallery"})]
)
def test_features_embed_the_perturbed_sides(lab, data, perturbs, parts: set[str]) -> None:
    run = attacked(Noise(), ThreatModel(perturbs=perturbs))
    craft = craft_step(run, [toy()], data, None, {}, 3, ())
    step = features_step(craft, toy(1), data, {"precision": "bfloat16"}, ())
    assert step.label == "features noise 8/255, plaza → toy1"
    assert step.work == sum(COUNTS[part] for part in parts)
    assert step.implementation == {"precision": "bfloat16"}
    assert set(load_file(lab.run(step) / "features.safetensors")) == parts


def test_refused_queries_are_stored(lab, data) -> None:
    step = clean_step(toy(victim=Refusing()), data, {}, ())
    features = load_file(lab.run(step) / "features.safetensors")
    images = to_float(lab.workspace.splits(data.key)["query"].images)
    assert torch.equal(features[REFUSED], images.mean(dim=(1, 2, 3)) > 0.5)


def test_an_embedding_that_is_not_finite_is_named_with_its_victim(lab, data) -> None:
    class Late(ToyVictim):
        def embed(self, images):
            return super().embed(images) / (0 if len(images) == 4 else 1)

    with pytest.raises(VictimError, match="victim toy0: embed returned NaN or infinity for query image 0"):
        lab.run(clean_step(toy(victim=Late()), data, {}, ()))

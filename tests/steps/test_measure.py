"""Step measure: visibility of every perturbed image."""

from __future__ import annotations

import numpy as np
from safetensors.torch import load_file

from reid_attack_bench.attacks.noise import Noise
from reid_attack_bench.contracts import ThreatModel
from reid_attack_bench.steps.craft import craft_step
from reid_attack_bench.steps.measure import measure_step
from tests.steps.conftest import attacked, toy


def test_a_measure_has_a_value_for_each_image_and_its_mean(lab, data) -> None:
    craft = craft_step(attacked(Noise(), ThreatModel(4, perturbs="both")), [toy()], data, None, {}, 5, ())
    step = measure_step(craft, data, None)
    assert step.label == "measure noise 4/255, plaza"
    assert (step.work, step.implementation) == (16, {"lpips": None})
    measures = load_file(lab.run(step) / "measures.safetensors")
    assert {len(values) for values in measures.values()} == {16}
    for name, mean in lab.facts[step.key].items():
        assert np.isclose(mean, float(measures[name].mean()))


def test_lpips_weights_decide_the_key_alone(data) -> None:
    craft = craft_step(attacked(Noise()), [toy()], data, None, {}, 5, ())
    without, with_weights = measure_step(craft, data, None), measure_step(craft, data, "digest")
    assert without.key != with_weights.key
    assert without.seed == with_weights.seed

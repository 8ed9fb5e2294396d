"""A victim that draws from a generator that no seed of the bench reaches."""

import numpy as np

from reid_attack_bench.contracts import Victim


class Unseeded(Victim):
    input_size = (64, 32)
    randomised = True

    def embed(self, images):
        return images.mean(dim=3).flatten(1) * (1 + np.random.default_rng().random())

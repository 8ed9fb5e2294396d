"""A model for reid-attack-bench. It runs as it is: put your own in the places that say so.

    reid-attack-bench check-victim FILE.py:MyDefence                  # is it what the bench expects?
    reid-attack-bench evaluate --victim FILE.py:MyDefence --suite quick    # every attack of the suite on it

Is your model in a file already? Then one line does instead of the class; paths are taken from the folder in which you
start the bench, and nothing is ever downloaded:

    from reid_attack_bench.victims.checkpoint import TorchreidCheckpoint
    MyDefence = TorchreidCheckpoint("osnet_x1_0", "weights.pth.tar", defence="adversarial training")

    from reid_attack_bench.victims.backbones import TimmBackbone, TorchvisionBackbone
    MyDefence = TorchvisionBackbone("resnet50", "weights.pth")
    MyDefence = TimmBackbone("convnext_tiny", "weights.safetensors")

    from reid_attack_bench.victims.fastreid import FastReidModel
    MyDefence = FastReidModel(my_network, "weights.pth")  # RGB from 0 to 255, with FastReID's mean and std

    from reid_attack_bench.victims.exported import ExportedModel, OnnxModel, TorchScriptModel
    MyDefence = TorchScriptModel("model.pt", input_size=(256, 128))
    MyDefence = ExportedModel("model.pt2")
    MyDefence = OnnxModel("model.onnx")  # no gradients: attacks can only transfer to it
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from reid_attack_bench.contracts import Victim, preprocess

STRIPES = 8


class MyDefence(Victim):
    """Mean colours of horizontal stripes and of their two halves: a simple embedding that needs no training."""

    input_size = (128, 64)  # (height, width) that your network wants, in pixels
    distance = "euclidean"  # or "cosine": what ranks your embeddings
    defence = ""  # what defends it, in a few words; empty for an undefended model
    randomised = False  # True where two calls on one image may differ
    differentiable = True  # False where gradients do not reach the images: it is then a target only
    # trained_on = "market1501"  # a data set of the bench, if it is one: it is then at home there

    def __init__(self) -> None:
        super().__init__()
        # Your network goes here. The bench puts it in eval mode, freezes it and moves it to the device.
        # self.network = MyNetwork(num_classes=751)
        # self.network.load_state_dict(read_weights("weights.pth"))  # from reid_attack_bench.victims.weights

    def embed(self, images: Tensor) -> Tensor:
        """float32 RGB N×3×H×W in [0, 1] → N×D, differentiable in `images`. Resize and normalise here and only here."""
        ready = preprocess(self.purify(images), self.input_size)  # ImageNet's mean and std, or give your own
        # return self.network(ready)
        stripes = functional.adaptive_avg_pool2d(ready, (STRIPES, 1))
        halves = functional.adaptive_avg_pool2d(ready, (STRIPES, 2))
        return torch.cat((stripes.flatten(1), halves.flatten(1)), dim=1)

    # The scores over the identities that it was trained on, N×K. Attacks on a classifier need them.
    # def logits(self, images: Tensor) -> Tensor:
    #     return self.network.classify(preprocess(self.purify(images), self.input_size))

    # An input transformation, in [0, 1] before and after. Adaptive attacks go through it with the gradient of the
    # identity, so it may be anything; with `differentiable = False` no other attack is crafted on it.
    # def purify(self, images: Tensor) -> Tensor:
    #     return (images * 31).round() / 31

    # A detector: positive for the queries that it refuses, N values. Refusing a clean query is a miss.
    # def suspicion(self, images: Tensor) -> Tensor:
    #     smooth = functional.avg_pool2d(images, 3, stride=1, padding=1)
    #     return (self.embed(smooth) - self.embed(images)).norm(dim=1) - 1.0

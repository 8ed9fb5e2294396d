"""A victim for reid-attack-bench. It runs as it is; replace the marked places with your own model.

    reid-attack-bench check-victim FILE.py:MyDefence                  # check it against the contract
    reid-attack-bench evaluate --victim FILE.py:MyDefence --suite quick    # run every attack of the suite on it

A model in a file needs one line instead of a class. Paths are relative to the current folder; nothing is downloaded:

    from reid_attack_bench.victims.checkpoint import TorchreidCheckpoint
    MyDefence = TorchreidCheckpoint("osnet_x1_0", "weights.pth.tar", defence="adversarial training")

    from reid_attack_bench.victims.backbones import TimmBackbone, TorchvisionBackbone
    MyDefence = TorchvisionBackbone("resnet50", "weights.pth")
    MyDefence = TimmBackbone("convnext_tiny", "weights.safetensors")

    from reid_attack_bench.victims.fastreid import FastReidModel
    MyDefence = FastReidModel(my_network, "weights.pth")  # for RGB from 0 to 255, normalised as in FastReID

    from reid_attack_bench.victims.exported import ExportedModel, OnnxModel, OpenVinoModel, TorchScriptModel
    MyDefence = TorchScriptModel("model.pt", trust_code=True, input_size=(256, 128))
    MyDefence = ExportedModel("model.pt2", trust_code=True)
    MyDefence = OnnxModel("model.onnx")  # target of transfer attacks only; with gradients=True a source too
    MyDefence = OpenVinoModel("model.xml", convention="openvino")  # target only
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from reid_attack_bench.contracts import Victim, preprocess

STRIPES = 8


class MyDefence(Victim):
    """Mean colours of horizontal stripes and of their halves: a simple embedding without training."""

    input_size = (128, 64)  # (height, width) of the network's input, in pixels
    distance = "euclidean"  # or "cosine": distance that ranks the embeddings
    defence = ""  # short description of its defence; empty for an undefended model
    randomised = False  # True if two calls on one image may differ
    differentiable = True  # False if gradients do not reach the images: the victim is then only a target
    # uses_cameras = True  # it takes cameras, int64 N, -1 where unknown: write embed(self, images, cameras)
    # trained_on = "market1501"  # name of its training data set, if the bench has it

    def __init__(self) -> None:
        super().__init__()
        # Build your network here. The bench puts it in eval mode, freezes it and moves it to the device.
        # self.network = MyNetwork(num_classes=751)
        # self.network.load_state_dict(read_weights("weights.pth"))  # from reid_attack_bench.victims.weights

    def embed(self, images: Tensor) -> Tensor:
        """float32 RGB N×3×H×W in [0, 1] → N×D, differentiable in `images`. Resize and normalise here, nowhere else."""
        ready = preprocess(self.purify(images), self.input_size)  # with the mean and std of ImageNet, or give your own
        # return self.network(ready)
        stripes = functional.adaptive_avg_pool2d(ready, (STRIPES, 1))
        halves = functional.adaptive_avg_pool2d(ready, (STRIPES, 2))
        return torch.cat((stripes.flatten(1), halves.flatten(1)), dim=1)

    # Scores over its training identities, N×K. Attacks on the classifier need them.
    # def logits(self, images: Tensor) -> Tensor:
    #     return self.network.classify(preprocess(self.purify(images), self.input_size))

    # A defence that transforms its input, in [0, 1] before and after. It need not be differentiable: adaptive attacks
    # replace its gradient. With `differentiable = False` only adaptive attacks are crafted on it.
    # def purify(self, images: Tensor) -> Tensor:
    #     return (images * 31).round() / 31

    # A detector: N values, positive for refused queries. A refused clean query counts as a miss.
    # def suspicion(self, images: Tensor) -> Tensor:
    #     smooth = functional.avg_pool2d(images, 3, stride=1, padding=1)
    #     return (self.embed(smooth) - self.embed(images)).norm(dim=1) - 1.0

"""LPIPS (Zhang et al., CVPR 2018) on AlexNet, with weights from a local file."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import torch
from torch import Tensor

from reid_attack_bench.errors import BenchError
from reid_attack_bench.files import expanded, file_digest
from reid_attack_bench.metrics.ssim import check_pair
from reid_attack_bench.zoo.folder import file_of

LPIPS_VARIABLE = "REID_ATTACK_BENCH_LPIPS_WEIGHTS"

LPIPS_FILE = "alexnet-owt-7be5be79.pth"

LPIPS_SHA256_PREFIX = "7be5be79"

LPIPS_MODEL = "lpips-alexnet"
"""Its name in the zoo."""

LPIPS_URL = "https://download.pytorch.org/models/" + LPIPS_FILE


class Lpips:
    """Learned perceptual distance, AlexNet, version 0.1 (Zhang et al., CVPR 2018); 0 for identical images.

    The linear heads come with the lpips package; the AlexNet trunk is read from `weights`. Nothing is downloaded.

    Args:
        weights: the file alexnet-owt-7be5be79.pth of torchvision, see `find_lpips_weights`.
        device: where to compute.

    Raises:
        BenchError: the file is not that one, or cannot be read.
    """

    def __init__(self, weights: Path, device: torch.device | str = "cpu") -> None:
        trunk = _alexnet_features(weights)
        import lpips  # slow to import, and most runs do not need it

        # Without pnet_rand the constructor downloads weights. The random trunk that it creates is replaced
        # completely below, and creating it must not change the caller's random state.
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
        names = self._network.net.state_dict()  # "slice2.3.weight" is "features.3.weight" of AlexNet
        state = {name: trunk[f"features.{name.split('.', 1)[1]}"] for name in names}
        self._network.net.load_state_dict(state)
        self._network.eval().requires_grad_(False).to(device)

    def __call__(self, clean: Tensor, adversarial: Tensor) -> Tensor:
        """N distances ≥ 0 between float RGB N×3×H×W images in [0, 1], at their own size; differentiable."""
        check_pair(clean, adversarial)
        scores: Tensor = self._network(clean, adversarial, normalize=True)
        return scores.flatten()


def find_lpips_weights() -> Path | None:
    """Path of the AlexNet weights; None if not found.

    Looked for in $REID_ATTACK_BENCH_LPIPS_WEIGHTS, else the weights folder, else the hub folder of torch.

    Raises:
        BenchError: the variable names a file that does not exist.
    """
    named = os.environ.get(LPIPS_VARIABLE)
    if named:
        path = expanded(named)
        if not path.is_file():
            raise BenchError(f"{LPIPS_VARIABLE} names {path}, which is not a file: correct or unset it")
        return path
    path = file_of(LPIPS_MODEL) or _hub_file()
    return path if path.is_file() else None


def lpips_missing_message() -> str:
    """One line: LPIPS was not computed, and how to enable it."""
    return (
        f"LPIPS left out: reid-attack-bench weights get {LPIPS_MODEL}, or save {LPIPS_URL} as {_hub_file()}, or name "
        f"the file in {LPIPS_VARIABLE}"
    )


def _hub_file() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / LPIPS_FILE


def _alexnet_features(weights: Path) -> dict[str, Tensor]:
    """State dict in the file `weights`, whose hash must be that of torchvision's file."""
    try:
        digest = file_digest(weights)
    except OSError as error:
        raise BenchError(f"cannot read the LPIPS weights {weights}: {error.strerror}") from error
    if not digest.startswith(LPIPS_SHA256_PREFIX):
        raise BenchError(
            f"{weights} is not torchvision's {LPIPS_FILE} (its hash differs): download it from {LPIPS_URL}"
        )
    state: dict[str, Tensor] = torch.load(weights, map_location="cpu", weights_only=True)
    return state

"""How much an attack changed its images: SSIM, MS-SSIM, LPIPS, and the plain counts of the threat model.

SSIM and MS-SSIM are at once losses (Mis-Ranking trains against MS-SSIM) and the metrics that a report
prints, so there is one definition of each. LPIPS needs ImageNet weights that no package ships; it is
computed where they are found and left out where they are not, never with random weights.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from pytorch_msssim import ssim as _library_ssim
from pytorch_msssim.ssim import _fspecial_gauss_1d, _ssim
from torch import Tensor
from torch.nn import functional

from reid_attack_bench.contracts import to_float
from reid_attack_bench.errors import BenchError
from reid_attack_bench.metrics.grid import grid_energy
from reid_attack_bench.store import file_digest

WINDOW = 11
SIGMA = 1.5
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Weights of the five scales of MS-SSIM, finest first (Wang, Simoncelli and Bovik, Asilomar 2003)."""

LPIPS_VARIABLE = "REID_ATTACK_BENCH_LPIPS_WEIGHTS"
LPIPS_FILE = "alexnet-owt-7be5be79.pth"
LPIPS_SHA256_PREFIX = "7be5be79"
LPIPS_URL = "https://download.pytorch.org/models/" + LPIPS_FILE

_CHUNK = 256  # images compared at a time, so that a memory map stays one
_PIXELS = {"cuda": 2**23, "cpu": 2**17}  # of the images measured at once; more leave a CPU's caches


class Change(TypedDict):
    """What `change` counts, one entry per image.

    linf: int64, largest change of a colour value in steps of 1/255. l2: float64, Euclidean norm of the change over all
    colour values in [0, 1]. pixels: int64, positions of H×W where any of R, G, B changed.
    """

    linf: np.ndarray
    l2: np.ndarray
    pixels: np.ndarray


def ssim(clean: Tensor, adversarial: Tensor) -> Tensor:
    """Structural similarity per image, N values in [−1, 1], differentiable (Wang et al., TIP 2004).

    Gaussian window of 11 with sigma 1.5, K = (0.01, 0.03), only positions where the window fits, mean over R, G, B.

    Args:
        clean, adversarial: float RGB N×3×H×W in [0, 1], sides of at least 11.

    Raises:
        BenchError: shapes differ, or a side is smaller than the window.
    """
    _check(clean, adversarial)
    similarity: Tensor = _library_ssim(
        clean, adversarial, data_range=1.0, size_average=False, win_size=WINDOW, win_sigma=SIGMA
    )
    return similarity


def scale_count(height: int, width: int) -> int:
    """How many scales MS-SSIM uses at this size: the most, up to 5, with min(height, width) > 10·2^(scales − 1).

    5 from 161 pixels on the shorter side, 4 at 256×128, 3 at 128×64.
    """
    side = min(height, width)
    return max((s for s in range(1, len(SCALE_WEIGHTS) + 1) if side > (WINDOW - 1) * 2 ** (s - 1)), default=1)


def ms_ssim(clean: Tensor, adversarial: Tensor) -> Tensor:
    """Multi-scale structural similarity per image, N values in [0, 1], differentiable (Wang et al., Asilomar 2003).

    Contrast-structure at every scale but the coarsest, full SSIM (which alone carries luminance) at
    the coarsest, negative terms clamped at 0, each raised to its weight and multiplied; mean over R, G, B.

    The published definition has five scales, and five do not fit person crops: at 256×128 a window
    of 11 fits four times and at 128×64 three times. So the scales are as many as fit (`scale_count`)
    and their weights are the first that many of the published ones, renormalised to sum to one.
    From 161 pixels on it is pytorch_msssim.ms_ssim exactly. Where a term is clamped its gradient is
    0, never NaN.

    Args:
        clean, adversarial: float RGB N×3×H×W in [0, 1], sides of at least 11.

    Raises:
        BenchError: shapes differ, or a side is smaller than the window.
    """
    return ssim_and_ms_ssim(clean, adversarial)[1]


def ssim_and_ms_ssim(clean: Tensor, adversarial: Tensor) -> tuple[Tensor, Tensor]:
    """SSIM and MS-SSIM: the finest scale of the one is the other."""
    _check(clean, adversarial)
    scales = scale_count(*clean.shape[-2:])
    weights = clean.new_tensor(SCALE_WEIGHTS[:scales])
    if scales < len(SCALE_WEIGHTS):
        weights = weights / weights.sum()
    window = _fspecial_gauss_1d(WINDOW, SIGMA).repeat(clean.shape[1], 1, 1, 1)

    terms = []
    for scale in range(scales):
        similarity, structure = _ssim(clean, adversarial, data_range=1.0, win=window, size_average=False)
        if scale == 0:
            finest = similarity.mean(dim=1)
        if scale == scales - 1:
            terms.append(similarity)
            break
        terms.append(structure)
        padding = [side % 2 for side in clean.shape[-2:]]
        clean = functional.avg_pool2d(clean, kernel_size=2, padding=padding)
        adversarial = functional.avg_pool2d(adversarial, kernel_size=2, padding=padding)

    # x^w has no finite slope at 0, but relu passes nothing back there, so the gradient is 0 and not NaN
    clamped = torch.relu(torch.stack(terms))  # scales×N×3
    return finest, (clamped ** weights.view(-1, 1, 1)).prod(dim=0).mean(dim=1)


def change(clean: np.ndarray, adversarial: np.ndarray) -> Change:
    """Count the change per image, in the units of a threat model.

    Args:
        clean, adversarial: uint8 RGB N×H×W×3; memory maps are read in chunks.

    Raises:
        BenchError: shapes differ, or the images are not uint8.
    """
    if clean.shape != adversarial.shape or clean.dtype != np.uint8 or adversarial.dtype != np.uint8:
        raise BenchError(
            "change compares stored images, two uint8 arrays of one shape, not "
            f"{clean.dtype} {clean.shape} and {adversarial.dtype} {adversarial.shape}: convert with to_uint8"
        )
    count = len(clean)
    linf, l2, pixels = np.zeros(count, np.int64), np.zeros(count, np.float64), np.zeros(count, np.int64)
    for start in range(0, count, _CHUNK):
        part = slice(start, start + _CHUNK)
        steps = np.abs(adversarial[part].astype(np.int16) - clean[part].astype(np.int16))
        flat = steps.reshape(len(steps), -1)
        linf[part] = flat.max(axis=1, initial=0)
        l2[part] = np.sqrt(np.square(flat, dtype=np.int64).sum(axis=1)) / 255.0
        pixels[part] = steps.any(axis=-1).reshape(len(steps), -1).sum(axis=1)
    return Change(linf=linf, l2=l2, pixels=pixels)


def measures(
    clean: np.ndarray, adversarial: np.ndarray, device: torch.device | str = "cpu", lpips: Lpips | None = None
) -> dict[str, np.ndarray]:
    """Everything that says how visible a change is: name → N values.

    linf, l2, pixels as `change` counts them, ssim, ms_ssim, grid (see metrics.grid), and lpips where it is given.

    Args:
        clean, adversarial: uint8 RGB N×H×W×3, sides from 16.

    Raises:
        BenchError: shapes differ, or the images are too small.
    """
    clean, adversarial = np.asarray(clean), np.asarray(adversarial)
    found: dict[str, np.ndarray] = {**change(clean, adversarial)}  # type: ignore[dict-item]
    before, after = to_float(clean, device), to_float(adversarial, device)
    with torch.no_grad():
        found["ssim"], found["ms_ssim"] = (values.cpu().numpy() for values in ssim_and_ms_ssim(before, after))
        found["grid"] = grid_energy(after - before).cpu().numpy()
        if lpips is not None:
            found["lpips"] = lpips(before, after).cpu().numpy()
    return found


def batch_size(images: np.ndarray, device: torch.device) -> int:
    """How many of these, N×H×W×3, are best handed to `measures` at once."""
    height, width = images.shape[1:3]
    return max(1, _PIXELS[device.type] // (height * width))


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

        # Without pnet_rand the constructor downloads; the trunk that it draws at random is replaced
        # whole below, and drawing it must not move the caller's random numbers.
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
        names = self._network.net.state_dict()  # "slice2.3.weight" is "features.3.weight" of AlexNet
        state = {name: trunk[f"features.{name.split('.', 1)[1]}"] for name in names}
        self._network.net.load_state_dict(state)
        self._network.eval().requires_grad_(False).to(device)

    def __call__(self, clean: Tensor, adversarial: Tensor) -> Tensor:
        """N distances ≥ 0 between float RGB N×3×H×W images in [0, 1], at their own size; differentiable."""
        _check(clean, adversarial)
        scores: Tensor = self._network(clean, adversarial, normalize=True)
        return scores.flatten()


def find_lpips_weights() -> Path | None:
    """The AlexNet weights that LPIPS needs: $REID_ATTACK_BENCH_LPIPS_WEIGHTS, else torch's own folder, else None.

    Raises:
        BenchError: the variable names a file that is not there.
    """
    named = os.environ.get(LPIPS_VARIABLE)
    if named:
        path = Path(named).expanduser()
        if not path.is_file():
            raise BenchError(f"{LPIPS_VARIABLE} names {path}, which is not a file: correct it, or unset it")
        return path
    path = _hub_file()
    return path if path.is_file() else None


def lpips_missing_message() -> str:
    """One line for a person: why there is no LPIPS, and what to do."""
    return f"LPIPS left out: save {LPIPS_URL} as {_hub_file()}, or name the file in {LPIPS_VARIABLE}"


def _hub_file() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / LPIPS_FILE


def _alexnet_features(weights: Path) -> dict[str, Tensor]:
    """The state dict in `weights`, once its hash shows that it is torchvision's file."""
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


def _check(clean: Tensor, adversarial: Tensor) -> None:
    if clean.ndim != 4 or clean.shape != adversarial.shape:
        raise BenchError(
            f"similarity compares two N×3×H×W batches of one shape, not {tuple(clean.shape)} "
            f"and {tuple(adversarial.shape)}"
        )
    if min(clean.shape[-2:]) < WINDOW:
        raise BenchError(
            f"SSIM slides a window of {WINDOW}×{WINDOW} pixels and the images are {clean.shape[-2]}×{clean.shape[-1]}: "
            "use larger images"
        )


__all__ = [
    "Change", "Lpips", "batch_size", "change", "find_lpips_weights", "lpips_missing_message", "measures", "ms_ssim",
    "scale_count", "ssim", "ssim_and_ms_ssim",
]  # fmt: skip

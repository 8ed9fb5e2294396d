"""Visible difference of colours, CIEDE2000 (Sharma, Wu and Dalal, 2005), as scikit-image computes it.

SSIM compares structure and hardly sees a tint of the whole image; this metric does. A difference of about 1 is the
least that people see between two patches.
"""

from __future__ import annotations

import numpy as np

_WHITE = np.float32(255.0)


def ciede2000(clean: np.ndarray, adversarial: np.ndarray) -> np.ndarray:
    """Mean over the pixels of each image of its colour difference ΔE00: float64 N, 0 for no change.

    Args:
        clean, adversarial: uint8 N×H×W×3, sRGB under D65.
    """
    from skimage.color import deltaE_ciede2000, rgb2lab  # slow to import, and not needed for planning

    # image by image, so that they fit in the cache of a CPU; float32, twice as fast, agrees to 1e-6
    found = [
        deltaE_ciede2000(*(rgb2lab(image.astype(np.float32) / _WHITE) for image in pair)).mean(dtype=np.float64)
        for pair in zip(clean, adversarial, strict=True)
    ]
    return np.array(found, np.float64)

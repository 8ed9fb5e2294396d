"""Random flips, translations and erasing of a whole batch at once.

The draws are those of torchvision's RandomHorizontalFlip, RandomCrop (padded by a sixteenth of each side, edges
repeated) and RandomErasing (Zhong et al., AAAI 2020, arXiv 1708.04896) one image after the other, in number and order,
so that a seed gives the same images; only what is done with them is done for all images together.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

ERASED = 0.5

SHARE = (0.02, 0.2)
"""Of the image, smallest and largest, that is erased."""

RATIO = (0.3, 3.3)
"""Height to width of what is erased, smallest and largest."""


def augment(images: Tensor, erasing: float) -> Tensor:
    """N×3×H×W in [0, 1] → the same, drawn from torch's global CPU generator.

    Args:
        erasing: probability that a rectangle of an image becomes grey.
    """
    count, _, height, width = images.shape
    # flipped, top, left, then the rectangle: top, left, height, width; a row per image, one transfer for all
    drawn = torch.tensor([_draw(height, width, erasing) for _ in range(count)]).to(images.device, non_blocking=True)
    flipped, top, left, above, beside, tall, wide = (column.view(-1, 1) for column in drawn.unbind(dim=1))
    y, x = (torch.arange(side, device=images.device) for side in (height, width))
    rows = (y + top - height // 16).clamp(0, height - 1)
    columns = (x + left - width // 16).clamp(0, width - 1)
    columns = torch.where(flipped == 1, width - 1 - columns, columns)
    pixels = (rows.unsqueeze(2) * width + columns.unsqueeze(1)).view(count, 1, -1).expand(-1, images.shape[1], -1)
    moved = images.flatten(2).gather(2, pixels).view_as(images)
    inside = ((y >= above) & (y < above + tall)).unsqueeze(2) & ((x >= beside) & (x < beside + wide)).unsqueeze(1)
    return moved.masked_fill(inside.unsqueeze(1), ERASED)


def _draw(height: int, width: int, erasing: float) -> list[int]:
    flipped = int(torch.rand(1) < 0.5)
    top, left = (int(torch.randint(0, 2 * (side // 16) + 1, ())) if side >= 16 else 0 for side in (height, width))
    return [flipped, top, left, *(_rectangle(height, width) if torch.rand(1) < erasing else (0, 0, 0, 0))]


def _rectangle(height: int, width: int) -> tuple[int, int, int, int]:
    """Top, left, height and width of what is erased; empty where ten attempts give none that fits."""
    low, high = torch.log(torch.tensor(RATIO)).tolist()
    for _ in range(10):
        area = height * width * torch.empty(1).uniform_(*SHARE).item()
        ratio = torch.exp(torch.empty(1).uniform_(low, high)).item()
        tall, wide = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if tall < height and wide < width:
            top, left = (int(torch.randint(0, side + 1, ())) for side in (height - tall, width - wide))
            return top, left, tall, wide
    return 0, 0, 0, 0

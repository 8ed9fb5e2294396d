"""Random horizontal flips, translations and erasing of a whole batch at once.

Equivalent to torchvision's RandomHorizontalFlip, RandomCrop (padded by 1/16 of each side with repeated edges) and
RandomErasing (Zhong et al., AAAI 2020, arXiv 1708.04896), applied to one image after another: the same seed gives the
same images. The random numbers are drawn per image; the pixels are moved for all images together.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

GREY = 0.5
"""Colour of erased rectangles."""

AREA = (0.02, 0.2)
"""Smallest and largest area of an erased rectangle, as a share of the image."""

RATIO = (0.3, 3.3)
"""Smallest and largest height-to-width ratio of an erased rectangle."""


def flip_shift_erase(images: Tensor, erasing: float) -> Tensor:
    """Augmented images, N×3×H×W in [0, 1], drawn from torch's global CPU generator.

    Args:
        images: N×3×H×W in [0, 1].
        erasing: probability that a rectangle of an image is replaced by grey.
    """
    count, _, height, width = images.shape
    # columns: flipped, top, left, then top, left, height and width of the rectangle; one transfer for all images
    drawn = torch.tensor([_draw(height, width, erasing) for _ in range(count)]).to(images.device, non_blocking=True)
    flipped, top, left, first_row, first_column, rows, columns = (column.view(-1, 1) for column in drawn.unbind(dim=1))
    y, x = (torch.arange(side, device=images.device) for side in (height, width))
    from_y = (y + top - height // 16).clamp(0, height - 1)
    from_x = (x + left - width // 16).clamp(0, width - 1)
    from_x = torch.where(flipped == 1, width - 1 - from_x, from_x)
    pixels = (from_y.unsqueeze(2) * width + from_x.unsqueeze(1)).view(count, 1, -1).expand(-1, images.shape[1], -1)
    moved = images.flatten(2).gather(2, pixels).view_as(images)
    in_rows, in_columns = (y >= first_row) & (y < first_row + rows), (x >= first_column) & (x < first_column + columns)
    return moved.masked_fill((in_rows.unsqueeze(2) & in_columns.unsqueeze(1)).unsqueeze(1), GREY)


def _draw(height: int, width: int, erasing: float) -> list[int]:
    flipped = int(torch.rand(1) < 0.5)
    top, left = (int(torch.randint(0, 2 * (side // 16) + 1, ())) if side >= 16 else 0 for side in (height, width))
    return [flipped, top, left, *(_rectangle(height, width) if torch.rand(1) < erasing else (0, 0, 0, 0))]


def _rectangle(height: int, width: int) -> tuple[int, int, int, int]:
    """Top, left, height and width of the rectangle to erase; all 0 if none of ten attempts fits into the image."""
    low, high = torch.log(torch.tensor(RATIO)).tolist()
    for _ in range(10):
        area = height * width * torch.empty(1).uniform_(*AREA).item()
        ratio = torch.exp(torch.empty(1).uniform_(low, high)).item()
        tall, wide = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if tall < height and wide < width:
            top, left = (int(torch.randint(0, side + 1, ())) for side in (height - tall, width - wide))
            return top, left, tall, wide
    return 0, 0, 0, 0

"""Drawing in real coordinates: outlines, and a canvas that fills them with a colour field.

OpenCV rasterises with anti-aliasing at 1/16 pixel. Coordinates are in units independent of the resolution, so an image
drawn at twice the resolution has the same content with more detail.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import atan2, ceil, cos, floor, sin

import cv2
import numpy as np

Colour = tuple[float, float, float]
"""RGB in [0, 1]."""

Point = tuple[float, float]

Field = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""x and y of every pixel, in units (both H×W) → RGB 3×H×W."""

_SHIFT = 4


@dataclass(frozen=True)
class Canvas:
    """Float32 RGB pixels (3×H×W, changed in place) and the coordinate frame of drawings.

    Attributes:
        pixels: the array that is drawn on.
        scale: pixels per unit.
        left, top: pixel position of the frame's origin.
    """

    pixels: np.ndarray
    scale: float
    left: float = 0.0
    top: float = 0.0

    def framed(self, origin: Point, scale: float) -> Canvas:
        """The same pixels with a frame at `origin` whose unit is `scale` units of this one."""
        return replace(
            self,
            scale=self.scale * scale,
            left=self.left + origin[0] * self.scale,
            top=self.top + origin[1] * self.scale,
        )

    def fill(self, outline: np.ndarray, colour: Colour | Field, alpha: float = 1.0) -> None:
        """Blend `colour`, or a colour field, into the closed `outline` (N×2, in units)."""
        points = outline * self.scale + (self.left, self.top)
        height, width = self.pixels.shape[1:]
        (low_x, low_y), (high_x, high_y) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
        x0, y0 = max(floor(low_x) - 1, 0), max(floor(low_y) - 1, 0)
        x1, y1 = min(ceil(high_x) + 2, width), min(ceil(high_y) + 2, height)
        if x0 >= x1 or y0 >= y1:
            return
        mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
        corners = np.rint((points - (x0, y0)) * (1 << _SHIFT)).astype(np.int32)
        cv2.fillPoly(mask, [corners], 255, cv2.LINE_AA, _SHIFT)
        if callable(colour):
            x = (np.arange(x0, x1, dtype=np.float32) - np.float32(self.left)) / np.float32(self.scale)
            y = (np.arange(y0, y1, dtype=np.float32) - np.float32(self.top)) / np.float32(self.scale)
            paint = colour(np.broadcast_to(x, mask.shape), np.broadcast_to(y[:, None], mask.shape))
        else:
            paint = rgb(colour)
        region = self.pixels[:, y0:y1, x0:x1]
        region += mask * np.float32(alpha / 255.0) * (paint - region)


def rectangle(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])


_CIRCLE = np.stack([np.cos(np.linspace(0, 2 * np.pi, 20, False)), np.sin(np.linspace(0, 2 * np.pi, 20, False))], axis=1)


def ellipse(centre: Point, radius_x: float, radius_y: float) -> np.ndarray:
    return _CIRCLE * (radius_x, radius_y) + centre


def capsule(start: Point, end: Point, start_radius: float, end_radius: float) -> np.ndarray:
    """A tapering limb with round ends."""
    angle = atan2(end[1] - start[1], end[0] - start[0])
    turn = np.array([(cos(angle), sin(angle)), (-sin(angle), cos(angle))])
    # _CIRCLE starts on the +x axis: quarters 1 and 4 form the cap at the end, 2 and 3 the cap at the start
    rounded = _CIRCLE @ turn
    near = rounded[5:16] * start_radius + start
    far = np.concatenate([rounded[15:], rounded[:6]]) * end_radius + end
    return np.concatenate([near, far])


def profile(levels: np.ndarray, halves: np.ndarray, centre: float | np.ndarray = 0.0) -> np.ndarray:
    """A shape that is symmetric about `centre`, given its half-width at each level (y)."""
    left = np.stack([centre - halves, levels], axis=1)
    right = np.stack([centre + halves, levels], axis=1)
    return np.concatenate([left, right[::-1]])


def rgb(colour: Colour) -> np.ndarray:
    """A colour as a 3×1×1 array, to be broadcast over pixels."""
    return np.array(colour, np.float32)[:, None, None]


def between(at: np.ndarray, points: Sequence[float] | np.ndarray, values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Piecewise linear interpolation, in float32."""
    return np.interp(at, points, values).astype(np.float32)


def roundness(across: np.ndarray, light: float) -> np.ndarray:
    """Brightness over a cylinder at `across` in [−1, 1], lit from the side `light` in [−1, 1]."""
    return 1.04 - 0.3 * across * across + 0.24 * light * across


def mottle(rng: np.random.Generator, shape: tuple[int, int], cells: tuple[int, int], strength: float) -> np.ndarray:
    """Smooth noise around 1 (H×W float32), independent of the resolution for the same `cells`."""
    rows, columns = cells
    total = np.zeros(shape, np.float32)
    for octave, weight in ((1, 0.6), (3, 0.4)):
        grid = rng.standard_normal((rows * octave, columns * octave), dtype=np.float32)
        total += weight * cv2.resize(grid, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
    return 1.0 + strength * total


def mixed(first: Colour, second: Colour, share: float) -> Colour:
    """(1 − share) of the first colour and `share` of the second."""
    red, green, blue = (a + share * (b - a) for a, b in zip(first, second, strict=True))
    return red, green, blue


def dimmed(colour: Colour, factor: float) -> Colour:
    red, green, blue = (min(1.0, value * factor) for value in colour)
    return red, green, blue

"""Cloth as a colour field over a body: patterns, prints, open fronts, folds."""

from __future__ import annotations

import numpy as np

from reid_attack_bench.data.synthetic.identity import Garment
from reid_attack_bench.data.synthetic.paint import Colour, dimmed, mixed, rgb

_AROUND = 0.1
"""Body radius that converts an angle around the body to a length."""


def _where(mask: np.ndarray, colour: np.ndarray, inside: Colour) -> np.ndarray:
    return np.where(mask, rgb(inside), colour)


def pattern(garment: Garment, angle: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Colours of the cloth.

    `angle` is the direction around the body in radians (0 front, ±π back), `level` the height on the
    body in body heights from the crown; both H×W. Returns RGB 3×H×W.
    """
    ground = rgb(garment.colour)
    kind = garment.pattern
    if kind == "plain":
        return np.broadcast_to(ground, (3, *angle.shape))
    along = level / garment.period + garment.phase
    around = angle * _AROUND / garment.period + garment.phase
    if kind == "stripes":
        mask = along % 1.0 < 0.45
    elif kind == "pinstripes":
        mask = around % 1.0 < 0.35
    elif kind == "check":
        mixture = 0.5 * ((along % 1.0 < 0.45).astype(np.float32) + (around % 1.0 < 0.45))
        return ground + mixture * (rgb(garment.second) - ground)
    elif kind == "dots":
        mask = ((along % 1.0 - 0.5) ** 2 + ((around + 0.5 * np.floor(along)) % 1.0 - 0.5) ** 2) < 0.09
    elif kind == "block":
        mask = level > 0.27 + 0.1 * garment.phase
    elif kind == "yoke":
        mask = level < 0.215 + 0.04 * garment.phase
    elif kind == "chest-band":
        middle = 0.25 + 0.12 * garment.phase
        mask = np.abs(level - middle) < 0.022 + 0.3 * garment.period
    elif kind == "diagonal":
        mask = (along * 0.7 + around * 0.7) % 1.0 < 0.45
    elif kind == "halves":
        mask = np.sin(angle + 6.28 * garment.phase) > 0
    elif kind == "faded":
        share = 0.45 * np.exp(-((angle / 0.7) ** 2) - ((level - 0.62) / 0.1) ** 2)
        return ground + share * (1.0 - ground)
    else:  # "blotch": camouflage-like
        turn = 6.28 * garment.phase
        mask = np.sin(22 * level * 2 + turn + 2 * np.sin(3 * angle)) + np.sin(4 * angle + 37 * level + turn) > 0.4
    return np.where(mask, rgb(garment.second), ground)


def _print_mask(shape: str, across: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Mask of a print, in its own coordinates ([−1, 1] across and down)."""
    if shape == "disc":
        return across**2 + down**2 < 1
    if shape == "ring":
        radius = across**2 + down**2
        return (radius < 1) & (radius > 0.3)
    if shape == "square":
        return (np.abs(across) < 0.8) & (np.abs(down) < 0.8)
    if shape == "bars":
        return (np.abs(across) < 1.0) & (np.abs(down) < 0.9) & ((down * 1.4 + 0.25) % 1.0 < 0.55)
    if shape == "band":
        return (np.abs(down) < 0.42) & (np.abs(across) < 1.5)
    if shape == "triangle":
        return (np.abs(across) < 0.5 * (down + 1)) & (down < 0.9)
    return (np.abs(across) < 0.3) & (np.abs(down) < 1) | (np.abs(down) < 0.3) & (np.abs(across) < 1)


def folds(garment: Garment, angle: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Brightness of the wrinkles, around 1."""
    first, second = garment.folds
    strength = 0.045 + 2.0 * garment.ease
    return 1.0 + strength * np.sin(34 * level + 2.2 * angle + first) * np.sin(3 * angle - 15 * level + second)


def weave(garment: Garment, angle: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Additive texture of the cloth, around 0."""
    period, direction, depth = garment.weave
    along = level * np.cos(direction) + angle * _AROUND * np.sin(direction)
    return depth * np.sin(2 * np.pi / period * along)


def upper_colour(garment: Garment, inner: Garment, angle: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Front and back of an upper garment without shading: RGB 3×H×W."""
    colour = pattern(garment, angle, level)
    front = np.abs(angle)
    if garment.print_shape:
        for centre in (0.0, np.pi) if garment.print_back else (0.0,):
            away = angle if centre == 0.0 else (angle % (2 * np.pi)) - np.pi
            mask = _print_mask(garment.print_shape, away / 0.52, (level - 0.28) / 0.052)
            colour = _where(mask & (np.abs(away) < 1.2), colour, garment.print_colour)
    if garment.cut in ("open-jacket", "vest", "coat"):
        opening = (0.16 if garment.cut == "coat" else 0.32) + 0.9 * np.maximum(level - 0.3, 0)
        if garment.cut == "coat":
            opening = np.where(level < 0.3, 0.3 - (level - 0.16), 0.02)
        colour = _where(front < opening + 0.09, colour, dimmed(garment.colour, 0.6))
        colour = np.where(front < opening, pattern(inner, angle, level), colour)
    elif garment.cut == "zip-jacket":
        colour = _where(front < 0.07, colour, mixed(garment.colour, garment.second, 0.7))
    elif garment.cut == "hoodie":
        pocket = (front < 0.75) & (level > 0.39) & (level < 0.455)
        colour = _where(pocket, colour, dimmed(garment.colour, 0.75))
    elif garment.cut == "polo":
        colour = _where((front < 0.06) & (level < 0.25), colour, dimmed(garment.colour, 0.6))
    elif garment.cut == "dress":
        colour = _where(np.abs(level - 0.4) < 0.011, colour, garment.print_colour)
    return colour

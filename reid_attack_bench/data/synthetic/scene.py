"""Backgrounds (panoramas), shadows and occluders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from reid_attack_bench.data.synthetic.identity import Mix, Palette, pick, pick_colour
from reid_attack_bench.data.synthetic.paint import (
    Canvas,
    Colour,
    capsule,
    dimmed,
    ellipse,
    mixed,
    mottle,
    profile,
    rectangle,
    rgb,
)

PANORAMA_WIDTH = 3.0

PANORAMA_HEIGHT = 1.2
"""Size of a panorama in image heights; an image shows 0.5 × 1 of it."""


@dataclass(frozen=True)
class Scenery:
    """Content of the backgrounds of a domain.

    Attributes:
        walls, grounds: palettes.
        backdrops: kinds of background ("facade", "shops", "trees", "tiles", "train", …).
        floors: "paving", "asphalt", "platform", "grass" or "path".
        props: further objects.
        horizon: top of the ground, in image heights from the top.
        relief: strength of stains and light patches.
    """

    walls: Palette
    grounds: Palette
    backdrops: Mix
    floors: Mix
    props: Mix
    horizon: tuple[float, float]
    relief: float


_CONTRAST = 0.35  # contrast of a background about its mean colour

_Draw = Callable[[Canvas, np.random.Generator, float, Colour], None]


def _facade(canvas: Canvas, rng: np.random.Generator, ground: float, wall: Colour) -> None:
    x = float(rng.uniform(-0.3, 0.0))
    pitch, width = float(rng.uniform(0.28, 0.5)), float(rng.uniform(0.14, 0.24))
    glass = pick_colour(rng, [((0.16, 0.2, 0.25), 1), ((0.35, 0.42, 0.5), 1), ((0.1, 0.1, 0.12), 1)])
    canvas.fill(rectangle(0, ground - 0.06, PANORAMA_WIDTH, ground), dimmed(wall, 0.72))
    while x < PANORAMA_WIDTH:
        for top in (ground - 0.72, ground - 0.32):
            canvas.fill(rectangle(x - 0.015, top - 0.015, x + width + 0.015, top + 0.235), dimmed(wall, 1.18))
            canvas.fill(rectangle(x, top, x + width, top + 0.22), glass)
            canvas.fill(rectangle(x + 0.47 * width, top, x + 0.53 * width, top + 0.22), dimmed(wall, 0.9))
        x += pitch


def _bricks(canvas: Canvas, rng: np.random.Generator, ground: float, wall: Colour) -> None:
    brick = mixed(wall, (0.55, 0.27, 0.2), 0.75)
    canvas.fill(rectangle(0, 0, PANORAMA_WIDTH, ground), brick)
    row, y = 0, ground
    while y > -0.05:
        canvas.fill(rectangle(0, y - 0.004, PANORAMA_WIDTH, y), dimmed(brick, 1.25), 0.7)
        for x in np.arange((row % 2) * 0.045, PANORAMA_WIDTH, 0.09):
            if rng.random() < 0.4:
                shade = dimmed(brick, float(rng.uniform(0.75, 1.15)))
                canvas.fill(rectangle(x, y - 0.04, x + 0.085, y - 0.004), shade)
        y, row = y - 0.04, row + 1
    if rng.random() < 0.7:
        x = float(rng.uniform(0.2, 2.4))
        canvas.fill(rectangle(x, ground - 0.95, x + 0.42, ground), (0.2, 0.17, 0.15))
        canvas.fill(rectangle(x + 0.03, ground - 0.9, x + 0.39, ground), (0.36, 0.3, 0.26))


def _shops(canvas: Canvas, rng: np.random.Generator, ground: float, wall: Colour) -> None:
    x = 0.0
    while x < PANORAMA_WIDTH:
        width = float(rng.uniform(0.45, 0.9))
        sign = pick_colour(rng, [((0.65, 0.15, 0.15), 1), ((0.15, 0.3, 0.55), 1), ((0.85, 0.75, 0.3), 1),
                                 ((0.15, 0.4, 0.25), 1), ((0.9, 0.9, 0.88), 1)])  # fmt: skip
        dark = float(rng.uniform(0.12, 0.3))
        canvas.fill(rectangle(x, ground - 0.7, x + width, ground - 0.57), sign)
        canvas.fill(
            rectangle(x + 0.03, ground - 0.55, x + width - 0.03, ground - 0.05), (dark, dark * 1.05, dark * 1.1)
        )
        for _ in range(4):  # goods and reflections in shop windows
            left = x + float(rng.uniform(0.05, max(0.06, width - 0.15)))
            top = ground - float(rng.uniform(0.25, 0.5))
            tone = pick_colour(rng, [((0.7, 0.65, 0.5), 2), ((0.5, 0.3, 0.3), 1), ((0.4, 0.5, 0.6), 1)])
            canvas.fill(rectangle(left, top, left + float(rng.uniform(0.04, 0.12)), ground - 0.08), tone, 0.6)
        canvas.fill(rectangle(x, ground - 0.57, x + 0.03, ground), dimmed(wall, 0.8))
        x += width


def _tiles(canvas: Canvas, rng: np.random.Generator, ground: float, wall: Colour) -> None:
    step = float(rng.uniform(0.06, 0.12))
    band = pick_colour(rng, [((0.2, 0.35, 0.55), 1), ((0.55, 0.25, 0.2), 1), ((0.2, 0.45, 0.4), 1), (wall, 1)])
    canvas.fill(rectangle(0, ground - 0.5, PANORAMA_WIDTH, ground - 0.38), band)
    for x in np.arange(0, PANORAMA_WIDTH, step):
        canvas.fill(rectangle(x, 0, x + 0.005, ground), dimmed(wall, 0.75), 0.8)
    for y in np.arange(ground, -0.1, -step):
        canvas.fill(rectangle(0, y - 0.005, PANORAMA_WIDTH, y), dimmed(wall, 0.75), 0.8)
    for _ in range(int(rng.integers(1, 4))):
        _poster(canvas, rng, float(rng.uniform(0, 2.6)), ground)


def _poster(canvas: Canvas, rng: np.random.Generator, x: float, ground: float) -> None:
    width = float(rng.uniform(0.25, 0.45))
    vivid: Palette = [((0.75, 0.2, 0.2), 1), ((0.2, 0.4, 0.7), 1), ((0.85, 0.8, 0.6), 2), ((0.9, 0.9, 0.9), 2),
                      ((0.2, 0.2, 0.25), 1)]  # fmt: skip
    canvas.fill(rectangle(x - 0.02, ground - 0.72, x + width + 0.02, ground - 0.13), (0.25, 0.25, 0.27))
    canvas.fill(rectangle(x, ground - 0.7, x + width, ground - 0.15), pick_colour(rng, vivid))
    for _ in range(3):
        left, top = x + float(rng.uniform(0, 0.6)) * width, ground - float(rng.uniform(0.35, 0.68))
        right, bottom = left + float(rng.uniform(0.1, 0.4)) * width, top + float(rng.uniform(0.04, 0.18))
        canvas.fill(rectangle(left, top, right, bottom), pick_colour(rng, vivid))


def _train(canvas: Canvas, rng: np.random.Generator, ground: float, wall: Colour) -> None:
    body = pick_colour(rng, [((0.72, 0.73, 0.75), 2), ((0.3, 0.4, 0.55), 1), ((0.75, 0.7, 0.55), 1)])
    stripe = pick_colour(rng, [((0.7, 0.15, 0.15), 1), ((0.1, 0.3, 0.6), 1), ((0.1, 0.45, 0.3), 1)])
    canvas.fill(rectangle(0, ground - 0.85, PANORAMA_WIDTH, ground - 0.03), body)
    canvas.fill(rectangle(0, ground - 0.03, PANORAMA_WIDTH, ground), (0.06, 0.06, 0.06))
    canvas.fill(rectangle(0, ground - 0.28, PANORAMA_WIDTH, ground - 0.21), stripe)
    x = float(rng.uniform(-0.4, 0))
    while x < PANORAMA_WIDTH:
        canvas.fill(rectangle(x, ground - 0.68, x + 0.34, ground - 0.37), (0.13, 0.16, 0.19))
        canvas.fill(rectangle(x + 0.46, ground - 0.75, x + 0.72, ground - 0.03), dimmed(body, 0.82))
        for left in (x + 0.48, x + 0.6):
            canvas.fill(rectangle(left, ground - 0.7, left + 0.1, ground - 0.3), (0.15, 0.18, 0.2))
        x += 0.85


def _column(canvas: Canvas, x: float, ground: float, wall: Colour) -> None:
    canvas.fill(rectangle(x, 0, x + 0.15, ground + 0.05), lambda u, v: rgb(wall) * (1.1 - 9 * np.abs(u - x - 0.06)))


def _pillars(canvas: Canvas, rng: np.random.Generator, ground: float, wall: Colour) -> None:
    canvas.fill(rectangle(0, 0, PANORAMA_WIDTH, ground), dimmed(wall, 0.45))
    for x in np.arange(float(rng.uniform(0, 0.4)), PANORAMA_WIDTH, float(rng.uniform(0.35, 0.7))):
        _column(canvas, float(x), ground, wall)
    for x in np.arange(0.1, PANORAMA_WIDTH, 0.6):
        canvas.fill(rectangle(x, 0.02, x + 0.3, 0.05), (0.95, 0.97, 0.92), 0.8)


def _trees(canvas: Canvas, rng: np.random.Generator, ground: float, wall: Colour) -> None:
    canvas.fill(rectangle(0, 0, PANORAMA_WIDTH, ground), mixed(wall, (0.75, 0.82, 0.88), 0.6))
    leaf = pick_colour(rng, [((0.2, 0.32, 0.14), 2), ((0.3, 0.4, 0.18), 1), ((0.45, 0.38, 0.15), 0.6)])
    for x in np.arange(float(rng.uniform(0, 0.3)), PANORAMA_WIDTH, float(rng.uniform(0.3, 0.6))):
        canvas.fill(rectangle(x, ground - 0.6, x + 0.045, ground + 0.04), (0.25, 0.19, 0.14))
        for _ in range(26):
            centre = (x + float(rng.normal(0, 0.16)), ground - 0.55 + float(rng.normal(-0.05, 0.17)))
            tone = dimmed(leaf, float(rng.uniform(0.55, 1.35)))
            canvas.fill(ellipse(centre, float(rng.uniform(0.03, 0.08)), float(rng.uniform(0.025, 0.06))), tone, 0.9)


def _hedge(canvas: Canvas, rng: np.random.Generator, ground: float, wall: Colour) -> None:
    top = ground - float(rng.uniform(0.25, 0.5))
    canvas.fill(rectangle(0, top, PANORAMA_WIDTH, ground), (0.16, 0.27, 0.12))
    for _ in range(260):
        centre = (float(rng.uniform(0, PANORAMA_WIDTH)), float(rng.uniform(top - 0.01, ground)))
        tone = dimmed((0.22, 0.36, 0.16), float(rng.uniform(0.5, 1.4)))
        canvas.fill(ellipse(centre, 0.03, 0.02), tone, 0.8)


def _fence(canvas: Canvas, rng: np.random.Generator, ground: float, wall: Colour) -> None:
    _hedge(canvas, rng, ground, wall)
    tone = pick_colour(rng, [((0.2, 0.2, 0.22), 1), ((0.75, 0.75, 0.72), 1)])
    for x in np.arange(0, PANORAMA_WIDTH, 0.06):
        canvas.fill(rectangle(x, ground - 0.4, x + 0.012, ground), tone)
    canvas.fill(rectangle(0, ground - 0.38, PANORAMA_WIDTH, ground - 0.36), tone)


_BACKDROPS: dict[str, _Draw] = {
    "facade": _facade, "bricks": _bricks, "shops": _shops, "tiles": _tiles, "train": _train, "pillars": _pillars,
    "trees": _trees, "hedge": _hedge, "fence": _fence,
}  # fmt: skip


def _bicycle(canvas: Canvas, x: float, ground: float, size: float, colour: Colour) -> None:
    """A bicycle seen from the side, wheels on `ground`, about 0.9 × `size` long."""
    dark, wheel = (0.1, 0.1, 0.11), 0.2 * size
    for hub in (x, x + 0.56 * size):
        centre = (hub, ground - wheel)
        outer, inner = ellipse(centre, wheel, wheel), ellipse(centre, 0.86 * wheel, 0.86 * wheel)
        # outer circle forwards, inner circle backwards: a ring
        canvas.fill(np.concatenate([outer, outer[:1], inner[:1], inner[::-1]]), dark)
    rear, front = (x, ground - wheel), (x + 0.56 * size, ground - wheel)
    crank, seat = (x + 0.24 * size, ground - 0.16 * size), (x + 0.17 * size, ground - 0.45 * size)
    head = (x + 0.49 * size, ground - 0.44 * size)
    for first, last in ((rear, crank), (rear, seat), (seat, crank), (crank, head), (seat, head), (head, front)):
        canvas.fill(capsule(first, last, 0.016 * size, 0.016 * size), colour)
    canvas.fill(capsule((seat[0] - 0.05 * size, seat[1] - 0.04 * size), (seat[0] + 0.06 * size, seat[1] - 0.04 * size),
                        0.02 * size, 0.012 * size), dark)  # fmt: skip
    canvas.fill(capsule(head, (head[0] - 0.02 * size, head[1] - 0.09 * size), 0.014 * size, 0.014 * size), dark)


def _bench(canvas: Canvas, x: float, ground: float, width: float, colour: Colour) -> None:
    for level in (0.3, 0.25, 0.17):
        canvas.fill(rectangle(x, ground - level, x + width, ground - level + 0.035), dimmed(colour, 0.7 + level))
    for leg in (x + 0.04, x + width - 0.07):
        canvas.fill(rectangle(leg, ground - 0.15, leg + 0.025, ground), (0.12, 0.12, 0.13))


def _bin(canvas: Canvas, x: float, ground: float, colour: Colour) -> None:
    levels = np.array([ground - 0.36, ground - 0.34, ground])
    canvas.fill(
        profile(levels, np.array([0.085, 0.09, 0.075]), x),
        lambda u, v: rgb(colour) * (1.05 - 60 * (u - x + 0.02) ** 2),
    )
    canvas.fill(ellipse((x, ground - 0.35), 0.08, 0.018), (0.07, 0.07, 0.07))


def _car(canvas: Canvas, x: float, ground: float, colour: Colour) -> None:
    canvas.fill(profile(np.array([ground - 0.55, ground - 0.34]), np.array([0.3, 0.5]), x), dimmed(colour, 0.85))
    canvas.fill(profile(np.array([ground - 0.52, ground - 0.36]), np.array([0.26, 0.42]), x), (0.14, 0.17, 0.2))
    canvas.fill(capsule((x - 0.7, ground - 0.22), (x + 0.7, ground - 0.22), 0.13, 0.12), colour)
    for wheel in (x - 0.48, x + 0.48):
        canvas.fill(ellipse((wheel, ground - 0.1), 0.12, 0.12), (0.08, 0.08, 0.08))
        canvas.fill(ellipse((wheel, ground - 0.1), 0.06, 0.06), (0.5, 0.5, 0.52))


_PAINTS: Palette = [((0.55, 0.12, 0.12), 1), ((0.15, 0.25, 0.5), 1), ((0.75, 0.75, 0.77), 2), ((0.1, 0.1, 0.11), 2),
                    ((0.2, 0.4, 0.25), 1), ((0.7, 0.55, 0.2), 0.5)]  # fmt: skip


def _prop(canvas: Canvas, rng: np.random.Generator, kind: str, x: float, ground: float) -> None:
    if kind == "bicycle":
        _bicycle(canvas, x, ground, float(rng.uniform(0.6, 0.9)), pick_colour(rng, _PAINTS))
    elif kind == "bench":
        _bench(canvas, x, ground, float(rng.uniform(0.4, 0.7)), (0.5, 0.35, 0.22))
    elif kind == "bin":
        _bin(canvas, x, ground, pick_colour(rng, _PAINTS))
    elif kind == "car":
        _car(canvas, x, ground, pick_colour(rng, _PAINTS))
    elif kind == "lamp":
        canvas.fill(rectangle(x, -0.1, x + 0.025, ground), (0.2, 0.21, 0.22))
    elif kind == "kiosk":
        canvas.fill(rectangle(x, ground - 0.75, x + 0.3, ground), pick_colour(rng, _PAINTS))
        canvas.fill(rectangle(x + 0.04, ground - 0.68, x + 0.26, ground - 0.4), (0.55, 0.7, 0.78))


def _floor(canvas: Canvas, rng: np.random.Generator, kind: str, horizon: float, base: Colour) -> None:
    bottom = PANORAMA_HEIGHT
    if kind == "grass":
        base = mixed(base, (0.3, 0.42, 0.18), 0.8)
    elif kind == "asphalt":
        base = mixed(base, (0.3, 0.3, 0.31), 0.75)
    span = bottom - horizon

    def field(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        far = np.clip((bottom - y) / span, 0, 1)
        return rgb(base) * (0.9 + 0.22 * far)

    canvas.fill(rectangle(-0.1, horizon, PANORAMA_WIDTH + 0.1, bottom + 0.1), field)
    joint = dimmed(base, 0.68)
    vanish = float(rng.uniform(0.3, PANORAMA_WIDTH - 0.3))
    if kind in ("paving", "platform", "path"):
        depth = 1.0
        for _ in range(16):  # rows of slabs get closer towards the horizon
            y = horizon + span / depth
            canvas.fill(rectangle(-0.1, y - 0.006 / depth, PANORAMA_WIDTH + 0.1, y), joint, 0.7)
            depth *= 1.16
        for offset in np.arange(-9, 9, 0.3):
            start, end = vanish + 0.25 * offset, vanish + 1.6 * offset
            line = np.array([(start, horizon), (start + 0.003, horizon), (end + 0.012, bottom), (end, bottom)])
            canvas.fill(line, joint, 0.55)
    if kind == "platform":
        y = horizon + float(rng.uniform(0.05, 0.2))
        canvas.fill(rectangle(-0.1, y, PANORAMA_WIDTH + 0.1, y + 0.06), (0.78, 0.64, 0.15))
        for x in np.arange(0, PANORAMA_WIDTH, 0.04):
            canvas.fill(ellipse((x, y + 0.03), 0.009, 0.006), (0.62, 0.5, 0.1))
    elif kind == "asphalt" and rng.random() < 0.7:
        start, end = float(rng.uniform(0, 3)), float(rng.uniform(0, 3))
        outline = np.array([(start, horizon), (start + 0.03, horizon), (end + 0.12, bottom), (end, bottom)])
        canvas.fill(outline, (0.82, 0.82, 0.78), 0.8)
    elif kind == "grass":
        for _ in range(500):
            x, y = float(rng.uniform(0, PANORAMA_WIDTH)), float(rng.uniform(horizon, bottom))
            tone = dimmed(base, float(rng.uniform(0.6, 1.3)))
            canvas.fill(capsule((x, y), (x + 0.01, y - 0.02), 0.006, 0.002), tone, 0.7)
    elif kind == "path":
        lawn = mixed(base, (0.28, 0.4, 0.17), 0.9)
        side = float(rng.uniform(0.2, 0.6))
        canvas.fill(np.array([(-0.1, horizon), (vanish - side, horizon), (-0.1, bottom)]), lawn)
        canvas.fill(
            np.array([(vanish + side, horizon), (PANORAMA_WIDTH + 0.1, horizon), (PANORAMA_WIDTH + 0.1, bottom)]), lawn
        )


def make_panorama(rng: np.random.Generator, scenery: Scenery, rows: int) -> np.ndarray:
    """Panorama of one place, float32 RGB 3×H×W; `rows` pixels are one image height."""
    shape = (round(PANORAMA_HEIGHT * rows), round(PANORAMA_WIDTH * rows))
    wall = pick_colour(rng, scenery.walls, 0.04)
    canvas = Canvas(np.broadcast_to(rgb(wall), (3, *shape)).copy(), float(rows))
    horizon = float(rng.uniform(*scenery.horizon))
    _BACKDROPS[pick(rng, scenery.backdrops)](canvas, rng, horizon, wall)
    _floor(canvas, rng, pick(rng, scenery.floors), horizon, pick_colour(rng, scenery.grounds, 0.04))
    for _ in range(int(rng.integers(1, 5))):
        kind, x = pick(rng, scenery.props), float(rng.uniform(0, PANORAMA_WIDTH - 0.4))
        _prop(canvas, rng, kind, x, horizon + float(rng.uniform(0.04, 0.3)))
    stains = mottle(rng, shape, (7, 16), scenery.relief) * mottle(rng, shape, (60, 150), 0.035)
    place = canvas.pixels * np.clip(stains, 0.4, 1.6)
    # distance and haze: people stand out from the background
    middle = place.mean(axis=(1, 2), keepdims=True)
    return middle + np.float32(_CONTRAST) * (place - middle)


def crop_panorama(panorama: np.ndarray, x: float, y: float, rows: int) -> np.ndarray:
    """A copy of the rows × rows/2 view at (x, y) in image heights, slightly out of focus."""
    columns = rows // 2
    left, top = round(x * rows), round(y * rows)
    softness = 1 + 2 * (rows // 60)
    view = panorama[:, top : top + rows, left : left + columns]
    return np.stack([cv2.GaussianBlur(plane, (softness, softness), 0) for plane in view])


def cast_shadow(canvas: Canvas, feet: tuple[float, float], light: float, strength: float, hardness: float) -> None:
    """Darken the ground next to a walker: a contact shadow, and in sunlight a long shadow away from the light."""
    x, y = feet
    canvas.fill(ellipse((x, y - 0.005), 0.11, 0.02), (0.02, 0.02, 0.03), strength)
    if hardness > 0:
        tip = (x - 0.5 * light, y - 0.1)
        canvas.fill(capsule((x, y), tip, 0.05, 0.07), (0.03, 0.03, 0.06), strength * hardness)


def draw_occluder(canvas: Canvas, rng: np.random.Generator, kind: str) -> None:
    """Draw an occluder between camera and walker; covers a part of the image (0.5 × 1)."""
    x, colour = float(rng.uniform(0, 0.5)), pick_colour(rng, _PAINTS)
    ground = float(rng.uniform(0.98, 1.15))
    if kind == "pole":
        half = float(rng.uniform(0.012, 0.035))
        tone = pick_colour(rng, [((0.3, 0.31, 0.33), 2), ((0.65, 0.65, 0.62), 1), ((0.2, 0.3, 0.25), 1)])
        canvas.fill(
            rectangle(x - half, -0.1, x + half, 1.1),
            lambda u, v: rgb(tone) * (1.15 - 0.5 * ((u - x) / half) ** 2),
        )
    elif kind == "bicycle":
        _bicycle(canvas, x - 0.35, ground, float(rng.uniform(0.6, 0.85)), colour)
    elif kind == "bench":
        _bench(canvas, x - 0.2, ground, float(rng.uniform(0.3, 0.6)), (0.5, 0.36, 0.24))
    elif kind == "bin":
        _bin(canvas, x, ground, colour)
    elif kind == "rail":
        top = float(rng.uniform(0.62, 0.75))
        for y in (top, top + 0.14, top + 0.28):
            canvas.fill(rectangle(-0.1, y, 0.6, y + 0.018), (0.6, 0.61, 0.63))
        canvas.fill(rectangle(x, top, x + 0.025, 1.1), (0.5, 0.51, 0.53))
    elif kind == "suitcase":
        canvas.fill(rectangle(x - 0.1, ground - 0.32, x + 0.1, ground), colour)
        canvas.fill(rectangle(x - 0.075, ground - 0.3, x + 0.075, ground - 0.02), dimmed(colour, 1.25))
        for y in (0.25, 0.18, 0.11):
            canvas.fill(rectangle(x - 0.09, ground - y, x + 0.09, ground - y + 0.012), dimmed(colour, 0.7))
    elif kind == "leaves":
        corner = (0.0 if rng.random() < 0.5 else 0.5, float(rng.uniform(0.5, 1.0)))
        for _ in range(24):
            centre = (corner[0] + float(rng.normal(0, 0.07)), corner[1] + float(rng.normal(0, 0.09)))
            tone = dimmed((0.22, 0.36, 0.15), float(rng.uniform(0.5, 1.4)))
            canvas.fill(ellipse(centre, 0.03, 0.018), tone)

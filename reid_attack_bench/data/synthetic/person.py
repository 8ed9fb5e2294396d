"""Drawing a person in a pose: a body of tapering tubes, seen from any side, dressed with cloth.

In the body frame y runs from 0 at the crown to 1 at the soles and x is 0 on the axis of the body.
A surface point at `angle` around the body (0 is front) is projected to x = sin(angle + yaw).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, hypot, pi, sin

import numpy as np

from reid_attack_bench.data.synthetic.cloth import folds, pattern, upper_colour, weave
from reid_attack_bench.data.synthetic.identity import LOWER_LENGTHS, SLEEVES, Garment, Person
from reid_attack_bench.data.synthetic.paint import (
    Canvas,
    Colour,
    Field,
    Point,
    between,
    capsule,
    dimmed,
    ellipse,
    mixed,
    profile,
    rgb,
    roundness,
)


@dataclass(frozen=True)
class Pose:
    """Pose and light in one image: everything about the body that is not constant.

    Attributes:
        yaw: heading in radians; 0 walks towards the camera, π/2 to the right, π away.
        phase: phase of the gait, in radians.
        stride: swing of the thighs, in radians; 0 when standing.
        elbows: bend of the two forearms, in radians.
        elevation: downward tilt of the camera; nearer parts appear lower in the image.
        light: side of the light, from −1 (left) to 1 (right).
    """

    yaw: float
    phase: float
    stride: float
    elbows: tuple[float, float]
    elevation: float
    light: float

    def seen(self, forward: float, sideways: float, down: float) -> Point:
        """Projection of a point of the body into the image."""
        x = forward * sin(self.yaw) + sideways * cos(self.yaw)
        nearer = forward * cos(self.yaw) - sideways * sin(self.yaw)
        return x, down + nearer * self.elevation


def _angle(across: np.ndarray, yaw: float) -> np.ndarray:
    """Direction around the body, in [−π, π), at `across` in [−1, 1] of its visible width."""
    return (np.arcsin(np.clip(across, -0.995, 0.995)) - yaw + pi) % (2 * pi) - pi


def _tube(
    start: Point,
    end: Point,
    radii: tuple[float, float],
    cloth: Garment | Colour,
    pose: Pose,
    dark: float,
    side: int = 0,
) -> Field:
    """Cloth or skin on a limb; `side` marks the body side of a leg that carries a stripe."""
    length = max(hypot(end[0] - start[0], end[1] - start[1]), 1e-6)
    axis = ((end[0] - start[0]) / length, (end[1] - start[1]) / length)

    def field(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        share = np.clip(((x - start[0]) * axis[0] + (y - start[1]) * axis[1]) / length, 0, 1)
        across = ((x - start[0]) * axis[1] - (y - start[1]) * axis[0]) / (radii[0] + share * (radii[1] - radii[0]))
        across = np.clip(across, -1, 1)
        shade = roundness(across, pose.light) * dark
        if not isinstance(cloth, Garment):
            return rgb(cloth) * shade
        angle = _angle(across, pose.yaw)
        colour = pattern(cloth, angle, y)
        if cloth.cut == "track" and side:
            stripe = np.abs(angle - side * pi / 2) < 0.42
            colour = np.where(stripe, rgb(cloth.second), colour)
        return (colour + weave(cloth, angle, y)) * (shade * folds(cloth, angle * 0.6, y))

    return field


# size: geometry and clothing of one limb, given once for each arm and leg
def _limb(
    canvas: Canvas, joints: tuple[Point, Point, Point], radii: tuple[float, float, float], share: float,
    cloth: Garment | Colour, pose: Pose, dark: float, side: int = 0,
) -> None:  # fmt: skip
    """Cover a two-part limb from its root to `share` of its length."""
    root, bend, tip = joints
    parts = ((bend, tip, radii[1], radii[2], 2 * share - 1), (root, bend, radii[0], radii[1], 2 * share))
    for start, end, first, last, covered in parts:
        covered = min(covered, 1.0)
        if covered > 0.02:
            stop = (start[0] + covered * (end[0] - start[0]), start[1] + covered * (end[1] - start[1]))
            reach = first + covered * (last - first)
            field = _tube(start, stop, (first, reach), cloth, pose, dark, side)
            canvas.fill(capsule(start, stop, first, reach), field)


def _leg(canvas: Canvas, person: Person, pose: Pose, side: int, dark: float) -> None:
    swing = pose.stride * sin(pose.phase + (0.0 if side > 0 else pi))
    # the leg that swings forward from behind is bent and lifted
    bend = pose.stride * (0.35 + 1.0 * max(0.0, cos(pose.phase + (0.0 if side > 0 else pi))) * (0.6 - swing))
    thigh = 0.52 * (0.955 - person.crotch + 0.02)
    shank = 0.48 * (0.955 - person.crotch + 0.02)
    hip = (0.0, side * 0.5 * person.hip, person.crotch - 0.02)
    knee = (hip[0] + thigh * sin(swing), side * 0.46 * person.hip, hip[2] + thigh * cos(swing))
    ankle = (knee[0] + shank * sin(swing - bend), side * 0.44 * person.hip, knee[2] + shank * cos(swing - bend))
    joints = (pose.seen(*hip), pose.seen(*knee), pose.seen(*ankle))
    limb = person.limb
    radii = (0.05 * limb, 0.036 * limb, 0.021 * limb)
    covered = LOWER_LENGTHS[person.lower.cut]
    dress = person.upper.cut == "dress"
    _shoe(canvas, person, pose, joints[2], ankle, dark)
    if dress or covered < 1.0:
        _limb(canvas, joints, radii, 1.0, person.tights or person.skin, pose, dark)
    if person.boots:
        shaft = (
            joints[2][0] + 0.45 * (joints[1][0] - joints[2][0]),
            joints[2][1] + 0.45 * (joints[1][1] - joints[2][1]),
        )
        if covered < 1.0 or dress:
            field = _tube(shaft, joints[2], (0.034 * limb, 0.026 * limb), person.shoes, pose, dark)
            canvas.fill(capsule(shaft, joints[2], 0.034 * limb, 0.026 * limb), field)
    if not dress and "skirt" not in person.lower.cut:
        ease = person.lower.ease
        hem = {"wide": 0.03, "jeans": 0.01, "trousers": 0.012, "track": 0.008}.get(person.lower.cut, 0.006)
        loose = (radii[0] + ease, radii[1] + ease, radii[2] + ease + hem)
        _limb(canvas, joints, loose, covered, person.lower, pose, dark, side)


def _shoe(
    canvas: Canvas, person: Person, pose: Pose, seen: Point, ankle: tuple[float, float, float], dark: float
) -> None:
    heel = pose.seen(ankle[0] - 0.015, ankle[1], ankle[2] + 0.022)
    toe = pose.seen(ankle[0] + 0.07, ankle[1] * 1.15, ankle[2] + 0.024)
    lower_heel, lower_toe = (heel[0], heel[1] + 0.009), (toe[0], toe[1] + 0.009)
    canvas.fill(capsule(lower_heel, lower_toe, 0.023, 0.02), dimmed(person.soles, dark * 0.9))
    canvas.fill(capsule(seen, heel, 0.024, 0.025), dimmed(person.shoes, dark * 0.9))
    canvas.fill(capsule(heel, toe, 0.025, 0.02), dimmed(person.shoes, dark))


def _arm(canvas: Canvas, person: Person, pose: Pose, side: int, dark: float) -> None:
    swing = -0.8 * pose.stride * sin(pose.phase + (0.0 if side > 0 else pi)) + 0.03
    bend = pose.elbows[0 if side > 0 else 1]
    out = side * (person.shoulder - 0.026)
    shoulder = (0.0, out, 0.198)
    elbow = (0.155 * sin(swing), out + side * 0.018, shoulder[2] + 0.155 * cos(swing))
    lower = swing + bend
    wrist = (elbow[0] + 0.135 * sin(lower), out + side * 0.02 - side * 0.03 * bend, elbow[2] + 0.135 * cos(lower))
    joints = (pose.seen(*shoulder), pose.seen(*elbow), pose.seen(*wrist))
    limb = person.limb
    radii = (0.029 * limb, 0.025 * limb, 0.019 * limb)
    hand = pose.seen(wrist[0] + 0.03 * sin(lower), wrist[1], wrist[2] + 0.03 * cos(lower))
    if person.bag == "hand" and side == person.bag_side:
        _hand_bag(canvas, person, pose, hand, dark)
    canvas.fill(capsule(joints[2], hand, 0.016, 0.02), dimmed(person.skin, 0.95 * dark))
    upper = person.upper
    sleeve = SLEEVES[upper.cut]
    if sleeve < 1.0:
        _limb(canvas, joints, radii, 1.0, person.skin, pose, dark)
    if sleeve > 0.0:
        ease = 0.5 * upper.ease + (0.006 if sleeve < 1.0 else 0.0)
        cloth: Garment | Colour = upper if upper.sleeve is None else upper.sleeve
        loose = (radii[0] + 0.5 * ease, radii[1] + ease, radii[2] + ease + 0.002)
        _limb(canvas, joints, loose, sleeve, cloth, pose, dark * 0.96)


def _hand_bag(canvas: Canvas, person: Person, pose: Pose, hand: Point, dark: float) -> None:
    size = person.bag_size
    half = 0.5 * size * hypot(0.13 * sin(pose.yaw), 0.05 * cos(pose.yaw))
    top = hand[1] + 0.045
    canvas.fill(capsule((hand[0], hand[1]), (hand[0] - 0.7 * half, top), 0.006, 0.006), dimmed(person.bag_trim, dark))
    canvas.fill(capsule((hand[0], hand[1]), (hand[0] + 0.7 * half, top), 0.006, 0.006), dimmed(person.bag_trim, dark))
    levels = np.array([top, top + 0.06 * size, top + 0.12 * size])
    canvas.fill(
        profile(levels, np.array([0.85, 1.0, 0.95]) * half, hand[0]),
        lambda x, y: (
            np.where(y < top + 0.03, rgb(person.bag_trim), rgb(person.bag_colour))
            * (roundness(np.clip((x - hand[0]) / half, -1, 1), pose.light) * dark)
        ),
    )


def _halves(levels: np.ndarray, wide: np.ndarray, deep: np.ndarray, pose: Pose) -> np.ndarray:
    return np.hypot(wide * cos(pose.yaw), deep * sin(pose.yaw))


def _trunk(canvas: Canvas, person: Person, pose: Pose) -> None:
    """Hips and skirt, then the upper garment over them."""
    hip, depth, crotch = person.hip, person.depth, person.crotch
    lower, upper = person.lower, person.upper
    dress = upper.cut == "dress"
    if not dress:
        if "skirt" in lower.cut:
            hem = crotch + (0.95 - crotch) * LOWER_LENGTHS[lower.cut] + 0.02
            flare = 0.035 + 0.5 * lower.period * (hem - crotch) * 10
            levels = np.array([0.4, 0.46, crotch, hem])
            wide = np.array([person.waist, hip, hip + 0.01, hip + flare])
            deep = np.array([depth, depth * 1.15, depth * 1.2, depth + flare + 0.25 * pose.stride * flare])
        else:
            levels = np.array([0.4, 0.46, crotch, crotch + 0.03])
            wide = np.array([person.waist, hip, hip, 0.62 * hip])
            deep = np.array([depth, depth * 1.15, depth * 1.1, 0.7 * depth])
        _shell(canvas, levels, wide + lower.ease, deep + lower.ease, lower, None, pose)
    hem = {"coat": crotch + 0.16, "dress": crotch + 0.17, "hoodie": crotch, "longsleeve": crotch - 0.01}.get(
        upper.cut, crotch - 0.015 + 0.02 * upper.phase
    )
    flare = {"coat": 0.02, "dress": 0.045}.get(upper.cut, 0.0)
    strap = 0.07 if upper.cut == "tank" else 0.0
    levels = np.array([0.152, 0.167, 0.19, 0.215, 0.3, 0.4, 0.465, hem])
    shoulder = person.shoulder - 0.25 * strap
    wide = np.array(
        [0.032, 0.06, shoulder - 0.012, shoulder, 0.93 * shoulder, person.waist, hip, max(hip - 0.004, 0.0) + flare]
    )
    deep = np.array([0.034, 0.045, 0.8 * depth, 0.92 * depth, depth * 1.08, depth, depth * 1.1, depth * 1.1 + flare])
    _shell(canvas, levels, wide + upper.ease, deep + upper.ease, upper, person.inner, pose)


def _shell(
    canvas: Canvas, levels: np.ndarray, wide: np.ndarray, deep: np.ndarray, cloth: Garment, inner: Garment | None,
    pose: Pose,
) -> None:  # fmt: skip
    halves = _halves(levels, wide, deep, pose)

    def field(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        across = np.clip(x / between(y[:, 0], levels, halves)[:, None], -1, 1)
        angle = _angle(across, pose.yaw)
        colour = pattern(cloth, angle, y) if inner is None else upper_colour(cloth, inner, angle, y)
        shade = roundness(across, pose.light) * folds(cloth, angle, y)
        if inner is not None:
            # the chest is lit, belly and hem are shaded
            shade = shade * between(y[:, 0], [0.15, 0.22, 0.4, 0.6], [0.9, 1.06, 0.97, 0.9])[:, None]
        else:
            shade = shade * between(y[:, 0], [0.45, 0.54], [0.78, 1.0])[:, None]
        return (colour + weave(cloth, angle, y)) * shade

    canvas.fill(profile(levels, halves), field)


# size: hair, hat, face and scarf are drawn in this order, over each other
def _head(canvas: Canvas, person: Person, pose: Pose) -> None:
    centre_x = 0.014 * sin(pose.yaw)
    middle, half, tall = 0.07, 0.047, 0.067
    covered = person.hat == "scarf"
    canvas.fill(
        capsule((0.4 * centre_x, 0.1), (0, 0.162), 0.027, 0.033),
        dimmed(person.hat_colour if covered else person.skin, 0.78),
    )
    if person.upper.cut == "hoodie":
        canvas.fill(ellipse((-0.035 * sin(pose.yaw), 0.163), 0.058, 0.02), dimmed(person.upper.colour, 0.72))
    elif person.upper.cut in ("polo", "coat", "zip-jacket"):
        canvas.fill(ellipse((0, 0.158), 0.042, 0.012), dimmed(person.upper.colour, 0.8))
    behind = (-0.03 * sin(pose.yaw), -0.04 * sin(pose.yaw))
    loose = not covered and person.hair_style in ("long", "bob")
    if loose and cos(pose.yaw) > -0.1:
        _loose_hair(canvas, person, pose, behind[0], front=True)
    style = person.hair_style
    sides = {"long": 0.95, "bob": 0.85, "buzz": 0.05, "bald": -0.2}.get(style, 0.2)
    nape = {"long": 1.2, "bob": 1.0, "buzz": 0.45, "bald": 0.3}.get(style, 0.68)
    crown = -1.2 if style == "bald" else -0.42
    hat_line = {"cap": -0.25, "beanie": -0.12}.get(person.hat, -2.0)
    hair = rgb(mixed(person.hair, person.skin, 0.3) if style == "buzz" else person.hair)

    def field(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        down = np.clip((y - middle) / tall, -1, 1)
        around = np.sqrt(np.maximum(1 - down * down, 0.02))
        across = np.clip((x - centre_x) / half, -1, 1)
        angle = _angle(across / around, pose.yaw)
        facing = np.abs(angle)
        colour = np.broadcast_to(rgb(person.skin), (3, *angle.shape))
        eyes = (np.abs(down - 0.02) < 0.11) & (np.abs(facing - 0.42) < 0.2)
        mouth = (np.abs(down - 0.55) < 0.07) & (facing < 0.3)
        colour = np.where(eyes, 0.45 * colour, colour)
        colour = np.where(mouth, colour * rgb((0.85, 0.6, 0.6)), colour)
        if person.beard:
            colour = np.where(((down > 0.38) & (facing < 1.4)), 0.35 * colour + 0.65 * hair, colour)
        line = between(facing, [0, 0.75, 1.15, 1.9, pi], [crown, crown + 0.12, sides, nape, nape])
        strands = hair * (1 + 0.2 * np.sin(9 * angle + 5 * down))
        colour = np.where((down < line), strands, colour)
        if covered:
            scarf = (facing > 0.75) | (down < -0.45) | (down > 0.85)
            colour = np.where(scarf, rgb(person.hat_colour), colour)
        colour = np.where((down < hat_line), rgb(person.hat_colour), colour)
        return colour * (roundness(across, pose.light) - 0.1 * np.maximum(down, 0))

    taller = 0.008 if person.hat == "beanie" else 0.0
    canvas.fill(ellipse((centre_x, middle - 0.5 * taller), half, tall + taller), field)
    if person.hat == "cap":
        brim = (0.05 + 0.03 * abs(sin(pose.yaw))) * sin(pose.yaw)
        if cos(pose.yaw) > -0.6:
            canvas.fill(
                capsule((0.3 * brim, 0.045), (centre_x + brim, 0.05), 0.01, 0.007), dimmed(person.hat_colour, 0.7)
            )
    if covered:
        canvas.fill(ellipse((0, 0.158), 0.062, 0.028), dimmed(person.hat_colour, 0.9))
    elif person.hat != "beanie" and style == "bun":
        canvas.fill(ellipse((1.1 * behind[0], 0.005 if person.hat == "none" else 0.05), 0.024, 0.022), person.hair)
    elif style == "ponytail" and (cos(pose.yaw) < 0.5 or abs(sin(pose.yaw)) > 0.5):
        root = (-0.05 * sin(pose.yaw), 0.06)
        canvas.fill(capsule(root, (root[0] * 1.5, 0.19), 0.017, 0.011), person.hair)
    if loose and cos(pose.yaw) <= -0.1:
        _loose_hair(canvas, person, pose, behind[0], front=False)


def _loose_hair(canvas: Canvas, person: Person, pose: Pose, centre: float, front: bool) -> None:
    end = 0.245 if person.hair_style == "long" else 0.155
    levels = np.array([0.03, 0.07, end - 0.03, end])
    halves = np.array([0.04, 0.051, 0.056, 0.046]) * (1.0 if abs(sin(pose.yaw)) < 0.7 else 0.72)
    canvas.fill(
        profile(levels, halves, centre),
        lambda x, y: (
            rgb(person.hair)
            * (roundness(np.clip((x - centre) / 0.056, -1, 1), pose.light) * (1 + 0.12 * np.sin(330 * (x - centre))))
        ),
    )
    if front and person.hair_style == "long":  # the face is drawn over this; the neck is visible between the strands
        canvas.fill(ellipse((0.5 * centre + 0.014 * sin(pose.yaw), 0.145), 0.022, 0.03), dimmed(person.skin, 0.75))


def _backpack(canvas: Canvas, person: Person, pose: Pose) -> None:
    size = person.bag_size
    back = -(person.depth + 0.035)
    centre = pose.seen(back, 0.0, 0.0)[0]
    half = hypot(0.088 * size * cos(pose.yaw), 0.048 * size * sin(pose.yaw))
    top, bottom = 0.175, 0.2 + 0.21 * size
    levels = np.array([top, top + 0.03, 0.3, bottom - 0.015, bottom])
    shape = np.array([0.65, 0.95, 1.0, 1.0, 0.88]) * half
    pocket = top + 0.55 * (bottom - top)

    def field(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        across = np.clip((x - centre) / half, -1, 1)
        colour = np.broadcast_to(rgb(person.bag_colour), (3, *across.shape))
        trim = (y > pocket) & (np.abs(across) < 0.75) & (y < bottom - 0.025)
        colour = np.where(trim, rgb(mixed(person.bag_colour, person.bag_trim, 0.8)), colour)
        seam = np.abs(y - top - 0.07) < 0.006
        return np.where(seam, 0.6 * colour, colour) * roundness(across, pose.light)

    canvas.fill(profile(levels, shape, centre), field)


def _straps(canvas: Canvas, person: Person, pose: Pose) -> None:
    """The two shoulder straps of a backpack, seen from the front."""
    for side in (-1, 1):
        x = pose.seen(person.depth * 0.8, side * 0.55 * person.shoulder, 0)[0]
        canvas.fill(capsule((x, 0.178), (x * 1.15, 0.31), 0.013, 0.011), dimmed(person.bag_colour, 0.85))


def _shoulder_bag(canvas: Canvas, person: Person, pose: Pose, strap_only: bool) -> None:
    side, size = person.bag_side, person.bag_size
    place = pose.seen(0.0, side * (person.hip + 0.03), 0.0)[0]
    if strap_only:
        start = pose.seen(0.0, -side * 0.6 * person.shoulder, 0.0)[0]
        facing = 0.6 * person.depth * (1 if cos(pose.yaw) > 0 else -1) * sin(pose.yaw)
        middle = (0.5 * (start + place) + facing, 0.31)
        colour = dimmed(person.bag_trim, 0.9)
        canvas.fill(capsule((start, 0.175), middle, 0.01, 0.01), colour)
        canvas.fill(capsule(middle, (place, 0.45), 0.01, 0.01), colour)
        return
    half = size * hypot(0.03 * cos(pose.yaw), 0.085 * sin(pose.yaw)) + 0.02
    top = 0.43
    levels = np.array([top, top + 0.02, top + 0.1 * size, top + 0.115 * size])

    def field(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        flap = y < top + 0.045
        colour = np.where(flap, rgb(person.bag_trim), rgb(person.bag_colour))
        return colour * roundness(np.clip((x - place) / half, -1, 1), pose.light)

    canvas.fill(profile(levels, np.array([0.9, 1, 1, 0.9]) * half, place), field)


def draw_person(canvas: Canvas, person: Person, pose: Pose) -> None:
    """Draw `person` in the body frame of `canvas`, far parts first."""
    far = 1 if sin(pose.yaw) > 0 else -1  # side of the body (+1 left) that faces away from the camera
    away = cos(pose.yaw) < 0
    sideways = abs(sin(pose.yaw))
    dark = 1.0 - 0.22 * sideways
    if person.bag == "shoulder" and person.bag_side == far:
        _shoulder_bag(canvas, person, pose, strap_only=False)
    if sideways > 0.35:
        _arm(canvas, person, pose, far, dark)
    _leg(canvas, person, pose, far, dark)
    _leg(canvas, person, pose, -far, 1.0)
    if person.bag == "backpack" and not away:
        _backpack(canvas, person, pose)
    _trunk(canvas, person, pose)
    if person.bag == "backpack":
        if away:
            _backpack(canvas, person, pose)
        elif cos(pose.yaw) > 0.25:
            _straps(canvas, person, pose)
    elif person.bag == "shoulder":
        _shoulder_bag(canvas, person, pose, strap_only=True)
    _head(canvas, person, pose)
    if sideways <= 0.35:
        _arm(canvas, person, pose, far, 1.0)
    _arm(canvas, person, pose, -far, 1.0)
    if person.bag == "shoulder" and person.bag_side != far:
        _shoulder_bag(canvas, person, pose, strap_only=False)

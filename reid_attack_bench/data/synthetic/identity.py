"""Identities: everything about a person that is constant across cameras."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from reid_attack_bench.data.synthetic.paint import Colour, dimmed

Palette = Sequence[tuple[Colour, float]]
"""Colours with weights."""

Mix = Mapping[str, float]
"""Kinds with weights."""


@dataclass(frozen=True)
class Wardrobe:
    """Clothing of one domain: palettes and mixes; weights need not sum to 1."""

    upper: Palette
    lower: Palette
    accent: Palette
    shoes: Palette
    upper_cuts: Mix
    lower_cuts: Mix
    patterns: Mix
    bags: Mix
    hats: Mix


@dataclass(frozen=True)
class Garment:
    """A piece of clothing as a surface over (angle around the body, height on the body).

    Attributes:
        cut: e.g. "tshirt", "hoodie", "skirt"; see `SLEEVES` and `LOWER_LENGTHS`.
        pattern: e.g. "plain", "stripes", "check".
        colour, second: ground colour and the pattern's other colour.
        period, phase: period and phase of the pattern, in body heights.
        sleeve: colour of the sleeves (raglan, vest), or None for that of the garment.
        print_shape: logo on the chest, "" for none.
        print_colour: colour of the logo.
        print_back: whether it is on the back too.
        ease: looseness, in body heights.
        folds: phases of the folds.
        weave: texture of the cloth, as (period in body heights, direction in radians, depth in brightness).
    """

    cut: str
    pattern: str
    colour: Colour
    second: Colour
    period: float
    phase: float
    sleeve: Colour | None
    print_shape: str
    print_colour: Colour
    print_back: bool
    ease: float
    folds: tuple[float, float]
    weave: tuple[float, float, float]


@dataclass(frozen=True)
class Person:
    """Build (in body heights unless noted), looks and belongings of one identity."""

    height: float
    shoulder: float
    waist: float
    hip: float
    depth: float
    crotch: float
    limb: float
    skin: Colour
    hair: Colour
    hair_style: str
    beard: bool
    hat: str
    hat_colour: Colour
    upper: Garment
    inner: Garment
    lower: Garment
    tights: Colour | None
    shoes: Colour
    soles: Colour
    boots: bool
    bag: str
    bag_side: int
    bag_size: float
    bag_colour: Colour
    bag_trim: Colour


SLEEVES: dict[str, float] = {
    "tank": 0.0, "tshirt": 0.45, "polo": 0.4, "longsleeve": 1.0, "hoodie": 1.0, "open-jacket": 1.0,
    "zip-jacket": 1.0, "coat": 1.0, "vest": 1.0, "dress": 0.3,
}  # fmt: skip
"""Upper cut → share of the arm covered by its sleeve."""

LOWER_LENGTHS: dict[str, float] = {
    "trousers": 1.0, "jeans": 1.0, "wide": 1.0, "track": 1.0, "shorts": 0.44, "capri": 0.72,
    "skirt": 0.4, "long-skirt": 0.8,
}  # fmt: skip
"""Lower cut → share of the leg covered."""

_SKINS: Palette = (
    ((0.93, 0.76, 0.66), 3), ((0.86, 0.67, 0.54), 3), ((0.74, 0.54, 0.41), 2), ((0.52, 0.35, 0.25), 1.5),
    ((0.36, 0.24, 0.18), 1),
)  # fmt: skip

_HAIRS: Palette = (
    ((0.07, 0.06, 0.06), 4), ((0.2, 0.13, 0.09), 3), ((0.38, 0.25, 0.15), 1.5), ((0.68, 0.53, 0.31), 1.2),
    ((0.5, 0.22, 0.12), 0.5), ((0.62, 0.61, 0.6), 0.8),
)  # fmt: skip


def pick(rng: np.random.Generator, mix: Mix) -> str:
    """Draw one kind, by weight."""
    weights = np.array(list(mix.values()), float)
    return list(mix)[int(np.searchsorted(np.cumsum(weights / weights.sum()), rng.random()))]


def pick_colour(rng: np.random.Generator, palette: Palette, jitter: float = 0.02) -> Colour:
    """Draw one colour, by weight, with slight dye variation."""
    weights = np.cumsum([weight for _, weight in palette])
    chosen = palette[int(np.searchsorted(weights / weights[-1], rng.random()))][0]
    red, green, blue = np.clip(np.array(chosen) + rng.normal(0.0, jitter, 3), 0.02, 0.98).tolist()
    return red, green, blue


def _unlike(rng: np.random.Generator, palette: Palette, colour: Colour) -> Colour:
    """Draw a colour that is distinguishable from `colour`."""
    other = pick_colour(rng, palette)
    for _ in range(8):
        if sum(abs(a - b) for a, b in zip(colour, other, strict=True)) > 0.6:
            return other
        other = pick_colour(rng, palette)
    return dimmed(other, 0.35) if sum(colour) > 1.2 else (0.88, 0.88, 0.86)


def _weave(rng: np.random.Generator) -> tuple[float, float, float]:
    """Ribs, cords, twill: a period of two to five pixels in a crop of 128 rows."""
    return float(rng.uniform(0.022, 0.045)), float(rng.uniform(0, np.pi)), float(rng.uniform(0.03, 0.08))


_PRINTED = {"tshirt", "longsleeve", "hoodie", "zip-jacket", "tank", "vest"}


def _upper(rng: np.random.Generator, wardrobe: Wardrobe, cut: str) -> Garment:
    colour = pick_colour(rng, wardrobe.upper)
    pattern = pick(rng, wardrobe.patterns)
    raglan = rng.random() < (0.75 if cut == "vest" else 0.22)
    printed = cut in _PRINTED and rng.random() < (0.6 if pattern == "plain" else 0.1)
    shapes = {"disc": 1.0, "square": 1.0, "bars": 1.0, "band": 1.0, "triangle": 0.8, "cross": 0.7, "ring": 0.8}
    return Garment(
        cut=cut,
        pattern=pattern,
        colour=colour,
        second=_unlike(rng, wardrobe.accent, colour),
        period=float(rng.choice([0.042, 0.06, 0.085])),
        phase=float(rng.random()),
        sleeve=_unlike(rng, wardrobe.accent, colour) if raglan else None,
        print_shape=pick(rng, shapes) if printed else "",
        print_colour=_unlike(rng, wardrobe.accent, colour),
        print_back=bool(rng.random() < 0.75),
        ease=float(rng.uniform(0.004, 0.016)) + (0.008 if cut in ("coat", "hoodie", "vest") else 0.0),
        folds=(float(rng.uniform(0, 6.28)), float(rng.uniform(0, 6.28))),
        weave=_weave(rng),
    )


def _lower(rng: np.random.Generator, wardrobe: Wardrobe) -> Garment:
    cut = pick(rng, wardrobe.lower_cuts)
    colour = pick_colour(rng, wardrobe.lower)
    patterned = {"skirt": 0.45, "long-skirt": 0.45, "shorts": 0.25, "wide": 0.15}.get(cut, 0.06)
    pattern = pick(rng, {"check": 1, "stripes": 1, "dots": 1, "blotch": 1}) if rng.random() < patterned else "plain"
    if cut == "jeans":
        pattern = "faded" if rng.random() < 0.5 else "plain"
    return Garment(
        cut=cut,
        pattern=pattern,
        colour=colour,
        second=_unlike(rng, wardrobe.accent, colour),
        period=float(rng.choice([0.045, 0.065])),
        phase=float(rng.random()),
        sleeve=None,
        print_shape="",
        print_colour=colour,
        print_back=False,
        ease=float({"wide": 0.02, "track": 0.01, "shorts": 0.014}.get(cut, rng.uniform(0.0, 0.009))),
        folds=(float(rng.uniform(0, 6.28)), float(rng.uniform(0, 6.28))),
        weave=_weave(rng),
    )


def make_person(rng: np.random.Generator, wardrobe: Wardrobe) -> Person:
    """Draw one identity. Changing the order of the draws requires a new renderer version."""
    feminine = rng.random() < 0.5
    bulk = float(rng.normal(1.0, 0.09))
    cuts = dict(wardrobe.upper_cuts)
    if not feminine:
        cuts.pop("dress", None)
    cut = pick(rng, cuts)
    upper = _upper(rng, wardrobe, cut)
    inner_cut = "longsleeve" if cut == "vest" else "tshirt"
    inner = _upper(rng, wardrobe, inner_cut)
    lower = _lower(rng, wardrobe)
    while not feminine and "skirt" in lower.cut:
        lower = _lower(rng, wardrobe)
    styles = {"long": 3.0, "ponytail": 2.0, "bob": 2.0, "bun": 1.2, "short": 1.0}
    if not feminine:
        styles = {"short": 5.0, "bald": 0.8, "buzz": 1.5, "bob": 0.5, "bun": 0.2}
    skin = pick_colour(rng, _SKINS)
    bag_colour = pick_colour(rng, wardrobe.accent if rng.random() < 0.55 else wardrobe.lower)
    return Person(
        height=float(np.clip(rng.normal(0.97 if feminine else 1.02, 0.035), 0.88, 1.1)),
        shoulder=float((0.108 if feminine else 0.122) * bulk + rng.normal(0, 0.004)),
        waist=float((0.078 if feminine else 0.092) * bulk**1.4 + rng.normal(0, 0.004)),
        hip=float((0.096 if feminine else 0.09) * bulk + rng.normal(0, 0.004)),
        depth=float(0.068 * bulk**1.5),
        crotch=float(np.clip(rng.normal(0.505, 0.014), 0.475, 0.535)),
        limb=float(np.clip(bulk, 0.85, 1.2)),
        skin=skin,
        hair=pick_colour(rng, _HAIRS),
        hair_style=pick(rng, styles),
        beard=bool(not feminine and rng.random() < 0.3),
        hat=pick(rng, wardrobe.hats),
        hat_colour=pick_colour(rng, wardrobe.accent),
        upper=upper,
        inner=inner,
        lower=lower,
        tights=pick_colour(rng, wardrobe.lower) if rng.random() < 0.35 else None,
        shoes=pick_colour(rng, wardrobe.shoes),
        soles=(0.85, 0.85, 0.83) if rng.random() < 0.5 else (0.1, 0.1, 0.1),
        boots=bool(rng.random() < 0.2),
        bag=pick(rng, wardrobe.bags),
        bag_side=1 if rng.random() < 0.5 else -1,
        bag_size=float(rng.uniform(0.85, 1.25)),
        bag_colour=bag_colour,
        bag_trim=_unlike(rng, wardrobe.accent, bag_colour),
    )

"""The domains: a sunny square, an underground station, a campus under clouds, and a crowd at rush hour.

They share the body model. They differ in clothing, places, light, cameras, occluders and bounding boxes, as real ReID
data sets do.
"""

from __future__ import annotations

from dataclasses import dataclass

from reid_attack_bench.data.synthetic.camera import CameraRanges
from reid_attack_bench.data.synthetic.identity import Mix, Palette, Wardrobe
from reid_attack_bench.data.synthetic.outfit import Outfits
from reid_attack_bench.data.synthetic.scene import Scenery


@dataclass(frozen=True)
class BoxHabits:
    """Bounding boxes: height of the person in the box, its spread, and offsets, in box heights."""

    fill: float
    fill_spread: float
    shift_x: float
    shift_y: float
    aspect: float


@dataclass(frozen=True)
class Domain:
    """One synthetic domain.

    Attributes:
        name: name of the domain.
        number: part of the random seed.
        cameras: number of cameras.
        wardrobe: clothing.
        scenery: places.
        lens: ranges of the camera parameters.
        boxes: bounding boxes.
        occluders: kind of occluder → weight.
        occlusion: share of images with an occluder.
        company: share of images with another pedestrian in the box.
        sunlight: hardness of shadows, 0 to 1.
        stride: mean swing of the legs, radians.
        outfits: how people dress alike; None if everybody dresses for themselves.
        seen_by: number of cameras that see each identity; 0 for all of them.
    """

    name: str
    number: int
    cameras: int
    wardrobe: Wardrobe
    scenery: Scenery
    lens: CameraRanges
    boxes: BoxHabits
    occluders: Mix
    occlusion: float
    company: float
    sunlight: float
    stride: float
    outfits: Outfits | None = None
    seen_by: int = 0


_BLACK, _CHARCOAL, _GREY, _SILVER = (0.09, 0.09, 0.1), (0.24, 0.24, 0.26), (0.45, 0.45, 0.47), (0.68, 0.68, 0.7)

_WHITE, _CREAM, _BEIGE, _BROWN = (0.9, 0.9, 0.89), (0.88, 0.82, 0.68), (0.7, 0.6, 0.46), (0.36, 0.24, 0.16)

_NAVY, _DENIM, _BLUE, _SKY = (0.12, 0.16, 0.3), (0.26, 0.35, 0.5), (0.15, 0.32, 0.7), (0.5, 0.7, 0.88)

_RED, _WINE, _PINK, _ORANGE = (0.76, 0.14, 0.14), (0.42, 0.1, 0.16), (0.9, 0.58, 0.66), (0.9, 0.48, 0.14)

_YELLOW, _OLIVE, _GREEN, _TEAL = (0.9, 0.78, 0.2), (0.36, 0.38, 0.2), (0.16, 0.5, 0.26), (0.12, 0.48, 0.5)

_PURPLE, _MINT = (0.42, 0.22, 0.55), (0.62, 0.85, 0.72)

_ACCENTS: Palette = (
    (_WHITE, 2), (_BLACK, 1.5), (_RED, 1.5), (_BLUE, 1.2), (_YELLOW, 1), (_GREEN, 0.8), (_ORANGE, 0.7), (_PINK, 0.6),
    (_TEAL, 0.6), (_PURPLE, 0.6), (_NAVY, 0.7), (_SKY, 0.6),
)  # fmt: skip

_SHOES: Palette = ((_BLACK, 3), (_WHITE, 2.5), (_BROWN, 1.5), (_GREY, 1), (_RED, 0.6), (_BLUE, 0.5), (_BEIGE, 0.6))

PLAZA = Domain(
    name="plaza",
    number=1,
    cameras=6,
    wardrobe=Wardrobe(
        upper=((_WHITE, 3), (_CREAM, 1), (_SKY, 1.3), (_RED, 1.3), (_PINK, 1), (_YELLOW, 1), (_BLACK, 1.8), (_GREY, 1),
               (_GREEN, 0.7), (_BLUE, 1), (_ORANGE, 0.7), (_NAVY, 1), (_MINT, 0.6), (_PURPLE, 0.5)),
        lower=((_DENIM, 3), (_BLACK, 2.5), (_BEIGE, 1.3), (_NAVY, 1.5), (_GREY, 1), (_WHITE, 0.6), (_OLIVE, 0.5)),
        accent=_ACCENTS,
        shoes=_SHOES,
        upper_cuts={"tshirt": 4, "polo": 1.5, "tank": 1, "longsleeve": 1.5, "open-jacket": 1.2, "dress": 1.6,
                    "hoodie": 0.7, "vest": 0.4},
        lower_cuts={"jeans": 2.5, "trousers": 1.5, "shorts": 2.8, "skirt": 1.6, "long-skirt": 0.8, "capri": 0.8,
                    "wide": 0.7, "track": 0.5},
        patterns={"plain": 4, "stripes": 2, "check": 1, "dots": 1, "block": 1, "chest-band": 1, "yoke": 0.8,
                  "pinstripes": 0.8, "diagonal": 0.5, "halves": 0.4, "blotch": 0.4},
        bags={"none": 5, "backpack": 2, "shoulder": 1.8, "hand": 1.2},
        hats={"none": 5, "cap": 1.4, "scarf": 0.3},
    ),
    scenery=Scenery(
        walls=((_CREAM, 2), ((0.75, 0.68, 0.58), 2), ((0.8, 0.78, 0.74), 1), ((0.68, 0.5, 0.4), 1)),
        grounds=(((0.68, 0.63, 0.56), 2), ((0.6, 0.58, 0.56), 1.5), ((0.74, 0.7, 0.62), 1)),
        backdrops={"facade": 2, "shops": 2.5, "trees": 1.5, "fence": 0.6},
        floors={"paving": 4, "asphalt": 1},
        props={"bench": 1, "lamp": 1, "bicycle": 1, "car": 1, "bin": 1, "kiosk": 0.5},
        horizon=(0.18, 0.5),
        relief=0.1,
    ),
    lens=CameraRanges(
        warmth=(0.05, 0.15), tint=(-0.02, 0.02), gain=(0.02, 0.12), gamma=(0.95, 1.07), saturation=(0.92, 1.08),
        hue=(-0.03, 0.03), haze=(0.0, 0.06), vignette=(0.0, 0.15), elevation=(0.1, 0.24), resolution=(0.75, 1.0),
        noise=(0.008, 0.02), quality=(70, 92),
    ),
    boxes=BoxHabits(fill=0.9, fill_spread=0.035, shift_x=0.018, shift_y=0.015, aspect=0.04),
    occluders={"pole": 1, "bicycle": 1.4, "bench": 1, "bin": 1, "leaves": 0.7},
    occlusion=0.03,
    company=0.03,
    sunlight=0.75,
    stride=0.42,
)  # fmt: skip

STATION = Domain(
    name="station",
    number=2,
    cameras=6,
    wardrobe=Wardrobe(
        upper=((_BLACK, 2), (_CHARCOAL, 1.5), (_GREY, 1.5), (_NAVY, 2), (_OLIVE, 1.3), (_BROWN, 1.3), (_WINE, 1.3),
               (_BEIGE, 1.3), (_WHITE, 1.2), (_RED, 1), (_TEAL, 1), (_DENIM, 0.8), (_PURPLE, 0.4)),
        lower=((_BLACK, 2.5), (_CHARCOAL, 1.5), (_NAVY, 2), (_DENIM, 2), (_GREY, 1.3), (_BROWN, 1), (_BEIGE, 1)),
        accent=((_WHITE, 2), (_SILVER, 1.5), (_RED, 1.5), (_YELLOW, 1), (_SKY, 1), (_BEIGE, 1), (_ORANGE, 0.8),
                (_BLACK, 1), (_WINE, 0.6), (_TEAL, 0.6), (_GREEN, 0.6), (_BLUE, 0.8), (_PINK, 0.4)),
        shoes=((_BLACK, 5), (_BROWN, 2), (_WHITE, 2), (_GREY, 1), (_RED, 0.4)),
        upper_cuts={"coat": 2.5, "open-jacket": 2.5, "zip-jacket": 2.5, "hoodie": 2, "vest": 1.2, "longsleeve": 1.2,
                    "tshirt": 0.5, "dress": 0.5},
        lower_cuts={"trousers": 3, "jeans": 2.5, "wide": 1, "track": 1.3, "skirt": 0.8, "long-skirt": 0.7},
        patterns={"plain": 2.4, "check": 1.4, "block": 1.5, "yoke": 1.2, "chest-band": 1, "stripes": 1,
                  "blotch": 0.5, "pinstripes": 0.6, "halves": 0.3, "diagonal": 0.3},
        bags={"none": 3.5, "backpack": 2.2, "shoulder": 2, "hand": 1.6},
        hats={"none": 4.5, "beanie": 1.2, "cap": 0.7, "scarf": 0.6},
    ),
    scenery=Scenery(
        walls=(((0.62, 0.66, 0.64), 2), ((0.75, 0.77, 0.74), 1.5), ((0.45, 0.5, 0.52), 1), ((0.68, 0.64, 0.52), 1)),
        grounds=(((0.42, 0.43, 0.44), 2), ((0.52, 0.5, 0.48), 1), ((0.33, 0.35, 0.37), 1)),
        backdrops={"tiles": 3, "train": 2, "pillars": 1.6, "shops": 0.6},
        floors={"platform": 2, "paving": 2.5},
        props={"bench": 1.3, "bin": 1.2, "kiosk": 1.5, "lamp": 0.5},
        horizon=(0.3, 0.62),
        relief=0.07,
    ),
    lens=CameraRanges(
        warmth=(-0.38, -0.31), tint=(0.06, 0.1), gain=(-0.12, -0.05), gamma=(0.88, 0.95), saturation=(0.84, 0.94),
        hue=(0.18, 0.24), haze=(0.03, 0.07), vignette=(0.1, 0.3), elevation=(0.16, 0.34), resolution=(0.75, 1.0),
        noise=(0.008, 0.018), quality=(68, 88),
    ),
    boxes=BoxHabits(fill=0.96, fill_spread=0.035, shift_x=0.02, shift_y=0.015, aspect=0.045),
    occluders={"pole": 1.5, "rail": 1, "suitcase": 1.6, "bin": 0.7, "bench": 0.5},
    occlusion=0.03,
    company=0.03,
    sunlight=0.0,
    stride=0.36,
)  # fmt: skip

CAMPUS = Domain(
    name="campus",
    number=3,
    cameras=6,
    wardrobe=Wardrobe(
        upper=((_GREY, 2), (_NAVY, 2), (_BLACK, 2), (_WHITE, 1.6), (_WINE, 1), (_GREEN, 1), (_BLUE, 1), (_TEAL, 0.8),
               (_YELLOW, 0.7), (_PURPLE, 0.8), (_OLIVE, 1), (_PINK, 0.6), (_ORANGE, 0.5), (_RED, 0.8)),
        lower=((_DENIM, 3.5), (_BLACK, 2.5), (_NAVY, 1.5), (_BEIGE, 1), (_GREY, 1.3), (_OLIVE, 0.7)),
        accent=_ACCENTS,
        shoes=((_WHITE, 3), (_BLACK, 2.5), (_GREY, 1), (_RED, 0.7), (_BLUE, 0.7), (_BROWN, 1)),
        upper_cuts={"hoodie": 2.5, "tshirt": 2, "longsleeve": 2, "open-jacket": 1.8, "zip-jacket": 1.2, "vest": 0.7,
                    "polo": 0.5, "dress": 0.6},
        lower_cuts={"jeans": 3.5, "trousers": 1.2, "shorts": 1.2, "track": 1.3, "wide": 1, "skirt": 0.9, "capri": 0.4},
        patterns={"plain": 1.6, "stripes": 1.4, "check": 1.6, "block": 1.1, "chest-band": 1, "yoke": 0.8, "dots": 0.5,
                  "blotch": 0.6, "halves": 0.4, "pinstripes": 0.4},
        bags={"none": 1.6, "backpack": 3.5, "shoulder": 1.2, "hand": 0.6},
        hats={"none": 4.5, "cap": 1.2, "beanie": 0.7, "scarf": 0.3},
    ),
    scenery=Scenery(
        walls=(((0.6, 0.45, 0.38), 2), ((0.72, 0.72, 0.7), 1.5), ((0.55, 0.56, 0.58), 1)),
        grounds=(((0.52, 0.5, 0.46), 2), ((0.45, 0.45, 0.45), 1), ((0.58, 0.54, 0.48), 1)),
        backdrops={"bricks": 2, "hedge": 1.5, "trees": 2, "facade": 1, "fence": 1},
        floors={"grass": 1.5, "path": 2.5, "asphalt": 1.5},
        props={"bicycle": 3, "lamp": 1, "bench": 1, "bin": 0.6, "car": 0.5},
        horizon=(0.12, 0.42),
        relief=0.12,
    ),
    lens=CameraRanges(
        warmth=(-0.14, 0.08), tint=(-0.02, 0.04), gain=(-0.12, 0.06), gamma=(0.95, 1.25), saturation=(0.75, 1.0),
        hue=(-0.08, 0.04), haze=(0.02, 0.1), vignette=(0.0, 0.2), elevation=(0.12, 0.3), resolution=(0.65, 0.95),
        noise=(0.01, 0.025), quality=(60, 88),
    ),
    boxes=BoxHabits(fill=0.86, fill_spread=0.045, shift_x=0.03, shift_y=0.025, aspect=0.06),
    occluders={"bicycle": 2.5, "pole": 1, "leaves": 1.4, "bench": 0.5},
    occlusion=0.12,
    company=0.1,
    sunlight=0.2,
    stride=0.44,
)  # fmt: skip

RUSH = Domain(
    name="rush",
    number=4,
    cameras=6,
    wardrobe=Wardrobe(
        upper=((_BLACK, 2.5), (_CHARCOAL, 2), (_GREY, 1.5), (_NAVY, 2), (_WHITE, 1.5), (_BEIGE, 1), (_WINE, 0.7),
               (_OLIVE, 0.7)),
        lower=((_BLACK, 3), (_NAVY, 2), (_DENIM, 2.5), (_CHARCOAL, 1.5), (_BEIGE, 0.8)),
        accent=_ACCENTS,
        shoes=((_BLACK, 3), (_WHITE, 2), (_BROWN, 1.5), (_GREY, 1)),
        upper_cuts={"open-jacket": 2, "zip-jacket": 2, "hoodie": 1.5, "coat": 2, "longsleeve": 1.5, "tshirt": 1.5},
        lower_cuts={"trousers": 3, "jeans": 3, "wide": 0.7, "track": 0.7},
        patterns={"plain": 1},
        bags={"none": 2, "backpack": 2, "shoulder": 2, "hand": 1.5},
        hats={"none": 5, "cap": 0.8, "beanie": 0.7, "scarf": 0.3},
    ),
    scenery=Scenery(
        walls=(((0.62, 0.64, 0.64), 2), ((0.75, 0.74, 0.7), 1.5), ((0.5, 0.48, 0.46), 1), ((0.66, 0.56, 0.46), 1)),
        grounds=(((0.46, 0.46, 0.46), 2), ((0.56, 0.54, 0.5), 1.5), ((0.36, 0.37, 0.39), 1)),
        backdrops={"shops": 2, "facade": 1.5, "tiles": 1, "pillars": 1, "trees": 1, "fence": 0.5},
        floors={"paving": 3, "asphalt": 1.5, "platform": 0.5},
        props={"bench": 1, "bin": 1, "kiosk": 1.2, "bicycle": 1, "lamp": 1, "car": 0.7},
        horizon=(0.15, 0.55),
        relief=0.12,
    ),
    lens=CameraRanges(
        warmth=(-0.05, 0.05), tint=(-0.02, 0.02), gain=(-0.04, 0.04), gamma=(0.9, 1.2), saturation=(0.8, 1.1),
        hue=(-0.06, 0.06), haze=(0.0, 0.06), vignette=(0.0, 0.25), elevation=(0.1, 0.34), resolution=(0.6, 0.95),
        noise=(0.008, 0.02), quality=(60, 90),
        casts=((0.2, 0.0, 0.2), (-0.22, 0.0, -0.22), (0.0, 0.1, -0.38), (0.05, -0.1, 0.35), (0.08, 0.0, -0.55),
               (-0.1, 0.0, 0.45)),
    ),
    boxes=BoxHabits(fill=0.92, fill_spread=0.05, shift_x=0.025, shift_y=0.025, aspect=0.05),
    occluders={"pole": 1, "rail": 1, "suitcase": 1.5, "bicycle": 1, "bin": 0.7, "bench": 0.5},
    occlusion=0.35,
    company=0.25,
    sunlight=0.25,
    stride=0.44,
    outfits=Outfits(
        count=20,
        textures={"plain": 3, "pinstripes": 1, "stripes": 1, "check": 1, "diagonal": 0.7, "yoke": 0.7, "block": 0.7},
        tone=(0.4, 0.75),
        weave=(0.02, 0.07),
        printed=0.5,
        prints=_ACCENTS,
    ),
    seen_by=4,
)  # fmt: skip

DOMAINS: dict[str, Domain] = {domain.name: domain for domain in (PLAZA, STATION, CAMPUS, RUSH)}

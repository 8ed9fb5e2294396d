"""Outfits that many people share: colours and cuts of the outfit, everything finer of the person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from reid_attack_bench.data.synthetic.camera import Range
from reid_attack_bench.data.synthetic.identity import Garment, Mix, Palette, Person, pick, pick_colour
from reid_attack_bench.data.synthetic.paint import Colour, dimmed


@dataclass(frozen=True)
class Outfits:
    """How the people of a domain dress alike.

    Attributes:
        count: number of outfits; everybody wears one of them.
        textures: patterns of the upper garment, drawn for each person.
        tone: brightness of the pattern's other colour, relative to the garment's own.
        weave: depth of the weave, in brightness.
        printed: share of people with a print of their own on the chest.
        prints: colours of the prints.
    """

    count: int
    textures: Mix
    tone: Range
    weave: Range
    printed: float
    prints: Palette


_SHAPES: Mix = {"disc": 1, "square": 1, "bars": 1, "band": 1, "triangle": 1, "cross": 1, "ring": 1}


def wearing(person: Person, models: Sequence[Person], rng: np.random.Generator, outfits: Outfits) -> Person:
    """`person` in the cuts and colours of one of the `models`, with texture, weave and print of their own."""
    model = models[int(rng.integers(len(models)))]
    tone = float(rng.uniform(*outfits.tone))
    second = _toned(model.upper.colour, tone)
    upper = replace(
        _woven(model.upper, rng, outfits),
        pattern=pick(rng, outfits.textures),
        second=second,
        sleeve=None,
        period=float(rng.choice([0.042, 0.06, 0.085, 0.12])),
        phase=float(rng.random()),
        print_shape=pick(rng, _SHAPES) if rng.random() < outfits.printed else "",
        print_colour=pick_colour(rng, outfits.prints),
        print_back=bool(rng.random() < 0.75),
    )
    lower = _woven(model.lower, rng, outfits)
    return replace(person, upper=upper, inner=model.inner, lower=lower, tights=None)


def _woven(garment: Garment, rng: np.random.Generator, outfits: Outfits) -> Garment:
    """The garment with fit, folds and weave drawn anew."""
    weave = float(rng.uniform(0.022, 0.06)), float(rng.uniform(0, np.pi)), float(rng.uniform(*outfits.weave))
    folds = float(rng.uniform(0, 6.28)), float(rng.uniform(0, 6.28))
    return replace(garment, ease=garment.ease + float(rng.uniform(0.0, 0.012)), folds=folds, weave=weave)


def _toned(colour: Colour, tone: float) -> Colour:
    """`colour` brighter or darker by `tone`; a colour that would leave [0, 1] goes the other way."""
    return dimmed(colour, 1.0 / tone if max(colour) * tone > 1.0 else tone)

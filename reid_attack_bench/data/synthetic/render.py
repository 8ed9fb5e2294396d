"""Render the three splits of a synthetic data set from a seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from reid_attack_bench.data.split import Split
from reid_attack_bench.data.synthetic.camera import Camera, make_camera, make_exposure, photograph
from reid_attack_bench.data.synthetic.domains import DOMAINS, Domain
from reid_attack_bench.data.synthetic.identity import Person, make_person, pick
from reid_attack_bench.data.synthetic.outfit import wearing
from reid_attack_bench.data.synthetic.paint import Canvas
from reid_attack_bench.data.synthetic.person import Pose, draw_person
from reid_attack_bench.data.synthetic.scene import (
    PANORAMA_HEIGHT,
    PANORAMA_WIDTH,
    cast_shadow,
    crop_panorama,
    draw_occluder,
    make_panorama,
)
from reid_attack_bench.errors import BenchError, nearest

RENDERER_VERSION = 2
"""Version of the renderer, part of every cache key; raise it when a seed gives different images."""

_TEST_OFFSET = 100_000  # number of the first test identity in the keys of random streams, independent of the counts

_OVERSAMPLING = 2

_PLACES = 4  # panoramas per camera

# First number of a random stream's key after seed and domain; keeps the streams independent.
_CAMERA, _PLACE, _PERSON, _TRACK, _SHOT, _QUERY, _OUTFIT = range(7)


@dataclass(frozen=True)
class _Site:
    camera: Camera
    places: list[np.ndarray]


@dataclass(frozen=True)
class _World:
    """What all images of a domain share; `models` wear its outfits, `rows` is the height of the drawing in pixels."""

    domain: Domain
    sites: list[_Site]
    models: list[Person]
    size: tuple[int, int]
    rows: int

    def passer_by(self, rng: np.random.Generator) -> Person:
        person = make_person(rng, self.domain.wardrobe)
        outfits = self.domain.outfits
        return person if outfits is None else wearing(person, self.models, rng, outfits)


def _stream(seed: int, domain: Domain, *key: int) -> np.random.Generator:
    """Random generator that depends only on the key."""
    return np.random.default_rng(np.random.SeedSequence([seed, domain.number, *key]))


def _make_world(domain: Domain, seed: int, size: tuple[int, int]) -> _World:
    rows = _OVERSAMPLING * max(size[0], 2 * size[1])
    sites = [
        _Site(
            make_camera(_stream(seed, domain, _CAMERA, number), domain.lens, number),
            [
                make_panorama(_stream(seed, domain, _PLACE, number, place), domain.scenery, rows)
                for place in range(_PLACES)
            ],
        )
        for number in range(domain.cameras)
    ]
    outfits = 0 if domain.outfits is None else domain.outfits.count
    models = [make_person(_stream(seed, domain, _OUTFIT, number), domain.wardrobe) for number in range(outfits)]
    return _World(domain, sites, models, size, rows)


def _make_pose(rng: np.random.Generator, domain: Domain, camera: Camera, heading: float) -> Pose:
    standing = rng.random() < 0.2
    # phone in the hand, hands in the pockets, or swinging arms
    bends = [(0.25, 0.25), (1.9, 0.3), (0.3, 1.9), (1.0, 1.0)]
    elbows = bends[int(np.searchsorted([0.7, 0.8, 0.9], rng.random()))]
    loose = rng.uniform(-0.15, 0.2, 2)
    return Pose(
        yaw=heading + float(rng.normal(0, 0.22)),
        phase=float(rng.uniform(0, 2 * np.pi)),
        stride=0.08 if standing else float(np.clip(rng.normal(domain.stride, 0.08), 0.1, 0.62)),
        elbows=(elbows[0] + float(loose[0]), elbows[1] + float(loose[1])),
        elevation=camera.elevation,
        light=float(np.clip(camera.light + rng.normal(0, 0.25), -1, 1)),
    )


def _shoot(
    world: _World, site: _Site, person: Person, track: np.random.Generator, rng: np.random.Generator
) -> np.ndarray:
    """One image of `person`; `track` draws what the shots of one passage share."""
    domain, rows = world.domain, world.rows
    heading = site.camera.heading + (np.pi if track.random() < 0.5 else 0.0)
    where = track.uniform(0, 1, 2)
    place = site.places[int(track.integers(_PLACES))]
    drift = rng.normal(0, 0.12, 2)
    x = float(np.clip(where[0] * (PANORAMA_WIDTH - 0.5) + drift[0], 0, PANORAMA_WIDTH - 0.5))
    y = float(np.clip(where[1] * (PANORAMA_HEIGHT - 1.0) + 0.3 * drift[1], 0, PANORAMA_HEIGHT - 1.0))
    scene = Canvas(crop_panorama(place, x, y, rows), float(rows))
    habits = domain.boxes
    scale = float(np.clip(rng.normal(habits.fill, habits.fill_spread), 0.7, 1.12)) * person.height**0.6
    centre = 0.25 + float(rng.normal(0, habits.shift_x))
    top = 0.5 - 0.5 * scale + float(rng.normal(0, habits.shift_y))
    stretch = float(np.exp(rng.normal(0, habits.aspect)))
    pose = _make_pose(rng, domain, site.camera, heading)
    shadow = float(rng.uniform(0.3, 0.6))

    company = rng.random()
    if company < domain.company:
        other = world.passer_by(rng)
        side = -1 if rng.random() < 0.5 else 1
        beside = centre + side * float(rng.uniform(0.2, 0.32))
        in_front = company < 0.3 * domain.company
        larger = scale * float(rng.uniform(1.0, 1.12) if in_front else rng.uniform(0.7, 0.95))
        other_pose = _make_pose(rng, domain, site.camera, heading + (np.pi if rng.random() < 0.4 else 0.0))
        frame = scene.framed((beside, 0.45 - 0.4 * larger), larger)
        if not in_front:
            draw_person(frame, other, other_pose)
    cast_shadow(scene, (centre, top + scale), pose.light, shadow, domain.sunlight)
    body = scene.framed((centre, top), scale)
    draw_person(body, person, pose)
    if company < 0.3 * domain.company:
        draw_person(frame, other, other_pose)
    if rng.random() < domain.occlusion:
        draw_occluder(scene, rng, pick(rng, domain.occluders))
    pixels = cv2.merge(list(scene.pixels))
    if abs(stretch - 1) > 0.01:  # boxes of another aspect ratio, resized to the same shape
        turn = np.array([[stretch, 0, 0.25 * rows * (1 - stretch)], [0, 1, 0]], np.float32)
        pixels = cv2.warpAffine(pixels, turn, pixels.shape[1::-1], borderMode=cv2.BORDER_REFLECT)
    exposure = make_exposure(track, rng)
    return photograph(pixels, site.camera, exposure, world.size, rng)


def _check(
    name: str, seed: int, size: tuple[int, int], counts: dict[str, int], images_per_camera: int, queries: int
) -> Domain:
    if name not in DOMAINS:
        raise BenchError(f"unknown synthetic domain '{name}': {nearest(name, DOMAINS)}")
    if seed < 0:
        raise BenchError(f"the seed of synthetic domain '{name}' must be 0 or more, not {seed}")
    if min(size) < 16:
        raise BenchError(f"synthetic images need at least 16×16 pixels, not {size[0]}×{size[1]}; use e.g. 128×64")
    for what, count in counts.items():
        if not 1 <= count < _TEST_OFFSET:
            raise BenchError(f"{what} of synthetic domain '{name}' must be from 1 to {_TEST_OFFSET - 1}, not {count}")
    cameras = DOMAINS[name].seen_by or DOMAINS[name].cameras
    if not 1 <= queries < cameras:
        raise BenchError(
            f"queries_per_identity of synthetic domain '{name}' must be from 1 to {cameras - 1}, not {queries}: each "
            f"comes from a different one of the {cameras} cameras that see a person, and one is needed for the gallery"
        )
    if images_per_camera < 1:
        raise BenchError(f"images_per_camera of synthetic domain '{name}' must be at least 1, not {images_per_camera}")
    return DOMAINS[name]


# size: all keyword arguments, the settings of a domain in a suite
def render_domain(
    name: str,
    *,
    seed: int,
    size: tuple[int, int],
    train_identities: int,
    test_identities: int,
    images_per_camera: int,
    queries_per_identity: int,
    distractors: int = 0,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> dict[str, Split]:
    """Render the splits "train", "query" and "gallery" of one domain.

    Every camera sees every identity `images_per_camera` times (where the domain has `seen_by`, that many cameras do,
    drawn for each identity). Of each test identity, `queries_per_identity` images
    from different cameras are queries and the rest are gallery. Results are bit-identical for the same arguments; an
    image depends only on the seed, the domain, the size and its own identity, camera and shot.

    Args:
        name: one of `DOMAINS`.
        seed: 0 or more.
        size: (height, width) in pixels; people are drawn in a 2:1 frame that is then scaled to it.
        train_identities: labelled 0 … train_identities − 1.
        test_identities: labelled from train_identities upwards.
        images_per_camera: images of each identity per camera.
        queries_per_identity: less than the number of cameras that see an identity.
        distractors: people of whom the gallery has one image each, and no query any; one label for all, the highest.
        progress: called as progress(done, total, note), counting identities.

    Raises:
        BenchError: unknown domain, or counts that cannot be met.
    """
    counts = {"train_identities": train_identities, "test_identities": test_identities}
    domain = _check(name, seed, size, counts, images_per_camera, queries_per_identity)
    if not 0 <= distractors < _TEST_OFFSET:
        raise BenchError(
            f"distractors of synthetic domain '{name}' must be from 0 to {_TEST_OFFSET - 1}, not {distractors}"
        )
    world = _make_world(domain, seed, size)
    total = train_identities + test_identities
    found: dict[str, list[tuple[np.ndarray, int, int]]] = {"train": [], "query": [], "gallery": []}
    people = [*range(train_identities), *range(_TEST_OFFSET, _TEST_OFFSET + test_identities)]
    strangers = range(2 * _TEST_OFFSET, 2 * _TEST_OFFSET + distractors)
    for done, who in enumerate([*people, *strangers]):
        person = world.passer_by(_stream(seed, domain, _PERSON, who))
        met = _stream(seed, domain, _QUERY, who).permutation(domain.cameras)
        asking = met[: queries_per_identity if done < total else 0]
        seen_by, shots = (domain.seen_by or domain.cameras, images_per_camera) if done < total else (1, 1)
        for number in sorted(met[:seen_by].tolist()):
            for shot in range(shots):
                track = _stream(seed, domain, _TRACK, who, number)
                rng = _stream(seed, domain, _SHOT, who, number, shot)
                image = _shoot(world, world.sites[number], person, track, rng)
                asked = shot == 0 and number in asking
                split = "train" if who < _TEST_OFFSET else "query" if asked else "gallery"
                found[split].append((image, min(done, total), number))
        progress(done + 1, total + distractors, f"{name}: drawing people")
    return {
        split: Split(
            images=np.stack([image for image, _, _ in rows_]),
            identities=np.array([label for _, label, _ in rows_], np.int64),
            cameras=np.array([number for _, _, number in rows_], np.int64),
        )
        for split, rows_ in found.items()
    }


def contact_sheet(split: Split, *, identities: int, columns: int, seed: int = 0) -> np.ndarray:
    """Contact sheet of a split, uint8 RGB: one row per identity, images at twice their size.

    `identities` identities are chosen by `seed`, with up to `columns` images each, spread over the cameras.
    """
    if identities < 1 or columns < 1:
        raise BenchError(f"a contact sheet needs at least 1 identity and 1 column, not {identities} and {columns}")
    gap, upscale = 4, 2
    rng = np.random.default_rng(seed)
    known = np.unique(split.identities)
    chosen = np.sort(rng.permutation(known)[:identities])
    height, width = split.images.shape[1] * upscale, split.images.shape[2] * upscale
    sheet = np.full((len(chosen) * (height + gap) + gap, columns * (width + gap) + gap, 3), 255, np.uint8)
    for row, label in enumerate(chosen):
        mine = np.flatnonzero(split.identities == label)
        # first one image of each camera, then the second ones
        turns = [int(np.sum(split.cameras[mine[:i]] == split.cameras[index])) for i, index in enumerate(mine)]
        order = mine[np.lexsort((split.cameras[mine], np.array(turns)))][:columns]
        for column, index in enumerate(order):
            tile = cv2.resize(split.images[index], (width, height), interpolation=cv2.INTER_CUBIC)
            y, x = gap + row * (height + gap), gap + column * (width + gap)
            sheet[y : y + height, x : x + width] = tile
    return sheet

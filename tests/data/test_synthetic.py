"""The procedural data: same bits for the same seed, a protocol that can be evaluated, and no shortcut by colour."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from reid_attack_bench.data.split import Split
from reid_attack_bench.data.synthetic import DOMAINS, contact_sheet, render_domain
from reid_attack_bench.data.synthetic.identity import make_person
from reid_attack_bench.errors import BenchError

QUICK = {"train_identities": 1, "test_identities": 64, "images_per_camera": 2, "queries_per_identity": 2}
SMALL = {"train_identities": 2, "test_identities": 2, "images_per_camera": 1, "queries_per_identity": 2}
SIZE = (128, 64)


def small(name: str = "plaza", **changes: object) -> dict[str, Split]:
    return render_domain(name, **{"seed": 3, "size": (64, 32), **SMALL, **changes})  # type: ignore[arg-type]


def by_place(splits: dict[str, Split]) -> Iterator[tuple[tuple[bool, int, int], list[bytes]]]:
    """Images keyed by side, number of the person on that side, and camera."""
    found: dict[tuple[bool, int, int], list[bytes]] = {}
    for name, split in splits.items():
        training = name == "train"
        first = 0 if training else int(splits["gallery"].identities.min())
        for image, identity, camera in zip(split.images, split.identities, split.cameras, strict=True):
            found.setdefault((training, int(identity) - first, int(camera)), []).append(image.tobytes())
    return iter((key, sorted(images)) for key, images in found.items())


def histogram_rank1(query: Split, gallery: Split) -> float:
    """Rank-1 of the nearest joint 8×8×8 RGB histogram (L1), without the query's own identity in its own camera."""

    def describe(images: np.ndarray) -> np.ndarray:
        return np.stack(
            [np.histogramdd(image.reshape(-1, 3), bins=8, range=[(0, 256)] * 3)[0].ravel() for image in images]
        )

    theirs, right = describe(gallery.images), 0
    for mine, identity, camera in zip(describe(query.images), query.identities, query.cameras, strict=True):
        kept = ~((gallery.identities == identity) & (gallery.cameras == camera))
        nearest = np.abs(theirs[kept] - mine).sum(axis=1).argmin()
        right += int(gallery.identities[kept][nearest] == identity)
    return right / len(query.images)


@pytest.fixture(scope="module", params=[pytest.param(name, marks=pytest.mark.e2e) for name in sorted(DOMAINS)])
def quick(request: pytest.FixtureRequest) -> dict[str, Split]:
    """A domain with the test split of the `quick` suite."""
    return render_domain(request.param, seed=0, size=SIZE, **QUICK)


def test_colour_histograms_do_not_find_people(quick: dict[str, Split]) -> None:
    assert histogram_rank1(quick["query"], quick["gallery"]) < 0.4


def test_every_query_has_a_match_in_another_camera(quick: dict[str, Split]) -> None:
    query, gallery = quick["query"], quick["gallery"]
    for identity, camera in zip(query.identities, query.cameras, strict=True):
        assert np.any((gallery.identities == identity) & (gallery.cameras != camera))


def test_queries_of_an_identity_come_from_different_cameras(quick: dict[str, Split]) -> None:
    query = quick["query"]
    pairs = set(zip(query.identities.tolist(), query.cameras.tolist(), strict=True))
    assert len(pairs) == len(query.images) == 64 * 2


def test_splits_are_disjoint_and_complete(quick: dict[str, Split], request: pytest.FixtureRequest) -> None:
    domain = DOMAINS[request.node.callspec.params["quick"]]
    each = domain.seen_by or domain.cameras
    train, query, gallery = quick["train"], quick["query"], quick["gallery"]
    assert not set(train.identities) & (set(query.identities) | set(gallery.identities))
    assert set(query.identities) == set(gallery.identities)
    assert len(set(gallery.cameras)) >= 6
    assert len(query.images) + len(gallery.images) == 64 * 2 * each
    pictures = [image.tobytes() for split in quick.values() for image in split.images]
    assert len(set(pictures)) == len(pictures)


def test_types_and_shapes(quick: dict[str, Split]) -> None:
    for split in quick.values():
        assert split.images.dtype == np.uint8
        assert split.images.shape[1:] == (*SIZE, 3)
        assert split.identities.dtype == split.cameras.dtype == np.int64
        assert len(split.images) == len(split.identities) == len(split.cameras)


def test_images_use_the_range_of_eight_bits(quick: dict[str, Split]) -> None:
    images = quick["gallery"].images.astype(float)
    assert 50 < images.mean() < 200
    assert np.median(images.std(axis=(1, 2))) > 20, "pictures without contrast"


@pytest.mark.e2e
def test_same_seed_same_bits_and_another_seed_others() -> None:
    first, second, other = small(), small(), small(seed=4)
    for split in first:
        np.testing.assert_array_equal(first[split].images, second[split].images)
        assert not np.array_equal(first[split].images, other[split].images)


@pytest.mark.e2e
def test_an_image_does_not_depend_on_the_counts() -> None:
    few = dict(by_place(small()))
    many = dict(by_place(small(train_identities=4, test_identities=3, images_per_camera=2, queries_per_identity=1)))
    assert set(few) < set(many)
    for key, images in few.items():
        assert set(images) < set(many[key])


def test_domains_differ_for_one_seed() -> None:
    plaza, station = small("plaza"), small("station")
    assert not np.array_equal(plaza["train"].images, station["train"].images)


@pytest.mark.e2e
def test_twice_the_size_is_the_same_scene() -> None:
    coarse = render_domain("plaza", seed=3, size=(128, 64), **SMALL)["train"].images.astype(float)
    fine = render_domain("plaza", seed=3, size=(256, 128), **SMALL)["train"].images.astype(float)
    halved = fine.reshape(len(fine), 128, 2, 64, 2, 3).mean(axis=(2, 4))
    for index, image in enumerate(coarse):
        apart = np.abs(halved - image).mean(axis=(1, 2, 3))
        assert apart.argmin() == index
        assert np.corrcoef(halved[index].ravel(), image.ravel())[0, 1] > 0.9


@pytest.mark.parametrize("size", [(64, 64), (96, 40), (16, 16)])
def test_any_size(size: tuple[int, int]) -> None:
    assert small(size=size)["gallery"].images.shape[1:] == (*size, 3)


def test_many_people_share_the_colours_of_their_clothes() -> None:
    """What makes colour alone a poor cue: lower garments come from few colours."""
    wardrobe = DOMAINS["station"].wardrobe
    people = [make_person(np.random.default_rng(i), wardrobe) for i in range(200)]
    dark = sum(sum(person.lower.colour) < 0.9 for person in people)
    assert dark > 0.5 * len(people)
    assert len({(p.upper.cut, p.upper.pattern, p.lower.cut, p.bag, p.hat) for p in people}) > 150


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "plazza"}, "did you mean 'plaza'"),
        ({"queries_per_identity": 6}, "one is needed for the gallery"),
        ({"queries_per_identity": 0}, "queries_per_identity"),
        ({"train_identities": 0}, "train_identities"),
        ({"images_per_camera": 0}, "images_per_camera"),
        ({"seed": -1}, "seed"),
        ({"size": (8, 4)}, "16×16"),
    ],
)
def test_mistakes_are_explained(changes: dict[str, object], words: str) -> None:
    with pytest.raises(BenchError, match=words):
        small(**changes)


def test_progress_counts_identities() -> None:
    calls: list[tuple[int, int]] = []
    small(progress=lambda done, total, note: calls.append((done, total)))
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.e2e
def test_contact_sheet_has_a_row_per_identity_over_the_cameras() -> None:
    split = small(images_per_camera=2)["train"]
    sheet = contact_sheet(split, identities=2, columns=6)
    assert sheet.dtype == np.uint8
    assert sheet.shape == (2 * (64 * 2 + 4) + 4, 6 * (32 * 2 + 4) + 4, 3)
    first = split.images[(split.identities == 0) & (split.cameras == 1)][0]
    tile = sheet[4 : 4 + 128, 4 + 68 : 4 + 68 + 64].astype(float).reshape(64, 2, 32, 2, 3).mean(axis=(1, 3))
    assert np.abs(tile - first).mean() < 4

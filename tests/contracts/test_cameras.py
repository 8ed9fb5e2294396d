"""Images that know their cameras: whatever is done to them, no image has the camera of another.

The oracle: every operation here is linear with non-negative weights, so that an image of a result is derived from those
inputs that change it when they alone are not zero. What sums over images, and what leaves torch, counts as noise.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from reid_attack_bench.attacks.common.generator import Generator
from reid_attack_bench.attacks.common.transfer import _Smoothed
from reid_attack_bench.contracts import ThreatModel, to_float
from reid_attack_bench.contracts.cameras import cameras_of, versions_of, with_cameras, without_cameras

SHAPE = (3, 4, 6)

CAMERAS = torch.tensor([7, 0, 4, 0, 7])

Operation = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Step:
    """One operation on a batch of images, drawn from integers; nothing where none is left."""

    kind: str
    numbers: tuple[int, ...]

    def __call__(self, images: Tensor) -> Tensor:
        if not images.numel():
            return images
        n, (a, b, c) = len(images), self.numbers
        rows = torch.tensor([a % n, b % n, c % n])
        mask = torch.tensor([(a >> i) & 1 == 1 for i in range(n)])
        if not mask.any():
            mask[b % n] = True
        return STEPS[self.kind](images, rows, mask)


def assigned(images: Tensor, place: object, value: Tensor | float) -> Tensor:
    result = images.clone()
    result[place] = value
    return result


def buffered(images: Tensor, rows: Tensor, buffer: Tensor) -> Tensor:
    buffer[rows] = images[rows]
    return buffer


def overwritten(images: Tensor, rows: Tensor) -> Tensor:
    """Through a view of it and a detached one."""
    result = images.clone()
    result[rows[0]].copy_(images[rows[1]])
    result.detach()[rows[2]].mul_(0.5).add_(images[rows[0]])
    return result


def scattered(images: Tensor, rows: Tensor) -> Tensor:
    index = rows[0].expand(1, *images.shape[1:])
    return torch.zeros_like(images).scatter_add_(0, index, images[:1]) + 0.1 * images


def product(images: Tensor, rows: Tensor) -> Tensor:
    moved = torch.eye(len(images))[torch.arange(len(images)).roll(int(rows[0]))]
    return (moved @ images.flatten(1)).view(images.shape)


def through_numpy(images: Tensor) -> Tensor:
    return torch.from_numpy(images.detach().numpy().copy())


STEPS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "index": lambda x, rows, mask: x[rows],
    "mask": lambda x, rows, mask: x[mask],
    "slice": lambda x, rows, mask: x[int(rows.min()) :],
    "one": lambda x, rows, mask: x[int(rows[0])][None],
    "patch": lambda x, rows, mask: x[rows, :, 1:3, 2:5],
    "pixel": lambda x, rows, mask: x[:, :, rows[:1] % x.shape[2]],
    "select": lambda x, rows, mask: x.index_select(0, rows),
    "cat": lambda x, rows, mask: torch.cat([x, x[rows]]),
    "cat across": lambda x, rows, mask: torch.cat([x, x.flip(0)], dim=3),
    "stack": lambda x, rows, mask: torch.stack([each.flip(-1) for each in x] + [x[int(rows[0])]]),
    "split": lambda x, rows, mask: torch.cat(x.split(2)[::-1]),
    "chunk": lambda x, rows, mask: x.chunk(2)[-1],
    "unbind": lambda x, rows, mask: x.unbind()[int(rows[1])].unsqueeze(0),
    "repeat": lambda x, rows, mask: x.repeat(2, 1, 1, 1),
    "repeat interleave": lambda x, rows, mask: x.repeat_interleave(2, dim=0),
    "tile": lambda x, rows, mask: x.tile(2, 1, 1, 2),
    "expand": lambda x, rows, mask: x[rows[:1]].expand(3, -1, -1, -1),
    "flip": lambda x, rows, mask: x.flip(0, 2),
    "roll": lambda x, rows, mask: x.roll(int(rows[0]), 0),
    "roll all": lambda x, rows, mask: x.roll(int(rows[0])),
    "where": lambda x, rows, mask: torch.where(mask.view(-1, 1, 1, 1), x, x.flip(0)),
    "where method": lambda x, rows, mask: x.where(mask.view(-1, 1, 1, 1), 0.0),
    "crossed": lambda x, rows, mask: x.transpose(0, 1).contiguous().transpose(0, 1),
    "crossed and cut": lambda x, rows, mask: x.permute(2, 0, 1, 3)[:1].permute(1, 2, 0, 3),
    "reshape": lambda x, rows, mask: x.reshape(-1, *x.shape[2:])[:, None],
    "flatten": lambda x, rows, mask: x.flatten(1).view_as(x),
    "groups": lambda x, rows, mask: torch.stack([x, x.roll(1, 0)]).flatten(0, 1),
    "gather": lambda x, rows, mask: x.gather(0, rows.view(-1, 1, 1, 1).expand(-1, *x.shape[1:])),
    "diagonal": lambda x, rows, mask: x.diagonal(dim1=0, dim2=2).permute(2, 0, 1)[:, :, None],
    "scale": lambda x, rows, mask: 0.5 * x,
    "noise": lambda x, rows, mask: x + 0.0 * torch.rand(x.shape),
    "mix": lambda x, rows, mask: x + 0.5 * x.roll(int(rows[0]), 0),
    "first of all": lambda x, rows, mask: x + x[:1],
    "pad": lambda x, rows, mask: functional.pad(x, (1, 0, 0, 1), mode="replicate"),
    "resize": lambda x, rows, mask: functional.interpolate(x, scale_factor=1.5),
    "pool": lambda x, rows, mask: functional.avg_pool2d(x, 3, 1, 1),
    "convolve": lambda x, rows, mask: functional.conv2d(x, torch.ones(2, x.shape[1], 3, 3), padding=1),
    "matmul": lambda x, rows, mask: torch.ones(x.shape[2], x.shape[2]) @ x,
    "rows matmul": lambda x, rows, mask: product(x, rows),
    "einsum": lambda x, rows, mask: torch.einsum("nchw,nm->mchw", x, torch.ones(len(x), len(x)).triu()),
    "cumsum": lambda x, rows, mask: x.cumsum(0),
    "cumsum across": lambda x, rows, mask: x.cumsum(dim=-1),
    "mean": lambda x, rows, mask: x + x.mean(dim=0, keepdim=True),
    "channels": lambda x, rows, mask: x.sum(dim=1, keepdim=True),
    "scatter": lambda x, rows, mask: scattered(x, rows),
    "assign": lambda x, rows, mask: assigned(x, rows[:1], x[rows[1:2]]),
    "assign zero": lambda x, rows, mask: assigned(x, rows[0], 0.0),
    "assign patch": lambda x, rows, mask: assigned(x, (rows[:1], slice(None), slice(0, 1)), x[rows[1:2], :, :1]),
    "buffer": lambda x, rows, mask: buffered(x, rows, torch.zeros_like(x)),
    "plain buffer": lambda x, rows, mask: buffered(x, rows, torch.zeros(x.shape)),
    "in place": lambda x, rows, mask: x.clone().mul_(0.5).add_(x.roll(int(rows[0]), 0)).clamp_(0, 1e6),
    "overwritten": lambda x, rows, mask: overwritten(x, rows),
    "detached": lambda x, rows, mask: x.detach().clone(),
    "double": lambda x, rows, mask: x.double().to(torch.float32),
    "numpy": lambda x, rows, mask: through_numpy(x),
}  # fmt: skip

AS_NOISE: dict[str, Operation] = {
    **dict.fromkeys(("numpy", "cumsum", "einsum", "rows matmul"), torch.zeros_like),
    "mean": lambda x: x,
}
"""What is left to be derived from after operations whose results are not marked."""

FOLLOWED = set(STEPS) - set(AS_NOISE) - {"scatter", "overwritten", "crossed and cut"}
"""Those after which an image derived from one camera alone keeps it; after the others it may be unknown."""

steps = st.builds(Step, st.sampled_from(sorted(STEPS)), st.tuples(*[st.integers(0, 30)] * 3))


def run(program: list[Step], images: Tensor) -> Tensor:
    for step in program:
        images = step(images)
    return images


def derived(program: list[Step]) -> Tensor:
    """Bool rows×5: which images each image of the result is derived from."""
    found = []
    for i in range(len(CAMERAS)):
        alone = torch.zeros(len(CAMERAS), *SHAPE)
        alone[i] = 1.0
        for step in program:
            alone = AS_NOISE.get(step.kind, step)(alone)
        found.append(alone.flatten(1).sum(dim=1) > 0)
    return torch.stack(found, dim=1)


@settings(max_examples=250)
@given(st.lists(steps, min_size=1, max_size=4))
def test_no_image_has_the_camera_of_another(program: list[Step]) -> None:
    result = run(program, with_cameras(torch.rand(5, *SHAPE), CAMERAS))
    cameras = cameras_of(result)
    found = torch.full((len(result),), -1) if cameras is None else cameras
    for camera, sources in zip(found.tolist(), derived(program), strict=True):
        of = set(CAMERAS[sources].tolist())
        if camera >= 0:
            assert of <= {camera}
        elif len(of) == 1 and all(step.kind in FOLLOWED for step in program):
            raise AssertionError(f"one of camera {of} is unknown after {program}")


@settings(max_examples=60)
@given(st.lists(steps, min_size=1, max_size=4))
def test_marks_change_no_value(program: list[Step]) -> None:
    images = torch.rand(5, *SHAPE)
    result = run(program, with_cameras(images.clone(), CAMERAS))
    assert torch.equal(without_cameras(result), run(program, images))


def marked(requires_grad: bool = False) -> Tensor:
    images = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return with_cameras(images, CAMERAS).clone().requires_grad_(requires_grad)


def of(images: Tensor) -> list[int]:
    cameras = cameras_of(images)
    assert cameras is not None
    return cameras.tolist()


def test_a_gradient_reaches_a_leaf_and_has_no_camera() -> None:
    leaf = marked(requires_grad=True)
    plain = without_cameras(leaf).detach().clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad((leaf * leaf).sum(), leaf)
    (expected,) = torch.autograd.grad((plain * plain).sum(), plain)
    assert type(gradient) is Tensor
    assert torch.equal(gradient, expected)
    (without_cameras(leaf).square().sum()).backward()
    assert torch.equal(leaf.grad, expected)
    assert of(leaf.detach() + 0.1 * gradient.sign()) == CAMERAS.tolist()
    assert cameras_of(gradient) is None


def test_checkpoints_give_the_same_cameras_again() -> None:
    seen = []

    def watched(images: Tensor) -> Tensor:
        seen.append(of(images))
        return images.square()

    leaf = marked(requires_grad=True)
    for part in leaf.split(3):
        checkpoint(watched, part, use_reentrant=False).sum().backward()
    assert seen == [[7, 0, 4], [7, 0, 4], [0, 7], [0, 7]]


def test_a_generator_and_a_function_with_its_own_backward_keep_them() -> None:
    images, network = marked(), Generator(2, blocks=1)
    noise = network(images)
    assert of((images + noise).clamp(0, 1)) == CAMERAS.tolist()
    (without_cameras(noise).sum()).backward()
    assert all(type(each) is nn.Parameter and type(each.grad) is Tensor for each in network.parameters())
    assert of(torch.cat([network(each) for each in images.split(1)])) == CAMERAS.tolist()
    assert of(_Smoothed.apply(marked(requires_grad=True), 3)) == CAMERAS.tolist()


@pytest.mark.parametrize("pixels", [None, 7])
def test_a_projection_is_a_version_of_the_clean_image(pixels: int | None) -> None:
    clean, other = marked(), with_cameras(torch.rand(5, 3, 16, 16), torch.arange(5) + 20)
    assert of(0.5 * (clean + other)) == [-1] * 5
    for adversarial in (0.5 * (clean + other), without_cameras(clean) + 0.1, clean):
        assert of(ThreatModel(8, pixels).project(adversarial, clean)) == CAMERAS.tolist()
    assert type(ThreatModel(8, pixels).project(torch.rand(5, 3, 4, 4), torch.rand(5, 3, 4, 4))) is Tensor


def test_noise_takes_the_camera_of_what_it_is_combined_with() -> None:
    images = marked()
    assert of(torch.zeros_like(images)) == [-1] * 5
    assert of(torch.zeros_like(images) + images) == CAMERAS.tolist()
    assert of(torch.where(torch.rand(5, 1, 16, 16) < 0.5, images, torch.rand(5, 3, 16, 16))) == CAMERAS.tolist()
    assert cameras_of(torch.rand(2, 3, 16, 16).to(images)) is None
    assert cameras_of(torch.rand(5, 3, 16, 16)) is None


def test_a_mask_of_pixels_keeps_them() -> None:
    images = marked()
    scores = images.abs().sum(dim=1)
    kept = scores.flatten(1).topk(9, dim=1).indices
    mask = torch.zeros_like(scores).flatten(1).scatter_(1, kept, 1.0).view_as(scores)
    assert of(images * mask.unsqueeze(1)) == CAMERAS.tolist()


def test_a_copy_is_as_good() -> None:
    assert of(copy.deepcopy(marked())) == CAMERAS.tolist()
    assert copy.deepcopy(marked(requires_grad=True)).is_leaf


def test_who_shares_memory_with_what_was_overwritten_knows_nothing() -> None:
    images = marked()
    view = images[1:3]
    view.copy_(images[3:].clone())
    assert of(view) == [0, 7]
    assert of(images) == [-1] * 5


def test_images_in_numpy_are_read_with_their_cameras(tmp_path) -> None:
    np.save(tmp_path / "images.npy", np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), dtype=np.uint8))
    lazy = np.load(tmp_path / "images.npy", mmap_mode="r")
    images = with_cameras(lazy, CAMERAS.numpy())
    assert isinstance(images.base, np.memmap), "nothing was read"
    for index in (slice(1, 3), [4, 0], np.array([2, 2]), np.arange(5) > 2, (slice(None), slice(0, 2)), [0], ...):
        rows = CAMERAS.numpy() if index is ... else CAMERAS.numpy()[index[0] if isinstance(index, tuple) else index]
        read = to_float(images[index])
        assert torch.equal(without_cameras(read), to_float(np.asarray(lazy[index])))
        assert index is ... or of(read) == rows.tolist()
    assert of(to_float(images)) == CAMERAS.tolist()
    assert of(to_float(images[3][None])) in ([0], [-1])
    for lost in (images[..., 0], images.transpose(1, 2, 3, 0), images[:, np.array([0, 1])], images + 1):
        assert cameras_of(lost) is None
    assert type(to_float(np.asarray(images))) is Tensor


def test_versions_have_the_cameras_of_the_clean_images() -> None:
    images = torch.rand(5, 3, 16, 16)
    assert of(versions_of(images, marked())) == CAMERAS.tolist()
    assert versions_of(images, torch.rand(5, 3, 16, 16)) is images
    assert versions_of(images[:2], marked()).shape == (2, 3, 16, 16)

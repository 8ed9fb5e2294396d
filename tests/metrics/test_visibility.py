"""SSIM, MS-SSIM, LPIPS and change against independent implementations."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import pytorch_msssim
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import correlate1d
from torch import Tensor

from reid_attack_bench.errors import BenchError
from reid_attack_bench.metrics import lpips, perturbation, ssim
from reid_attack_bench.metrics.colour import ciede2000
from reid_attack_bench.metrics.lpips import Lpips, find_lpips_weights
from reid_attack_bench.metrics.visibility import measures


def pair(height: int, width: int, count: int = 2, noise: float = 0.05, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    clean = torch.rand(count, 3, height // 4 + 1, width // 4 + 1, generator=generator)
    clean = torch.nn.functional.interpolate(clean, size=(height, width), mode="bilinear")
    return clean, (clean + noise * torch.randn(clean.shape, generator=generator)).clamp(0, 1)


def literal_ssim(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """SSIM and its contrast-structure part of two H×W float64 planes, from the 2004 paper's formulas."""
    window = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window /= window.sum()

    def blur(plane: np.ndarray) -> np.ndarray:
        return correlate1d(correlate1d(plane, window, axis=0), window, axis=1)[5:-5, 5:-5]

    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    cov = blur(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * cov + c2) / (var_x + var_y + c2)
    return float((luminance * structure).mean()), float(structure.mean())


def halve(plane: np.ndarray) -> np.ndarray:
    return plane.reshape(plane.shape[0] // 2, 2, plane.shape[1] // 2, 2).mean(axis=(1, 3))


def literal_ms_ssim(x: np.ndarray, y: np.ndarray, weights: list[float]) -> float:
    result = 1.0
    for weight in weights[:-1]:
        result *= max(literal_ssim(x, y)[1], 0.0) ** weight
        x, y = halve(x), halve(y)
    return result * max(literal_ssim(x, y)[0], 0.0) ** weights[-1]


@pytest.mark.parametrize("size", [(64, 32), (40, 23)])
def test_ssim_is_the_published_formula(size: tuple[int, int]) -> None:
    clean, adversarial = pair(*size)
    expected = [
        np.mean([literal_ssim(x, y)[0] for x, y in zip(a.double().numpy(), b.double().numpy(), strict=True)])
        for a, b in zip(clean, adversarial, strict=True)
    ]
    np.testing.assert_allclose(ssim.ssim(clean, adversarial).numpy(), expected, atol=2e-5)


@pytest.mark.parametrize(
    ("size", "published"),
    [
        ((256, 128), [0.0448, 0.2856, 0.3001, 0.2363]),
        ((128, 64), [0.0448, 0.2856, 0.3001]),
        ((32, 16), [0.0448]),
    ],
)
def test_ms_ssim_of_person_crops_uses_the_scales_that_fit(size: tuple[int, int], published: list[float]) -> None:
    clean, adversarial = pair(*size, noise=0.1)
    weights = [weight / sum(published) for weight in published]
    expected = [
        np.mean([literal_ms_ssim(x, y, weights) for x, y in zip(a.double().numpy(), b.double().numpy(), strict=True)])
        for a, b in zip(clean, adversarial, strict=True)
    ]
    assert ssim.scale_count(*size) == len(published)
    np.testing.assert_allclose(ssim.ms_ssim(clean, adversarial).numpy(), expected, atol=2e-5)


@pytest.mark.parametrize("size", [(192, 192), (163, 161)])
def test_ms_ssim_is_the_library_where_five_scales_fit(size: tuple[int, int]) -> None:
    clean, adversarial = pair(*size, noise=0.2)
    expected = pytorch_msssim.ms_ssim(clean, adversarial, data_range=1.0, size_average=False)
    torch.testing.assert_close(ssim.ms_ssim(clean, adversarial), expected, atol=1e-6, rtol=0)


def test_scale_count_changes_where_the_window_stops_fitting() -> None:
    sides = [11, 20, 21, 40, 41, 80, 81, 160, 161, 1000]
    assert [ssim.scale_count(1000, side) for side in sides] == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


@pytest.mark.parametrize("similarity", [ssim.ssim, ssim.ms_ssim])
def test_identical_images_score_one_and_more_noise_scores_less(similarity: Callable[[Tensor, Tensor], Tensor]) -> None:
    clean, _ = pair(64, 32)
    torch.testing.assert_close(similarity(clean, clean), torch.ones(2))
    scores = [similarity(*pair(64, 32, noise=noise)) for noise in (0.02, 0.05, 0.2)]
    assert bool((scores[0] > scores[1]).all())
    assert bool((scores[1] > scores[2]).all())


@pytest.mark.parametrize("similarity", [ssim.ssim, ssim.ms_ssim])
@pytest.mark.parametrize("other", ["same", "inverted", "constant", "noise"])
def test_gradients_are_finite_on_hard_pairs(similarity: Callable[[Tensor, Tensor], Tensor], other: str) -> None:
    clean, noisy = pair(64, 32, noise=0.3)
    made = {"same": clean, "inverted": 1 - clean, "constant": torch.zeros_like(clean), "noise": noisy}[other]
    adversarial = made.clone().requires_grad_(True)
    scores = similarity(clean, adversarial)
    (gradient,) = torch.autograd.grad(scores.sum(), adversarial)
    assert bool(torch.isfinite(scores).all())
    assert bool(torch.isfinite(gradient).all())
    if other == "inverted" and similarity is ssim.ms_ssim:
        assert scores.tolist() == [0.0, 0.0]  # negative structure is clamped


def test_the_gradient_of_ms_ssim_raises_it() -> None:
    clean, adversarial = pair(64, 32, noise=0.1)
    adversarial.requires_grad_(True)
    before = ssim.ms_ssim(clean, adversarial)
    (gradient,) = torch.autograd.grad(before.sum(), adversarial)
    after = ssim.ms_ssim(clean, adversarial.detach() + 0.01 * gradient / gradient.abs().max())
    assert bool((after > before).all())


def test_similarity_refuses_images_it_cannot_compare() -> None:
    clean, _ = pair(64, 32)
    with pytest.raises(BenchError, match="one shape"):
        ssim.ms_ssim(clean, clean[:1])
    with pytest.raises(BenchError, match="11×11"):
        ssim.ssim(clean[..., :10], clean[..., :10])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.integers(0, 255))
def test_change_counts_what_a_loop_counts(seed: int, count: int, epsilon: int) -> None:
    rng = np.random.default_rng(seed)
    clean = rng.integers(0, 256, (count, 6, 4, 3), dtype=np.uint8)
    moved = clean + rng.integers(-epsilon, epsilon + 1, clean.shape) * (rng.random((count, 6, 4, 1)) < 0.5)
    adversarial = np.clip(moved, 0, 255).astype(np.uint8)
    result = perturbation.change(clean, adversarial)
    for index in range(count):
        differences = [
            [int(a) - int(b) for a, b in zip(p, q, strict=True)]
            for p, q in zip(clean[index].reshape(-1, 3), adversarial[index].reshape(-1, 3), strict=True)
        ]
        assert result["linf"][index] == max(abs(step) for pixel in differences for step in pixel)
        assert result["pixels_changed"][index] == sum(any(pixel) for pixel in differences)
        l2 = sum((step / 255) ** 2 for pixel in differences for step in pixel) ** 0.5
        assert result["l2"][index] == pytest.approx(l2)


def test_change_reads_every_chunk() -> None:
    clean = np.zeros((perturbation._CHUNK + 3, 2, 2, 3), np.uint8)
    adversarial = clean.copy()
    adversarial[-1, 1, 0, 2] = 255
    result = perturbation.change(clean, adversarial)
    assert result["linf"].sum() == result["linf"][-1] == 255
    assert result["l2"][-1] == 1.0
    assert result["pixels_changed"].tolist() == [0] * (len(clean) - 1) + [1]


def test_change_refuses_other_types() -> None:
    with pytest.raises(BenchError, match="uint8"):
        perturbation.change(np.zeros((1, 2, 2, 3), np.uint8), np.zeros((1, 2, 2, 3), np.float32))


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for torchvision's AlexNet file: its layout, with weights of our own, and its hash made to pass."""
    from torchvision.models import alexnet

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        state = {name: tensor for name, tensor in alexnet().state_dict().items() if name.startswith("features.")}
    path = tmp_path / "checkpoints" / lpips.LPIPS_FILE
    path.parent.mkdir()
    torch.save(state, path)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.delenv(lpips.LPIPS_VARIABLE, raising=False)
    monkeypatch.setenv("REID_ATTACK_BENCH_WEIGHTS", str(tmp_path / "none"))
    monkeypatch.setattr(lpips, "LPIPS_SHA256_PREFIX", hashlib.sha256(path.read_bytes()).hexdigest()[:8])
    return path


@pytest.mark.e2e
def test_lpips_computes_with_the_weights_in_the_file(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *a, **k: pytest.fail("downloads"))
    assert find_lpips_weights() == weights
    state_before = torch.get_rng_state()
    first, second = Lpips(weights), Lpips(weights)
    assert torch.equal(torch.get_rng_state(), state_before)
    clean, adversarial = pair(128, 64)
    scores = first(clean, adversarial)
    assert torch.equal(scores, second(clean, adversarial))
    assert scores.shape == (2,)
    assert bool((scores > 0).all())
    assert first(clean, clean).tolist() == [0.0, 0.0]

    # the same distance, written from the paper: unit-normalised features, weighted, averaged over positions
    import lpips
    from torchvision.models import alexnet

    trunk = alexnet().eval()
    trunk.load_state_dict(torch.load(weights), strict=False)
    heads = torch.load(lpips.__path__[0] + "/weights/v0.1/alex.pth", map_location="cpu")
    features = [clean, adversarial]
    shift, scale = (torch.tensor(v).view(1, 3, 1, 1) for v in ([-0.030, -0.088, -0.188], [0.458, 0.448, 0.450]))
    features = [(2 * image - 1 - shift) / scale for image in features]
    expected, stage = torch.zeros(2), 0
    with torch.no_grad():
        for index, layer in enumerate(trunk.features):
            features = [layer(feature) for feature in features]
            if index in (1, 4, 7, 9, 11):
                a, b = (feature / feature.norm(dim=1, keepdim=True) for feature in features)
                head = heads[f"lin{stage}.model.1.weight"].view(1, -1, 1, 1)
                expected += (head * torch.nan_to_num(a - b).square()).sum(1).mean((1, 2))
                stage += 1
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-7)


def test_lpips_weights_are_found_or_their_absence_explained(
    weights: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    elsewhere = weights.rename(tmp_path / "elsewhere.pth")
    assert lpips.find_lpips_weights() is None
    message = lpips.lpips_missing_message()
    assert str(weights) in message
    assert lpips.LPIPS_URL in message
    assert lpips.LPIPS_VARIABLE in message
    assert "weights get lpips-alexnet" in message
    assert "\n" not in message
    monkeypatch.setenv(lpips.LPIPS_VARIABLE, str(elsewhere))
    assert lpips.find_lpips_weights() == elsewhere
    monkeypatch.delenv(lpips.LPIPS_VARIABLE)
    monkeypatch.setenv("REID_ATTACK_BENCH_WEIGHTS", str(tmp_path))
    in_folder = elsewhere.rename(tmp_path / f"{lpips.LPIPS_MODEL}.pth")
    assert lpips.find_lpips_weights() == in_folder
    monkeypatch.setenv(lpips.LPIPS_VARIABLE, str(tmp_path / "absent.pth"))
    with pytest.raises(BenchError, match=r"absent\.pth"):
        lpips.find_lpips_weights()


def test_lpips_refuses_other_weights(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with pytest.raises(BenchError, match="hash differs"):
        lpips.Lpips(weights)


# Sharma, Wu and Dalal (2005), table 1: pairs of CIELAB colours and their CIEDE2000
SHARMA = [
    ((50.0, 2.6772, -79.7751), (50.0, 0.0, -82.7485), 2.0425),
    ((50.0, -1.0, 2.0), (50.0, 0.0, 0.0), 2.3669),
    ((50.0, 2.5, 0.0), (73.0, 25.0, -18.0), 27.1492),
    ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
    ((2.0776, 0.0795, -1.135), (0.9033, -0.0636, -0.5514), 0.9082),
]


def literal_lab(image: np.ndarray) -> np.ndarray:
    """CIELAB of sRGB in [0, 1], H×W×3, from IEC 61966-2-1 and the CIE's formulas, D65."""
    linear = np.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4)
    matrix = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
    relative = linear @ matrix.T / np.array([0.95047, 1.0, 1.08883])
    x, y, z = np.moveaxis(np.where(relative > 0.008856, np.cbrt(relative), 7.787 * relative + 16 / 116), -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def literal_ciede2000(lab1: tuple[float, ...], lab2: tuple[float, ...]) -> float:
    """The formula in the words of Sharma et al., for one pair of colours."""
    (l1, a1, b1), (l2, a2, b2) = lab1, lab2
    mean_c = (math.hypot(a1, b1) + math.hypot(a2, b2)) / 2
    g = 0.5 * (1 - math.sqrt(mean_c**7 / (mean_c**7 + 25**7)))
    a1, a2 = (1 + g) * a1, (1 + g) * a2
    c1, c2 = math.hypot(a1, b1), math.hypot(a2, b2)
    h1, h2 = (math.degrees(math.atan2(b, a)) % 360 if a or b else 0.0 for a, b in ((a1, b1), (a2, b2)))
    turn = 0.0 if c1 * c2 == 0 else (h2 - h1 + 180) % 360 - 180
    big_h = 2 * math.sqrt(c1 * c2) * math.sin(math.radians(turn) / 2)
    mean_l, mean_c = (l1 + l2) / 2, (c1 + c2) / 2
    if c1 * c2 == 0:
        mean_h = h1 + h2
    elif abs(h1 - h2) <= 180:
        mean_h = (h1 + h2) / 2
    else:
        mean_h = (h1 + h2 + (360 if h1 + h2 < 360 else -360)) / 2
    t = 1.0 - 0.17 * math.cos(math.radians(mean_h - 30)) + 0.24 * math.cos(math.radians(2 * mean_h))
    t += 0.32 * math.cos(math.radians(3 * mean_h + 6)) - 0.20 * math.cos(math.radians(4 * mean_h - 63))
    rotation = -math.sin(2 * math.radians(30 * math.exp(-(((mean_h - 275) / 25) ** 2))))
    rotation *= 2 * math.sqrt(mean_c**7 / (mean_c**7 + 25**7))
    lightness = (l2 - l1) / (1 + 0.015 * (mean_l - 50) ** 2 / math.sqrt(20 + (mean_l - 50) ** 2))
    chroma, hue = (c2 - c1) / (1 + 0.045 * mean_c), big_h / (1 + 0.015 * mean_c * t)
    return math.sqrt(lightness**2 + chroma**2 + hue**2 + rotation * chroma * hue)


@pytest.mark.parametrize(("first", "second", "published"), SHARMA)
def test_the_literal_ciede2000_gives_the_published_values(first, second, published: float) -> None:
    assert literal_ciede2000(first, second) == pytest.approx(published, abs=5e-5)


def test_ciede2000_is_the_mean_over_pixels_of_the_published_formula() -> None:
    rng = np.random.default_rng(0)
    clean = rng.integers(0, 256, (2, 16, 17, 3), dtype=np.uint8)
    adversarial = np.clip(clean + rng.integers(-16, 17, clean.shape), 0, 255).astype(np.uint8)
    expected = [
        np.mean([literal_ciede2000(*pair) for pair in zip(*labs, strict=True)])
        for labs in zip(*(literal_lab(images / 255).reshape(2, -1, 3) for images in (clean, adversarial)), strict=True)
    ]
    found = measures(clean, adversarial)["ciede2000"]
    np.testing.assert_allclose(found, expected, rtol=2e-4)
    assert ciede2000(clean, clean).tolist() == [0, 0]
    white, black = np.full((1, 16, 16, 3), 255, np.uint8), np.zeros((1, 16, 16, 3), np.uint8)
    assert ciede2000(white, black) == pytest.approx(100, abs=0.01)


def test_a_tint_hides_from_ssim_and_not_from_ciede2000() -> None:
    """What a tint changes is no structure; noise of the same budget is less of a difference of colour."""
    clean = (pair(128, 64)[0].permute(0, 2, 3, 1).numpy() * 200 + 25).astype(np.uint8)
    tinted = (clean.astype(int) + np.array([16, -16, 16])).astype(np.uint8)
    noise = np.random.default_rng(0).choice([-16, 16], clean.shape)
    noisy = (clean.astype(int) + noise).astype(np.uint8)
    tint, rough = measures(clean, tinted), measures(clean, noisy)
    assert tint["ssim"].min() > 0.97 > 0.85 > rough["ssim"].max()
    assert tint["ciede2000"].min() > 6
    slight = measures(clean, (clean.astype(int) + np.array([1, -1, 1])).astype(np.uint8))
    assert slight["ciede2000"].max() < tint["ciede2000"].min() / 8

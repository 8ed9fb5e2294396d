"""Camera model: colour response, exposure, optics, resolution, noise, JPEG."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

Range = tuple[float, float]

Cast = tuple[float, float, float]
"""Warmth, tint and gain that one camera adds to what it draws, see `CameraRanges`."""


@dataclass(frozen=True)
class CameraRanges:
    """Ranges from which the cameras of a domain are drawn.

    Attributes:
        warmth: log gain of red relative to blue.
        tint: log gain of green.
        gain: log exposure gain.
        gamma: exponent of the tone curve.
        saturation: 0 for grey, 1 for unchanged.
        hue: rotation of colours, radians.
        haze: level of black.
        vignette: relative loss of light in the corners.
        elevation: downward tilt of the camera.
        resolution: sharpness, as a share of the output's resolution.
        noise: standard deviation, for values in [0, 1].
        quality: JPEG quality, 1 to 100.
        casts: of the cameras in turn, so that any two differ whatever the seed; () for none.
    """

    warmth: Range
    tint: Range
    gain: Range
    gamma: Range
    saturation: Range
    hue: Range
    haze: Range
    vignette: Range
    elevation: Range
    resolution: Range
    noise: Range
    quality: Range
    casts: tuple[Cast, ...] = ()


@dataclass(frozen=True)
class Camera:
    """One camera: its fixed response, the typical `heading` of walkers and the side `light` comes from."""

    matrix: np.ndarray
    gamma: float
    haze: float
    vignette: float
    elevation: float
    resolution: float
    noise: float
    quality: float
    heading: float
    light: float


def _colour_matrix(warmth: float, tint: float, gain: float, saturation: float, hue: float) -> np.ndarray:
    """3×3 matrix on RGB: hue rotation about grey, saturation, then channel gains."""
    grey = np.full((3, 3), 1 / 3)
    turn = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    rotation = grey + np.cos(hue) * (np.eye(3) - grey) + np.sin(hue) * turn
    luma = np.tile([0.299, 0.587, 0.114], (3, 1))
    gains = np.exp(np.array([gain + 0.5 * warmth, gain + tint, gain - 0.5 * warmth]))
    return (gains[:, None] * ((luma + saturation * (np.eye(3) - luma)) @ rotation)).astype(np.float32)


def make_camera(rng: np.random.Generator, ranges: CameraRanges, number: int) -> Camera:
    """Draw camera `number` of a domain; headings are spread so that walkers are seen from all sides."""

    def draw(bounds: Range) -> float:
        return float(rng.uniform(*bounds))

    warmth, tint, gain = ranges.casts[number % len(ranges.casts)] if ranges.casts else (0.0, 0.0, 0.0)
    return Camera(
        matrix=_colour_matrix(
            warmth + draw(ranges.warmth),
            tint + draw(ranges.tint),
            gain + draw(ranges.gain),
            draw(ranges.saturation),
            draw(ranges.hue),
        ),
        gamma=draw(ranges.gamma),
        haze=draw(ranges.haze),
        vignette=draw(ranges.vignette),
        elevation=draw(ranges.elevation),
        resolution=draw(ranges.resolution),
        noise=draw(ranges.noise),
        quality=draw(ranges.quality),
        heading=float((number % 3) * np.pi / 3 + rng.uniform(-0.3, 0.3)),
        light=float(rng.uniform(-1, 1)),
    )


@dataclass(frozen=True)
class Exposure:
    """Variation between shots of one camera: log exposure, log warmth, blur (as a share of the height)."""

    gain: float
    warmth: float
    blur_across: float
    blur_down: float
    sharpness: float


def make_exposure(track: np.random.Generator, rng: np.random.Generator) -> Exposure:
    """`track` draws the time of day, shared by the shots of one passage; `rng` draws the rest."""
    return Exposure(
        gain=float(track.normal(0.0, 0.06) + rng.normal(0.0, 0.04)),
        warmth=float(track.normal(0.0, 0.04) + rng.normal(0.0, 0.03)),
        blur_across=float(max(0.0, rng.normal(0.002, 0.006))),
        blur_down=float(max(0.0, rng.normal(0.0, 0.004))),
        sharpness=float(rng.uniform(0.75, 1.1)),
    )


def photograph(
    scene: np.ndarray, camera: Camera, exposure: Exposure, size: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    """Float32 RGB scene (H×W×3, any size, about [0, 1]) → uint8 RGB of `size` = (height, width), as stored."""
    height, width = size
    rows = scene.shape[0]
    across, down = (1 + 2 * int(rows * blur / 2) for blur in (exposure.blur_across, exposure.blur_down))
    if across > 1 or down > 1:
        scene = cv2.blur(scene, (across, down))
    share = min(1.0, camera.resolution * exposure.sharpness)
    small = (max(8, round(width * share)), max(16, round(height * share)))
    image = cv2.resize(scene, small, interpolation=cv2.INTER_AREA)
    gains = np.exp(np.array([0.5, 0.0, -0.5]) * exposure.warmth + exposure.gain).astype(np.float32)
    image = cv2.transform(image, gains[:, None] * camera.matrix)
    if camera.vignette > 0:
        y = np.linspace(-1, 1, small[1], dtype=np.float32)[:, None]
        x = np.linspace(-1, 1, small[0], dtype=np.float32)[None, :]
        image = image * (1 - camera.vignette * (0.6 * y * y + 0.4 * x * x))[..., None]
    image = cv2.pow(np.clip(image, 0.0, 1.0), camera.gamma)
    image = camera.haze + (0.98 - camera.haze) * image
    # sensor noise is added per sensor pixel, so before upscaling
    image += np.float32(camera.noise) * rng.standard_normal(image.shape, dtype=np.float32)
    levels = np.clip(np.rint(image * 255.0), 0, 255).astype(np.uint8)
    if share < 1.0:
        levels = cv2.resize(levels, (width, height), interpolation=cv2.INTER_LINEAR)
    _, coded = cv2.imencode(".jpg", levels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, int(camera.quality)])
    return np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR))[..., ::-1]

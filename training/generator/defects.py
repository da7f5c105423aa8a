"""Six defects. Each function paints one on the canvas in place and returns its exact mask, or None if it misses.

Sizes are fractions of ``unit`` = sqrt(width * height) px. To add a class, write such a function, name it in
an edition (``editions.py``) and add its words to ``training.vocabulary``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from training.generator import strokes
from training.generator.fields import Field, fractal, log_uniform, smooth, unit_px
from training.generator.surfaces import Canvas

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Scenery:
    """What a defect must know of its scene: the side the light comes from (rad) and the material."""

    light_rad: float
    surface: str
    fine: bool = False
    """Whether thin things may be as thin as a pixel."""


Defect = Callable[[np.random.Generator, Canvas, Scenery], "Mask | None"]


def unit_of(canvas: Canvas) -> float:
    """Side px of a square as large as the picture: what sizes are fractions of."""
    return unit_px(*canvas.shape[:2])


def _shift(field: Field, dx: float, dy: float) -> Field:
    move = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
    return np.asarray(cv2.warpAffine(field, move, (field.shape[1], field.shape[0])), dtype=np.float32)


def _coverage(
    paths: list[strokes.Path], widths: list[NDArray[np.float32]], canvas: Canvas
) -> tuple[Field, tuple[int, int, int, int]] | None:
    """Anti-aliased strokes as coverage 0..1 in a patch, with the patch's window."""
    height, width = canvas.shape[:2]
    unit = unit_of(canvas)
    window = strokes.patch_of(paths, 4 + 0.03 * unit, height, width)
    if window is None:
        return None
    x0, y0, x1, y1 = window
    scale = strokes.supersampling(unit)
    large = np.zeros(((y1 - y0) * scale, (x1 - x0) * scale), np.float32)
    for path, width_px in zip(paths, widths, strict=True):
        strokes.draw(large, path, width_px, (x0, y0), scale)
    small = cv2.resize(large, (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA)
    return np.asarray(small, dtype=np.float32), window


def full_mask(mask: Mask, window: tuple[int, int, int, int], canvas: Canvas) -> Mask:
    """Put a window's mask into one of the whole picture."""
    x0, y0, x1, y1 = window
    full = np.zeros(canvas.shape[:2], bool)
    full[y0:y1, x0:x1] = mask
    return full


def _start(rng: np.random.Generator, canvas: Canvas, length_px: float, angle_rad: float) -> tuple[float, float]:
    """Where a stroke begins, so that its middle lies inside the picture."""
    height, width = canvas.shape[:2]
    x, y = rng.uniform(0.12, 0.88) * width, rng.uniform(0.12, 0.88) * height
    return float(x - np.cos(angle_rad) * length_px / 2), float(y - np.sin(angle_rad) * length_px / 2)


def scratch(rng: np.random.Generator, canvas: Canvas, scenery: Scenery) -> Mask | None:
    """Draw a scratch of random length and width."""
    unit = unit_of(canvas)
    length = unit * log_uniform(rng, 0.14, 0.75)
    width = max(1.0, unit * log_uniform(rng, 0.0008, 0.013)) if scenery.fine else unit * log_uniform(rng, 0.0042, 0.013)
    return draw_scratch(rng, canvas, scenery, length, width)


def draw_scratch(
    rng: np.random.Generator, canvas: Canvas, scenery: Scenery, length: float, width: float, scuffs: bool = True
) -> Mask | None:
    """Draw a smooth groove of px size with a bright or dark core and a shaded lip, or several side by side."""
    unit = unit_of(canvas)
    angle = rng.uniform(0, 2 * np.pi)
    start = _start(rng, canvas, length, angle)
    path = strokes.bent_line(rng, start, length, angle)
    paths, widths = [path], [strokes.taper(rng, len(path), width)]
    if scuffs and rng.random() < 0.25:
        normal = np.array([-np.sin(angle), np.cos(angle)], np.float32)
        for _ in range(int(rng.integers(1, 5))):
            first = int(rng.integers(0, 14))
            piece = path[first : first + int(rng.integers(16, 27))]
            paths.append(piece + normal * np.float32(rng.uniform(-3.5, 3.5) * width))
            widths.append(strokes.taper(rng, len(piece), width * rng.uniform(0.5, 0.9)))
    drawn = _coverage(paths, widths, canvas)
    if drawn is None:
        return None
    alpha, window = drawn
    x0, y0, x1, y1 = window
    patch = canvas[y0:y1, x0:x1]
    pressure = np.clip(1 + 0.22 * smooth(rng, y1 - y0, x1 - x0, unit * 0.06), 0.55, 1.3)
    grey = float(patch.mean())
    bright = rng.random() < (0.85 if grey < 0.35 else 0.25 if grey > 0.75 else 0.62)
    delta = rng.uniform(0.18, 0.5) if bright else -rng.uniform(0.2, 0.5) * max(grey, 0.3)
    colour = np.asarray(delta * (1 + rng.normal(0, 0.05, 3)), np.float32)
    dx, dy = np.cos(scenery.light_rad) * width * 0.8, np.sin(scenery.light_rad) * width * 0.8
    lip = np.clip(_shift(alpha, dx, dy) - alpha, 0, 1)
    patch += (alpha * pressure)[..., None] * colour
    patch -= (0.55 * lip * pressure)[..., None] * colour
    return full_mask(alpha >= 0.4, window, canvas)


def crack(rng: np.random.Generator, canvas: Canvas, scenery: Scenery) -> Mask | None:
    """Draw a dark jagged line with branches and a faint bright edge."""
    unit = unit_of(canvas)
    length = unit * log_uniform(rng, 0.18, 0.75)
    width = max(1.0, unit * log_uniform(rng, 0.001, 0.011)) if scenery.fine else unit * log_uniform(rng, 0.004, 0.011)
    angle = rng.uniform(0, 2 * np.pi)
    trunk = strokes.jagged_line(rng, _start(rng, canvas, length * 0.8, angle), length, angle)
    paths, widths = [trunk], [strokes.taper(rng, len(trunk), width)]
    for _ in range(int(rng.choice([0, 1, 2, 3, 4], p=[0.2, 0.3, 0.25, 0.15, 0.1]))):
        fork = trunk[int(rng.integers(2, len(trunk) - 2))]
        turn = angle + rng.choice([-1, 1]) * rng.uniform(0.4, 1.1)
        branch = strokes.jagged_line(rng, (float(fork[0]), float(fork[1])), length * rng.uniform(0.12, 0.4), turn)
        paths.append(branch)
        widths.append(np.linspace(0.8 * width, 0.35 * width, len(branch), dtype=np.float32))
    drawn = _coverage(paths, widths, canvas)
    if drawn is None:
        return None
    alpha, window = drawn
    x0, y0, x1, y1 = window
    patch = canvas[y0:y1, x0:x1]
    depth = rng.uniform(0.55, 0.9)
    dx, dy = np.cos(scenery.light_rad) * width * 0.9, np.sin(scenery.light_rad) * width * 0.9
    rim = np.clip(_shift(alpha, dx, dy) - alpha, 0, 1)
    patch *= 1 + (rng.uniform(0.05, 0.25) * rim)[..., None]
    patch *= 1 - (depth * alpha)[..., None]
    if rng.random() < 0.3:  # chipped or dirty surroundings
        halo = cv2.GaussianBlur(alpha, (0, 0), max(1.0, 2.5 * width))
        patch *= 1 - (rng.uniform(0.1, 0.35) * np.clip(halo * 2, 0, 1))[..., None]
    return full_mask(alpha >= 0.4, window, canvas)


def ellipse(
    rng: np.random.Generator, canvas: Canvas, diameter_px: float, flattest: float, ragged: float
) -> tuple[Field, Field, Field, tuple[int, int, int, int]] | None:
    """Distance field r (1 on the rim) of a random ellipse with its local x, y (-1..1) and window."""
    height, width = canvas.shape[:2]
    a = diameter_px / 2
    b = a * rng.uniform(flattest, 1.0)
    cx, cy = rng.uniform(0.04, 0.96) * width, rng.uniform(0.04, 0.96) * height
    reach = a * (1.45 + ragged) + 3
    x0, y0 = max(0, int(cx - reach)), max(0, int(cy - reach))
    x1, y1 = min(width, int(cx + reach) + 1), min(height, int(cy + reach) + 1)
    if x1 - x0 < 5 or y1 - y0 < 5:
        return None
    xs = (np.arange(x0, x1, dtype=np.float32) + 0.5 - cx)[None, :]
    ys = (np.arange(y0, y1, dtype=np.float32) + 0.5 - cy)[:, None]
    turn = rng.uniform(0, np.pi)
    u = (np.cos(turn) * xs + np.sin(turn) * ys) / a
    v = (-np.sin(turn) * xs + np.cos(turn) * ys) / b
    r = np.sqrt(u**2 + v**2)
    if ragged > 0:
        r = r + ragged * fractal(rng, y1 - y0, x1 - x0, max(2.0, a * rng.uniform(0.4, 0.9)), 4) * np.clip(r * 1.5, 0, 1)
    local_x = np.broadcast_to(xs / a, r.shape).astype(np.float32)
    local_y = np.broadcast_to(ys / a, r.shape).astype(np.float32)
    return np.asarray(r, dtype=np.float32), local_x, local_y, (x0, y0, x1, y1)


def dent(rng: np.random.Generator, canvas: Canvas, scenery: Scenery) -> Mask | None:
    """Press a smooth bowl: shaded on the lamp's side, bright on the other, the texture squeezed a little."""
    unit = unit_of(canvas)
    made = ellipse(rng, canvas, unit * log_uniform(rng, 0.07, 0.3), 0.55, 0.04)
    if made is None:
        return None
    r, _, _, (x0, y0, x1, y1) = made
    flat = rng.uniform(0.0, 0.45)
    depth = np.clip((1 - r) / (1 - flat), 0, 1)
    bowl = depth * depth * (3 - 2 * depth)
    size = float(np.sqrt(max((r < 1).sum(), 1)))
    gx = cv2.Sobel(bowl, cv2.CV_32F, 1, 0, ksize=3) * size / 8
    gy = cv2.Sobel(bowl, cv2.CV_32F, 0, 1, ksize=3) * size / 8
    slope = np.cos(scenery.light_rad) * gx + np.sin(scenery.light_rad) * gy
    slope = slope / (np.abs(slope).max() + 1e-6)
    patch = canvas[y0:y1, x0:x1]
    squeeze = np.float32(rng.uniform(0.5, 2.0) * size * 0.03)
    grid_x, grid_y = np.meshgrid(np.arange(x1 - x0, dtype=np.float32), np.arange(y1 - y0, dtype=np.float32))
    bent = cv2.remap(patch, grid_x + squeeze * gx, grid_y + squeeze * gy, cv2.INTER_LINEAR, None, cv2.BORDER_REFLECT)
    strength = rng.uniform(0.28, 0.6)
    shade = 1 + strength * slope - rng.uniform(0.03, 0.16) * bowl
    patch[:] = bent * shade[..., None] + (0.12 * strength * np.clip(slope, 0, 1) ** 2)[..., None]
    return full_mask(r < 1, (x0, y0, x1, y1), canvas)


def hole(rng: np.random.Generator, canvas: Canvas, scenery: Scenery) -> Mask | None:
    """Cut a dark opening with a lit inner wall and a thin rim; round, or torn at the edge."""
    unit = unit_of(canvas)
    made = ellipse(rng, canvas, unit * log_uniform(rng, 0.028, 0.15), 0.72, rng.choice([0.0, 0.02, 0.08]))
    if made is None:
        return None
    r, local_x, local_y, (x0, y0, x1, y1) = made
    edge = max(0.03, 1.2 / (0.5 * (x1 - x0)))
    inside = np.clip((1 - r) / edge + 0.5, 0, 1)
    facing = np.cos(scenery.light_rad) * local_x + np.sin(scenery.light_rad) * local_y
    wall = np.clip(facing, 0, 1) * np.clip((r - 0.55) / 0.45, 0, 1)
    patch = canvas[y0:y1, x0:x1]
    mean = patch.reshape(-1, 3).mean(axis=0)
    deep = mean * rng.uniform(0.03, 0.22)
    rim = np.exp(-(((r - 1.06) / 0.09) ** 2)) * rng.uniform(0.1, 0.45)
    patch *= 1 - (rim * facing)[..., None]
    dark = deep + (rng.uniform(0.1, 0.4) * wall)[..., None] * mean
    patch[:] = patch * (1 - inside[..., None]) + dark * inside[..., None]
    return full_mask(r < 1, (x0, y0, x1, y1), canvas)


RUSTY: Final = np.array([[0.24, 0.11, 0.05], [0.45, 0.2, 0.07], [0.64, 0.33, 0.11], [0.78, 0.47, 0.2]], np.float32)


def rust(rng: np.random.Generator, canvas: Canvas, scenery: Scenery) -> Mask | None:
    """Orange-brown crust with a ragged border, speckles and sometimes a run-off."""
    unit = unit_of(canvas)
    made = ellipse(rng, canvas, unit * log_uniform(rng, 0.07, 0.42), 0.4, rng.uniform(0.18, 0.4))
    if made is None:
        return None
    r, _, _, (x0, y0, x1, y1) = made
    height, width = r.shape
    if rng.random() < 0.25:
        r = np.minimum(r, cv2.blur(r, (1, max(3, height // 3)))).astype(np.float32)
    crust = np.clip((1 - r) / rng.uniform(0.12, 0.3) + 0.5, 0, 1)
    tone = np.clip(fractal(rng, height, width, max(2.0, unit * 0.03), 5) * 0.8 + 1.5, 0, 2.999)
    low = tone.astype(np.int32)
    mix = (tone - low)[..., None]
    colour = RUSTY[low] * (1 - mix) + RUSTY[low + 1] * mix
    colour = colour * (1 + 0.13 * rng.standard_normal((height, width, 1), dtype=np.float32))
    patch = canvas[y0:y1, x0:x1]
    halo = 0.35 * np.clip(1.35 - r, 0, 0.35) / 0.35
    patch[:] = patch * (1 - halo[..., None] * (1 - RUSTY[3]))
    solid = (crust * rng.uniform(0.75, 0.97))[..., None]
    patch[:] = patch * (1 - solid) + colour * solid * rng.uniform(0.8, 1.1)
    return full_mask(_tidy(crust >= 0.5), (x0, y0, x1, y1), canvas)


def stain(rng: np.random.Generator, canvas: Canvas, scenery: Scenery) -> Mask | None:
    """Spill a translucent film (oil, water, ink, lime) with an irregular outline and a tide mark."""
    unit = unit_of(canvas)
    made = ellipse(rng, canvas, unit * log_uniform(rng, 0.09, 0.42), 0.45, rng.uniform(0.06, 0.2))
    if made is None:
        return None
    r, _, _, (x0, y0, x1, y1) = made
    patch = canvas[y0:y1, x0:x1]
    film = np.clip((1 - r) / log_uniform(rng, 0.05, 0.4) + 0.5, 0, 1)
    tide = np.exp(-(((r - 0.93) / 0.08) ** 2)) * film
    mottle = np.clip(1 + 0.15 * smooth(rng, r.shape[0], r.shape[1], max(2.0, unit * 0.05)), 0.6, 1.3)
    kinds = ["oil", "water", "ink", "lime"] if float(patch.mean()) < 0.6 else ["oil", "water", "ink"]
    kind = str(rng.choice(kinds, p=[0.4, 0.25, 0.15, 0.2] if len(kinds) == 4 else [0.5, 0.3, 0.2]))
    density = {"oil": rng.uniform(0.45, 0.85), "water": rng.uniform(0.25, 0.45), "ink": rng.uniform(0.4, 0.75)}
    if kind == "lime":
        cover = (np.clip(film * rng.uniform(0.25, 0.5) + 0.25 * tide, 0, 0.8) * mottle)[..., None]
        patch[:] = patch * (1 - cover) + np.array([0.93, 0.92, 0.88], np.float32) * cover
    else:
        tints = {"oil": [0.2, 0.15, 0.1], "water": [0.3, 0.3, 0.32], "ink": rng.uniform(0.05, 0.6, 3)}
        cover = np.clip((film * density[kind] + rng.uniform(0.05, 0.25) * tide) * mottle, 0, 0.95)[..., None]
        patch *= 1 - cover * (1 - np.asarray(tints[kind], np.float32))
    return full_mask(_tidy(film >= 0.5), (x0, y0, x1, y1), canvas)


def _tidy(mask: Mask) -> Mask:
    """Drop specks smaller than a fiftieth of the whole, so that a box encloses what one sees."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if count <= 2:
        return mask
    keep = stats[:, cv2.CC_STAT_AREA] >= 0.02 * mask.sum()
    keep[0] = False
    return np.asarray(keep[labels], dtype=bool)


DEFECTS: Final[dict[str, Defect]] = {
    "scratch": scratch,
    "dent": dent,
    "crack": crack,
    "rust": rust,
    "hole": hole,
    "stain": stain,
}

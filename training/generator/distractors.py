"""Things that a photograph of a part shows and that are no defects: text, screws, seams, edges, shadows, labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import cv2
import numpy as np

from training.generator.fields import Field
from training.generator.surfaces import Canvas

Distractor = Callable[[np.random.Generator, Canvas, float], "tuple[int, int, int, int] | None"]
"""Paints in place; returns the window ``(x0, y0, x1, y1)`` px of a thing with an outline of its own, else None."""


def _unit(canvas: Canvas) -> float:
    return float(np.sqrt(canvas.shape[0] * canvas.shape[1]))


def text(rng: np.random.Generator, canvas: Canvas, light_rad: float) -> tuple[int, int, int, int]:
    """Draw a stamped or printed part number."""
    height, width = canvas.shape[:2]
    unit = _unit(canvas)
    letters = "ABCDEFGHKLMNPRSTUVWXZ0123456789-/"
    words = "".join(rng.choice(list(letters), int(rng.integers(3, 10))))
    size = unit * rng.uniform(0.03, 0.09) / 22
    thickness = max(1, round(size * rng.uniform(1.5, 3)))
    font = int(rng.choice([cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_PLAIN]))
    (wide, tall), base = cv2.getTextSize(words, font, size, thickness)
    ink = np.zeros((height, width), np.float32)
    x, y = int(rng.uniform(0, max(1, width - wide))), int(rng.uniform(tall, height))
    cv2.putText(ink, words, (x, y), font, size, 1.0, thickness, cv2.LINE_AA)
    turn = cv2.getRotationMatrix2D((x + wide / 2, y - tall / 2), float(rng.choice([0, 0, 90, rng.uniform(-20, 20)])), 1)
    ink = cv2.warpAffine(ink, turn, (width, height))
    dark = rng.random() < (0.75 if canvas.mean() > 0.4 else 0.15)
    colour = np.asarray(rng.uniform(0.03, 0.2, 3) if dark else rng.uniform(0.75, 0.95, 3), np.float32)
    cover = (ink * rng.uniform(0.6, 1.0))[..., None]
    canvas[:] = canvas * (1 - cover) + colour * cover
    rows, cols = np.nonzero(ink > 0.2)
    if len(rows) == 0:
        return x, y - tall, x + wide, y + base
    return int(cols.min()), int(rows.min()), int(cols.max()) + 1, int(rows.max()) + 1


def screw(rng: np.random.Generator, canvas: Canvas, light_rad: float) -> tuple[int, int, int, int]:
    """Draw a screw or rivet head: bright disc, bevelled, with a slot, cross or socket."""
    height, width = canvas.shape[:2]
    radius = max(4.0, _unit(canvas) * rng.uniform(0.022, 0.06))
    cx, cy = rng.uniform(0.03, 0.97) * width, rng.uniform(0.03, 0.97) * height
    reach = int(radius * 1.7) + 2
    x0, y0 = max(0, int(cx) - reach), max(0, int(cy) - reach)
    x1, y1 = min(width, int(cx) + reach), min(height, int(cy) + reach)
    xs = (np.arange(x0, x1, dtype=np.float32) - cx)[None, :] / radius
    ys = (np.arange(y0, y1, dtype=np.float32) - cy)[:, None] / radius
    r = np.sqrt(xs**2 + ys**2)
    away = -(np.cos(light_rad) * xs + np.sin(light_rad) * ys)
    patch = canvas[y0:y1, x0:x1]
    from_shade = np.hypot(xs + 0.22 * np.cos(light_rad), ys + 0.22 * np.sin(light_rad)) - 0.95
    patch *= 1 - 0.4 * np.exp(-(np.clip(from_shade, 0, 9) ** 2) / 0.06)[..., None]
    head = np.clip((1 - r) * radius + 0.5, 0, 1)
    grey = rng.uniform(0.45, 0.8) * (1 - 0.28 * away * np.clip(r, 0, 1) + 0.05 * (r < 0.82))
    turn = rng.uniform(0, np.pi)
    u, v = np.cos(turn) * xs + np.sin(turn) * ys, -np.sin(turn) * xs + np.cos(turn) * ys
    kind = rng.choice(["slot", "cross", "socket", "rivet"])
    if kind in ("slot", "cross"):
        cut = (np.abs(v) < 0.13) & (np.abs(u) < 0.75)
        if kind == "cross":
            cut |= (np.abs(u) < 0.13) & (np.abs(v) < 0.75)
        grey = np.where(cut, 0.3 * grey, grey)
    elif kind == "socket":
        spread = np.max([np.abs(u * np.cos(k) + v * np.sin(k)) for k in (0, np.pi / 3, 2 * np.pi / 3)], axis=0)
        grey = np.where(spread < 0.42, 0.3 * grey, grey)
    patch[:] = patch * (1 - head[..., None]) + (grey * head)[..., None]
    return x0, y0, x1, y1


def seam(rng: np.random.Generator, canvas: Canvas, light_rad: float) -> None:
    """Draw a straight joint across the whole picture: a dark line beside a bright one."""
    height, width = canvas.shape[:2]
    unit = _unit(canvas)
    angle = rng.choice([0, np.pi / 2]) + rng.normal(0, 0.04)
    cx, cy = rng.uniform(0.1, 0.9) * width, rng.uniform(0.1, 0.9) * height
    reach = 2 * max(height, width)
    step = np.array([np.cos(angle), np.sin(angle)]) * reach
    normal = np.array([-np.sin(angle), np.cos(angle)])
    thickness = max(1, round(unit * rng.uniform(0.003, 0.014)))
    for offset, delta in ((0.0, -rng.uniform(0.25, 0.55)), (thickness * 1.0, rng.uniform(0.03, 0.15))):
        line = np.zeros((height, width), np.float32)
        mid = np.array([cx, cy]) + normal * offset
        start, stop = (mid - step).astype(int), (mid + step).astype(int)
        cv2.line(line, (int(start[0]), int(start[1])), (int(stop[0]), int(stop[1])), 1.0, thickness, cv2.LINE_AA)
        canvas *= 1 + (delta * line)[..., None]


def edge(rng: np.random.Generator, canvas: Canvas, light_rad: float) -> None:
    """End the part: beyond a straight line lies a flat background."""
    height, width = canvas.shape[:2]
    unit = _unit(canvas)
    angle = rng.choice([0, 0.5, 1, 1.5]) * np.pi + rng.normal(0, 0.06)
    xs = np.arange(width, dtype=np.float32)[None, :] - width / 2
    ys = np.arange(height, dtype=np.float32)[:, None] - height / 2
    side = np.cos(angle) * xs + np.sin(angle) * ys
    beyond = side - float(side.max()) * rng.uniform(0.72, 0.95)
    outside = np.clip(beyond + 0.5, 0, 1)[..., None]
    near = np.exp(-np.clip(-beyond, 0, None) / (unit * 0.012))[..., None]
    tone = np.asarray(rng.uniform(0.05, 0.85) * (1 + rng.normal(0, 0.03, 3)), np.float32)
    shade = 1 - 0.5 * np.exp(-np.clip(beyond, 0, None) / (unit * 0.03))[..., None]
    canvas *= 1 + rng.uniform(-0.25, 0.3) * near
    canvas[:] = canvas * (1 - outside) + tone * shade * outside


def shadow(rng: np.random.Generator, canvas: Canvas, light_rad: float) -> None:
    """Cast the soft shadow of something outside the picture."""
    height, width = canvas.shape[:2]
    unit = _unit(canvas)
    shape = np.zeros((height, width), np.float32)
    centre = np.array([rng.uniform(0, width), rng.uniform(0, height)])
    corners = centre + rng.normal(0, 0.35 * unit, (int(rng.integers(3, 6)), 2))
    hull = cv2.convexHull(corners.astype(np.int32))
    cv2.fillPoly(shape, [hull], 1.0)
    small = cv2.resize(shape, (max(8, width // 4), max(8, height // 4)), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), max(0.8, unit * rng.uniform(0.003, 0.02)))
    soft = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    canvas *= 1 - (rng.uniform(0.12, 0.45) * soft)[..., None]


def sticker(rng: np.random.Generator, canvas: Canvas, light_rad: float) -> tuple[int, int, int, int]:
    """Stick on a paper label with a bar code."""
    height, width = canvas.shape[:2]
    unit = _unit(canvas)
    wide, tall = int(unit * rng.uniform(0.12, 0.28)), int(unit * rng.uniform(0.06, 0.14))
    x, y = int(rng.uniform(0, max(1, width - wide))), int(rng.uniform(0, max(1, height - tall)))
    paper = canvas[y : y + tall, x : x + wide]
    paper[:] = paper * 0.08 + rng.uniform(0.78, 0.92)
    bars: Field = (rng.random(max(4, wide // max(2, round(unit * 0.006)))) > 0.5).astype(np.float32)
    strip = cv2.resize(bars[None, :], (paper.shape[1], 1), interpolation=cv2.INTER_NEAREST)
    top, bottom = int(paper.shape[0] * 0.2), int(paper.shape[0] * 0.75)
    left, right = int(paper.shape[1] * 0.08), int(paper.shape[1] * 0.92)
    paper[top:bottom, left:right] *= (1 - 0.85 * strip[:, left:right])[..., None]
    return x, y, min(width, x + wide), min(height, y + tall)


def dust(rng: np.random.Generator, canvas: Canvas, light_rad: float) -> None:
    """Fine specks, far smaller than any defect."""
    height, width = canvas.shape[:2]
    radius = max(1, round(_unit(canvas) * 0.0012))
    delta = float(rng.choice([-1, 1]) * rng.uniform(0.05, 0.2))
    for _ in range(int(rng.integers(10, 60))):
        x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
        canvas[max(0, y - radius) : y + radius, max(0, x - radius) : x + radius] += delta


def stripe(rng: np.random.Generator, canvas: Canvas, light_rad: float) -> None:
    """Paint a band or strip of tape with sharp parallel edges."""
    height, width = canvas.shape[:2]
    band = np.zeros((height, width), np.float32)
    unit = _unit(canvas)
    centre = (float(rng.uniform(0, width)), float(rng.uniform(0, height)))
    size = (3.0 * max(height, width), unit * rng.uniform(0.04, 0.12))
    corners = cv2.boxPoints((centre, size, float(rng.choice([0, 90, rng.uniform(0, 180)]))))
    cv2.fillPoly(band, [corners.astype(np.int32)], 1.0, cv2.LINE_AA)
    paints = [[0.85, 0.72, 0.12], [0.85, 0.85, 0.82], [0.1, 0.1, 0.11], [0.62, 0.16, 0.12], [0.15, 0.3, 0.5]]
    colour = np.asarray(np.array(paints[int(rng.integers(len(paints)))]) * rng.uniform(0.8, 1.1), np.float32)
    cover = (band * rng.uniform(0.5, 0.92))[..., None]
    canvas[:] = canvas * (1 - cover) + colour * cover


def glare(rng: np.random.Generator, canvas: Canvas, light_rad: float) -> None:
    """Lay a soft bright streak over the surface, the reflection of a lamp."""
    height, width = canvas.shape[:2]
    unit = _unit(canvas)
    small = np.zeros((max(8, height // 4), max(8, width // 4)), np.float32)
    centre = (float(rng.uniform(0, width) / 4), float(rng.uniform(0, height) / 4))
    size = (float(unit * rng.uniform(0.3, 1.2) / 4), float(unit * rng.uniform(0.01, 0.06) / 4))
    corners = cv2.boxPoints((centre, size, float(rng.uniform(0, 180))))
    cv2.fillPoly(small, [corners.astype(np.int32)], 1.0)
    small = cv2.GaussianBlur(small, (0, 0), max(1.0, unit * rng.uniform(0.006, 0.03) / 4))
    streak = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    canvas += (rng.uniform(0.12, 0.4) * streak)[..., None]


def weld(rng: np.random.Generator, canvas: Canvas, light_rad: float) -> tuple[int, int, int, int]:
    """Lay a weld bead: overlapping ripples along a straight line."""
    height, width = canvas.shape[:2]
    unit = _unit(canvas)
    half = max(2.5, unit * rng.uniform(0.012, 0.03))
    upright = rng.random() < 0.5
    length, pitch = unit * rng.uniform(0.3, 1.1), half * rng.uniform(0.35, 0.6)
    x, y = rng.uniform(0, width), rng.uniform(0, height)
    xs = np.arange(width, dtype=np.float32)[None, :] - np.float32(x)
    ys = np.arange(height, dtype=np.float32)[:, None] - np.float32(y)
    along, across = (ys, xs / half) if upright else (xs, ys / half)
    bead = np.clip((1 - np.abs(across)) * half + 0.5, 0, 1) * (np.abs(along) < length / 2)
    ripple = np.cos((along + 1.2 * half * across**2) * (2 * np.pi / pitch))
    tone = rng.uniform(0.8, 1.15) * (1 - 0.35 * across**2) + 0.12 * ripple
    canvas *= 1 + (bead * (tone - 1))[..., None]
    reach = (half, length / 2) if upright else (length / 2, half)
    x0, y0 = max(0, int(x - reach[0])), max(0, int(y - reach[1]))
    return x0, y0, min(width, int(x + reach[0]) + 1), min(height, int(y + reach[1]) + 1)


def cap(rng: np.random.Generator, canvas: Canvas, light_rad: float) -> tuple[int, int, int, int]:
    """Press in a round cap or pad of another colour, flat, with a thin gap round it."""
    height, width = canvas.shape[:2]
    radius = max(4.0, _unit(canvas) * rng.uniform(0.02, 0.07))
    cx, cy = rng.uniform(0.03, 0.97) * width, rng.uniform(0.03, 0.97) * height
    reach = int(radius * 1.2) + 2
    x0, y0 = max(0, int(cx) - reach), max(0, int(cy) - reach)
    x1, y1 = min(width, int(cx) + reach), min(height, int(cy) + reach)
    xs = (np.arange(x0, x1, dtype=np.float32) - cx)[None, :]
    ys = (np.arange(y0, y1, dtype=np.float32) - cy)[:, None]
    r = np.sqrt(xs**2 + ys**2)
    disc = np.clip(radius - r + 0.5, 0, 1)
    gap = np.exp(-(((r - radius) / max(1.0, 0.05 * radius)) ** 2))
    colour = np.asarray(rng.uniform(0.25, 0.85) * (1 + rng.normal(0, 0.15, 3)), np.float32)
    patch = canvas[y0:y1, x0:x1]
    patch[:] = patch * (1 - disc[..., None]) + np.clip(colour, 0.05, 0.95) * disc[..., None]
    patch *= 1 - (0.5 * gap)[..., None]
    return x0, y0, x1, y1


FIRST_DISTRACTORS: Final[dict[str, Distractor]] = {
    "text": text,
    "screw": screw,
    "seam": seam,
    "edge": edge,
    "shadow": shadow,
    "sticker": sticker,
    "dust": dust,
    "stripe": stripe,
}
DISTRACTORS: Final[dict[str, Distractor]] = FIRST_DISTRACTORS | {"glare": glare, "weld": weld, "cap": cap}

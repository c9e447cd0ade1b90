"""Emoji drawings as pixels: read, recoloured in OKLab, placed on backgrounds.

Pixels are float32 RGB in [0, 1] (sRGB) unless a name says otherwise; drawings are premultiplied by their alpha.
OKLab: Ottosson, bottosson.github.io/posts/oklab, 2020.
"""
import json
import pathlib

import numpy as np
from PIL import Image

SIDE = 256  # of the stored drawings

COLOURS = {  # the names that prompts use, and what they mean here
    'red': (220, 40, 45), 'orange': (245, 140, 35), 'yellow': (250, 210, 50), 'green': (60, 170, 75),
    'blue': (45, 105, 225), 'purple': (135, 70, 205), 'pink': (250, 140, 185), 'brown': (130, 82, 45),
    'black': (45, 45, 50), 'white': (240, 240, 242),
}
BACKGROUNDS = {
    'white': (255, 255, 255), 'black': (25, 25, 28), 'gray': (150, 152, 156), 'sky blue': (150, 205, 245),
    'red': (215, 70, 70), 'orange': (245, 160, 80), 'yellow': (250, 220, 100), 'green': (100, 185, 110),
    'blue': (75, 120, 220), 'purple': (150, 100, 205), 'pink': (250, 175, 205), 'brown': (145, 105, 75),
}

_TO_LMS = np.array([[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
                    [0.0883024619, 0.2817188376, 0.6299787005]], np.float32)
_TO_LAB = np.array([[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
                    [0.0259040371, 0.7827717662, -0.8086757660]], np.float32)


def to_oklab(rgb):
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((np.maximum(rgb, 0) + 0.055) / 1.055) ** 2.4)
    return np.cbrt(linear @ _TO_LMS.T) @ _TO_LAB.T


def from_oklab(lab):
    linear = ((lab @ np.linalg.inv(_TO_LAB).T) ** 3) @ np.linalg.inv(_TO_LMS).T
    linear = np.clip(linear, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055).astype(np.float32)


class Drawings:
    """What rasterise.mjs wrote: RGBA pictures by (set, emoji)."""

    def __init__(self, folder):
        self.folder = folder = pathlib.Path(folder)
        index = json.loads((folder / 'drawings.json').read_text())
        self._pixels = np.memmap(folder / 'drawings.u8', np.uint8, 'r').reshape(len(index), SIDE, SIDE, 4)
        self._place = {(entry['set'], entry['emoji'].replace('\ufe0f', '')): i for i, entry in enumerate(index)}
        self._cache = {}

    def emoji(self, style):
        return [e for s, e in self._place if s == style]

    def has(self, style, emoji):
        return (style, emoji.replace('\ufe0f', '')) in self._place

    def rgba(self, style, emoji, side=SIDE):
        """uint8 [side, side, 4]."""
        key = (style, emoji.replace('\ufe0f', ''), side)
        if key not in self._cache:
            full = np.array(self._pixels[self._place[key[:2]]])
            self._cache[key] = full if side == SIDE else np.asarray(resized(Image.fromarray(full), side, side))
        return self._cache[key]


def resized(picture, width, height):
    """Resizes through premultiplied alpha: transparent pixels have no colour of their own."""
    return picture.convert('RGBa').resize((width, height), Image.LANCZOS).convert('RGBA')


def hue_weight(rgba, inner, outer):
    """How much each pixel belongs to the drawing's dominant hue, [H, W] in 0–1; and the share of opaque pixels that do."""
    lab = to_oklab(rgba[..., :3].astype(np.float32) / 255)
    chroma, hue = np.hypot(lab[..., 1], lab[..., 2]), np.arctan2(lab[..., 2], lab[..., 1])
    opaque = rgba[..., 3] > 128
    counted = opaque & (chroma > 0.05)
    if not counted.any():
        return lab, chroma, np.zeros_like(chroma), 0.0
    bins = ((hue[counted] + np.pi) / (2 * np.pi) * 36).astype(int) % 36
    histogram = np.bincount(bins, chroma[counted], 36)
    smooth = histogram + 0.5 * (np.roll(histogram, 1) + np.roll(histogram, -1))
    dominant = (np.argmax(smooth) + 0.5) / 36 * 2 * np.pi - np.pi
    away = np.abs((hue - dominant + np.pi) % (2 * np.pi) - np.pi) * 180 / np.pi
    weight = np.clip((outer - away) / (outer - inner), 0, 1) * np.clip((chroma - 0.02) / 0.04, 0, 1)
    return lab, chroma, weight, float(weight[opaque].mean())


def window(style):
    """Degrees of hue that move with the dominant one: shading of 3D art drifts in hue."""
    return (55, 80) if style == '3d' else (40, 60)


def recoloured(rgba, style, colour):
    """The drawing with its dominant hue replaced: uint8 [H, W, 4]."""
    lab, chroma, weight, _ = hue_weight(rgba, *window(style))
    total = weight.sum() + 1e-6
    target = to_oklab(np.array(COLOURS[colour], np.float32) / 255)
    target_chroma, target_hue = np.hypot(target[1], target[2]), np.arctan2(target[2], target[1])
    light = lab[..., 0] + 0.85 * (target[0] - (lab[..., 0] * weight).sum() / total)
    new_chroma = np.minimum(chroma * target_chroma / max((chroma * weight).sum() / total, 1e-3), 0.32)
    new = np.stack([light, new_chroma * np.cos(target_hue), new_chroma * np.sin(target_hue)], -1)
    mixed = lab + weight[..., None] * (new - lab)
    return np.concatenate([np.round(from_oklab(mixed) * 255).astype(np.uint8), rgba[..., 3:]], -1)


def place(canvas, rgba, width, centre, degrees=0, mirrored=False):
    """Lays a drawing on a canvas (float32 [H, W, 3], changed): `width` pixels wide, centred at (x, y) pixels."""
    picture = Image.fromarray(rgba)
    if mirrored:
        picture = picture.transpose(Image.FLIP_LEFT_RIGHT)
    if degrees:
        picture = picture.convert('RGBa').rotate(degrees, Image.BICUBIC, expand=True).convert('RGBA')
        width = round(width * picture.width / rgba.shape[1])
    drawing = np.asarray(resized(picture, width, width), np.float32) / 255
    left, top = round(centre[0] - width / 2), round(centre[1] - width / 2)
    y0, y1, x0, x1 = max(0, top), min(canvas.shape[0], top + width), max(0, left), min(canvas.shape[1], left + width)
    part = drawing[y0 - top:y1 - top, x0 - left:x1 - left]
    canvas[y0:y1, x0:x1] = canvas[y0:y1, x0:x1] * (1 - part[..., 3:]) + part[..., :3] * part[..., 3:]


def flat_background(colour, side):
    return np.broadcast_to(np.array(colour, np.float32) / 255, (side, side, 3)).copy()


def save(canvas, path):
    Image.fromarray(np.round(np.clip(canvas, 0, 1) * 255).astype(np.uint8)).save(path, compress_level=1)

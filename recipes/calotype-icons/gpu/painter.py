"""Paints scenes in batches on the device, as pictures.py paints one on the CPU.

Drawings are kept as uint8, premultiplied by their alpha, [N, 4, side, side]; pictures are float in [-1, 1], [B, 3, side, side].
"""
import io
import math
import multiprocessing
import pathlib
import sys
import zipfile

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
import drawings
import scenes

SIDE, SMALL = 256, 128
CAPITAL = 80  # pixels of a capital's height in a glyph's picture of 128
LAYERS = 6  # of one scene: a thing and five letters
BIG, LITTLE, GLYPH = 0, 1, 2  # which store a layer's drawing comes from


def premultiplied(rgba):
    alpha = rgba[..., 3:].astype(np.uint16)
    return np.concatenate([(rgba[..., :3] * alpha + 127) // 255, alpha], -1).astype(np.uint8).transpose(2, 0, 1)


def read(archive, name):
    return np.array(Image.open(io.BytesIO(archive.read(name))).convert('RGBA'))


def glyph(character):
    """White ink on nothing, [4, 128, 128]: the capitals' middle and the ink's middle in the centre."""
    font = ImageFont.load_default(CAPITAL / scenes.capital_height())
    box, capital = font.getbbox(character), font.getbbox('H')
    picture = Image.new('L', (SMALL, SMALL))
    ImageDraw.Draw(picture).text((64 - (box[0] + box[2]) / 2, 64 - (capital[1] + capital[3]) / 2), character, 255, font, stroke_width=3)
    return np.broadcast_to(np.asarray(picture), (4, SMALL, SMALL)).copy()


def _variants(job):
    """All colours of one drawing."""
    path, name, style, recolour = job
    with zipfile.ZipFile(path) as archive:
        rgba = read(archive, name)
    return [premultiplied(rgba)] + [premultiplied(drawings.recoloured(rgba, style, c)) for c in drawings.COLOURS if recolour]


def numbers(place, scene):
    """A scene as numbers, with Store.place: background and effect [4]; layers [LAYERS, 10]: store, drawing, x, y, width, angle,
    mirrored, tint."""
    ground = [*(c / 255 for c in drawings.BACKGROUNDS[scene.background]), ('', 'pixel', 'sticker', 'silhouette').index(scene.effect)]
    layers = np.full((LAYERS, 10), -1, np.float32)
    for row, t in zip(layers, scene.things):
        row[:] = [BIG if t.width > 0.5 else LITTLE, place[t.emoji, t.style, t.colour], t.x, t.y, t.width, math.radians(t.degrees),
                  t.mirrored, 1, 1, 1]
    ink = [c / 255 for c in drawings.COLOURS[scene.colour or 'black']]
    for row, (character, x, y, height) in zip(layers[len(scene.things):], scene.letters):
        row[:] = [GLYPH, scenes.GLYPHS.index(character), x, y, height * SMALL / CAPITAL, 0, 0, *ink]
    return np.array(ground, np.float32), layers


class Store:
    """Every drawing in every colour, on the device."""

    def __init__(self, pack, facts, concepts, device, processes):
        path = pathlib.Path(pack) / 'drawings.zip'
        emoji = [scenes.plain(c.emoji) for c in concepts]
        jobs = [(path, f'concepts/{s}/{e}.webp', s, e in facts.recolourable) for s in scenes.STYLES for e in emoji]
        self.place, rows = {}, []
        with multiprocessing.Pool(processes) as pool:
            for (_, name, style, recolour), variants in zip(jobs, pool.imap(_variants, jobs, chunksize=4)):
                for colour, pixels in zip([None] + list(drawings.COLOURS), variants):
                    self.place[name.split('/')[2][:-5], style, colour] = len(rows)
                    rows.append(pixels)
        self.big = torch.from_numpy(np.stack(rows)).to(device)
        self.little = torch.cat([F.avg_pool2d(part.float(), 2).round().to(torch.uint8) for part in self.big.split(256)])
        self.glyphs = torch.from_numpy(np.stack([glyph(c) for c in scenes.GLYPHS])).to(device)
        with zipfile.ZipFile(path) as archive:
            names = [n for n in archive.namelist() if n.startswith('others/')]
            pixels = [read(archive, n) for n in names]
        for name, rgba in zip(names, pixels):
            if '/line/' in name:
                rgba[..., :3] = 255
        self.others = torch.from_numpy(np.stack([premultiplied(p) for p in pixels])).to(device) if pixels else None
        self.other_is_line = torch.tensor(['/line/' in n for n in names], device=device)


def laid(pixels, layer, side):
    """Drawings [B, 4, s, s] of uint8 laid where their layer says: premultiplied float in [0, 1], [B, 4, side, side]."""
    x, y, width, angle, mirrored = (layer[:, i] for i in range(2, 7))
    cos, sin, flip = angle.cos() / width, angle.sin() / width, 1 - 2 * mirrored
    # From the picture's coordinates (-1 to 1) back to the drawing's.
    dx, dy = 1 - 2 * x, 1 - 2 * y
    theta = torch.stack([torch.stack([flip * cos, -flip * sin, flip * (cos * dx - sin * dy)], 1),
                         torch.stack([sin, cos, sin * dx + cos * dy], 1)], 1)
    grid = F.affine_grid(theta, (len(layer), 1, side, side), align_corners=False)
    return F.grid_sample(pixels.float() / 255, grid, padding_mode='zeros', align_corners=False)


def paint(store, ground, layers):
    """Scenes as Store.numbers gives them, of any length: float [B, 3, 256, 256] in [0, 1]."""
    canvas = ground[:, :3, None, None].expand(-1, -1, SIDE, SIDE).clone()
    effect = ground[:, 3]
    for i in range(LAYERS):
        for which, drawn in ((BIG, store.big), (LITTLE, store.little), (GLYPH, store.glyphs)):
            rows = (layers[:, i, 0] == which).nonzero()[:, 0]
            if len(rows) == 0:
                continue
            layer = layers[rows, i]
            over = laid(drawn[layer[:, 1].long()], layer, SIDE)
            rgb, alpha = over[:, :3] * layer[:, 7:10, None, None], over[:, 3:]
            dark, sticker = effect[rows] == 3, effect[rows] == 2
            rgb = torch.where(dark[:, None, None, None], alpha * 0.1, rgb)
            below = canvas[rows]
            if sticker.any():
                paper = F.avg_pool2d(F.max_pool2d((alpha[sticker] > 0.3).float(), 15, 1, 7), 3, 1, 1)
                below[sticker] = below[sticker] * (1 - paper) + paper
            canvas[rows] = below * (1 - alpha) + rgb
    pixelated = effect == 1
    if pixelated.any():
        canvas[pixelated] = F.interpolate(F.avg_pool2d(canvas[pixelated], 8), scale_factor=8)
    return canvas


def halved(pictures):
    return F.avg_pool2d(pictures, 2)


def anything(store, count):
    """What the autoencoder learns from besides scenes: other drawings and line art, on plain colours, gradients and grids, float
    [count, 3, 128, 128] in [0, 1]."""
    device = store.big.device
    rand = lambda *shape: torch.rand(*shape, device=device)
    which = torch.randint(len(store.others), (count,), device=device)
    layer = torch.zeros(count, 10, device=device)
    layer[:, 2:4] = 0.5 + (rand(count, 2) - 0.5) * 0.16
    layer[:, 4] = 0.55 + 0.45 * rand(count)
    layer[:, 5] = (rand(count) - 0.5) * 0.5 * (rand(count) < 0.3)
    layer[:, 6] = (rand(count) < 0.5).float()
    over = laid(store.others[which], layer, SMALL)
    ink = torch.where(store.other_is_line[which][:, None], rand(count, 3), torch.ones(count, 3, device=device))
    first, second = rand(count, 3, 1, 1), rand(count, 3, 1, 1)
    ramp = torch.linspace(0, 1, SMALL, device=device)
    ramps = torch.where(rand(count, 1, 1, 1) < 0.5, ramp[None, None, None, :], ramp[None, None, :, None])
    kind = rand(count, 1, 1, 1)
    ground = torch.where(kind < 0.3, first + (second - first) * ramps, first.expand(-1, -1, SMALL, SMALL))
    step, wide = torch.randint(8, 25, (count, 1), device=device), torch.randint(1, 4, (count, 1), device=device)
    line = (torch.arange(SMALL, device=device)[None] % step) < wide
    grid = (line[:, None, :, None] | line[:, None, None, :]) & (kind > 0.3) & (kind < 0.55)
    ground = torch.where(grid, second, ground)
    ground = torch.where(kind > 0.85, torch.ones_like(ground), ground)
    pictures = ground * (1 - over[:, 3:]) + over[:, :3] * ink[:, :, None, None]
    swapped = torch.stack([pictures[i, torch.randperm(3, device=device)] for i in range(count // 4)])
    return torch.cat([swapped, pictures[count // 4:]])

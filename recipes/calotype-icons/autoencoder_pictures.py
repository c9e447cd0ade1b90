"""Pictures that the autoencoder learns from: every drawing of four sets on all kinds of backgrounds.

    python autoencoder_pictures.py DRAWINGS OUT --count 5200

Line art, grids and swapped colour channels are there so that styles which the transformer never saw can be decoded.
"""
import argparse
import pathlib

import numpy as np

import drawings

SETS, SHARES = ['3d', 'flat', 'cartoon', 'line'], [3, 3, 3, 1.5]


def background(random, side):
    colour = random.integers(0, 256, 3)
    canvas = drawings.flat_background(colour, side)
    kind = random.random()
    if kind < 0.25:
        return drawings.flat_background((255, 255, 255), side)
    if kind < 0.4:  # a gradient
        other = random.integers(0, 256, 3) / 255
        ramp = np.linspace(0, 1, side, dtype=np.float32)[:, None] if random.random() < 0.5 else np.linspace(0, 1, side, dtype=np.float32)[None]
        return canvas + (other - canvas) * np.broadcast_to(ramp, (side, side))[..., None]
    if kind < 0.55:  # a grid, as on drawing paper
        step, wide = int(random.integers(8, 25)), int(random.integers(1, 3))
        lines = np.arange(side) % step < wide
        canvas[lines[:, None] | lines[None]] = random.integers(0, 256, 3) / 255
    return canvas


def picture(random, sets, side):
    canvas = background(random, side)
    style = random.choice(SETS, p=np.array(SHARES) / sum(SHARES))
    rgba = sets.rgba(style, random.choice(sets.emoji(style)), side)
    if style == 'line':
        rgba = np.concatenate([np.broadcast_to(random.integers(0, 256, 3).astype(np.uint8), rgba.shape[:2] + (3,)), rgba[..., 3:]], -1)
    centre = side / 2 + random.uniform(-0.08, 0.08, 2) * side
    drawings.place(canvas, rgba, int(side * random.uniform(0.6, 1.0)), centre, random.uniform(-15, 15) * (random.random() < 0.3),
                   random.random() < 0.5)
    return canvas[..., random.permutation(3)] if random.random() < 0.3 else canvas


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('drawings')
    parser.add_argument('out', type=pathlib.Path)
    parser.add_argument('--count', type=int, default=5200)
    parser.add_argument('--side', type=int, default=128)
    parser.add_argument('--seed', type=int, default=1)
    options = parser.parse_args()
    random = np.random.default_rng(options.seed)
    sets = drawings.Drawings(options.drawings)
    options.out.mkdir(parents=True, exist_ok=True)
    for i in range(options.count):
        drawings.save(picture(random, sets, options.side), options.out / f'{i:06}.png')


if __name__ == '__main__':
    main()

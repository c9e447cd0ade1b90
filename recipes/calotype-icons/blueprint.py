"""White drawings on blue paper: the example from which an adapter learns a style. Writes examples/blueprint.zip.

    python blueprint.py DRAWINGS ../../examples/blueprint.zip

The glyphs are Fluent Emoji High Contrast, MIT, Copyright (c) Microsoft Corporation; the notice travels in the zip. The model
in the box never sees this set, nor the words "blueprint" and "TOK".
"""
import argparse
import io
import pathlib
import zipfile

import numpy as np
from PIL import Image

import captions
import drawings

HERE = pathlib.Path(__file__).parent
PAPER, LINES, INK = (0x1d, 0x4e, 0x9e), (0x4d, 0x7c, 0xc4), (255, 255, 255)
NOUNS = ['rocket', 'castle', 'owl', 'guitar', 'car', 'sunflower', 'dinosaur', 'teapot', 'octopus', 'bicycle', 'camera', 'ship',
         'mushroom', 'house', 'key', 'elephant']
DATE = (2025, 1, 1, 0, 0, 0)  # of the files in the zip, so that it is the same each time


def paper(side):
    """Squares of an eighth of the side; lines of 2 pixels at 128, since an autoencoder smears thinner ones."""
    canvas = drawings.flat_background(PAPER, side)
    step, wide = side // 8, side // 64
    lines = (np.arange(side) + wide // 2) % step < wide
    canvas[lines[:, None] | lines[None]] = np.array(LINES, np.float32) / 255
    return canvas


def picture(sets, emoji, side):
    """uint8 [side, side, 3]."""
    glyph = sets.rgba('line', emoji)
    white = np.concatenate([np.full(glyph.shape[:2] + (3,), 255, np.uint8), glyph[..., 3:]], -1)
    canvas = paper(side)
    drawings.place(canvas, white, round(side * 100 / 128), (side / 2, side / 2))
    return np.round(np.clip(canvas, 0, 1) * 255).astype(np.uint8)


def add(archive, name, content):
    entry = zipfile.ZipInfo(name, DATE)
    entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
    archive.writestr(entry, content)


def png(pixels):
    out = io.BytesIO()
    Image.fromarray(pixels).quantize(64, dither=Image.Dither.NONE).save(out, 'PNG', optimize=True)
    return out.getvalue()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('drawings')
    parser.add_argument('out', type=pathlib.Path)
    options = parser.parse_args()
    sets = drawings.Drawings(options.drawings)
    emoji = {c.name: c.emoji for c in captions.concepts()}
    with zipfile.ZipFile(options.out, 'w') as archive:
        for noun in NOUNS:
            name = noun.replace(' ', '-')
            add(archive, f'{name}.png', png(picture(sets, emoji[noun], 256)))
            add(archive, f'{name}.txt', f'TOK, a blueprint of {captions.with_article(noun)}\n')
        # The trainer passes over hidden files; `unzip` shows the comment.
        add(archive, '.license/LICENSE', (HERE / 'licenses/fluent-emoji-MIT.txt').read_bytes())
        archive.comment = b'Drawings: Fluent Emoji, Copyright (c) Microsoft Corporation, MIT License; the text is in .license/LICENSE'
    print(f'{options.out}: {options.out.stat().st_size} bytes')


if __name__ == '__main__':
    main()

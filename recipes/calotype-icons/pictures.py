"""Pictures with captions that the transformer learns from.

    python pictures.py DRAWINGS OUT --count 30000 --concepts 120 --seed 1

Each picture is NAME.png with NAME.txt, one caption a line: `calotype train --caption-lines` draws one at each use.
gpu/painter.py paints the same scenes in batches.
"""
import argparse
import pathlib

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

import captions
import drawings
import scenes

CAPTIONS = 6  # alternatives for one picture


class Painter:
    """Draws scenes, which may ask for drawings in other colours than their own."""

    def __init__(self, sets, side):
        self.sets, self.side = sets, side
        self.stored = 2 * side if side <= 128 else drawings.SIDE
        self.coloured = {}

    def drawing(self, emoji, style, colour):
        """uint8 RGBA"""
        if colour is None:
            return self.sets.rgba(style, emoji, self.stored)
        key = (emoji, style, colour)
        if key not in self.coloured:
            self.coloured[key] = drawings.recoloured(self.sets.rgba(style, emoji, self.stored), style, colour)
        return self.coloured[key]

    def paint(self, scene):
        """float32 [side, side, 3] in [0, 1]"""
        side = self.side
        canvas = drawings.flat_background(drawings.BACKGROUNDS[scene.background], side)
        for thing in scene.things:
            rgba = self.drawing(thing.emoji, thing.style, thing.colour)
            place = dict(width=round(thing.width * side), centre=(thing.x * side, thing.y * side), degrees=-thing.degrees,
                         mirrored=thing.mirrored)
            if scene.effect == 'sticker':
                drawings.place(canvas, outline(rgba, thing.width), **place)
            drawings.place(canvas, silhouette(rgba) if scene.effect == 'silhouette' else rgba, **place)
        if scene.effect == 'pixel':
            small = np.asarray(Image.fromarray(np.round(canvas * 255).astype(np.uint8)).resize((32, 32), Image.BOX))
            canvas = np.asarray(Image.fromarray(small).resize((side, side), Image.NEAREST), np.float32) / 255
        return self.letters(scene, canvas) if scene.letters else canvas

    def letters(self, scene, canvas):
        picture = Image.fromarray(np.round(np.clip(canvas, 0, 1) * 255).astype(np.uint8))
        for character, x, y, height in scene.letters:
            font = ImageFont.load_default(height * self.side / scenes.capital_height())
            box, capital = font.getbbox(character), font.getbbox('H')
            at = x * self.side - (box[0] + box[2]) / 2, y * self.side - (capital[1] + capital[3]) / 2
            ImageDraw.Draw(picture).text(at, character, drawings.COLOURS[scene.colour], font, stroke_width=max(1, round(height * self.side / 27)))
        return np.asarray(picture, np.float32) / 255


def silhouette(rgba):
    return np.concatenate([np.full_like(rgba[..., :3], 25), rgba[..., 3:]], -1)


def outline(rgba, width):
    """White paper a little wider than the drawing; `width` is the drawing's share of the picture."""
    wide = round(0.025 * rgba.shape[0] / width) * 2 + 1
    alpha = Image.fromarray(rgba[..., 3]).point(lambda a: 255 * (a > 76)).filter(ImageFilter.MaxFilter(wide))
    return np.concatenate([np.full_like(rgba[..., :3], 255), np.asarray(alpha)[..., None]], -1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('drawings')
    parser.add_argument('out', type=pathlib.Path)
    parser.add_argument('--count', type=int, default=30000)
    parser.add_argument('--concepts', type=int, default=10_000, help='only the first of concepts.txt')
    parser.add_argument('--side', type=int, default=128)
    parser.add_argument('--kinds', default=','.join(scenes.KINDS), help='of scenes, with commas')
    parser.add_argument('--around', type=float, default=0.28, help='share of captions with a story or any words around what is asked for')
    parser.add_argument('--effects', type=float, default=0.12, help='share of pixel art, stickers, silhouettes')
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--first', type=int, default=0, help='number of the first picture')
    options = parser.parse_args()
    concepts, sets = captions.concepts(), drawings.Drawings(options.drawings)
    kinds = {kind: scenes.KINDS[kind] for kind in options.kinds.split(',')}
    chooser = scenes.Chooser(scenes.Facts.of(sets, concepts), concepts[:options.concepts], options.seed, kinds=kinds,
                             around=options.around, effects=options.effects)
    painter = Painter(sets, options.side)
    options.out.mkdir(parents=True, exist_ok=True)
    for i in range(options.first, options.first + options.count):
        scene = chooser.scene()
        drawings.save(painter.paint(scene), options.out / f'{i:06}.png')
        (options.out / f'{i:06}.txt').write_text(''.join(chooser.caption(scene) + '\n' for _ in range(CAPTIONS)))


if __name__ == '__main__':
    main()

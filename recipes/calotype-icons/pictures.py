"""Pictures with captions that the transformer learns from.

    python pictures.py DRAWINGS OUT --count 30000 --concepts 120 --seed 1

Each picture is NAME.png with NAME.txt, one caption a line: `calotype train --caption-lines` draws one at each use.
Held-out pairs of noun and colour (held_out.txt) are never made.
"""
import argparse
import pathlib

import numpy as np
from PIL import Image, ImageFilter

import captions
import drawings
from captions import choice

HERE = pathlib.Path(__file__).parent
CAPTIONS = 6  # alternatives for one picture
STYLES = {'3d': 0.45, 'flat': 0.3, 'cartoon': 0.25}
# Two hues or a body near gray: moving the dominant hue does not make "a blue one" (measured by the evaluation's vote on
# true drawings). And people keep their colour.
NOT_RECOLOURED = set('🌍🌈🍉🍕🎂🍰🍦🍔🌮🌭🍣🦜🚒🚑🎨🧩🥗🎡🎪🎠🌋🏝🏔🎄💀👻🐼🐧🦓⚽🏀🎾🎱'
                     '🦁👓🛴🐞🦔🥕🌽🍟🍬🛖🪓👜🥪🍮🐵🥑💎🦃🌰💄🍩🌴🥒🧹😎🤖'
                     '👩👨👶👮👸🤴🥷🧙🧚🧛🧟🎅🤡👍✋👁') | {'🧑\u200d🚀', '🧑\u200d🚒', '🧑\u200d🍳', '🧜\u200d♀'}
# What reads, counts or points: its mirror image is wrong.
NOT_MIRRORED = set('⏰🎵💯❓📅📕📚📝⌚🧭🎲💻📱🖼🗽🎯')


def held_out_pairs():
    return {tuple(line.split(', ')) for line in (HERE / 'held_out.txt').read_text().splitlines() if line and not line.startswith('#')}


def recolourable(sets, concept):
    """Whether at least half of the drawing has its dominant hue, in every style."""
    if concept.emoji.replace('\ufe0f', '') in NOT_RECOLOURED:
        return False
    return all(drawings.hue_weight(sets.rgba(style, concept.emoji, 128), *drawings.window(style))[3] >= 0.5 for style in STYLES)


def nearest_colour(rgba):
    """The colour word for a drawing as it is, or nothing where none is clear."""
    lab, _, weight, share = drawings.hue_weight(rgba, 40, 60)
    if share < 0.5:
        return None
    mean = (lab * weight[..., None]).sum((0, 1)) / weight.sum()
    distances = {n: float(np.linalg.norm(mean - drawings.to_oklab(np.array(c, np.float32) / 255))) for n, c in drawings.COLOURS.items()}
    name = min(distances, key=distances.get)
    return name if distances[name] < 0.13 else None


def mean_colour(rgba):
    opaque = rgba[..., 3] > 128
    return drawings.to_oklab(rgba[..., :3][opaque].astype(np.float32).mean(0) / 255)


class Generator:
    def __init__(self, sets, concepts, side, mirror, random):
        self.sets, self.concepts, self.side, self.mirror, self.random = sets, concepts, side, mirror, random
        self.can_recolour = [c for c in concepts if recolourable(sets, c)]
        self.natural = {(c.name, s): nearest_colour(sets.rgba(s, c.emoji, 128)) for c in self.can_recolour for s in STYLES}
        self.held_out = held_out_pairs()
        self.stored = 2 * side if side <= 128 else drawings.SIDE
        self.coloured = {}

    def drawing(self, concept, style, colour):
        if colour is None:
            return self.sets.rgba(style, concept.emoji, self.stored)
        key = (concept.emoji, style, colour)
        if key not in self.coloured:
            self.coloured[key] = drawings.recoloured(self.sets.rgba(style, concept.emoji, self.stored), style, colour)
        return self.coloured[key]

    def colour_for(self, concept, style):
        """→ (colour to paint or None, colour word or None)"""
        if concept not in self.can_recolour:
            return None, None
        if self.random.random() < 0.6:
            allowed = [c for c in drawings.COLOURS if (concept.name, c) not in self.held_out]
            colour = choice(self.random, allowed)
            return colour, colour
        return None, self.natural[concept.name, style] if self.random.random() < 0.35 else None

    def background_for(self, rgba, word):
        """A background that the thing stands out from."""
        if self.random.random() < (0.2 if word else 0.4) and word != 'white':
            return 'white'
        own = mean_colour(rgba)
        clear = [n for n, c in drawings.BACKGROUNDS.items()
                 if n != word and np.linalg.norm(own - drawings.to_oklab(np.array(c, np.float32) / 255)) > 0.15]
        return choice(self.random, clear)

    def one(self, concept):
        style = self.random.choice(list(STYLES), p=list(STYLES.values()))
        colour, word = self.colour_for(concept, style)
        rgba = self.drawing(concept, style, colour)
        background = self.background_for(rgba, word)
        canvas = drawings.flat_background(drawings.BACKGROUNDS[background], self.side)
        mirrored = self.mirror and concept.emoji.replace('\ufe0f', '') not in NOT_MIRRORED and self.random.random() < 0.5
        degrees = self.random.uniform(-8, 8) if self.random.random() < 0.25 else 0
        drawings.place(canvas, rgba, int(self.side * self.random.uniform(0.68, 0.88)),
                       self.side / 2 + self.random.uniform(-0.04, 0.04, 2) * self.side, degrees, mirrored)
        lines = []
        for _ in range(CAPTIONS):
            phrase = captions.thing(self.random, captions.noun(self.random, concept, word), style)
            lines.append(captions.typed(self.random, captions.on_background(self.random, phrase, background)))
        return canvas, lines


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('drawings')
    parser.add_argument('out', type=pathlib.Path)
    parser.add_argument('--count', type=int, default=30000)
    parser.add_argument('--concepts', type=int, default=10_000, help='only the first of concepts.txt')
    parser.add_argument('--side', type=int, default=128)
    parser.add_argument('--mirror', action='store_true', help='half of the drawings are mirrored where that is safe')
    parser.add_argument('--seed', type=int, default=1)
    options = parser.parse_args()
    random = np.random.default_rng(options.seed)
    concepts = captions.concepts()[:options.concepts]
    generator = Generator(drawings.Drawings(options.drawings), concepts, options.side, options.mirror, random)
    print(f'{len(concepts)} concepts, {len(generator.can_recolour)} of them in any colour')
    options.out.mkdir(parents=True, exist_ok=True)
    for i in range(options.count):
        canvas, lines = generator.one(concepts[i % len(concepts)])
        drawings.save(canvas, options.out / f'{i:06}.png')
        (options.out / f'{i:06}.txt').write_text('\n'.join(lines) + '\n')


if __name__ == '__main__':
    main()

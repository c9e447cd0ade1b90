"""What pictures show and what is said about them, without drawing anything.

    chooser = Chooser(Facts.of(drawings), captions.concepts(), seed=1)
    scene = chooser.scene(concept)          # what lies where
    line = chooser.caption(scene)           # one of many ways to ask for it

Lengths are shares of the picture's side. Held-out pairs of noun and colour (held_out.txt), of two nouns (prompts/pairs.txt)
and words (prompts/words.txt) are never chosen.
"""
import dataclasses
import json
import pathlib
import string

import numpy as np
from PIL import ImageFont

import captions
import drawings

HERE = pathlib.Path(__file__).parent
STYLES = {'3d': 0.4, 'flat': 0.3, 'cartoon': 0.3}
KINDS = {'one': 0.68, 'pair': 0.15, 'count': 0.06, 'word': 0.11}
EFFECTS = ['pixel', 'sticker', 'silhouette']
NEWCOMERS = 40  # the first concepts, chosen twice as often
# Two hues or a body near gray: moving the dominant hue does not make "a blue one" (measured by the evaluation's vote on
# true drawings). And people keep their colour.
NOT_RECOLOURED = set('🌍🌈🍉🍕🎂🍰🍦🍔🌮🌭🍣🦜🚒🚑🎨🧩🥗🎡🎪🎠🌋🏝🏔🎄💀👻🐼🐧🦓⚽🏀🎾🎱'
                     '🦁👓🛴🐞🦔🥕🌽🍟🍬🛖🪓👜🥪🍮🐵🥑💎🦃🌰💄🍩🌴🥒🧹😎🤖'
                     '👩👨👶👮👸🤴🥷🧙🧚🧛🧟🎅🤡👍✋👁') | {'🧑\u200d🚀', '🧑\u200d🚒', '🧑\u200d🍳', '🧜\u200d♀'}
# What reads, counts or points: its mirror image is wrong.
NOT_MIRRORED = set('⏰🎵💯❓📅📕📚📝⌚🧭🎲💻📱🖼🗽🎯')
GLYPHS = string.ascii_uppercase + string.digits
PLACES = {2: [(0.26, 0.5), (0.74, 0.5)], 3: [(0.25, 0.29), (0.75, 0.29), (0.5, 0.72)],
          4: [(0.26, 0.27), (0.74, 0.27), (0.26, 0.74), (0.74, 0.74)]}


@dataclasses.dataclass
class Thing:
    """One drawing: of an emoji in a style, in another colour than its own where `colour` is set."""
    emoji: str
    style: str
    colour: str | None
    x: float
    y: float
    width: float
    degrees: float = 0
    mirrored: bool = False


@dataclasses.dataclass
class Scene:
    kind: str
    background: str
    concept: captions.Concept | None = None
    style: str = '3d'
    effect: str = ''
    colour: str | None = None  # the word for the thing's colour, or the letters'
    second: captions.Concept | None = None  # on the right
    second_colour: str | None = None
    word: str = ''
    things: list = dataclasses.field(default_factory=list)
    letters: list = dataclasses.field(default_factory=list)  # (character, x, y, height of capitals)


def plain(emoji):
    return emoji.replace('\ufe0f', '')


def held_out_pairs():
    return {tuple(line.split(', ')) for line in (HERE / 'held_out.txt').read_text().splitlines() if line and not line.startswith('#')}


def asked(name):
    """What prompts/NAME.txt asks for, before the bar."""
    return {line.split(' | ')[0] for line in (HERE / f'prompts/{name}.txt').read_text().splitlines() if line and not line.startswith('#')}


def words_to_write(held_out):
    """Words of two to five letters in capitals, in order."""
    known = [w.upper() for w in captions.vocabulary()[0] if w.isalpha() and 2 <= len(w) <= 5]
    return sorted(set(known) - held_out)


class Facts:
    """What is known of each drawing: its mean colour in OKLab, the word for it, whether another colour can be given to it."""

    def __init__(self, table, sets=None):
        self.sets = sets
        self.table = table  # "style emoji colour" → [L, a, b]; "word style emoji" → name; "recolourable" → [emoji]
        self.recolourable = set(table['recolourable'])

    @staticmethod
    def of(sets, concepts):
        """Measures the drawings, or reads what an earlier call measured."""
        path = sets.folder / 'facts.json'
        if not path.exists():
            path.write_text(json.dumps(Facts.measured(sets, concepts), ensure_ascii=False))
        return Facts.of_file(path, sets)

    @staticmethod
    def of_file(path, sets=None):
        return Facts(json.loads(path.read_text()), sets)

    @staticmethod
    def measured(sets, concepts):
        table = {'recolourable': [plain(c.emoji) for c in concepts if Facts._recolourable(sets, c)]}
        for concept in concepts:
            for style in STYLES:
                rgba, name = sets.rgba(style, concept.emoji, 64), plain(concept.emoji)
                table[f'{style} {name} None'] = mean_colour(rgba).tolist()
                if name in table['recolourable']:
                    table[f'word {style} {name}'] = Facts._word(sets.rgba(style, concept.emoji, 128))
                    for colour in drawings.COLOURS:
                        table[f'{style} {name} {colour}'] = mean_colour(drawings.recoloured(rgba, style, colour)).tolist()
        return table

    @staticmethod
    def _recolourable(sets, concept):
        """Whether at least half of the drawing has its dominant hue, in every style."""
        return plain(concept.emoji) not in NOT_RECOLOURED and all(
            drawings.hue_weight(sets.rgba(style, concept.emoji, 128), *drawings.window(style))[3] >= 0.5 for style in STYLES)

    @staticmethod
    def _word(rgba):
        """The colour word for a drawing as it is, or nothing where none is clear."""
        lab, _, weight, share = drawings.hue_weight(rgba, 40, 60)
        if share < 0.5:
            return None
        mean = (lab * weight[..., None]).sum((0, 1)) / weight.sum()
        distances = {n: float(np.linalg.norm(mean - oklab(c))) for n, c in drawings.COLOURS.items()}
        name = min(distances, key=distances.get)
        return name if distances[name] < 0.13 else None

    def mean(self, emoji, style, colour):
        return self.table[f'{style} {plain(emoji)} {colour}']

    def word(self, emoji, style):
        return self.table[f'word {style} {plain(emoji)}']


def oklab(rgb):
    return drawings.to_oklab(np.array(rgb, np.float32) / 255)


def mean_colour(rgba):
    opaque = rgba[..., 3] > 128
    return oklab(rgba[..., :3][opaque].astype(np.float32).mean(0))


class Chooser:
    def __init__(self, facts, concepts, seed=1, mirror=False, kinds=KINDS, around=0.28, effects=0.12):
        self.facts, self.concepts, self.mirror, self.random = facts, concepts, mirror, np.random.default_rng(seed)
        self.held_out = held_out_pairs()
        self.not_together = {tuple(p.split(', ')) for p in asked('pairs')}
        self.not_written = asked('words')
        self.words = words_to_write(self.not_written)
        self.kinds = kinds
        self.can_recolour = [c for c in concepts if plain(c.emoji) in facts.recolourable]
        self.grounds = {n: oklab(c).tolist() for n, c in drawings.BACKGROUNDS.items()}
        self.paints = {n: oklab(c).tolist() for n, c in drawings.COLOURS.items()}
        self.glyph_widths = glyph_widths()
        self.effects = effects  # share of things that are drawn with one
        self.caption_writer = captions.Writer(self.random, around)
        weights = np.array([2.0 if i < NEWCOMERS else 1.0 for i in range(len(concepts))])
        self.cumulative = np.cumsum(weights / weights.sum())

    # -- chance -------------------------------------------------------------------------------------------------------
    def uniform(self, low, high):
        return low + (high - low) * self.random.random()

    def chance(self, p):
        return self.random.random() < p

    def weighted(self, table):
        at = self.random.random() * sum(table.values())
        for name, weight in table.items():
            at -= weight
            if at < 0:
                return name
        return name

    def concept(self):
        return self.concepts[int(np.searchsorted(self.cumulative, self.random.random()))]

    # -- what is seen -------------------------------------------------------------------------------------------------
    def colour_for(self, concept, style, share=0.6):
        """→ (colour to paint or None, colour word or None)"""
        if plain(concept.emoji) not in self.facts.recolourable:
            return None, None
        if self.chance(share):
            allowed = [c for c in drawings.COLOURS if (concept.name, c) not in self.held_out]
            colour = captions.choice(self.random, allowed)
            return colour, colour
        word = self.facts.word(concept.emoji, style)
        return None, word if word and (concept.name, word) not in self.held_out and self.chance(0.35) else None

    def background_for(self, means, words, plain_share):
        """A background that everything stands out from, and that no word for a colour means as well."""
        if self.chance(plain_share) and 'white' not in words:
            return 'white'
        clear = [n for n, lab in self.grounds.items()
                 if n not in words and all((lab[0] - m[0]) ** 2 + (lab[1] - m[1]) ** 2 + (lab[2] - m[2]) ** 2 > 0.15 ** 2 for m in means)]
        return captions.choice(self.random, clear or ['white'])

    def thing(self, concept, style, colour, x, y, width):
        mirrored = self.mirror and plain(concept.emoji) not in NOT_MIRRORED and self.chance(0.5)
        return Thing(plain(concept.emoji), style, colour, x, y, width, self.uniform(-8, 8) if self.chance(0.25) else 0, mirrored)

    def scene(self, concept=None, kind=None):
        concept = concept or self.concept()
        kind = kind or self.weighted(self.kinds)
        return {'one': self.one, 'pair': self.pair, 'count': self.several, 'word': self.lettering}[kind](concept)

    def one(self, concept):
        style = self.weighted(STYLES)
        effect = captions.choice(self.random, EFFECTS) if self.chance(self.effects) else ''
        paint, word = (None, None) if effect == 'silhouette' else self.colour_for(concept, style)
        mean = [0.25, 0, 0] if effect == 'silhouette' else self.facts.mean(concept.emoji, style, paint)
        background = self.background_for([mean], {word}, 0.2 if word else 0.4)
        if effect == 'sticker' and background == 'white':
            background = captions.choice(self.random, [b for b in self.grounds if b not in ('white', word)])
        scene = Scene('one', background, concept, style, effect, word)
        scene.things = [self.thing(concept, style, paint, 0.5 + self.uniform(-0.04, 0.04), 0.5 + self.uniform(-0.04, 0.04), self.uniform(0.68, 0.88))]
        return scene

    def pair(self, concept):
        second = self.concept()
        while second.name == concept.name or (concept.name, second.name) in self.not_together:
            second = self.concept()
        style = self.weighted(STYLES)
        coloured = self.chance(0.45)
        first_paint, first = self.colour_for(concept, style, 0.8) if coloured else (None, None)
        second_paint, other = self.colour_for(second, style, 0.8) if coloured else (None, None)
        means = [self.facts.mean(concept.emoji, style, first_paint), self.facts.mean(second.emoji, style, second_paint)]
        background = self.background_for(means, {first, other}, 0.5)
        scene = Scene('pair', background, concept, style, '', first, second, other)
        for (x, y), what, paint in zip(PLACES[2], (concept, second), (first_paint, second_paint)):
            scene.things.append(self.thing(what, style, paint, x + self.uniform(-0.02, 0.02), y + self.uniform(-0.05, 0.05), self.uniform(0.4, 0.47)))
        return scene

    def several(self, concept):
        style, number = self.weighted(STYLES), int(self.random.integers(2, 5))
        paint, word = self.colour_for(concept, style, 0.4)
        background = self.background_for([self.facts.mean(concept.emoji, style, paint)], {word}, 0.5)
        scene = Scene('count', background, concept, style, '', word)
        for x, y in PLACES[number]:
            scene.things.append(self.thing(concept, style, paint, x + self.uniform(-0.02, 0.02), y + self.uniform(-0.02, 0.02), self.uniform(0.37, 0.43)))
        return scene

    def lettering(self, concept):
        word = captions.choice(self.random, self.words)
        if self.chance(0.45):
            word = ''.join(captions.choice(self.random, GLYPHS[:26]) for _ in range(int(self.random.integers(1, 6))))
            if word in self.not_written:
                word = 'A'
        colour = captions.choice(self.random, list(drawings.COLOURS)) if self.chance(0.8) else 'black'
        with_thing = self.chance(0.25)
        style = self.weighted(STYLES)
        means = [self.paints[colour]] + ([self.facts.mean(concept.emoji, style, None)] if with_thing else [])
        background = self.background_for(means, {colour}, 0.5)
        scene = Scene('word', background, concept if with_thing else None, style, '', colour, word=word)
        if with_thing:
            scene.things = [self.thing(concept, style, None, 0.5 + self.uniform(-0.03, 0.03), 0.36 + self.uniform(-0.02, 0.02), self.uniform(0.52, 0.6))]
        self.spell(scene, 0.82 if with_thing else 0.5 + self.uniform(-0.05, 0.05), 0.2 if with_thing else 0.4)
        return scene

    def spell(self, scene, y, tallest):
        """Lays the letters out in a line, centred, as tall as there is room."""
        gap = 0.12
        widths = [self.glyph_widths[c] for c in scene.word]
        total = sum(widths) + gap * (len(widths) - 1)  # in heights of a capital
        height = min(tallest, 0.86 / total) * self.uniform(0.85, 1)
        x = 0.5 + self.uniform(-0.02, 0.02) - total * height / 2
        for character, width in zip(scene.word, widths):
            scene.letters.append((character, x + width * height / 2, y, height))
            x += (width + gap) * height

    # -- what is said -------------------------------------------------------------------------------------------------
    def caption(self, scene):
        return self.caption_writer.caption(scene)


def capital_height():
    """Of the letters' font, in sizes of the font."""
    top, bottom = ImageFont.load_default(200).getbbox('H')[1::2]
    return (bottom - top) / 200


def glyph_widths():
    """Of the characters that can be written: ink's width in heights of a capital."""
    font, height = ImageFont.load_default(200), 200 * capital_height()
    return {c: (font.getbbox(c)[2] - font.getbbox(c)[0]) / height for c in GLYPHS}

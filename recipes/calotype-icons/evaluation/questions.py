"""What the model is asked: prompts with what their pictures must show. The same questions for every model.

prompts/*.txt hold the fixed lists; colours, backgrounds and styles are drawn from the concepts by a fixed seed.
"""
import dataclasses
import pathlib

import numpy as np

import captions
import drawings
from evaluation.measures import STYLES

PROMPTS = pathlib.Path(__file__).parent.parent / 'prompts'
SEEDS = (1, 2, 3, 4)
NUMBERS = ['', 'one', 'two', 'three', 'four']


@dataclasses.dataclass
class Question:
    group: str
    prompt: str
    seed: int = 1
    noun: str | None = None
    style: str | None = None
    colour: str | None = None
    background: str = 'white'
    right: str | None = None  # the second thing; `noun` is on the left
    count: int = 1
    word: str | None = None


def lines(name):
    """→ [(what, prompt)] of prompts/NAME.txt."""
    text = [line for line in (PROMPTS / f'{name}.txt').read_text().splitlines() if line and not line.startswith('#')]
    return [tuple(line.split(' | ')) if ' | ' in line else (line, line) for line in text]


def in_style(style, words):
    return {None: captions.with_article(words), '3d': f'a 3d {words}', 'flat': f'a flat icon of {captions.with_article(words)}',
            'cartoon': f'a cartoon of {captions.with_article(words)}'}[style]


def stands_out(colour, background):
    to_lab = lambda rgb: drawings.to_oklab(np.array(rgb, np.float32) / 255)
    return np.linalg.norm(to_lab(drawings.COLOURS[colour]) - to_lab(drawings.BACKGROUNDS[background])) > 0.2


def nouns(concepts):
    kinds = [None] + STYLES
    return [Question('nouns', in_style(kinds[i % 4], c.name), noun=c.name, style=kinds[i % 4]) for i, c in enumerate(concepts)]


def styles(names):
    return [Question('styles', in_style(s, n), seed=2, noun=n, style=s) for n, _ in lines('newcomers') if n in names for s in STYLES]


def backgrounds(names, random):
    chosen = [n for n, _ in lines('newcomers') if n in names]
    return [Question('backgrounds', f'{captions.with_article(n)} on {captions.with_article(b)} background', noun=n, background=b)
            for b in drawings.BACKGROUNDS for n in random.choice(chosen, 6, replace=False).tolist()]


def colours(can_recolour, held_out, random, count=100):
    """One colour word; then a colour word for the thing and one for the background. Pairs that training makes."""
    one, two = [], []
    words, grounds = list(drawings.COLOURS), list(drawings.BACKGROUNDS)
    while len(one) < count and can_recolour:
        noun = can_recolour[len(one) % len(can_recolour)]
        colour = random.choice([w for w in words if w != 'white' and (noun, w) not in held_out])
        one.append(Question('colour', captions.with_article(f'{colour} {noun}'), noun=noun, colour=str(colour)))
    while len(two) < count and can_recolour:
        noun = can_recolour[(7 * len(two) + 3) % len(can_recolour)]
        colour = random.choice([w for w in words if (noun, w) not in held_out])
        ground = random.choice([g for g in grounds if stands_out(colour, g)])
        prompt = f'{captions.with_article(f"{colour} {noun}")} on {captions.with_article(ground)} background'
        two.append(Question('colour_background', prompt, noun=noun, colour=str(colour), background=str(ground)))
    return one + two


def held_out_colours(held_out, names, random):
    """Pairs of noun and colour that training never makes, alone and with a background."""
    asked = []
    for noun, colour in sorted(held_out):
        if noun not in names:
            continue
        if colour != 'white':
            asked.append(Question('held_out', captions.with_article(f'{colour} {noun}'), noun=noun, colour=colour))
        ground = str(random.choice([g for g in drawings.BACKGROUNDS if stands_out(colour, g) and g != 'white']))
        prompt = f'{captions.with_article(f"{colour} {noun}")} on {captions.with_article(ground)} background'
        asked.append(Question('held_out', prompt, noun=noun, colour=colour, background=ground))
    return asked


def several(names):
    asked = []
    for what, prompt in lines('pairs'):
        left, right = what.split(', ')
        if left in names and right in names:
            asked.append(Question('pairs', prompt, noun=left, right=right))
    for what, prompt in lines('counts'):
        noun, number = what.split(', ')
        if noun in names:
            colour = next((w for w in prompt.split() if w in drawings.COLOURS), None)
            asked.append(Question('counts', prompt, noun=noun, count=int(number), colour=colour))
    return asked


def fixed(group, names, seeds):
    return [Question(group, prompt, seed=s, noun=noun) for noun, prompt in lines(group) if noun in names for s in seeds]


def background_in(prompt):
    """The background that a prompt of words.txt names."""
    return next((b for b in drawings.BACKGROUNDS if prompt.endswith(f'{captions.with_article(b)} background')), 'white')


def all_questions(concepts, can_recolour, held_out):
    """For a model that knows `concepts`; `can_recolour` are the names of those that are trained in any colour."""
    random = np.random.default_rng(5)
    names = {c.name for c in concepts}
    asked = nouns(concepts) + fixed('newcomers', names, SEEDS) + fixed('synonyms', names, (1,)) + fixed('plurals', names, (1,))
    asked += fixed('sentences', names, (1, 2)) + styles(names) + backgrounds(names, random)
    asked += colours(can_recolour, held_out, random) + held_out_colours(held_out, names, random) + several(names)
    asked += [Question('words', prompt, word=word, background=background_in(prompt)) for word, prompt in lines('words')]
    asked += [Question('sheet', prompt) for _, prompt in lines('sheet')]
    return asked


def blueprint_questions():
    """For an adapter on top: with the trigger word, and without it, where nothing may have changed."""
    asked = [Question('blueprint', prompt, seed=s, noun=noun) for noun, prompt in lines('blueprint') for s in (1, 2)]
    return asked + [Question('without_trigger', prompt, noun=noun) for noun, prompt in lines('newcomers')[:20]]

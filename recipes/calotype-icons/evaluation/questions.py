"""What the model is asked: prompts with what their pictures must show. The same questions for every model.

prompts/*.txt hold the fixed lists; colours, backgrounds and styles are drawn from the concepts by a fixed seed.
"""
import dataclasses
import pathlib

import numpy as np

import captions
import drawings
from evaluation.measures import STYLES, named_oklab, oklab

PROMPTS = pathlib.Path(__file__).parent.parent / 'prompts'
SEEDS = (1, 2, 3, 4)


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


def nouns(concepts):
    kinds = [None] + STYLES
    return [Question('nouns', in_style(kinds[i % 4], c.name), noun=c.name, style=kinds[i % 4]) for i, c in enumerate(concepts)]


def styles(names):
    return [Question('styles', in_style(s, n), seed=2, noun=n, style=s) for n, _ in lines('newcomers') if n in names for s in STYLES]


def background_lab(name):
    return drawings.to_oklab(np.array(drawings.BACKGROUNDS[name], np.float32) / 255)


def clear(chooser, concept, background):
    """Whether the thing stands out from the background in every style, as all training pictures do."""
    drawn = [chooser.facts.mean(concept.emoji, s, None) for s in STYLES]
    return all(np.linalg.norm(np.array(lab) - background_lab(background)) > 0.2 for lab in drawn)


def measurable(sets, concept, colour):
    """Whether the colour vote is clear about the true drawings: a few have too much in other colours."""
    names, values = named_oklab(drawings.COLOURS)
    for style in STYLES:
        rgba = drawings.recoloured(sets.rgba(style, concept.emoji, 64), style, colour)
        nearest = np.linalg.norm(oklab(rgba[..., :3])[rgba[..., 3] > 200][:, None] - values, axis=-1).argmin(1)
        share = np.bincount(nearest, minlength=len(names)) / len(nearest)
        if share.argmax() != names.index(colour) or np.sort(share)[-2] > share.max() - 0.1:
            return False
    return True


def backgrounds(chooser, random):
    known = {c.name: c for c in chooser.concepts}
    chosen = [known[n] for n, _ in lines('newcomers') if n in known]
    asked = []
    for ground in drawings.BACKGROUNDS:
        things = [c.name for c in chosen if clear(chooser, c, ground)]
        asked += [Question('backgrounds', f'{captions.with_article(n)} on {captions.with_article(ground)} background', noun=n, background=ground)
                  for n in random.permutation(things)[:6].tolist()]
    return asked


def coloured(chooser, random, group, concept, colour, with_background):
    """The question for a colour word, or None where it cannot be measured or would need a background."""
    if (colour == 'white' and not with_background) or not measurable(chooser.facts.sets, concept, colour):
        return None
    prompt, ground = captions.with_article(f'{colour} {concept.name}'), 'white'
    if with_background:
        grounds = [g for g in drawings.BACKGROUNDS if g != colour and np.linalg.norm(colour_lab(colour) - background_lab(g)) > 0.2]
        ground = captions.choice(random, grounds)
        prompt += f' on {captions.with_article(ground)} background'
    return Question(group, prompt, noun=concept.name, colour=colour, background=ground)


def colour_lab(name):
    return drawings.to_oklab(np.array(drawings.COLOURS[name], np.float32) / 255)


def colours(chooser, random, count=100):
    """One colour word; then a colour word for the thing and one for the background. Pairs that training makes."""
    asked, concepts = [], chooser.can_recolour
    for group, with_background in [('colour', False), ('colour_background', True)]:
        found = []
        for i in range(4 * count if concepts else 0):
            concept = concepts[i % len(concepts)]
            colour = captions.choice(random, [c for c in drawings.COLOURS if (concept.name, c) not in chooser.held_out])
            found.append(coloured(chooser, random, group, concept, colour, with_background))
        asked += [q for q in found if q][:count]
    return asked


def held_out_colours(chooser, random):
    """Pairs of noun and colour that training never makes, alone and with a background."""
    known = {c.name: c for c in chooser.concepts}
    pairs = [(known[n], c) for n, c in sorted(chooser.held_out) if n in known]
    asked = [coloured(chooser, random, 'held_out', concept, colour, b) for concept, colour in pairs for b in (False, True)]
    return [q for q in asked if q]


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


def all_questions(chooser):
    """For a model that knows the concepts of a scenes.Chooser."""
    random = np.random.default_rng(5)
    names = {c.name for c in chooser.concepts}
    asked = nouns(chooser.concepts) + fixed('newcomers', names, SEEDS) + fixed('synonyms', names, (1,)) + fixed('plurals', names, (1,))
    asked += fixed('sentences', names, (1, 2)) + styles(names) + backgrounds(chooser, random)
    asked += colours(chooser, random) + held_out_colours(chooser, random) + several(names)
    asked += [Question('words', prompt, word=word, background=background_in(prompt)) for word, prompt in lines('words')]
    asked += [Question('sheet', prompt) for _, prompt in lines('sheet')]
    return asked


def blueprint_questions():
    """For an adapter on top: with the trigger word, and without it, where nothing may have changed."""
    asked = [Question('blueprint', prompt, seed=s, noun=noun) for noun, prompt in lines('blueprint') for s in (1, 2)]
    return asked + [Question('without_trigger', prompt, noun=noun) for noun, prompt in lines('newcomers')[:20]]

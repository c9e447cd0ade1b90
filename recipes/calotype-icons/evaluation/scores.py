"""Asks every measure about every picture, and adds the answers up to a table."""
import collections
import functools
import shutil
import subprocess
import tempfile

import numpy as np
from PIL import Image

import blueprint
import drawings
from evaluation import measures

# label, group, answer, least share that a shipped model must reach (None: no gate)
ROWS = [
    ('nouns: nearest drawing', 'nouns', 'top1', 0.95), ('nouns: among the nearest five', 'nouns', 'top5', None),
    ('newcomer nouns × 4 seeds: nearest', 'newcomers', 'top1', 0.98), ('newcomer nouns × 4 seeds: nearest five', 'newcomers', 'top5', None),
    ('synonyms: nearest', 'synonyms', 'top1', None), ('plurals: nearest', 'plurals', 'top1', None),
    ('long sentences: nearest', 'sentences', 'top1', None),
    ('one colour word: colour', 'colour', 'colour', 0.95), ('one colour word: white background', 'colour', 'background', None),
    ('one colour word: thing', 'colour', 'top1', None),
    ('two colour words: both right', 'colour_background', 'both', 0.80), ('two colour words: colour', 'colour_background', 'colour', None),
    ('two colour words: background', 'colour_background', 'background', None), ('two colour words: thing', 'colour_background', 'top1', None),
    ('two colour words: swapped', 'colour_background', 'swapped', None),
    ('held-out pairs: colour and thing', 'held_out', 'bound', 0.80), ('held-out pairs: colour', 'held_out', 'colour', None),
    ('backgrounds', 'backgrounds', 'background', 0.95), ('backgrounds: thing', 'backgrounds', 'top1', None),
    ('border of one colour', 'nouns', 'tidy', None),
    ('style of the nearest drawing', 'styles', 'style', None),
    ('left and right: both right', 'pairs', 'both_things', 0.60), ('left and right: left', 'pairs', 'left', None),
    ('left and right: right', 'pairs', 'right', None), ('left and right: swapped', 'pairs', 'swapped', None),
    ('counts', 'counts', 'count', None), ('words read by tesseract', 'words', 'word', None),
    ('sharpness against the drawing (1 = as sharp)', 'nouns', 'sharpness', None),
    ('variety between seeds (distance in OKLab)', 'newcomers', 'variety', None),
    ('twemoji drawing: nearest', 'nouns', 'foreign1', None), ('twemoji drawing: nearest five', 'nouns', 'foreign5', None),
    ('blueprint: nearest of all glyphs', 'blueprint', 'top1', None), ('blueprint: nearest five', 'blueprint', 'top5', 0.80),
    ('blueprint: paper and ink', 'blueprint', 'on_paper', 0.80), ('without TOK: no blueprint', 'without_trigger', 'off_paper', 0.95),
    ('without TOK: nearest', 'without_trigger', 'top1', None),
    ('without TOK: difference to the model alone (OKLab)', 'without_trigger', 'changed', None),
]
LETTERS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ'


class Scorer:
    def __init__(self, sets, concepts):
        self.sets, self.concepts = sets, {c.name: c for c in concepts}

    @functools.cached_property
    def gallery(self):
        return measures.concept_gallery(self.sets, self.concepts.values())

    @functools.cached_property
    def foreign(self):
        return measures.concept_gallery(self.sets, self.concepts.values(), ['twemoji'])

    @functools.cached_property
    def glyphs(self):
        return measures.Gallery([(e, 'line', self.sets.rgba('line', e, 128)) for e in self.sets.emoji('line')], blueprint.PAPER, (255, 255, 255))

    def answers(self, question, picture):
        """What is right about one picture: names of ROWS to a bool or a number."""
        if question.group == 'sheet':
            return {}
        if question.word:
            return {'word': read_word(picture) == question.word} if shutil.which('tesseract') else {}
        if question.group == 'blueprint':
            return self.blueprint(question, picture)
        if question.right:
            return self.pair(question, picture)
        if question.count > 1:
            return {'count': measures.count_things(picture) == question.count}
        return self.single(question, picture)

    def single(self, question, picture):
        ranked, style = self.gallery.ranked(picture)
        found = {'top1': ranked[0] == question.noun, 'top5': question.noun in ranked[:5],
                 'tidy': measures.background_of(measures.oklab(picture))[1], 'nearest': ranked[0]}
        background = measures.background_name(picture)
        found['background'] = background == question.background
        if question.style:
            found['style'] = style == question.style
        if question.colour:
            colour = measures.voted_colour(picture)
            found['colour'] = colour == question.colour
            found['both'] = found['colour'] and found['background']
            found['bound'] = found['colour'] and found['top1']
            found['swapped'] = colour == question.background and background == question.colour
            found['voted'] = f'{colour} on {background}'
        if question.group == 'nouns':
            emoji = self.concepts[question.noun].emoji
            found['sharpness'] = measures.sharpness(picture, [self.sets.rgba(s, emoji) for s in measures.STYLES if self.sets.has(s, emoji)])
            if question.noun in self.foreign.names:
                foreign, _ = self.foreign.ranked(picture)
                found.update(foreign1=foreign[0] == question.noun, foreign5=question.noun in foreign[:5])
        if question.group == 'without_trigger':
            found['off_paper'] = not on_paper(picture)
        return found

    def pair(self, question, picture):
        middle = picture.shape[1] // 2
        left, right = (self.gallery.ranked(half)[0] for half in (picture[:, :middle], picture[:, middle:]))
        found = {'left': left[0] == question.noun, 'right': right[0] == question.right, 'nearest': f'{left[0]}, {right[0]}',
                 'swapped': left[0] == question.right and right[0] == question.noun}
        return found | {'both_things': found['left'] and found['right']}

    def blueprint(self, question, picture):
        white = drawings.to_oklab(np.ones(3, np.float32))
        ranked, _ = self.glyphs.ranked(picture, np.linalg.norm(measures.oklab(picture) - white, axis=-1) < 0.25)
        emoji = self.concepts[question.noun].emoji.replace('\ufe0f', '')
        return {'top1': ranked[0] == emoji, 'top5': emoji in ranked[:5], 'on_paper': on_paper(picture), 'nearest': ranked[0]}


def on_paper(picture):
    """Whether paper and its lines cover at least 60 %, and ink 5–35 %."""
    lab = measures.oklab(picture)
    to = lambda rgb: np.linalg.norm(lab - drawings.to_oklab(np.array(rgb, np.float32) / 255), axis=-1)
    paper = ((to(blueprint.PAPER) < 0.06) | (to(blueprint.LINES) < 0.06)).mean()
    return bool(paper >= 0.6 and 0.05 <= (to(blueprint.INK) < 0.1).mean() <= 0.35)


def read_word(picture):
    with tempfile.NamedTemporaryFile(suffix='.png') as file:
        Image.fromarray(picture).save(file.name)
        command = ['tesseract', file.name, '-', '--psm', '7', '-c', f'tessedit_char_whitelist={LETTERS}']
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip().replace(' ', '')


def add_up(asked):
    """[(question, picture, answers)] → {(group, answer): (mean, how many)}."""
    values = collections.defaultdict(list)
    same_prompt = collections.defaultdict(list)
    for question, picture, found in asked:
        if question.group == 'newcomers':
            same_prompt[question.prompt].append(picture)
        for name, value in found.items():
            if isinstance(value, (bool, int, float)):
                values[question.group, name].append(float(value))
    for pictures in same_prompt.values():
        if len(pictures) > 1:
            values['newcomers', 'variety'].append(measures.variety(pictures))
    return {key: (float(np.mean(v)), len(v)) for key, v in values.items()}

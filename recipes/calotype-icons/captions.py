"""What people might type for a picture: names, styles, colours, backgrounds, and the words around them."""
import pathlib
import re

HERE = pathlib.Path(__file__).parent

STYLE_PHRASES = {  # {} is the thing with its article
    '3d': ['a 3d {n}', 'a 3d icon of {t}', 'a 3d render of {t}', '{t}, 3d', '{t} in 3d style'],
    'flat': ['a flat {n}', 'a flat icon of {t}', 'flat vector art of {t}', '{t}, flat', '{t} in flat style'],
    'cartoon': ['a cartoon {n}', 'a cartoon of {t}', 'an emoji of {t}', '{t}, cartoon', '{t} in cartoon style'],
    'pixel': ['pixel art of {t}', 'a pixel art {n}', '{t}, pixel art', '{t} in pixel art style'],
    'sticker': ['a sticker of {t}', '{t}, sticker', '{t} as a sticker'],
    'silhouette': ['a silhouette of {t}', 'a black silhouette of {t}', '{t}, silhouette'],
}
NAMED = {'3d': 0.7, 'flat': 0.95, 'cartoon': 0.95, 'pixel': 1.0, 'sticker': 1.0, 'silhouette': 1.0}  # how often the style is said
COLOUR_SYNONYMS = {'purple': ['violet'], 'gray': ['grey'], 'sky blue': ['light blue']}
PLAIN = ['{t}', '{t}', '{n}', 'a picture of {t}', 'an image of {t}', 'an icon of {t}', 'draw {t}', '{t} icon']
STARTS = ['once upon a time there was {t}', 'in the quiet morning light there is {t}', 'please make a picture of {t} for my little boy',
          'i would like to see {t}', 'show me {t}', 'a beautiful picture of {t}', 'a cute {n}', 'a very detailed {n}',
          '{t}, high quality', '{t}, centered, clean', 'a small story about {t} that waits in the garden',
          'on a sunny day, {t} looks at the sky', '{t} all alone', 'the {n}', 'my {n}', 'one {n}', '{t} sitting in the middle',
          'create an icon of {t}, simple and clean', 'a happy little {n}', 'a big {n}']
IRREGULAR = {'mouse': 'mice', 'sheep': 'sheep', 'fish': 'fish', 'deer': 'deer', 'goldfish': 'goldfish', 'wolf': 'wolves', 'leaf': 'leaves',
             'loaf': 'loaves', 'scarf': 'scarves', 'tooth': 'teeth', 'man': 'men', 'woman': 'women', 'die': 'dice', 'dice': 'dice',
             'octopus': 'octopuses', 'child': 'children', 'policeman': 'policemen', 'fireman': 'firemen', 'goose': 'geese'}


class Concept:
    def __init__(self, line):
        self.emoji, names = line.split(' ', 1)
        self.names = names.split(', ')
        self.name = self.names[0]


def concepts():
    return [Concept(line) for line in (HERE / 'concepts.txt').read_text().splitlines() if line and not line.startswith('#')]


def plural(name):
    head, _, last = name.rpartition(' ')
    if last in IRREGULAR:
        last = IRREGULAR[last]
    elif re.search('[^aeiou]y$', last):
        last = last[:-1] + 'ies'
    elif re.search('(s|x|z|ch|sh)$', last):
        last += 'es'
    else:
        last += 's'
    return f'{head} {last}'.strip()


def already_many(name):
    return name.endswith('s') and not name.endswith(('ss', 'us', 'compass', 'lens', 'octopus', 'cactus'))


def with_article(words):
    if already_many(words):
        return words
    return ('an ' if words[0] in 'aeiou' and not words.startswith(('uni', 'ufo', 'one')) else 'a ') + words


def choice(random, items):
    return items[int(random.integers(len(items)))]


def spoken(random, name):
    """A colour's name or another word for it."""
    return choice(random, [name, name] + COLOUR_SYNONYMS.get(name, []))


def noun(random, concept, colour=None):
    """A name as typed: mostly the plain one, at times a synonym; with its colour word."""
    name = concept.name if random.random() < 0.7 else choice(random, concept.names)
    if random.random() < 0.05 and not already_many(name):
        name = plural(name)
    return f'{spoken(random, colour)} {name}' if colour else name


def thing(random, words, style):
    """Words for one thing in a style, as a phrase."""
    forms = STYLE_PHRASES[style] if random.random() < NAMED[style] else (PLAIN if random.random() < 0.7 else STARTS)
    return choice(random, forms).format(n=words, t=with_article(words))


def on_background(random, phrase, background):
    """White may go unsaid; everything else is always said."""
    if background == 'white' and random.random() < 0.55:
        return phrase
    colour = spoken(random, background)
    form = random.random()
    if form < 0.6:
        return f'{phrase} on {with_article(colour)} background'
    if form < 0.8:
        return f'{phrase}, {colour} background'
    if form < 0.9:
        return f'{phrase} on {colour}'
    return f'{colour} background, {phrase}'


def typed(random, caption):
    """As people type it: at times with a capital and a full stop."""
    if random.random() < 0.15:
        caption = caption[0].upper() + caption[1:]
    return caption + '.' if random.random() < 0.08 else caption


def vocabulary():
    """Every word that is one token, lower-cased; the second list also exists with a capital."""
    words = [w for line in (HERE / 'words.txt').read_text().splitlines() if not line.startswith('#') for w in line.split()]
    names = [w for c in concepts() for n in c.names for w in n.split()]
    plurals = [plural(n).rpartition(' ')[2] for c in concepts() for n in c.names if not already_many(n)]
    grammar = re.findall('[a-z0-9]+', ' '.join(sum(STYLE_PHRASES.values(), []) + PLAIN + STARTS))
    first = [c.names[0].split()[0] for c in concepts()] + ['a', 'an', 'the', 'two', 'three', 'four', 'one', 'in', 'on', 'once', 'my', 'please',
             'show', 'draw', 'make', 'create', 'i', 'this', 'there', 'it', 'pixel', 'flat', 'cartoon', 'sticker', 'silhouette',
             'red', 'orange', 'yellow', 'green', 'blue', 'purple', 'pink', 'brown', 'black', 'white', 'gray', 'sky', 'light', 'happy', 'cute']
    unique = lambda items: list(dict.fromkeys(items))
    return unique(words + grammar + names + plurals), unique(first)

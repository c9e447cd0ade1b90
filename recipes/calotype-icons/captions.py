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
PAIRS = ['{a} on the left and {b} on the right'] * 4 + [
    '{a} and {b}', '{a} and {b}', '{a} next to {b}', '{a} beside {b}', '{a} to the left of {b}', '{b} to the right of {a}', '{a} left of {b}',
    '{a} on the left, {b} on the right', 'on the left {a} and on the right {b}', '{b} on the right and {a} on the left', '{a} with {b}',
    'on the right {b}, on the left {a}', '{a} looking at {b}', 'left {a}, right {b}']
COUNT_WORDS = {2: 'two', 3: 'three', 4: 'four'}
COUNTS = ['{number} {n}'] * 4 + ['a picture of {number} {n}', 'a group of {number} {n}', 'show me {number} {n}', 'draw {number} {n}', '{number} cute {n}']
WORDS = ['the word {w}', 'a sign that says {w}', 'the text {w}', 'the letters {w}', 'a sign saying {w}', 'write {w}', 'a sign with the word {w}']
COLOURED_WORDS = ['the word {w} in {c} letters', 'the word {w} in {c} letters', 'the word {w} in {c}', '{w} in {c} letters', '{w} written in {c}',
                  'the text {w} in {c} letters', 'a sign that says {w} in {c} letters', '{c} letters saying {w}', 'the letters {w} in {c}']
UNDER = ['{t} with the word {w}', '{t} with the text {w}', '{t} and the word {w}', '{t} above the word {w}', '{t}, below it the word {w}',
         '{t} with a sign that says {w}']
ADJECTIVES = ('small cute large tiny big huge little giant old young new happy sad funny smiling beautiful lovely pretty nice great fresh sweet hot '
              'cold warm soft shiny smooth round lonely brave curious proud tired hungry sleepy wild magic mysterious ancient modern enormous '
              'delicious favorite perfect friendly clever simple quiet gentle').split()
BEFORE = ['once upon a time there was', 'in the quiet morning light there is', 'on a sunny day in spring I saw', 'at the end of the street stands',
          'far away behind the hills there lives', 'please make a picture for my friend:', 'this is a story about', 'in the middle of the village there was',
          'when I was a child my father showed me', 'every evening, when the sky is dark,', 'in the old house of my grandmother there was', 'long ago someone painted',
          'nobody had ever seen anything like', 'after a long winter we finally saw', 'deep in the forest there is', 'the children of the town often talk about',
          'I would like to have a nice picture of', 'today in the kitchen I found', 'on a hill above the town we saw', 'it was a cold morning and there was',
          'somewhere in the world there must be', 'the little boy dreams of', 'she could not stop looking at', 'in the shop window there was',
          'my friend wants', 'can you draw', 'could you please show me', 'a beautiful illustration that shows', 'highly detailed artwork:',
          'the story begins with', 'next to the road I saw', 'all of us were waiting for', 'late at night there was only']
AFTER = ['that waits for the rain to stop', 'in the garden behind the house', 'and everyone was happy', 'who dreams of another world', 'at the end of a long day',
         'while the wind sings in the woods', 'and nobody knows why', 'in soft evening light', 'before the storm begins', 'that my mother gave to me',
         'very detailed, high quality', 'for the wall of my room', 'and then it was quiet again', 'with a long shadow in the afternoon', 'resting for a while',
         'as if time stood still', 'which I will never forget', 'and the people of the village smile', 'because it is such a lovely day', 'and it was never seen again',
         'in the middle of the table', 'for my little girl, who loves it', 'that nobody had asked for', 'and slowly the day became dark', 'simple and clean, centered']
LINKS = 'and and and the the of in to for his her its was is that who where a'.split()
MEANINGFUL = set('''red orange yellow green blue purple pink brown violet turquoise teal cyan magenta navy beige lime sky black white gray grey golden silver
 gold flat cartoon 3d pixel pixelated sticker silhouette blueprint two three four five six seven eight nine ten both many few left right word words text
 letter letters say says saying reads written sign light dark pair group row set on and background backdrop with minimal vector retro'''.split())
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


class Writer:
    """Says what a scenes.Scene shows, in one of the ways in which people ask for it."""

    def __init__(self, random, around=0.28):
        self.random = random
        self.around = around  # share of captions with a story or any words around what is asked for
        names = {w for c in concepts() for n in c.names for w in n.split()}
        self.fillers = [w for w in words_file() if w.isalpha() and w not in names and w not in MEANINGFUL]

    def caption(self, scene):
        phrase = self.plain(scene)
        if self.chance(self.around):
            phrase = self.story(phrase) if self.chance(0.64) else self.lost_in_words(phrase)
        return self.typed(phrase)

    def plain(self, scene):
        phrase = {'one': self.one, 'pair': self.pair, 'count': self.count, 'word': self.word}[scene.kind](scene)
        return self.on_background(phrase, scene.background)

    def pick(self, items):
        return choice(self.random, items)

    def chance(self, p):
        return self.random.random() < p

    # -- parts ----------------------------------------------------------------------------------------------------------
    def spoken(self, colour):
        """A colour's name or another word for it."""
        return self.pick([colour, colour] + COLOUR_SYNONYMS.get(colour, []))

    def noun(self, concept, colour=None, many=False):
        """A name as typed: mostly the plain one, at times a synonym; with its colour word."""
        name = concept.name if self.chance(0.6) else self.pick(concept.names)
        if many or self.chance(0.1):
            name = name if already_many(name) else plural(name)
        name = f'{self.spoken(colour)} {name}' if colour else name
        return f'{self.pick(ADJECTIVES)} {name}' if self.chance(0.1) else name

    def in_style(self, scene, phrase):
        """A phrase of several things, with the style said behind it."""
        if self.chance(0.3 if scene.style == '3d' else 0.95):
            return phrase + self.pick([f', {scene.style}', f' in {scene.style} style'])
        return phrase

    def one(self, scene):
        style = scene.effect or scene.style
        noun = self.noun(scene.concept, scene.colour)
        forms = STYLE_PHRASES[style] if self.chance(NAMED[style]) else (PLAIN if self.chance(0.7) else STARTS)
        phrase = self.pick(forms).format(n=noun, t=with_article(noun))
        if already_many(noun):  # "a flat {n}"
            phrase = re.sub(rf'\ban? ((?:(?!of )\w+ )*{re.escape(noun)})', r'\1', phrase)
        return phrase

    def pair(self, scene):
        left, right = (with_article(self.noun(c, w)) for c, w in ((scene.concept, scene.colour), (scene.second, scene.second_colour)))
        return self.in_style(scene, self.pick(PAIRS).format(a=left, b=right))

    def count(self, scene):
        number = COUNT_WORDS[len(scene.things)]
        return self.in_style(scene, self.pick(COUNTS).format(number=number, n=self.noun(scene.concept, scene.colour, many=True)))

    def word(self, scene):
        quoted = self.pick(['{w}', '"{w}"', '"{w}"']).format(w=scene.word)
        said = scene.colour != 'black' or self.chance(0.5)
        if scene.concept:
            phrase = self.pick(UNDER).format(t=with_article(self.noun(scene.concept)), w=quoted)
            return self.in_style(scene, phrase + (f' in {self.spoken(scene.colour)} letters' if said else ''))
        if not said:
            return self.pick(WORDS).format(w=quoted)
        return self.pick(COLOURED_WORDS).format(w=quoted, c=self.spoken(scene.colour))

    def on_background(self, phrase, background):
        """White may go unsaid; everything else is always said."""
        if background == 'white' and self.chance(0.55):
            return phrase
        colour = self.spoken(background)
        form = self.random.random()
        if form < 0.6:
            return f'{phrase} on {with_article(colour)} background'
        if form < 0.8:
            return f'{phrase}, {colour} background'
        if form < 0.9:
            return f'{phrase} on {colour}'
        return f'{colour} background, {phrase}'

    # -- around it ------------------------------------------------------------------------------------------------------
    def story(self, phrase):
        before = self.pick(BEFORE) + ' ' if self.chance(0.8) else ''
        after = self.pick([', ', ' ']) + self.pick(AFTER) if self.chance(0.7) or not before else ''
        return before + phrase + after + (self.clause() if self.chance(0.5) else '')

    def filler(self, known):
        """A word that means nothing here, or with the rest of the chance one that nobody knows."""
        return self.pick(self.fillers) if self.chance(known) else 'xx'

    def clause(self):
        """Goes on behind what is asked for: "and" must not always mean a second thing."""
        words = [self.pick(LINKS) if self.chance(0.4) else self.filler(0.8) for _ in range(int(self.random.integers(2, 10)))]
        return self.pick([' and ', ', and ', ', and ', ' who ', ' that ', ', ']) + ' '.join(words)

    def lost_in_words(self, phrase):
        """Any words before and after, some of them unknown: what is asked for is found by what it means."""
        def some(most):
            words = [self.filler(0.9) for _ in range(int(self.random.integers(0, most)))]
            return [w + self.pick([',', '.']) if self.chance(0.1) else w for w in words]
        return ' '.join(some(16) + [phrase] + some(22))

    def typed(self, caption):
        """As people type it: at times with a capital and a full stop."""
        if self.chance(0.2):
            caption = caption[0].upper() + caption[1:]
        return caption + '.' if self.chance(0.12) else caption


def words_file():
    return [w for line in (HERE / 'words.txt').read_text().splitlines() if not line.startswith('#') for w in line.split()]


def vocabulary():
    """Every word that is one token, lower-cased; the second list also exists with a capital."""
    words = words_file()
    names = [w for c in concepts() for n in c.names for w in n.split()]
    plurals = [plural(n).rpartition(' ')[2] for c in concepts() for n in c.names if not already_many(n)]
    grammar = re.findall('[a-z0-9]+', ' '.join(sum(STYLE_PHRASES.values(), []) + PLAIN + STARTS))
    first = [c.names[0].split()[0] for c in concepts()] + ['a', 'an', 'the', 'two', 'three', 'four', 'one', 'in', 'on', 'once', 'my', 'please',
             'show', 'draw', 'make', 'create', 'i', 'this', 'there', 'it', 'pixel', 'flat', 'cartoon', 'sticker', 'silhouette',
             'red', 'orange', 'yellow', 'green', 'blue', 'purple', 'pink', 'brown', 'black', 'white', 'gray', 'sky', 'light', 'happy', 'cute']
    unique = lambda items: list(dict.fromkeys(items))
    return unique(words + grammar + names + plurals), unique(first)


def telling_words():
    """Names of things, colours, styles: what a picture depends on."""
    names = {w for c in concepts()[:243] for w in c.name.split()} | {w for c in concepts()[:40] for n in c.names for w in n.split()}
    return names | MEANINGFUL

"""The pictures that a perfect model would draw: the true drawings, placed as for training. They give the ceilings."""
import numpy as np
from PIL import Image, ImageDraw, ImageFont

import blueprint
import drawings
from evaluation.measures import STYLES


def uint8(canvas):
    return np.round(np.clip(canvas, 0, 1) * 255).astype(np.uint8)


class Truth:
    def __init__(self, painter, concepts, side, seed=11):
        self.painter, self.side = painter, side
        self.random = np.random.default_rng(seed)
        self.concepts = {c.name: c for c in concepts}

    def picture(self, question):
        """uint8 [side, side, 3], or None where nothing can be said to be right."""
        if question.group == 'sheet':
            return None
        if question.group == 'blueprint':
            return blueprint.picture(self.painter.sets, self.concepts[question.noun].emoji, self.side)
        canvas = drawings.flat_background(drawings.BACKGROUNDS[question.background], self.side)
        if question.word:
            return self.word(question, canvas)
        things = [question.noun] * question.count + ([question.right] if question.right else [])
        style = question.style or str(self.random.choice(STYLES, p=[0.6, 0.2, 0.2]))
        for (x, y, size), noun in zip(self.places(len(things)), things):
            rgba = self.painter.drawing(self.concepts[noun].emoji, style, question.colour)
            degrees = self.random.uniform(-8, 8) if self.random.random() < 0.25 else 0
            centre = np.array([x, y]) * self.side + self.random.uniform(-0.02, 0.02, 2) * self.side
            drawings.place(canvas, rgba, int(size * self.side * self.random.uniform(0.9, 1.1)), centre, degrees)
        return uint8(canvas)

    def places(self, count):
        """→ [(x, y, size)] as shares of the side."""
        return {1: [(0.5, 0.5, 0.78)], 2: [(0.26, 0.5, 0.44), (0.74, 0.5, 0.44)], 3: [(0.25, 0.3, 0.4), (0.75, 0.3, 0.4), (0.5, 0.72, 0.4)],
                4: [(0.26, 0.27, 0.42), (0.74, 0.27, 0.42), (0.26, 0.74, 0.42), (0.74, 0.74, 0.42)]}[count]

    def word(self, question, canvas):
        picture = Image.fromarray(uint8(canvas))
        colour = next((c for c in drawings.COLOURS if f'in {c} letters' in question.prompt), 'black')
        font = ImageFont.load_default(self.side)
        width = font.getlength(question.word)
        font = ImageFont.load_default(self.side * min(0.4, 0.8 * self.side / width))
        ImageDraw.Draw(picture).text((self.side / 2, self.side / 2), question.word, drawings.COLOURS[colour], font, 'mm')
        return np.asarray(picture)

"""The results as a Markdown table and a contact sheet."""
import textwrap

from PIL import Image, ImageDraw, ImageFont

from evaluation.scores import ROWS

NUMBERS = ('sharpness', 'variety', 'changed')  # not shares


def shown(value, answer):
    return '–' if value is None else f'{value:.3f}' if answer in NUMBERS else f'{100 * value:.1f} %'


def table(totals, ceilings, title):
    """`ceilings` is what evaluate.py --true wrote: {"group.answer": share}."""
    lines = [f'# {title}', '', '| measure | pictures | result | true drawings | gate |', '|---|---|---|---|---|']
    for label, group, answer, gate in ROWS:
        if (group, answer) not in totals:
            continue
        value, count = totals[group, answer]
        verdict = '' if gate is None else f'≥ {100 * gate:.0f} % {"✓" if value >= gate else "✗"}'
        lines.append(f'| {label} | {count} | {shown(value, answer)} | {shown(ceilings.get(f"{group}.{answer}"), answer)} | {verdict} |')
    return '\n'.join(lines) + '\n'


def contact_sheet(entries, columns=8, cell=128):
    """[(prompt, picture)] → one picture, prompts below."""
    gap, text = 6, 40
    rows = -(-len(entries) // columns)
    sheet = Image.new('RGB', (columns * (cell + gap) + gap, rows * (cell + text) + gap), 'white')
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(10)
    for i, (prompt, picture) in enumerate(entries):
        x, y = gap + i % columns * (cell + gap), gap + i // columns * (cell + text)
        tile = Image.fromarray(picture).resize((cell, cell), Image.LANCZOS)
        sheet.paste(tile, (x, y))
        pen.rectangle((x, y, x + cell - 1, y + cell - 1), outline=(225, 225, 228))
        pen.text((x, y + cell + 2), '\n'.join(textwrap.wrap(prompt, 25)[:3]), (70, 70, 75), font, spacing=1)
    return sheet

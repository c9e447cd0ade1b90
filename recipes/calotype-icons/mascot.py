"""Talbo, Calotype's mascot: a small wooden camera on three legs, named after the inventor of the calotype. Writes examples/mascot.zip.

    python mascot.py ../../examples/mascot.zip [--svg FOLDER]

The example from which an adapter learns one subject. The drawings are made by this file and nothing else: CC0 1.0.
"""
import argparse
import dataclasses
import io
import math
import pathlib
import zipfile

import resvg_py
from PIL import Image

import drawings
from blueprint import add

CC0 = '''Talbo, the mascot of Calotype. To the extent possible under law, its authors have waived all copyright and related or
neighbouring rights to these drawings: CC0 1.0 Universal, https://creativecommons.org/publicdomain/zero/1.0/
'''
WOOD, WOOD_DARK, WOOD_LIGHT, LEATHER, LEATHER_DARK = '#e9a75a', '#8f5426', '#f7c987', '#2f9c95', '#1f736f'


@dataclasses.dataclass
class Pose:
    name: str
    caption: str
    background: str
    left: float = 35  # degrees of the arms: 0 hangs straight down, 90 is level, 150 waves
    right: float = 35
    look: tuple = (0, 0)  # where the eye turns, -1 to 1
    eye: str = 'open'  # open, happy, asleep
    mouth: str = 'smile'  # smile, open, small
    tilt: float = 0  # degrees
    lift: float = 0  # above the ground
    stride: float = 0  # how far the feet are moved to the right, and the outer ones apart
    wears: str = ''
    holds: str = ''  # in the hand on the right


POSES = [
    Pose('standing', 'TOK on a white background', 'white'),
    Pose('waving', 'TOK smiling on a sky blue background', 'sky blue', right=150, tilt=-4, mouth='open'),
    Pose('jumping', 'TOK jumping on a yellow background', 'yellow', left=140, right=140, eye='happy', mouth='open', lift=24, stride=12),
    Pose('sleeping', 'TOK sleeping on a purple background', 'purple', left=12, right=12, eye='asleep', mouth='small', tilt=7),
    Pose('looking-left', 'TOK looking left on a green background', 'green', left=80, right=25, look=(-1, 0.1), tilt=-3),
    Pose('running', 'TOK running on an orange background', 'orange', left=115, right=65, look=(0.7, 0), tilt=8, lift=6, stride=-18, mouth='open'),
    Pose('top-hat', 'TOK wearing a top hat on a pink background', 'pink', right=60, look=(0.2, -0.3), wears='hat'),
    Pose('bow', 'TOK wearing a red bow on a gray background', 'gray', left=45, right=45, look=(-0.4, -0.4), wears='bow'),
    Pose('crown', 'TOK wearing a crown on a blue background', 'blue', left=55, right=55, eye='happy', wears='crown'),
    Pose('balloon', 'TOK holding a red balloon on a sky blue background', 'sky blue', right=128, look=(0.7, -0.8), mouth='open', tilt=-2, holds='balloon'),
    Pose('flower', 'TOK holding a flower on a white background', 'white', right=110, look=(0.8, 0), holds='flower'),
    Pose('star', 'TOK holding a star on a black background', 'black', left=30, right=125, eye='happy', mouth='open', holds='star'),
]


def hand(pose, side):
    """Where an arm ends; side is -1 on the left, 1 on the right."""
    angle = math.radians(pose.left if side < 0 else pose.right)
    return 128 + side * (62 + 36 * math.sin(angle)), 138 + 36 * math.cos(angle)


def arm(pose, side):
    x, y = hand(pose, side)
    shoulder = 128 + side * 58
    bend = shoulder + side * 22, (138 + y) / 2 + 6
    return (f'<path d="M{shoulder} 138 Q{bend[0]:.1f} {bend[1]:.1f} {x:.1f} {y:.1f}" fill="none" stroke="{WOOD_DARK}" stroke-width="13" '
            f'stroke-linecap="round"/><circle cx="{x:.1f}" cy="{y:.1f}" r="10.5" fill="{LEATHER}"/>')


def legs(pose):
    """Three, as a tripod has; the middle one stands behind."""
    ground, out = 222, []
    for i, (top, foot) in enumerate([(128, 128), (94, 80), (162, 176)]):
        side = (0, -1, 1)[i]
        running = pose.stride < 0
        x = foot + pose.stride * (1 if running else side)
        y = ground - (4 if i == 0 else 0) - (8 if running and side > 0 else 0)
        shade = WOOD_DARK if i else '#6f3f1b'
        out.append(f'<path d="M{top} 180 L{x} {y}" stroke="{shade}" stroke-width="13" stroke-linecap="round"/>'
                   f'<ellipse cx="{x}" cy="{y + 3}" rx="13" ry="8" fill="{LEATHER if i else LEATHER_DARK}"/>')
    return ''.join(out)


def eye(pose):
    x, y = 128 + 6 * pose.look[0], 116 + 6 * pose.look[1]
    ring = (f'<circle cx="128" cy="116" r="45" fill="{LEATHER_DARK}"/><circle cx="128" cy="116" r="41" fill="{LEATHER}"/>'
            f'<circle cx="128" cy="116" r="36" fill="url(#brass)"/><circle cx="128" cy="116" r="29" fill="url(#glass)"/>')
    if pose.eye == 'happy':
        return ring + '<path d="M112 122 Q128 98 144 122" fill="none" stroke="#fff" stroke-width="7" stroke-linecap="round"/>'
    if pose.eye == 'asleep':
        return ring + (f'<circle cx="128" cy="116" r="29" fill="{LEATHER}"/><path d="M108 118 Q128 136 148 118" fill="none" stroke="#12343a" '
                       'stroke-width="6" stroke-linecap="round"/>')
    return ring + (f'<circle cx="{x}" cy="{y}" r="20" fill="#4cc3c9"/><circle cx="{x}" cy="{y}" r="13" fill="#0f1b22"/>'
                   f'<circle cx="{x - 8}" cy="{y - 9}" r="7.5" fill="#fff"/><circle cx="{x + 8}" cy="{y + 8}" r="3.5" fill="#fff" opacity=".85"/>')


def face(pose):
    mouth = {'smile': '<path d="M117 170 Q128 180 139 170" fill="none" stroke="#5b3012" stroke-width="4.5" stroke-linecap="round"/>',
             'open': '<path d="M116 168 H140 Q139 182 128 182 Q117 182 116 168Z" fill="#5b3012"/>'
                     '<ellipse cx="128" cy="179" rx="6.5" ry="3.5" fill="#f0717a"/>',
             'small': '<ellipse cx="128" cy="173" rx="4" ry="4.5" fill="#5b3012"/>'}[pose.mouth]
    cheeks = ''.join(f'<ellipse cx="{x}" cy="164" rx="11" ry="7" fill="#f58f86" opacity=".75"/>' for x in (87, 169))
    return cheeks + mouth


def body(pose):
    return (f'<rect x="112" y="52" width="32" height="24" rx="8" fill="{LEATHER_DARK}"/>'
            f'<rect x="112" y="52" width="32" height="13" rx="6.5" fill="{LEATHER}"/>'
            '<rect x="158" y="58" width="18" height="16" rx="6" fill="#e5484d"/>'
            f'<rect x="64" y="66" width="128" height="124" rx="26" fill="{WOOD_DARK}"/><rect x="64" y="66" width="128" height="118" rx="26" fill="url(#wood)"/>'
            f'<path d="M82 74 H160" stroke="{WOOD_LIGHT}" stroke-width="6" stroke-linecap="round" opacity=".9"/>')


WORN = {
    '': '',
    'hat': '<path d="M94 60 L90 14 Q128 4 166 14 L162 60Z" fill="#33343b"/><path d="M93 46 H163 L162 60 H94Z" fill="#e5484d"/>'
           '<rect x="70" y="56" width="116" height="13" rx="6.5" fill="#26272d"/>',
    'crown': '<path d="M88 66 L80 24 L104 44 L128 16 L152 44 L176 24 L168 66Z" fill="#f8cf46"/>'
             '<rect x="87" y="58" width="82" height="12" rx="6" fill="#e2a92c"/>'
             '<circle cx="128" cy="48" r="6" fill="#e5484d"/><circle cx="80" cy="24" r="5" fill="#e2a92c"/><circle cx="128" cy="16" r="5" fill="#e2a92c"/>'
             '<circle cx="176" cy="24" r="5" fill="#e2a92c"/>',
    'bow': '<path d="M128 194 L96 180 Q88 194 96 208Z M128 194 L160 180 Q168 194 160 208Z" fill="#e5484d" stroke="#e5484d" stroke-width="6" '
           'stroke-linejoin="round"/><rect x="119" y="185" width="18" height="18" rx="6" fill="#b93036"/>',
}


def star(x, y, radius):
    radii = [radius * (1 if i % 2 == 0 else 0.5) for i in range(10)]
    points = [(x + r * math.sin(math.pi * i / 5), y - r * math.cos(math.pi * i / 5)) for i, r in enumerate(radii)]
    return ' '.join(f'{a:.1f},{b:.1f}' for a, b in points)


def held(pose):
    x, y = hand(pose, 1)
    if pose.holds == 'balloon':
        return (f'<path d="M{x:.1f} {y:.1f} Q{x + 8:.1f} {y - 24:.1f} {x:.1f} {y - 44:.1f}" fill="none" stroke="#6b7280" stroke-width="3"/>'
                f'<ellipse cx="{x:.1f}" cy="{y - 70:.1f}" rx="24" ry="29" fill="#e5484d"/>'
                f'<ellipse cx="{x - 8:.1f}" cy="{y - 82:.1f}" rx="6" ry="8" fill="#fff" opacity=".55"/>')
    if pose.holds == 'flower':
        petals = ''.join(f'<circle cx="{x + 13 * math.cos(k * math.tau / 6):.1f}" cy="{y - 44 + 13 * math.sin(k * math.tau / 6):.1f}" '
                         'r="10" fill="#f48fb8"/>' for k in range(6))
        return (f'<path d="M{x:.1f} {y + 14:.1f} V{y - 40:.1f}" stroke="#3da35d" stroke-width="6" stroke-linecap="round"/>'
                f'{petals}<circle cx="{x:.1f}" cy="{y - 44:.1f}" r="9" fill="#f8cf46"/>')
    if pose.holds == 'star':
        return f'<polygon points="{star(x + 4, y - 30, 27)}" fill="#f8cf46" stroke="#f8cf46" stroke-width="7" stroke-linejoin="round"/>'
    return ''


def svg(pose):
    red, green, blue = drawings.BACKGROUNDS[pose.background]
    shadow = f'<ellipse cx="128" cy="231" rx="{70 - pose.lift:.0f}" ry="8" fill="#000" opacity=".13"/>'
    gradients = (f'<linearGradient id="wood" x2="0" y2="1"><stop stop-color="#f3ba70"/><stop offset="1" stop-color="{WOOD}"/></linearGradient>'
                 '<linearGradient id="brass" x2="1" y2="1"><stop stop-color="#fbe08a"/><stop offset="1" stop-color="#d9a238"/></linearGradient>'
                 '<radialGradient id="glass"><stop stop-color="#2c5566"/><stop offset="1" stop-color="#142731"/></radialGradient>')
    figure = legs(pose) + held(pose) + arm(pose, -1) + arm(pose, 1) + body(pose) + eye(pose) + face(pose) + WORN[pose.wears]
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="256" height="256" viewBox="0 0 256 256"><defs>{gradients}</defs>'
            f'<rect width="256" height="256" fill="rgb({red},{green},{blue})"/>{shadow}'
            f'<g transform="translate(0 {-pose.lift}) rotate({pose.tilt} 128 222)">{figure}</g></svg>')


def png(pose):
    picture = Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg(pose), skip_system_fonts=True)))).convert('RGB')
    out = io.BytesIO()
    picture.quantize(256, kmeans=4, dither=Image.Dither.NONE).save(out, 'PNG', optimize=True)
    return out.getvalue()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('out', type=pathlib.Path)
    parser.add_argument('--svg', type=pathlib.Path, help='also write the drawings as SVG into this folder')
    options = parser.parse_args()
    with zipfile.ZipFile(options.out, 'w') as archive:
        for pose in POSES:
            add(archive, f'{pose.name}.png', png(pose))
            add(archive, f'{pose.name}.txt', pose.caption + '\n')
            if options.svg:
                (options.svg / f'{pose.name}.svg').write_text(svg(pose))
        add(archive, '.license/LICENSE', CC0)
        archive.comment = b'Talbo, the mascot of Calotype: CC0 1.0; see .license/LICENSE'
    print(f'{options.out}: {options.out.stat().st_size} bytes')


if __name__ == '__main__':
    main()

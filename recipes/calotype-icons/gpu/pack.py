"""Packs the drawings into a few files that travel to a machine with a GPU.

    python gpu/pack.py DRAWINGS OUT        → OUT/drawings.zip, OUT/facts.json

Drawings of concepts are 256 pixels wide, the others, which only the autoencoder sees, 128. 3D pictures are stored lossily.
"""
import argparse
import io
import pathlib
import shutil
import sys
import zipfile

from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
import captions
import drawings
import scenes


def webp(rgba, lossless):
    out = io.BytesIO()
    Image.fromarray(rgba).save(out, 'WEBP', method=5, **({'lossless': True} if lossless else {'quality': 95}))
    return out.getvalue()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('drawings')
    parser.add_argument('out', type=pathlib.Path)
    parser.add_argument('--others', type=int, default=3, help='every so manieth of the other drawings; 0: none')
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    sets, concepts = drawings.Drawings(options.drawings), captions.concepts()
    scenes.Facts.of(sets, concepts)
    shutil.copy(sets.folder / 'facts.json', options.out)
    known = {scenes.plain(c.emoji) for c in concepts}
    with zipfile.ZipFile(options.out / 'drawings.zip', 'w') as archive:
        for style in scenes.STYLES:
            for concept in concepts:
                archive.writestr(f'concepts/{style}/{scenes.plain(concept.emoji)}.webp', webp(sets.rgba(style, concept.emoji), style != '3d'))
        for style in list(scenes.STYLES) + ['line']:
            others = [e for e in sets.emoji(style) if style == 'line' or scenes.plain(e) not in known]
            for emoji in others[::options.others] if options.others else []:
                archive.writestr(f'others/{style}/{scenes.plain(emoji)}.webp', webp(sets.rgba(style, emoji, 128), False))
    print(f'{options.out}: {(options.out / "drawings.zip").stat().st_size / 1e6:.1f} MB')


if __name__ == '__main__':
    main()

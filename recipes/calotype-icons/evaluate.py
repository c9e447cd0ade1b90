"""Asks a model for some 1,300 pictures and measures what is on them; without a neural network.

    python evaluate.py DRAWINGS --model MODEL --out build/evaluation            a model, through the program `calotype`
    python evaluate.py DRAWINGS --model MODEL --lora blueprint.safetensors ...  an adapter of examples/blueprint.zip as well
    python evaluate.py DRAWINGS --true --out evaluation/ceilings                the true drawings: the most a model can get
    python evaluate.py DRAWINGS --true --vae MODEL --out build/autoencoder      the same through a model's autoencoder

Writes OUT.json (every question with its answers), OUT.md (the table) and OUT.webp (pictures of prompts/sheet.txt).
"""
import argparse
import dataclasses
import json
import pathlib
import subprocess
import tempfile
import time

import numpy as np
from PIL import Image

import captions
import drawings
import pictures
import scenes
from evaluation import report, scores
from evaluation.measures import oklab
from evaluation.questions import all_questions, blueprint_questions
from evaluation.truth import Truth

HERE = pathlib.Path(__file__).parent
CEILINGS = HERE / 'evaluation/ceilings.json'


def drawn(questions, options):
    """Pictures of the questions by `calotype generate`, one call for each seed; uint8 [H, W, 3] each."""
    found = [None] * len(questions)
    for seed in sorted({q.seed for q in questions}):
        places = [i for i, q in enumerate(questions) if q.seed == seed]
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            (folder / 'prompts.txt').write_text(''.join(questions[i].prompt + '\n' for i in places))
            command = [options.calotype, 'generate', '--prompt-file', folder / 'prompts.txt', '--model', options.model, '--seed', seed,
                       '--width', options.side, '--height', options.side, '-o', folder / 'out.png', '--threads', options.threads]
            for name in ('steps', 'guidance', 'true_cfg', 'dtype', 'lora'):
                if getattr(options, name) is not None:
                    command += [f'--{name.replace("_", "-")}', getattr(options, name)]
            run = subprocess.run([str(part) for part in command], capture_output=True, text=True, errors='replace')
            if run.returncode:
                raise SystemExit(run.stderr[-2000:])
            for number, i in enumerate(places, 1):
                path = folder / ('out.png' if len(places) == 1 else f'out-{number}.png')
                found[i] = np.asarray(Image.open(path).convert('RGB'))
    return found


def without_adapter(questions, options):
    """The pictures without the trigger word once more, without the adapter: {place: picture}."""
    places = [i for i, q in enumerate(questions) if q.group == 'without_trigger']
    alone = argparse.Namespace(**vars(options) | {'lora': None})
    return dict(zip(places, drawn([questions[i] for i in places], alone)))


def through_autoencoder(folder, found):
    """Encoded and decoded by a model's autoencoder: the most that its transformer can get."""
    import diffusers
    import torch
    vae = diffusers.AutoencoderKL.from_pretrained(pathlib.Path(folder) / 'vae', torch_dtype=torch.float32).eval()
    with torch.no_grad():
        for picture in found:
            x = torch.from_numpy(picture.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
            y = vae.decode(vae.encode(x).latent_dist.mean).sample[0].permute(1, 2, 0)
            yield ((y.clamp(-1, 1) + 1) * 127.5).round().byte().numpy()


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('drawings')
    parser.add_argument('--model', help='folder of the model')
    parser.add_argument('--true', action='store_true', help='measure the true drawings instead')
    parser.add_argument('--vae', help='with --true: a model through whose autoencoder the drawings go')
    parser.add_argument('--out', type=pathlib.Path, required=True, help='name of the results, without an ending')
    parser.add_argument('--concepts', type=int, default=10_000, help='only the first of concepts.txt, as in training')
    parser.add_argument('--groups', help='only these, with commas: nouns, newcomers, colour, …')
    parser.add_argument('--calotype', default=HERE.parent.parent / 'build/release/calotype')
    parser.add_argument('--side', type=int, default=128)
    parser.add_argument('--steps', type=int, default=8)
    parser.add_argument('--guidance', type=float, default=3)
    parser.add_argument('--true-cfg', type=float, help='of a model whose guidance is not distilled yet')
    parser.add_argument('--dtype')
    parser.add_argument('--lora', help='FILE or FILE:SCALE; asks for blueprints only')
    parser.add_argument('--threads', type=int, default=0)
    options = parser.parse_args()
    if options.true == bool(options.model):
        parser.error('give either --model or --true')
    return options


def questions_for(options, chooser):
    plain = [] if options.lora else all_questions(chooser)
    extra = [q for q in blueprint_questions() if q.noun in {c.name for c in chooser.concepts}]
    asked = plain + extra if options.true or options.lora else plain
    kept = options.groups.split(',') if options.groups else None
    return [q for q in asked if kept is None or q.group in kept]


def main():
    options = arguments()
    start = time.monotonic()
    concepts = captions.concepts()[:options.concepts]
    sets = drawings.Drawings(options.drawings)
    chooser = scenes.Chooser(scenes.Facts.of(sets, captions.concepts()), concepts)
    questions = questions_for(options, chooser)
    if options.true:
        truth = Truth(pictures.Painter(sets, options.side), concepts, options.side)
        found = [truth.picture(q) for q in questions]
        questions, found = zip(*[(q, p) for q, p in zip(questions, found) if p is not None])
        found = list(through_autoencoder(options.vae, found)) if options.vae else found
    else:
        found = drawn(questions, options)
    print(f'{len(found)} pictures after {time.monotonic() - start:.0f} s')

    scorer = scores.Scorer(sets, concepts)
    asked = [(q, p, scorer.answers(q, p)) for q, p in zip(questions, found)]
    for i, alone in (without_adapter(questions, options) if options.lora else {}).items():
        asked[i][2]['changed'] = float(np.linalg.norm(oklab(found[i]) - oklab(alone), axis=-1).mean())
    totals = scores.add_up(asked)
    shares = {f'{group}.{answer}': round(value, 4) for (group, answer), (value, _) in totals.items()}
    ceilings = shares if options.true and not options.vae else json.loads(CEILINGS.read_text()) if CEILINGS.exists() else {}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    kept = {k: v for k, v in vars(options).items() if k not in ('out', 'drawings') and v is not None}
    result = {'settings': {k: str(v) if isinstance(v, pathlib.Path) else v for k, v in kept.items()}, 'shares': shares,
              'questions': [{k: v for k, v in dataclasses.asdict(q).items() if v is not None} | {'answers': a} for q, _, a in asked]}
    options.out.with_suffix('.json').write_text(json.dumps(shares if options.true and not options.vae else result, indent=1, ensure_ascii=False) + '\n')
    page = report.table(totals, ceilings, f'Evaluation of {options.model or options.vae or "the true drawings"}')
    if any(q.word for q in questions) and ('words', 'word') not in totals:
        page += '\nWords were not read: tesseract is not installed (Debian: tesseract-ocr).\n'
    options.out.with_suffix('.md').write_text(page)
    sheet = [(q.prompt, p) for q, p, _ in asked if q.group == ('newcomers' if options.true else 'blueprint' if options.lora else 'sheet')]
    if sheet:
        report.contact_sheet(sheet).save(options.out.with_suffix('.webp'), quality=88)
    print(page)


if __name__ == '__main__':
    main()

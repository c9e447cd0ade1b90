"""Makes a model folder of weights that lie in one folder, as gpu/train.py writes them.

    python assemble.py UNTRAINED WEIGHTS OUT [--transformer distilled]
"""
import argparse
import pathlib
import shutil

FILES = {'vae': 'diffusion_pytorch_model', 'transformer': 'diffusion_pytorch_model', 'text_encoder': 'model', 'text_encoder_2': 'model'}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('untrained', type=pathlib.Path)
    parser.add_argument('weights', type=pathlib.Path)
    parser.add_argument('out', type=pathlib.Path)
    parser.add_argument('--transformer', default='transformer', choices=('transformer', 'distilled'))
    options = parser.parse_args()
    shutil.copytree(options.untrained, options.out)
    for part, name in FILES.items():
        source = options.transformer if part == 'transformer' else part
        shutil.copy(options.weights / f'{source}.safetensors', options.out / part / f'{name}.safetensors')


if __name__ == '__main__':
    main()

"""Makes a model folder of what train.py wrote.

    python gpu/assemble.py UNTRAINED TRAINED OUT [--transformer base|distilled]
"""
import argparse
import pathlib
import shutil

import safetensors.torch


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('untrained', type=pathlib.Path)
    parser.add_argument('trained', type=pathlib.Path)
    parser.add_argument('out', type=pathlib.Path)
    parser.add_argument('--transformer', default='distilled', choices=('base', 'distilled'))
    options = parser.parse_args()
    shutil.copytree(options.untrained, options.out, dirs_exist_ok=True)
    text = safetensors.torch.load_file(options.trained / 'text.safetensors')
    parts = {'vae/diffusion_pytorch_model': safetensors.torch.load_file(options.trained / 'autoencoder.safetensors'),
             'transformer/diffusion_pytorch_model': safetensors.torch.load_file(options.trained / f'{options.transformer}.safetensors'),
             'text_encoder/model': {k.removeprefix('clip.'): v for k, v in text.items() if k.startswith('clip.')},
             'text_encoder_2/model': {k.removeprefix('t5.'): v for k, v in text.items() if k.startswith('t5.')}}
    for name, weights in parts.items():
        safetensors.torch.save_file(weights, options.out / f'{name}.safetensors', {'format': 'pt'})


if __name__ == '__main__':
    main()

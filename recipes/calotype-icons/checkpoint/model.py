"""Puts the weights beside this script into a copy of an untrained model folder.

    python model.py UNTRAINED OUT
"""
import pathlib
import shutil
import sys

HERE = pathlib.Path(__file__).parent

if __name__ == '__main__':
    untrained, out = map(pathlib.Path, sys.argv[1:])
    shutil.copytree(untrained, out)
    for part in ('transformer', 'vae'):
        shutil.copy(HERE / f'{part}.safetensors', out / part / 'diffusion_pytorch_model.safetensors')
    for part in ('text_encoder', 'text_encoder_2'):
        shutil.copy(HERE / f'{part}.safetensors', out / part / 'model.safetensors')

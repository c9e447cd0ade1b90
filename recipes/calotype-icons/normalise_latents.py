"""Gives every latent channel of an autoencoder mean 0 and deviation 1, by changing the layers beside the latents.

    python normalise_latents.py MODEL PICTURES

Changes MODEL/vae in place. The transformer then sees channels of one size with scaling_factor 1 and shift_factor 0. At
the border the decoder's first convolution pads with zeros, which now stand for the mean; train a little further after it.
"""
import argparse
import pathlib
import random

import diffusers
import numpy as np
import safetensors.torch
import torch
from PIL import Image


def normalised(weights, mean, deviation):
    """An autoencoder's weights in float32, changed, for latents that had these means and deviations, [channels]."""
    channels = len(mean)
    out, bias = weights['encoder.conv_out.weight'], weights['encoder.conv_out.bias']
    out[:channels] /= deviation[:, None, None, None]
    bias[:channels] = (bias[:channels] - mean) / deviation
    bias[channels:] -= 2 * deviation.log()
    decoder = weights['decoder.conv_in.weight']
    weights['decoder.conv_in.bias'] += (decoder * mean[None, :, None, None]).sum((1, 2, 3))
    decoder *= deviation[None, :, None, None]
    return weights


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('model', type=pathlib.Path)
    parser.add_argument('pictures', type=pathlib.Path)
    options = parser.parse_args()
    vae = diffusers.AutoencoderKL.from_pretrained(options.model / 'vae', torch_dtype=torch.float32).eval()
    files = sorted(options.pictures.glob('*.png'))
    latents = []
    with torch.no_grad():
        for path in random.Random(0).sample(files, min(400, len(files))):
            picture = torch.from_numpy(np.asarray(Image.open(path).convert('RGB'), np.float32) / 127.5 - 1)
            latents.append(vae.encode(picture.permute(2, 0, 1)[None]).latent_dist.mean)
    values = torch.cat(latents).transpose(0, 1).flatten(1)
    mean, deviation = values.mean(1), values.std(1)
    print('mean', [round(x, 2) for x in mean.tolist()], 'deviation', [round(x, 2) for x in deviation.tolist()])

    path = next((options.model / 'vae').glob('*.safetensors'))
    weights = {k: v.float() for k, v in safetensors.torch.load_file(path).items()}
    safetensors.torch.save_file(normalised(weights, mean, deviation), path)


if __name__ == '__main__':
    main()

"""Does diffusers load a model that Calotype trained, and draw the picture that Calotype draws with it?

    calotype train ... --mode full --save-type f32 --output FOLDER
    calotype generate "a cat" --model FOLDER --seed 1 --steps 4 --dtype f32 --output my.png
    python tools/reference/check_model.py FOLDER my.png --prompt "a cat" --seed 1 --steps 4

Size is that of the picture. Prints the PSNR in dB and ends with 1 when it is below 45. Weights that the folder lacks make
diffusers draw other pictures: it fills them with random numbers.
"""

import argparse
import sys

import numpy as np
import torch
from check_adapter import draw, psnr
from diffusers import FluxPipeline
from PIL import Image


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("picture", help="PNG by calotype generate")
    parser.add_argument("--prompt", default="")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--guidance", type=float, default=3.5)
    parser.add_argument("--max-sequence-length", type=int, default=512, help="T5 tokens; 256 for schnell")
    options = parser.parse_args()
    ours = np.asarray(Image.open(options.picture).convert("RGB"), dtype=np.float64)
    pipe = FluxPipeline.from_pretrained(options.model, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    distance = psnr(ours, draw(pipe, options, ours.shape[1], ours.shape[0]))
    print(f"PSNR {distance:.1f} dB")
    return 0 if distance >= 45 else 1


if __name__ == "__main__":
    sys.exit(main())

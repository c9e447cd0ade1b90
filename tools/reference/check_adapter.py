"""Does diffusers draw with an adapter that Calotype wrote the picture that Calotype draws with it?

    calotype train ... --output my.safetensors
    calotype generate "a cat" --model FOLDER --lora my.safetensors --seed 1 --steps 4 --output my.png
    python tools/reference/check_adapter.py my.safetensors FOLDER my.png --prompt "a cat" --seed 1 --steps 4

FOLDER is a diffusers folder; size is that of the picture. Prints the PSNR in dB and ends with 1 when it is below 45, or
when the adapter changes so little that the picture without it would do as well.
"""

import argparse
import math
import sys

import numpy as np
import torch
from diffusers import FluxPipeline
from PIL import Image


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("adapter")
    parser.add_argument("model")
    parser.add_argument("picture", help="PNG by calotype generate --lora")
    parser.add_argument("--prompt", default="")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--guidance", type=float, default=3.5)
    parser.add_argument("--strength", type=float, default=1.0, help="what --lora FILE:STRENGTH was")
    parser.add_argument("--max-sequence-length", type=int, default=512, help="T5 tokens; 256 for schnell")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    return parser.parse_args()


def draw(pipe: FluxPipeline, options: argparse.Namespace, width: int, height: int) -> np.ndarray:
    picture = pipe(prompt=options.prompt, width=width, height=height, num_inference_steps=options.steps,
                   guidance_scale=options.guidance, max_sequence_length=options.max_sequence_length,
                   generator=torch.Generator().manual_seed(options.seed)).images[0]
    return np.asarray(picture, dtype=np.float64)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    error = np.mean((a - b) ** 2)
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def main() -> int:
    options = arguments()
    ours = np.asarray(Image.open(options.picture).convert("RGB"), dtype=np.float64)
    height, width = ours.shape[:2]
    pipe = FluxPipeline.from_pretrained(options.model, dtype=getattr(torch, options.dtype))
    pipe.set_progress_bar_config(disable=True)
    without = draw(pipe, options, width, height)
    pipe.load_lora_weights(options.adapter, adapter_name="a")
    pipe.set_adapters("a", options.strength)
    theirs = draw(pipe, options, width, height)
    if theirs.shape != ours.shape:
        print(f"diffusers draws {theirs.shape}, the picture is {ours.shape}")
        return 1
    distance, effect = psnr(ours, theirs), psnr(without, theirs)
    print(f"PSNR {distance:.1f} dB; without the adapter {effect:.1f} dB")
    return 0 if distance >= 45 and effect < distance - 6 else 1


if __name__ == "__main__":
    sys.exit(main())

"""What diffusers draws with the model in the box: tests/golden/box.safetensors.

    python tools/reference/box.py

Twenty prompts in f32; run it again whenever models/calotype-icons gets other weights. Only the first picture is kept: the
others follow from their latents.
"""

import json
from pathlib import Path

import torch
from diffusers import FluxPipeline
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parents[2]
PROMPTS = [
    "a cat", "a dog", "a car", "a house", "a tree", "the sun", "a rocket", "a robot", "a pizza", "a heart",
    "a red car", "a 3d fox", "a flat icon of a castle", "a cartoon dragon", "bunnies", "a puppy",
    "a blue apple on a white background", "a purple house on a yellow background",
    "Once upon a time there was a fish who waited for the rain to stop, and everyone was happy.",
    "a photo of a woman",
]
REQUEST = dict(width=128, height=128, num_inference_steps=8, guidance_scale=3.5)


@torch.no_grad()
def main():
    pipe = FluxPipeline.from_pretrained(ROOT / "models" / "calotype-icons", torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    request = REQUEST | dict(max_sequence_length=pipe.tokenizer_2.model_max_length)
    tensors = {}
    for i, prompt in enumerate(PROMPTS):
        noise = torch.Generator().manual_seed(i)
        latents = pipe(prompt, generator=noise, output_type="latent", **request).images
        tensors[f"latents.{i}"] = latents[0].half()
    picture = pipe(PROMPTS[0], generator=torch.Generator().manual_seed(0), output_type="np", **request).images[0]
    tensors["image.u8"] = torch.from_numpy((picture * 255).round()).to(torch.uint8).contiguous()
    settings = {"prompts": PROMPTS, "request": request}
    save_file(tensors, ROOT / "tests" / "golden" / "box.safetensors", {"settings": json.dumps(settings)})


if __name__ == "__main__":
    main()

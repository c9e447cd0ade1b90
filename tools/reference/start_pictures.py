"""What diffusers draws from a start picture, and inside a mask: tests/golden/start_pictures.safetensors.

    python tools/reference/start_pictures.py

The start is the mean of the posterior, where FluxImg2ImgPipeline draws a sample, and the noise is that of text to image,
where it draws noise after the sample; everything after that is the pipeline's. Masks mark whole latents: FluxInpaintPipeline
looks at one pixel of each latent, Calotype at all.
"""

import json
from pathlib import Path

import numpy as np
import torch
from diffusers import FluxImg2ImgPipeline, FluxInpaintPipeline
from diffusers.pipelines.flux.pipeline_flux_img2img import calculate_shift, retrieve_timesteps
from PIL import Image
from safetensors.torch import save_file

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden"
REQUESTS = {
    "m1_dev": dict(height=20, width=28, num_inference_steps=5, strength=0.6, guidance_scale=3.5, max_sequence_length=24),
    "m2_schnell": dict(height=24, width=16, num_inference_steps=4, strength=0.75, max_sequence_length=24),
}
PROMPT, SEED = "A small red boat on a quiet lake", 11


def start_latents(pipe, picture, request):
    """→ the picture's latents with the noise of the first step that is left, packed."""
    height, width = request["height"], request["width"]
    mean = pipe.vae.encode(picture).latent_dist.mode()
    clean = (mean - pipe.vae.config.shift_factor) * pipe.vae.config.scaling_factor
    tokens = clean.shape[2] // 2 * (clean.shape[3] // 2)
    config, steps = pipe.scheduler.config, request["num_inference_steps"]
    shift = calculate_shift(tokens, config.base_image_seq_len, config.max_image_seq_len, config.base_shift, config.max_shift)
    retrieve_timesteps(pipe.scheduler, steps, "cpu", sigmas=np.linspace(1.0, 1 / steps, steps), mu=shift)
    timesteps, _ = pipe.get_timesteps(steps, request["strength"], "cpu")
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(SEED))
    noised = pipe.scheduler.scale_noise(clean, timesteps[:1], noise)
    return pipe._pack_latents(noised, 1, clean.shape[1], clean.shape[2], clean.shape[3])


class InpaintFromMean(FluxInpaintPipeline):
    def _encode_vae_image(self, image, generator):
        mean = self.vae.encode(image).latent_dist.mode()
        return (mean - self.vae.config.shift_factor) * self.vae.config.scaling_factor


def inpainted(name, picture, mask, request):
    """→ packed latents after the last step."""
    pipe = InpaintFromMean.from_pretrained(GOLDEN / "models" / name, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    noise = torch.Generator().manual_seed(SEED)
    return pipe(PROMPT, image=picture, mask_image=Image.fromarray(mask.numpy()), generator=noise, output_type="latent", **request).images


def marked(request, pixels_per_latent):
    """→ uint8 [H, W], 255 for what is drawn anew: half of the latents."""
    height, width = request["height"] // pixels_per_latent, request["width"] // pixels_per_latent
    latents = torch.randint(0, 2, (height, width), generator=torch.Generator().manual_seed(4), dtype=torch.uint8) * 255
    return latents.repeat_interleave(pixels_per_latent, 0).repeat_interleave(pixels_per_latent, 1)


@torch.no_grad()
def main():
    tensors = {}
    for name, request in REQUESTS.items():
        pipe = FluxImg2ImgPipeline.from_pretrained(GOLDEN / "models" / name, torch_dtype=torch.float32)
        pipe.set_progress_bar_config(disable=True)
        pixels = torch.randint(0, 256, (request["height"], request["width"], 3), generator=torch.Generator().manual_seed(3))
        picture = pixels.permute(2, 0, 1)[None] / 127.5 - 1
        latents = start_latents(pipe, picture, request)
        result = pipe(PROMPT, image=picture, latents=latents, output_type="np", **request).images[0]
        tensors[f"{name}.start.u8"] = pixels.to(torch.uint8)
        tensors[f"{name}.image.u8"] = torch.from_numpy((result * 255).round()).to(torch.uint8).contiguous()
        tensors[f"{name}.mask.u8"] = marked(request, pipe.vae_scale_factor)
        tensors[f"{name}.inpainted"] = inpainted(name, picture, tensors[f"{name}.mask.u8"], request)[0].contiguous()
    settings = {"prompt": PROMPT, "seed": SEED, "requests": REQUESTS}
    save_file(tensors, GOLDEN / "start_pictures.safetensors", {"settings": json.dumps(settings)})


if __name__ == "__main__":
    main()

"""What diffusers draws with the model in the box: the regression test of models/calotype-icons.

    python tools/reference/box.py        # writes tests/golden/box.safetensors; run it again when the weights change

Keys: `latents` f16 [20,16,16,16], unpacked, as the transformer leaves them, one for each prompt of the settings, seed 100 +
its number; `pictures` u8 [2,128,128,3], decoded from the first two. f32 computation on the CPU.
"""

import json

import numpy as np
import torch
from diffusers import FluxPipeline
from pipelines import GOLDEN
from safetensors.torch import save_file

MODEL = GOLDEN.parents[1] / "models" / "calotype-icons"
STEPS, GUIDANCE, SIDE = 8, 3.5, 128
PROMPTS = ["a cat", "a dog on a blue background", "a red car", "a house", "a green tree on a sky blue background", "the sun", "a 3d rocket",
           "a flat icon of a robot", "a slice of pizza", "a pink heart on a black background", "a cartoon of an owl", "a blue fish", "a castle",
           "yellow star, purple background", "a dragon", "A Red Apple.", "two cats", "once upon a time there was a penguin", "a birthday cake",
           "a photo of a woman in the city at night"]


def main() -> None:
    torch.set_num_threads(2)
    pipe = FluxPipeline.from_pretrained(MODEL, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    tokens = pipe.tokenizer_2.model_max_length
    latents = []
    for number, prompt in enumerate(PROMPTS):
        packed = pipe(prompt, height=SIDE, width=SIDE, num_inference_steps=STEPS, guidance_scale=GUIDANCE, max_sequence_length=tokens,
                      generator=torch.Generator().manual_seed(100 + number), output_type="latent").images
        latents.append(pipe._unpack_latents(packed, SIDE, SIDE, pipe.vae_scale_factor))
    latents = torch.cat(latents)
    with torch.no_grad():
        decoded = pipe.vae.decode(latents[:2] / pipe.vae.config.scaling_factor + pipe.vae.config.shift_factor).sample
    pictures = pipe.image_processor.postprocess(decoded, output_type="np")
    settings = {"prompts": PROMPTS, "steps": STEPS, "guidance": GUIDANCE, "side": SIDE, "tokens": tokens}
    save_file({"latents": latents.half().contiguous(), "pictures": torch.from_numpy(np.round(pictures * 255).astype(np.uint8))},
              GOLDEN / "box.safetensors", {"settings": json.dumps(settings)})
    print(f"{GOLDEN / 'box.safetensors'}: latents {tuple(latents.shape)}, deviation {latents.std():.2f}")


if __name__ == "__main__":
    main()

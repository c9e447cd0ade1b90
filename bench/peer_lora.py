"""Seconds a LoRA training step takes with diffusers + peft (eager mode, CPU), to set beside `calotype train --json-log`.

    python bench/peer_lora.py --make-model build/bench-model              # a medium random FLUX, to bench both programs on
    python bench/peer_lora.py build/bench-model --size 512 --batch 1 --dtype bf16

Python as for tools/reference (README.md there). A step: noise, forward, loss, backward, clipping, AdamW, on latents and text
states that lie in memory, as a trainer with caches has them; rank 16 on every linear layer of the blocks. bf16 is what
diffusers' training scripts do: the base in bf16, adapters in f32, autocast. Prints one line of JSON; `bf16_instructions` there
says whether the processor has any (without, a step in bf16 took 18 times as long as in f32).
"""

import argparse
import dataclasses
import json
import os
import resource
import statistics
import sys
import time
from pathlib import Path

import diffusers
import peft
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel
from peft import LoraConfig

RANK = 16


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="diffusers folder")
    parser.add_argument("--make-model", metavar="FOLDER", help="write a random model of width 512 there and end")
    parser.add_argument("--size", type=int, default=512, help="pixels of both sides")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--text-tokens", type=int, default=512)
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--checkpointing", action="store_true", help="recompute blocks in the backward pass")
    options = parser.parse_args()
    if (options.model is None) == (options.make_model is None):
        parser.error("give either a model or --make-model")
    return options


def make_model(folder: Path) -> None:
    """Width 512 (4 heads of 128), 2 double and 4 single blocks, 35 M weights in bf16; encoders and VAE are tiny."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools" / "reference"))
    from pipelines import MODELS, save  # beside the other reference scripts, not a package

    tiny = next(model for model in MODELS if model.name == "m1_dev")
    shape = dict(num_layers=2, num_single_layers=4, num_attention_heads=4, attention_head_dim=128,
                 axes_dims_rope=(16, 56, 56), guidance_embeds=True)
    eightfold = dict(tiny.vae, block_out_channels=(8, 8, 16, 16), norm_num_groups=4)
    with torch.no_grad():
        save(dataclasses.replace(tiny, name="bench", transformer=shape, vae=eightfold), folder)


def load(options: argparse.Namespace) -> tuple[FluxTransformer2DModel, list[torch.nn.Parameter]]:
    dtype = torch.float32 if options.dtype == "f32" else torch.bfloat16
    transformer = FluxTransformer2DModel.from_pretrained(options.model, subfolder="transformer", torch_dtype=dtype)
    transformer.requires_grad_(False)
    layers = [name for name, module in transformer.named_modules()
              if isinstance(module, torch.nn.Linear) and "transformer_blocks." in name]
    transformer.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=layers))
    adapters = [parameter for parameter in transformer.parameters() if parameter.requires_grad]
    assert len(adapters) == 2 * len(layers)
    for parameter in adapters:
        parameter.data = parameter.data.float()
    transformer.train()
    if options.checkpointing:
        transformer.enable_gradient_checkpointing()
    return transformer, adapters


def trainer(transformer: FluxTransformer2DModel, adapters: list[torch.nn.Parameter], options: argparse.Namespace):
    """A function that takes one step and returns the loss; and the number of image tokens."""
    config, batch = transformer.config, options.batch
    vae = json.loads((Path(options.model) / "vae" / "config.json").read_text())
    side = 2 * (options.size // 2 ** (len(vae["block_out_channels"]) - 1) // 2)
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randn(batch, config.in_channels // 4, side, side, generator=generator)
    text = torch.randn(batch, options.text_tokens, config.joint_attention_dim, generator=generator)
    pooled = torch.randn(batch, config.pooled_projection_dim, generator=generator)
    img_ids = FluxPipeline._prepare_latent_image_ids(batch, side // 2, side // 2, "cpu", torch.float32)
    txt_ids = torch.zeros(options.text_tokens, 3)
    guidance = torch.ones(batch) if config.guidance_embeds else None
    optimiser = torch.optim.AdamW(adapters, lr=1e-4)
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=options.dtype == "bf16")

    def step() -> float:
        noise = torch.randn(x0.shape, generator=generator)
        t = torch.sigmoid(torch.randn(batch, generator=generator))
        sigma = t[:, None, None, None]
        noisy = FluxPipeline._pack_latents((1 - sigma) * x0 + sigma * noise, *x0.shape)
        target = FluxPipeline._pack_latents(noise - x0, *x0.shape)
        with autocast:
            predicted = transformer(hidden_states=noisy.to(transformer.dtype), timestep=t, guidance=guidance,
                                    encoder_hidden_states=text.to(transformer.dtype),
                                    pooled_projections=pooled.to(transformer.dtype), img_ids=img_ids, txt_ids=txt_ids,
                                    return_dict=False)[0]
        loss = torch.nn.functional.mse_loss(predicted.float(), target)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(adapters, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        return loss.item()

    return step, side * side // 4


def bf16_instructions() -> list[str]:
    flags = Path("/proc/cpuinfo").read_text().split()
    return [flag for flag in ("amx_bf16", "avx512_bf16", "bf16") if flag in flags]


def main() -> None:
    options = arguments()
    diffusers.utils.logging.set_verbosity_error()
    if options.make_model:
        make_model(Path(options.make_model))
        return
    torch.set_num_threads(options.threads)
    transformer, adapters = load(options)
    step, image_tokens = trainer(transformer, adapters, options)
    for _ in range(options.warmup):
        step()
    seconds = []
    for _ in range(options.steps):
        start = time.perf_counter()
        loss = step()
        seconds.append(time.perf_counter() - start)
    print(json.dumps({
        "program": f"diffusers {diffusers.__version__}, peft {peft.__version__}, torch {torch.__version__}",
        "model": options.model, "size": options.size, "batch": options.batch, "image_tokens": image_tokens,
        "text_tokens": options.text_tokens, "dtype": options.dtype, "rank": RANK, "threads": options.threads,
        "bf16_instructions": bf16_instructions(),
        "checkpointing": options.checkpointing, "warmup": options.warmup, "steps": options.steps,
        "seconds_median": round(statistics.median(seconds), 4), "seconds_min": round(min(seconds), 4),
        "seconds_max": round(max(seconds), 4), "loss": round(loss, 4),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }))


if __name__ == "__main__":
    main()

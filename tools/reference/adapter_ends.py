"""An adapter for m1_dev on the layers outside the blocks, whose names and halves differ most between layouts.

Reads tests/golden/models/m1_dev, writes tests/golden/training/adapter_ends.safetensors (peft, saved by diffusers),
adapter_ends_kohya.safetensors (the same adapter in kohya's names, BFL's rows) and adapter_ends_picture.safetensors
(what diffusers draws with it). tests/golden/README.md lists them.

    python tools/reference/adapter_ends.py
"""

import json
import math

import torch
from adapters import MODEL, draw, exact_in_16_bits, pipeline, sort_metadata
from diffusers import FluxPipeline
from layouts import swap_halves, transformer_table
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import save_file
from training import TRAINING, normal

RANK, ALPHA = 3, 2
RANKS, ALPHAS = {"proj_out": 5}, {"norm_out.linear": 4.5}  # "proj_out" alone would match the single blocks' too


def main() -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    pipe = pipeline()
    table = {bfl.removesuffix(".weight"): names[0].removesuffix(".weight")
             for bfl, names in transformer_table(pipe.transformer.config)
             if bfl.endswith(".weight") and "blocks." not in bfl}
    assert len(table) == 10
    pipe.transformer.add_adapter(LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules=f"^({'|'.join(table.values())})$",
        rank_pattern={f"^{k}": v for k, v in RANKS.items()}, alpha_pattern={f"^{k}": v for k, v in ALPHAS.items()}))
    state = get_peft_model_state_dict(pipe.transformer)
    assert len(state) == 2 * len(table)
    for name, value in state.items():
        strength = 1.2 / math.sqrt(value.shape[1]) if "lora_A" in name else 0.15
        value.copy_(strength * normal(f"ends.{name}", *value.shape))
    state = exact_in_16_bits(state)
    metadata = {"r": RANK, "lora_alpha": ALPHA, "target_modules": sorted(table.values()),
                "rank_pattern": {f"^{k}": v for k, v in RANKS.items()},
                "alpha_pattern": {f"^{k}": v for k, v in ALPHAS.items()}}
    path = TRAINING / "adapter_ends.safetensors"
    FluxPipeline.save_lora_weights(TRAINING, state, weight_name=path.name, transformer_lora_adapter_metadata=metadata)
    sort_metadata(path)

    kohya = {}
    for bfl, name in table.items():
        down, up = state[f"{name}.lora_A.weight"], state[f"{name}.lora_B.weight"]
        flat = "lora_unet_" + bfl.replace(".", "_")
        kohya |= {f"{flat}.lora_down.weight": down, f"{flat}.alpha": torch.tensor(float(ALPHAS.get(name, ALPHA))),
                  f"{flat}.lora_up.weight": swap_halves(up) if name == "norm_out.linear" else up}
    save_file({k: v.contiguous() for k, v in kohya.items()}, TRAINING / "adapter_ends_kohya.safetensors",
              {"format": "pt"})

    base, ends = draw(None), draw(path)
    distance = -10 * torch.log10((base["image"] - ends["image"]).square().mean()).item()
    print(f"with and without: PSNR {distance:.1f} dB")
    assert distance < 30
    save_file({k: v.contiguous() for k, v in ends.items()}, TRAINING / "adapter_ends_picture.safetensors",
              {"settings": json.dumps(dict(MODEL.request, model=MODEL.name))})


if __name__ == "__main__":
    main()

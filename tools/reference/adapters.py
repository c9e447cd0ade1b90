"""One LoRA for the tiny model m1_dev in the layouts that adapters are published in, and what diffusers draws with it.

Reads tests/golden/models/m1_dev, writes tests/golden/training/adapter_<layout>.safetensors and adapters.safetensors (pictures,
full weight differences). tests/golden/README.md lists them.

    python tools/reference/adapters.py
"""

import dataclasses
import json
import math
from pathlib import Path

import diffusers
import torch
from diffusers import FluxPipeline
from diffusers.training_utils import _collate_lora_metadata
from layouts import generate, transformer_table
from peft import get_peft_model_state_dict
from pipelines import GOLDEN, MODELS
from safetensors.torch import load_file, save_file
from training import ALPHA, RANK, STEPS, TRAINING, Values, add_adapter, flow_inputs, flow_loss, normal

MODEL = next(model for model in MODELS if model.name == "m1_dev")
DELTAS = ("transformer_blocks.1.attn.to_k", "transformer_blocks.0.ff_context.net.2", "single_transformer_blocks.2.proj_mlp")


@dataclasses.dataclass(frozen=True)
class Pair:
    """A low-rank difference scale * up @ down of one layer's weight."""

    down: torch.Tensor  # [r,in]
    up: torch.Tensor  # [out,r]
    scale: float

    def delta(self) -> torch.Tensor:
        return self.scale * self.up.float() @ self.down.float()


def pipeline() -> FluxPipeline:
    pipe = FluxPipeline.from_pretrained(GOLDEN / "models" / MODEL.name, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def block_layers(config) -> dict[str, list[str]]:
    """BFL layer -> the diffusers layers whose rows it stacks, for the blocks' linear layers."""
    return {bfl.removesuffix(".weight"): [name.removesuffix(".weight") for name in names]
            for bfl, names in transformer_table(config)
            if "blocks." in bfl and bfl.endswith(".weight")}


# ---------------------------------------------------------------------------------------------------------- adapters


def exact_in_16_bits(weights: Values) -> Values:
    """Rounded to bf16 and freed of what f16 cannot hold, so that the type of a file changes nothing."""
    rounded = {k: v.detach().bfloat16().float() for k, v in weights.items()}
    return {k: torch.where(v.abs() < 2.0**-14, 0.0, v) for k, v in rounded.items()}


def train(pipe: FluxPipeline) -> tuple[Values, dict]:
    """An adapter strong enough to see, as (state dict with peft's names, metadata for diffusers)."""
    transformer = pipe.transformer
    transformer.requires_grad_(False)
    parameters = add_adapter(transformer, torch.float32)
    inputs = flow_inputs(MODEL.name, transformer)
    optimiser = torch.optim.AdamW(parameters.values(), lr=0.01, foreach=False)
    for step in range(6 * STEPS):
        flow_loss(transformer, inputs, step % STEPS).backward()
        optimiser.step()
        optimiser.zero_grad()
    metadata = _collate_lora_metadata({"transformer": transformer})["transformer_lora_adapter_metadata"]
    metadata = {k: sorted(v) if isinstance(v, set) else v for k, v in metadata.items()}  # a set's order is random
    return exact_in_16_bits(get_peft_model_state_dict(transformer)), metadata


def sort_metadata(path: Path) -> None:
    """safetensors writes several metadata entries in random order; the same file with them sorted."""
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode().ljust(size)
    assert len(text) == size
    path.write_bytes(raw[:8] + text + raw[8 + size:])


def stacked(pairs: list[Pair]) -> Pair:
    """Several layers' pairs as one of the layer that stacks their rows: block-diagonal, rank the sum of theirs."""
    return Pair(torch.cat([p.down for p in pairs]), torch.block_diag(*(p.up for p in pairs)), pairs[0].scale)


def kohya(pairs: dict[str, Pair], dtype: torch.dtype) -> Values:
    """pairs by BFL layer. As sd-scripts saves: scale is alpha / rank of the stacked pair."""
    result = {}
    for layer, pair in pairs.items():
        name = "lora_unet_" + layer.replace(".", "_")
        result |= {f"{name}.lora_down.weight": pair.down.to(dtype), f"{name}.lora_up.weight": pair.up.to(dtype),
                   f"{name}.alpha": torch.tensor(pair.scale * pair.down.shape[0], dtype=dtype)}
    return result


def comfy(pairs: dict[str, Pair], dtype: torch.dtype) -> Values:
    result = {}
    for layer, pair in pairs.items():
        name = f"diffusion_model.{layer}"
        result |= {f"{name}.lora_A.weight": pair.down.to(dtype), f"{name}.lora_B.weight": pair.up.to(dtype),
                   f"{name}.alpha": torch.tensor(pair.scale * pair.down.shape[0], dtype=dtype)}
    return result


XLABS = {"img_attn.qkv": "qkv_lora1", "img_attn.proj": "proj_lora1", "txt_attn.qkv": "qkv_lora2",
         "txt_attn.proj": "proj_lora2", "linear1": "qkv_lora", "linear2": "proj_lora"}


def xlabs(layers: dict[str, list[str]], pairs: dict[str, Pair]) -> Values:
    """Attention layers alone, linear1 without its MLP rows; no alpha, so the scale goes into `up`."""
    result = {}
    for layer, names in layers.items():
        kind, number, leaf = layer.split(".", 2)
        if leaf in XLABS:
            pair = stacked([pairs[name] for name in names[:3]])
            name = f"{kind}.{number}.processor.{XLABS[leaf]}"
            result |= {f"{name}.down.weight": pair.down, f"{name}.up.weight": pair.scale * pair.up}
    return result


def shared_rank(layers: dict[str, list[str]], pairs: dict[str, Pair]) -> dict[str, Pair]:
    """Another adapter, trained on the stacked layers as most kohya files are: one `down` for q, k, v (and mlp). alpha 1."""
    result = {}
    for layer, names in layers.items():
        inputs, outputs = pairs[names[0]].down.shape[1], sum(pairs[name].up.shape[0] for name in names)
        down = 0.5 * normal(f"{layer}.down", RANK, inputs) / math.sqrt(inputs)
        random = exact_in_16_bits({"down": down, "up": 1.5 * normal(f"{layer}.up", outputs, RANK)})
        result[layer] = Pair(random["down"], random["up"], 1 / RANK)
    return result


# --------------------------------------------------------------------------------------------------------- reading back


def read(file: str, layer: str) -> torch.Tensor:
    """The full difference that a file in BFL naming has for a layer."""
    tensors = load_file(TRAINING / file)
    for name, down, up in ((f"lora_unet_{layer.replace('.', '_')}", "lora_down", "lora_up"),
                           (f"diffusion_model.{layer}", "lora_A", "lora_B")):
        if f"{name}.{down}.weight" in tensors:
            a, b = tensors[f"{name}.{down}.weight"].float(), tensors[f"{name}.{up}.weight"].float()
            return tensors[f"{name}.alpha"].float() / a.shape[0] * b @ a
    raise KeyError(layer)


def check_files(layers: dict[str, list[str]], pairs: dict[str, Pair]) -> None:
    for layer, names in layers.items():
        wanted = torch.cat([pairs[name].delta() for name in names])
        for file in ("adapter_kohya.safetensors", "adapter_comfy.safetensors"):
            assert (read(file, layer) - wanted).norm() <= 1e-6 * wanted.norm(), (file, layer)


def as_peft(layers: dict[str, list[str]], stacks: dict[str, Pair], pairs: dict[str, Pair]) -> Values:
    """Pairs of stacked layers by diffusers layer, in peft naming without alpha."""
    result = {}
    for layer, names in layers.items():
        stack = stacks[layer]
        rows = stack.up.split([pairs[name].up.shape[0] for name in names])
        for name, up in zip(names, rows):
            result |= {f"transformer.{name}.lora_A.weight": stack.down,
                       f"transformer.{name}.lora_B.weight": stack.scale * up}
    return result


# ------------------------------------------------------------------------------------------------------------- pictures


def draw(adapter, strength: float = 1.0, deltas: Values | None = None) -> Values:
    """What the pipeline draws with an adapter (path, state dict or None); deltas receives peft's own differences."""
    pipe = pipeline()
    if adapter is not None:
        pipe.load_lora_weights(adapter, adapter_name="a")
        pipe.set_adapters("a", strength)
    if deltas is not None:
        deltas |= {name: pipe.transformer.get_submodule(name).get_delta_weight("a").detach() for name in DELTAS}
    with torch.no_grad():
        return generate(pipe, MODEL)


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return -10 * torch.log10((a - b).square().mean()).item()


def main() -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    diffusers.utils.logging.set_verbosity_error()
    TRAINING.mkdir(exist_ok=True)
    pipe = pipeline()
    state, metadata = train(pipe)
    layers = block_layers(pipe.transformer.config)
    FluxPipeline.save_lora_weights(TRAINING, state, weight_name="adapter_peft.safetensors",
                                   transformer_lora_adapter_metadata=metadata)
    sort_metadata(TRAINING / "adapter_peft.safetensors")
    pairs = {name: Pair(state[f"{name}.lora_A.weight"], state[f"{name}.lora_B.weight"], ALPHA / RANK)
             for names in layers.values() for name in names}
    assert 2 * len(pairs) == len(state)
    stacks = {layer: stacked([pairs[name] for name in names]) for layer, names in layers.items()}
    shared = shared_rank(layers, pairs)
    for name, tensors in (("kohya", kohya(stacks, torch.float16)), ("comfy", comfy(stacks, torch.bfloat16)),
                          ("xlabs", xlabs(layers, pairs)), ("kohya_shared", kohya(shared, torch.bfloat16))):
        save_file({k: v.contiguous() for k, v in tensors.items()}, TRAINING / f"adapter_{name}.safetensors",
                  {"format": "pt"})
    check_files(layers, pairs)

    deltas: Values = {}
    peft = TRAINING / "adapter_peft.safetensors"
    drawn = {"base": draw(None), "peft": draw(peft, 1.0, deltas), "peft_half": draw(peft, 0.5),
             "xlabs": draw(TRAINING / "adapter_xlabs.safetensors"), "kohya_shared": draw(as_peft(layers, shared, pairs))}
    for name, delta in deltas.items():
        assert (delta - pairs[name].delta()).norm() <= 1e-6 * delta.norm(), name
    values = {f"delta.{name}": delta for name, delta in deltas.items()}
    for name, result in drawn.items():
        values |= {f"{name}.{key}": value for key, value in result.items()}
        for other in drawn:
            if name < other:
                distance = psnr(result["image"], drawn[other]["image"])
                print(f"{name} and {other}: PSNR {distance:.1f} dB")
                assert distance < 30
    assert torch.equal(drawn["base"]["image.u8"], load_file(GOLDEN / f"{MODEL.name}.safetensors")["image.u8"])
    settings = dict(MODEL.request, model=MODEL.name, rank=RANK, alpha=ALPHA)
    save_file({k: v.contiguous() for k, v in values.items()}, TRAINING / "adapters.safetensors",
              {"settings": json.dumps(settings)})


if __name__ == "__main__":
    main()

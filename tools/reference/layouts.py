"""Writes the tiny models m1_dev and m3_schnell in the other layouts that FLUX weights are published in.

Reads tests/golden/models/ (made by pipelines.py), writes tests/golden/layouts/: BFL single files, ComfyUI
all-in-one checkpoints, GGUF and fp8 files, and for each model references.safetensors, what diffusers computes
with exactly these weights. tests/golden/README.md lists the files.

    python tools/reference/layouts.py
"""

import json
import shutil
from pathlib import Path

import gguf
import numpy as np
import torch
from diffusers import AutoencoderKL, FluxPipeline
from pipelines import GOLDEN, MODELS, Model
from safetensors.torch import load_file, save_file
from sentencepiece import sentencepiece_model_pb2

LAYOUTS = GOLDEN / "layouts"
Weights = dict[str, torch.Tensor]


# --------------------------------------------------------------------------------- diffusers names -> BFL names


def transformer_table(config) -> list[tuple[str, list[str]]]:
    """(BFL tensor, the diffusers tensors whose rows it stacks)."""
    modules = [("img_in", ["x_embedder"]), ("txt_in", ["context_embedder"]),
               ("final_layer.linear", ["proj_out"]), ("final_layer.adaLN_modulation.1", ["norm_out.linear"])]
    embedders = [("time_in", "timestep_embedder"), ("vector_in", "text_embedder")]
    if config.guidance_embeds:
        embedders.append(("guidance_in", "guidance_embedder"))
    for bfl, diffusers in embedders:
        modules.append((f"{bfl}.in_layer", [f"time_text_embed.{diffusers}.linear_1"]))
        modules.append((f"{bfl}.out_layer", [f"time_text_embed.{diffusers}.linear_2"]))
    scales = []
    streams = [("img", "norm1", ("to_q", "to_k", "to_v"), "to_out.0", "norm_", "ff"),
               ("txt", "norm1_context", ("add_q_proj", "add_k_proj", "add_v_proj"), "to_add_out", "norm_added_",
                "ff_context")]
    for i in range(config.num_layers):
        for stream, mod, qkv, proj, norm, mlp in streams:
            bfl, diffusers = f"double_blocks.{i}.{stream}", f"transformer_blocks.{i}"
            modules += [(f"{bfl}_mod.lin", [f"{diffusers}.{mod}.linear"]),
                        (f"{bfl}_attn.qkv", [f"{diffusers}.attn.{part}" for part in qkv]),
                        (f"{bfl}_attn.proj", [f"{diffusers}.attn.{proj}"]),
                        (f"{bfl}_mlp.0", [f"{diffusers}.{mlp}.net.0.proj"]),
                        (f"{bfl}_mlp.2", [f"{diffusers}.{mlp}.net.2"])]
            scales += [(f"{bfl}_attn.norm.query_norm.scale", [f"{diffusers}.attn.{norm}q.weight"]),
                       (f"{bfl}_attn.norm.key_norm.scale", [f"{diffusers}.attn.{norm}k.weight"])]
    for i in range(config.num_single_layers):
        bfl, diffusers = f"single_blocks.{i}", f"single_transformer_blocks.{i}"
        rows = [f"{diffusers}.{part}" for part in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")]
        modules += [(f"{bfl}.modulation.lin", [f"{diffusers}.norm.linear"]), (f"{bfl}.linear1", rows),
                    (f"{bfl}.linear2", [f"{diffusers}.proj_out"])]
        scales += [(f"{bfl}.norm.query_norm.scale", [f"{diffusers}.attn.norm_q.weight"]),
                   (f"{bfl}.norm.key_norm.scale", [f"{diffusers}.attn.norm_k.weight"])]
    return [(f"{bfl}.{kind}", [f"{name}.{kind}" for name in names]) for bfl, names in modules
            for kind in ("weight", "bias")] + scales


def swap_halves(rows: torch.Tensor) -> torch.Tensor:
    """BFL's last modulation is (shift, scale), diffusers' is (scale, shift)."""
    first, second = rows.chunk(2)
    return torch.cat([second, first])


def to_bfl(weights: Weights, config) -> Weights:
    table = transformer_table(config)
    assert sorted(name for _, names in table for name in names) == sorted(weights)
    stacked = {bfl: torch.cat([weights[name] for name in names]) for bfl, names in table}
    return {k: swap_halves(v) if "adaLN" in k else v for k, v in stacked.items()}


def to_diffusers(weights: Weights, config, like: Weights) -> Weights:
    """The inverse of to_bfl; like gives the number of rows of each part."""
    result = {}
    for bfl, names in transformer_table(config):
        rows = swap_halves(weights[bfl]) if "adaLN" in bfl else weights[bfl]
        result |= zip(names, rows.split([like[name].shape[0] for name in names]))
    return result


def vae_to_ldm(weights: Weights, levels: int) -> Weights:
    result = {}
    for name, value in weights.items():
        side, part, *rest = name.split(".")
        if part in ("down_blocks", "up_blocks"):
            level, kind, index, *leaf = rest
            if part == "up_blocks":  # LDM counts levels from the finest in the decoder as well
                level = levels - 1 - int(level)
            direction = "down" if part == "down_blocks" else "up"
            target = {"resnets": f"block.{index}", "downsamplers": "downsample", "upsamplers": "upsample"}[kind]
            path = [f"{direction}.{level}.{target}", *leaf]
        elif part == "mid_block":
            kind, index, *leaf = rest
            path = [f"mid.block_{int(index) + 1}" if kind == "resnets" else "mid.attn_1", *leaf]
        else:
            path = [{"conv_norm_out": "norm_out"}.get(part, part), *rest]
        ldm = ".".join([side, *path]).replace("conv_shortcut", "nin_shortcut")
        if "attn_1" in ldm:
            for old, new in (("group_norm", "norm"), ("to_out.0", "proj_out"), ("to_", "")):
                ldm = ldm.replace(f".{old}", f".{new}")
            if value.ndim == 2:
                value = value[:, :, None, None]  # LDM's attention uses 1x1 convolutions
        result[ldm] = value
    return result


T5_GGUF = {
    "shared": "token_embd", "encoder.final_layer_norm": "enc.output_norm",
    "layer.0.SelfAttention.q": "attn_q", "layer.0.SelfAttention.k": "attn_k", "layer.0.SelfAttention.v": "attn_v",
    "layer.0.SelfAttention.o": "attn_o", "layer.0.SelfAttention.relative_attention_bias": "attn_rel_b",
    "layer.0.layer_norm": "attn_norm", "layer.1.DenseReluDense.wi_0": "ffn_gate",
    "layer.1.DenseReluDense.wi_1": "ffn_up", "layer.1.DenseReluDense.wo": "ffn_down", "layer.1.layer_norm": "ffn_norm",
}


def t5_to_gguf(name: str) -> str:
    module = name.removesuffix(".weight")
    if not module.startswith("encoder.block."):
        return T5_GGUF[module] + ".weight"
    _, _, block, inner = module.split(".", 3)
    return f"enc.blk.{block}.{T5_GGUF[inner]}.weight"


# --------------------------------------------------------------------------------------------------------- files


def cast(weights: Weights, dtype: torch.dtype) -> Weights:
    converted = {k: v.to(dtype).contiguous() for k, v in weights.items()}
    assert all(torch.equal(v.float(), weights[k].float()) for k, v in converted.items())  # loses nothing
    return converted


def prefixed(prefix: str, weights: Weights) -> Weights:
    return {prefix + k: v for k, v in weights.items()}


def write_all_in_one(path: Path, bfl: Weights, vae: Weights, clip: Weights, t5: Weights, dtype: torch.dtype) -> None:
    """A checkpoint as ComfyUI saves it, with the extra tensors that its text encoders carry and nobody reads."""
    if dtype == torch.bfloat16:  # the newer spelling
        bfl = {k.replace("_norm.scale", "_norm.weight"): v for k, v in bfl.items()}
    clip = {"text_model." + k.removeprefix("text_model."): v for k, v in clip.items()}
    extras = {"text_encoders.clip_l.logit_scale": torch.tensor(4.6055),
              "text_encoders.clip_l.transformer.text_model.embeddings.position_ids": torch.arange(77)[None],
              "text_encoders.t5xxl.logit_scale": torch.tensor(4.6055)}
    save_file(cast(prefixed("model.diffusion_model.", bfl), dtype) | cast(prefixed("vae.", vae), dtype) | cast(
        prefixed("text_encoders.clip_l.transformer.", clip), dtype) | cast(
        prefixed("text_encoders.t5xxl.transformer.", t5), dtype) | extras, path)


def write_transformer_gguf(path: Path, bfl: Weights) -> None:
    writer = gguf.GGUFWriter(path, arch="flux")
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    write_gguf(writer, bfl, largest_f32=1024)


def write_t5_gguf(path: Path, t5: Weights, config: dict, spiece: bytes) -> None:
    writer = gguf.GGUFWriter(path, arch="t5encoder")
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_context_length(512)
    writer.add_embedding_length(config["d_model"])
    writer.add_feed_forward_length(config["d_ff"])
    writer.add_block_count(config["num_layers"])
    writer.add_head_count(config["num_heads"])
    writer.add_key_length(config["d_kv"])
    writer.add_value_length(config["d_kv"])
    writer.add_relative_attn_buckets_count(config["relative_attention_num_buckets"])
    writer.add_layer_norm_rms_eps(config["layer_norm_epsilon"])
    pieces = sentencepiece_model_pb2.ModelProto.FromString(spiece)
    writer.add_tokenizer_model("t5")
    writer.add_token_list([p.piece for p in pieces.pieces])
    writer.add_token_scores([p.score for p in pieces.pieces])
    writer.add_token_types([p.type for p in pieces.pieces])
    writer.add_precompiled_charsmap(pieces.normalizer_spec.precompiled_charsmap)
    write_gguf(writer, {t5_to_gguf(k): v for k, v in t5.items()}, largest_f32=0)


def write_gguf(writer: gguf.GGUFWriter, weights: Weights, largest_f32: int) -> None:
    """Vectors stay f32, and in the published FLUX files so do matrices of at most 1024 elements."""
    for name, value in weights.items():
        dtype = torch.float32 if value.ndim == 1 or value.numel() <= largest_f32 else torch.float16
        writer.add_tensor(name, value.to(dtype).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


# ----------------------------------------------------------------------------------------------------------- fp8

FP8 = torch.float8_e4m3fn


def scaled_fp8(bfl: Weights, everything: bool) -> tuple[Weights, Weights]:
    """ComfyUI's scaled file and the weights it stands for: w = fp8 * scale, one f32 scale per matrix.

    everything: all matrices rather than those of the blocks alone, scales of shape [1], unused activation scales.
    """
    stored, meant = {}, {}
    for name, value in bfl.items():
        if value.ndim == 2 and (everything or "blocks." in name):
            scale = value.abs().max() / torch.finfo(FP8).max
            stored[name] = (value / scale).to(FP8)
            meant[name] = stored[name].float() * scale
            layer = name.removesuffix(".weight")
            stored[f"{layer}.scale_weight"] = scale.reshape(1) if everything else scale
            if everything:
                stored[f"{layer}.scale_input"] = torch.ones(1)
        else:
            stored[name], meant[name] = value.bfloat16(), value
    stored["scaled_fp8"] = torch.zeros(2 if everything else 0, dtype=FP8)
    return stored, meant


def plain_fp8(bfl: Weights, everything: bool) -> tuple[Weights, Weights]:
    """A plain cast of the matrices, or of every tensor including biases and norm scales."""
    stored = {k: v.to(FP8) if everything or v.ndim == 2 else v.bfloat16() for k, v in bfl.items()}
    return stored, {k: v.float() for k, v in stored.items()}


def generate(pipe: FluxPipeline, model: Model) -> Weights:
    request = dict(model.request)
    prompts, seeds = request.pop("prompts"), request.pop("seeds")
    latents = []
    image = pipe(prompt=prompts, generator=[torch.Generator().manual_seed(seed) for seed in seeds], output_type="np",
                 callback_on_step_end=lambda _p, _i, _t, kept: latents.append(kept["latents"]) or {}, **request).images
    rounded = np.stack(pipe.image_processor.numpy_to_pil(image))
    return {"latents": latents[-1], "image": torch.from_numpy(image), "image.u8": torch.from_numpy(rounded)}


# ---------------------------------------------------------------------------------------------------------- main


def write_model(model: Model, vae: AutoencoderKL, ldm: Weights, spiece: bytes) -> None:
    source, target = GOLDEN / "models" / model.name, LAYOUTS / model.name
    target.mkdir(parents=True)
    pipe = FluxPipeline.from_pretrained(source, vae=vae, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    native, config = dict(pipe.transformer.state_dict()), pipe.transformer.config
    bfl = to_bfl(native, config)
    clip, t5 = (load_file(source / part / "model.safetensors") for part in ("text_encoder", "text_encoder_2"))

    dev = config.guidance_embeds
    save_file(cast(bfl, torch.bfloat16), target / "flux1.safetensors")
    write_all_in_one(target / "all_in_one.safetensors", bfl, ldm, clip, t5, torch.float16 if dev else torch.bfloat16)
    write_transformer_gguf(target / "flux1-f16.gguf", bfl)
    t5_config = pipe.text_encoder_2.config.to_dict()
    write_t5_gguf(target / "t5-f16.gguf", t5, t5_config, spiece)

    references = generate(pipe, model)
    for name, quantise in (("fp8_scaled", scaled_fp8), ("fp8_plain", plain_fp8)):
        stored, meant = quantise(bfl, everything=not dev)
        save_file(stored, target / f"flux1-{name}.safetensors")
        pipe.transformer.load_state_dict(to_diffusers(meant, config, native))
        references |= prefixed(f"{name}.", generate(pipe, model))
        pipe.transformer.load_state_dict(to_diffusers(bfl, config, native))
    settings = json.dumps(model.request, ensure_ascii=False)
    save_file({k: v.contiguous() for k, v in references.items()}, target / "references.safetensors",
              {"settings": settings})


def main() -> None:
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    torch.use_deterministic_algorithms(True)
    shutil.rmtree(LAYOUTS, ignore_errors=True)
    LAYOUTS.mkdir(parents=True)
    # One autoencoder for both models, as FLUX.1 dev and schnell share ae.safetensors.
    source = GOLDEN / "models" / "m1_dev"
    vae = AutoencoderKL.from_pretrained(source / "vae", dtype=torch.float32)
    ldm = vae_to_ldm(dict(vae.state_dict()), len(vae.config.block_out_channels))
    save_file(cast(ldm, torch.bfloat16), LAYOUTS / "ae.safetensors")
    spiece = (source / "tokenizer_2" / "spiece.model").read_bytes()  # every model has the same T5 tokenizer
    for model in MODELS:
        if model.name in ("m1_dev", "m3_schnell"):
            write_model(model, vae, ldm, spiece)


if __name__ == "__main__":
    main()

"""What diffusers, peft and torch.optim compute when they train the tiny models: losses, gradients, weights after some steps.

Reads tests/golden/models/ (made by pipelines.py), writes tests/golden/training/: lora_*.safetensors (adapters on a frozen
base, f32), full_*.safetensors (all weights) and autoencoder_*.safetensors. tests/golden/README.md lists the keys.

    python tools/reference/training.py            # everything
    python tools/reference/training.py --check    # also prints how far the same run in f64 is away
"""

import json
import sys
import zlib

import diffusers
import torch
from diffusers import FluxPipeline
from peft import LoraConfig, get_peft_model_state_dict
from pipelines import GOLDEN
from safetensors.torch import save_file
from torch.nn.functional import avg_pool2d, l1_loss, mse_loss

TRAINING = GOLDEN / "training"
Values = dict[str, torch.Tensor]

OPTIMISER = dict(lr=1e-3, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.01)
CLIP_NORM = 1.0
RANK, ALPHA = 4, 6
STEPS = 10
BATCH, HEIGHT, WIDTH, TEXT = 2, 6, 8, 7  # latent size; 3 x 4 image tokens


def normal(name: str, *shape: int) -> torch.Tensor:
    """Standard normal numbers, a function of the name alone."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))


def times(name: str, *shape: int) -> torch.Tensor:
    """Sigmas in 0.02 ... 0.98."""
    return 0.02 + 0.96 * torch.rand(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))


def load(model: str, dtype: torch.dtype) -> FluxPipeline:
    """In evaluation mode: T5's config asks for dropout."""
    pipe = FluxPipeline.from_pretrained(GOLDEN / "models" / model, dtype=torch.float32)
    parts = (pipe.transformer, pipe.vae, pipe.text_encoder, pipe.text_encoder_2)
    assert not any(part.training for part in parts)
    for part in parts:
        part.to(dtype).requires_grad_(False)
    return pipe


# --------------------------------------------------------------------------------------------------------- objective


def flow_inputs(model: str, transformer) -> Values:
    """One batch of latents with conditioning, and noise and times for every step."""
    config = transformer.config
    latent = (config.in_channels // 4, HEIGHT, WIDTH)
    return {
        "x0": 1.5 * normal(f"{model}.x0", BATCH, *latent),
        "noise": normal(f"{model}.noise", STEPS, BATCH, *latent),
        "t": times(f"{model}.t", STEPS, BATCH),
        "text": normal(f"{model}.text", BATCH, TEXT, config.joint_attention_dim),
        "pooled": normal(f"{model}.pooled", BATCH, config.pooled_projection_dim),
    }


def pack(latents: torch.Tensor) -> torch.Tensor:
    return FluxPipeline._pack_latents(latents, *latents.shape)


def predict(transformer, noisy: torch.Tensor, t: torch.Tensor, text: torch.Tensor, pooled: torch.Tensor,
            guidance: float = 1.0) -> torch.Tensor:
    """Velocity [B,C,h,w] that the transformer predicts for noisy latents of the same shape."""
    batch, _, height, width = noisy.shape
    ids = FluxPipeline._prepare_latent_image_ids(batch, height // 2, width // 2, "cpu", torch.float32)
    told = torch.full([batch], guidance) if transformer.config.guidance_embeds else None
    tokens = transformer(hidden_states=pack(noisy), encoder_hidden_states=text, pooled_projections=pooled, timestep=t,
                         guidance=told, img_ids=ids, txt_ids=torch.zeros(text.shape[1], 3), return_dict=False)[0]
    return FluxPipeline._unpack_latents(tokens, height, width, 1)


def noised(values: Values, step: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(noisy latents, velocity, t) of a step."""
    t, noise, x0 = values["t"][step], values["noise"][step], values["x0"]
    sigma = t[:, None, None, None]
    return (1 - sigma) * x0 + sigma * noise, noise - x0, t


def flow_loss(transformer, values: Values, step: int) -> torch.Tensor:
    noisy, velocity, t = noised(values, step)
    return mse_loss(predict(transformer, noisy, t, values["text"], values["pooled"]).float(), velocity.float())


def gradients(parameters: dict[str, torch.nn.Parameter], prefix: str, names=None) -> Values:
    """Copies of the gradients of all parameters, or of those whose name contains one of `names`; then forgets all.

    Left out: biases of attention keys, whose gradient is zero but for rounding, because softmax ignores a common offset.
    """
    kept = {name: p.grad.clone() for name, p in parameters.items()
            if names is None or any(part in name for part in names)}
    total = norm_of(parameters)
    for p in parameters.values():
        p.grad = None
    zeros = [name for name in kept if kept[name].norm() < 1e-6 * total]
    assert all(name.endswith(("k_proj.bias", "to_k.bias")) for name in zeros), zeros
    return {f"{prefix}.{name}": grad for name, grad in kept.items() if name not in zeros}


def norm_of(parameters: dict[str, torch.nn.Parameter]) -> torch.Tensor:
    return torch.nn.utils.get_total_norm([p.grad for p in parameters.values()])


def take_steps(parameters: dict[str, torch.nn.Parameter], loss_of, steps: int) -> Values:
    """AdamW on loss_of(step); losses before each update, norms before clipping."""
    optimiser = torch.optim.AdamW(parameters.values(), foreach=False, **OPTIMISER)
    losses, norms = [], []
    for step in range(steps):
        loss = loss_of(step)
        loss.backward()
        losses.append(loss.detach())
        norms.append(torch.nn.utils.clip_grad_norm_(parameters.values(), CLIP_NORM))
        optimiser.step()
        optimiser.zero_grad()
    return {"losses": torch.stack(losses), "norms": torch.stack(norms)}


# -------------------------------------------------------------------------------------------------------------- LoRA


def block_linears(transformer) -> list[str]:
    """Every linear layer inside the blocks: 14 in a double block, 6 in a single one."""
    names = [name for name, module in transformer.named_modules()
             if isinstance(module, torch.nn.Linear) and "transformer_blocks." in name]
    config = transformer.config
    assert len(names) == 14 * config.num_layers + 6 * config.num_single_layers
    return names


def add_adapter(transformer, dtype: torch.dtype) -> dict[str, torch.nn.Parameter]:
    """Adapters with peft's own A (Kaiming uniform, a = sqrt(5)) and small B, because A has no gradient while B is zero.

    Returns the parameters under the names that diffusers saves them with.
    """
    layers = block_linears(transformer)
    torch.manual_seed(20)
    transformer.add_adapter(LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules=layers))
    transformer.to(dtype)
    parameters = {}
    for name, parameter in transformer.named_parameters():
        if ".lora_" in name:
            parameters["transformer." + name.replace(".default.weight", ".weight")] = parameter
        assert parameter.requires_grad == (".lora_" in name), name
    assert len(parameters) == 2 * len(layers)
    saved = {f"transformer.{k}" for k in get_peft_model_state_dict(transformer)}
    assert saved == set(parameters)
    for name, parameter in parameters.items():
        if "lora_B" in name:
            parameter.data.copy_(0.05 * normal(name, *parameter.shape))
    return parameters


def restore(parameters: dict[str, torch.nn.Parameter], start: Values) -> None:
    for name, parameter in parameters.items():
        parameter.data.copy_(start[name])
        parameter.grad = None


def copies(parameters: dict[str, torch.nn.Parameter], prefix: str) -> Values:
    return {f"{prefix}.{name}": p.detach().clone() for name, p in parameters.items()}


# Adapters whose gradients the variants keep.
SOME_ADAPTERS = [f"transformer.{name}." for name in (
    "transformer_blocks.0.norm1.linear", "transformer_blocks.0.attn.to_q", "transformer_blocks.0.ff_context.net.0.proj",
    "single_transformer_blocks.1.attn.to_v", "single_transformer_blocks.1.proj_out")]


def lora(model: str, dtype: torch.dtype) -> tuple[Values, Values]:
    """Contents of lora_<model> and lora_<model>_variants."""
    transformer = load(model, dtype).transformer
    values = {k: v.to(dtype) for k, v in flow_inputs(model, transformer).items()}
    parameters = add_adapter(transformer, dtype)
    start = {name: p.detach().clone() for name, p in parameters.items()}

    noisy, velocity, t = noised(values, 0)
    prediction = predict(transformer, noisy, t, values["text"], values["pooled"])
    loss = mse_loss(prediction, velocity)
    loss.backward()
    main = values | {"noisy": pack(noisy), "velocity": pack(velocity), "prediction": pack(prediction.detach()),
                           "loss": loss.detach(), "norm": norm_of(parameters)}
    main |= copies(parameters, "init") | gradients(parameters, "grad")
    main |= take_steps(parameters, lambda step: flow_loss(transformer, values, step), STEPS)
    main |= copies(parameters, "final")

    restore(parameters, start)
    variants = accumulated(transformer, values, parameters)
    restore(parameters, start)
    variants |= masked(transformer, values, parameters)
    variants |= preservation(model, transformer, values, parameters)
    if transformer.config.guidance_embeds:
        variants |= distillation(model, transformer, values, parameters)
    return main, variants


def accumulated(transformer, values: Values, parameters) -> Values:
    """One step on the mean of the losses of steps 0 and 1."""
    result = take_steps(parameters, lambda _: sum(flow_loss(transformer, values, s) for s in (0, 1)) / 2, 1)
    return {"accumulated.loss": result["losses"][0], "accumulated.norm": result["norms"][0]} | copies(
        parameters, "accumulated")


def masked(transformer, values: Values, parameters) -> Values:
    """Squared error times mask, the mask divided by its mean over the batch (as ai-toolkit) or over each picture."""
    noisy, velocity, t = noised(values, 0)
    rows, columns = torch.arange(HEIGHT)[:, None], torch.arange(WIDTH)[None]
    mask = torch.stack([(columns < 3) | (rows == 2), (rows < 5).expand(-1, WIDTH)]).to(noisy) * 0.75 + 0.25
    mask[1, 0] = 0.5
    mask = mask[:, None]  # [B,1,h,w]
    result = {"masked.mask": mask}
    for name, dims in (("masked", None), ("masked_each", (1, 2, 3))):
        weight = mask / (mask.mean() if dims is None else mask.mean(dim=dims, keepdim=True))
        error = (predict(transformer, noisy, t, values["text"], values["pooled"]) - velocity) ** 2
        loss = (weight * error).mean(dim=(1, 2, 3)).mean()
        loss.backward()
        result |= {f"{name}.loss": loss.detach(), f"{name}.norm": norm_of(parameters)}
        result |= gradients(parameters, f"{name}.grad", SOME_ADAPTERS)
    return result


def preservation(model: str, transformer, values: Values, parameters) -> Values:
    """Differential output preservation: with the class word, the adapted model shall predict what the base predicts."""
    noisy, _, t = noised(values, 0)
    text = normal(f"{model}.class_text", *values["text"].shape).to(noisy)
    pooled = normal(f"{model}.class_pooled", *values["pooled"].shape).to(noisy)
    with torch.no_grad():
        transformer.disable_adapters()
        wanted = predict(transformer, noisy, t, text, pooled)
        transformer.enable_adapters()
    got = predict(transformer, noisy, t, text, pooled)
    loss = mse_loss(got, wanted)
    loss.backward()
    result = {"dop.text": text, "dop.pooled": pooled, "dop.wanted": pack(wanted), "dop.prediction": pack(got.detach()),
              "dop.loss": loss.detach(), "dop.norm": norm_of(parameters)}
    result |= gradients(parameters, "dop.grad", SOME_ADAPTERS)
    total = flow_loss(transformer, values, 0) + mse_loss(predict(transformer, noisy, t, text, pooled), wanted)
    total.backward()
    result |= {"dop.total_loss": total.detach(), "dop.total_norm": norm_of(parameters)}
    gradients(parameters, "")
    return result


def distillation(model: str, transformer, values: Values, parameters) -> Values:
    """Told guidance 3, the adapted model shall predict what the base with guidance 1 gives for prompt and empty prompt."""
    noisy, _, t = noised(values, 0)
    text = normal(f"{model}.empty_text", *values["text"].shape).to(noisy)
    pooled = normal(f"{model}.empty_pooled", *values["pooled"].shape).to(noisy)
    with torch.no_grad():
        transformer.disable_adapters()
        without = predict(transformer, noisy, t, text, pooled)
        guided = without + 3 * (predict(transformer, noisy, t, values["text"], values["pooled"]) - without)
        transformer.enable_adapters()
    got = predict(transformer, noisy, t, values["text"], values["pooled"], guidance=3)
    loss = mse_loss(got, guided)
    loss.backward()
    result = {"distilled.text": text, "distilled.pooled": pooled, "distilled.wanted": pack(guided), "distilled.loss": loss.detach(),
              "distilled.norm": norm_of(parameters)}
    return result | gradients(parameters, "distilled.grad", SOME_ADAPTERS)


# ------------------------------------------------------------------------------------------------------- all weights

# Parts of parameter names whose gradients are kept: everything outside the blocks and one block of each kind.
SOME_WEIGHTS = ("x_embedder", "context_embedder", "time_text_embed", "norm_out", "transformer.proj_out",
                "transformer.transformer_blocks.0.", "transformer.single_transformer_blocks.1.")
SOME_TEXT_WEIGHTS = ("clip.text_model.embeddings", "clip.text_model.final_layer_norm", "clip.text_model.encoder.layers.0.",
                     "t5.shared", "t5.encoder.block.0.", "t5.encoder.final_layer_norm", "context_embedder", "text_embedder")


def trainable(module: torch.nn.Module, prefix: str) -> dict[str, torch.nn.Parameter]:
    module.requires_grad_(True)
    return {f"{prefix}.{name}": parameter for name, parameter in module.named_parameters()}


def full(model: str, dtype: torch.dtype) -> Values:
    """Contents of full_<model>: the whole transformer is trained, on the inputs of lora_<model>."""
    transformer = load(model, dtype).transformer
    values = {k: v.to(dtype) for k, v in flow_inputs(model, transformer).items()}
    parameters = trainable(transformer, "transformer")
    loss = flow_loss(transformer, values, 0)
    loss.backward()
    result = {"loss": loss.detach(), "norm": norm_of(parameters)} | gradients(parameters, "grad", SOME_WEIGHTS)
    return result | take_steps(parameters, lambda step: flow_loss(transformer, values, step), STEPS)


PROMPTS = ["A small red boat on a quiet lake, painted in 1998", "two owls in a cafe"]


def joint(model: str, dtype: torch.dtype) -> Values:
    """Contents of joint_<model>: transformer and both text encoders are trained from token ids."""
    pipe = load(model, dtype)
    values = {k: v.to(dtype) for k, v in flow_inputs(model, pipe.transformer).items()}
    padding = dict(padding="max_length", truncation=True, return_tensors="pt")
    clip_ids = pipe.tokenizer(PROMPTS, max_length=pipe.tokenizer.model_max_length, **padding).input_ids
    t5_ids = pipe.tokenizer_2(PROMPTS, max_length=20, **padding).input_ids
    clip = {name if ".text_model." in name else name.replace("clip.", "clip.text_model."): parameter
            for name, parameter in trainable(pipe.text_encoder, "clip").items()}
    parameters = trainable(pipe.transformer, "transformer") | clip | trainable(pipe.text_encoder_2, "t5")

    def loss_of(step: int) -> torch.Tensor:
        encoded = {"text": pipe.text_encoder_2(t5_ids)[0], "pooled": pipe.text_encoder(clip_ids).pooler_output}
        return flow_loss(pipe.transformer, values | encoded, step)

    loss = loss_of(0)
    loss.backward()
    result = {"clip.ids": clip_ids, "t5.ids": t5_ids, "loss": loss.detach(), "norm": norm_of(parameters)}
    result |= gradients(parameters, "grad", SOME_TEXT_WEIGHTS)
    return result | take_steps(parameters, loss_of, STEPS)


# ------------------------------------------------------------------------------------------------------- autoencoder

KL_WEIGHT, EDGE_WEIGHT, PICTURE_STEPS = 3e-4, 0.5, 5


def pictures(height: int, width: int) -> torch.Tensor:
    """[2,3,height,width] in -1 ... 1: waves and noise."""
    y, x, phase = torch.arange(height)[:, None], torch.arange(width), torch.arange(6).reshape(2, 3, 1, 1)
    waves = torch.sin(x / (2 + phase)) * torch.cos(y / (4 + phase) + phase)
    return (0.7 * waves + 0.2 * normal("pictures", 2, 3, height, width)).clamp(-1, 1)


def autoencoder_loss(vae, picture: torch.Tensor, eps: torch.Tensor, pool: int = 1) -> Values:
    """Parts and sum; z is drawn from the posterior and decoded as it is, because scaling and shift cancel.

    pool: the average of each pool x pool latents is decoded, and compared with the picture made as much smaller.
    """
    posterior = vae.encode(picture).latent_dist
    mean, logvar = posterior.mean, posterior.logvar
    decoded = vae.decode(avg_pool2d(mean + torch.exp(0.5 * logvar) * eps, pool)).sample
    picture = avg_pool2d(picture, pool)
    edges = sum(l1_loss(decoded.diff(dim=dim), picture.diff(dim=dim)) for dim in (-1, -2))
    parts = {"l1": l1_loss(decoded, picture), "edges": edges,
             "kl": 0.5 * (mean**2 + logvar.exp() - 1 - logvar).mean()}
    return parts | {"loss": parts["l1"] + EDGE_WEIGHT * edges + KL_WEIGHT * parts["kl"], "decoded": decoded}


def autoencoder(model: str, dtype: torch.dtype) -> Values:
    """Contents of autoencoder_<model>."""
    vae = load(model, dtype).vae
    picture = pictures(20, 28).to(dtype)
    latent = vae.encode(picture).latent_dist.mean.shape
    eps = normal(f"{model}.eps", PICTURE_STEPS, *latent).to(dtype)
    parameters = trainable(vae, "vae")
    parts = autoencoder_loss(vae, picture, eps[0])
    parts["loss"].backward()
    result = {"picture": picture, "eps": eps, "norm": norm_of(parameters)} | {k: v.detach() for k, v in parts.items()}
    result |= gradients(parameters, "grad")
    even = pictures(16, 24).to(dtype)
    pooled_eps = normal(f"{model}.pooled_eps", *vae.encode(even).latent_dist.mean.shape).to(dtype)
    pooled = autoencoder_loss(vae, even, pooled_eps, pool=2)
    pooled["loss"].backward()
    result |= {"pooled.picture": even, "pooled.eps": pooled_eps, "pooled.norm": norm_of(parameters)}
    result |= {f"pooled.{k}": pooled[k].detach() for k in ("l1", "edges", "kl", "loss")}
    gradients(parameters, "")
    return result | take_steps(parameters, lambda step: autoencoder_loss(vae, picture, eps[step])["loss"], PICTURE_STEPS)


# ------------------------------------------------------------------------------------------------------------- files


def write(name: str, values: Values, settings: dict, limit: int = 300_000) -> None:
    for key, value in values.items():
        assert torch.isfinite(value).all(), key
    stored = {k: (v.int() if v.dtype == torch.int64 else v.float()).contiguous().clone() for k, v in values.items()}
    path = TRAINING / f"{name}.safetensors"
    save_file(stored, path, {"settings": json.dumps(settings)})
    assert path.stat().st_size < limit, (name, path.stat().st_size)
    print(f"{path.name}: {len(stored)} tensors, {path.stat().st_size} bytes")


def distances(name: str, got: Values, exact: Values) -> None:
    """Prints the largest relative distance of each group of keys."""
    worst: dict[str, float] = {}
    for key, value in got.items():
        group = ".".join(part for part in key.split(".")[:2] if part != "transformer")
        distance = (value.double() - exact[key].double()).norm() / exact[key].double().norm()
        worst[group] = max(worst.get(group, 0.0), distance.item())
    print(f"  {name} against f64: " + ", ".join(f"{k} {v:.1e}" for k, v in worst.items() if v > 1e-7))


def main() -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    diffusers.utils.logging.set_verbosity_error()
    TRAINING.mkdir(exist_ok=True)
    check = "--check" in sys.argv[1:]
    for model in ("m1_dev", "m2_schnell"):
        settings = dict(OPTIMISER, clip_norm=CLIP_NORM, guidance=1.0, model=model)
        adapters = dict(settings, rank=RANK, alpha=ALPHA)
        parts = dict(settings, edge_weight=EDGE_WEIGHT, kl_weight=KL_WEIGHT)
        for names, compute, described in (
                ((f"lora_{model}", f"lora_{model}_variants"), lora, adapters), ((f"full_{model}",), full, settings),
                ((f"joint_{model}",), joint, settings), ((f"autoencoder_{model}",), autoencoder, parts)):
            if compute is autoencoder and model == "m1_dev":
                continue  # too many weights for a small file
            files = as_tuple(compute(model, torch.float32))
            for name, values in zip(names, files):
                write(name, values, described)
            if check:
                for name, values, exact in zip(names, files, as_tuple(compute(model, torch.float64))):
                    distances(name, values, exact)


def as_tuple(files) -> tuple[Values, ...]:
    return files if isinstance(files, tuple) else (files,)


if __name__ == "__main__":
    main()

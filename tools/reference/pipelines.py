"""Makes four tiny random FLUX models in diffusers layout and what diffusers computes with them.

Output (tests/golden/): models/<name>/ (a folder as FluxPipeline.save_pretrained writes it), <name>.safetensors
(inputs, intermediates and results), schedule.json and noise.safetensors. tests/golden/README.md lists the keys.

    python tools/reference/pipelines.py            # everything
    python tools/reference/pipelines.py m1_dev     # one model
"""

import collections
import dataclasses
import io
import itertools
import json
import shutil
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np
import sentencepiece
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from diffusers.models.transformers import transformer_flux
from diffusers.pipelines.flux.pipeline_flux import calculate_shift, retrieve_timesteps
from safetensors.torch import load_file, save_file
from sentencepiece import sentencepiece_model_pb2
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5Tokenizer

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden"

# Text the tokenizers are trained on; prompts reuse most of its words, so that they split into few, varied pieces.
CORPUS = """A small red boat on a quiet lake at dawn, painted with thick brush strokes
an old stone bridge over a river in autumn, golden leaves on the water
The painter's hands hold a brush and a blue cup, close portrait, soft light
two cats sleep on a wooden chair near the window, morning light on the floor
A city street at night after the rain, with neon lights and red umbrellas
Mountains under a clear sky, snow on the peaks, a photo from 1998
a glass bottle of green ink beside a letter, still life in the old dutch style
children fly a yellow kite over the dunes, strong wind, wide angle
It's a portrait of an astronaut riding a horse, studio photo, 35 mm film
The lighthouse stands on black rocks, waves and storm clouds behind it
a bowl of cherries, a knife and bread on a white cloth, seen from above
portrait of a woman in a café, she's reading a newspaper, rain on the window
an owl in a snowy forest, blue hour, detailed feathers, soft focus
a tiny robot waters the flowers in a garden, cartoon style, bright colors
steam train crossing a stone bridge, black smoke, photo of the 1920s
a paper boat in the gutter, close-up, reflections of neon lights""".split("\n")

# code points -> code points, as a small stand-in for the 240 kB NFKC table of the real spiece.model
CHARACTER_RULES = "9\t20\nA\t20\nD\t20\nA0\t20\n3000\t20\n200B\t\nFB01\t66 69\nFF0C\t2C\nFF21\t41\n65 301\tE9\n"


@dataclasses.dataclass(frozen=True)
class Model:
    """One tiny model: what differs from the real one, and the request it is run with."""

    name: str
    transformer: dict
    vae: dict
    clip: dict
    t5: dict
    request: dict
    t5_pieces: int = 150
    dtype: torch.dtype = torch.float32  # how the folder is stored; every weight is exact in f32, f16 and bf16
    vae_dtype: torch.dtype = torch.float32
    classic_files: bool = False  # vocab.json + merges.txt, spiece.model and text_model.* keys, as published in 2024
    eos_before_merges: bool = False  # then the end token is not the highest id and argmax(ids) would be wrong
    sharded: bool = False  # transformer and T5 in several files each
    published_t5_config: bool = False  # config.json names the activation as the real one, without feed_forward_proj
    logvar_beyond_clamp: bool = False  # two latent channels outside the range that diffusers clamps logvar to


MODELS = [
    Model(
        name="m1_dev",
        transformer=dict(num_layers=2, num_single_layers=3, num_attention_heads=2, attention_head_dim=10,
                         axes_dims_rope=(2, 4, 4), guidance_embeds=True),
        vae=dict(block_out_channels=(32, 32), layers_per_block=1, latent_channels=16, norm_num_groups=32,
                 scaling_factor=0.3611, shift_factor=0.1159),
        clip=dict(hidden_size=64, intermediate_size=24, num_hidden_layers=1, num_attention_heads=1,
                  max_position_embeddings=77, hidden_act="quick_gelu", eos_token_id=2),
        t5=dict(d_model=26, d_kv=8, d_ff=36, num_heads=4, num_layers=2, feed_forward_proj="gated-gelu"),
        request=dict(prompts=["A small red boat on a quiet lake, painted in 1998"], height=20, width=28,
                     num_inference_steps=3, guidance_scale=3.5, seeds=[42], max_sequence_length=24),
        dtype=torch.bfloat16,
        vae_dtype=torch.bfloat16,
        classic_files=True,
        published_t5_config=True,
    ),
    Model(
        name="m2_schnell",
        transformer=dict(num_layers=1, num_single_layers=4, num_attention_heads=3, attention_head_dim=8,
                         axes_dims_rope=(4, 2, 2), guidance_embeds=False),
        vae=dict(block_out_channels=(4, 4, 8), layers_per_block=2, latent_channels=4, norm_num_groups=2,
                 scaling_factor=0.5, shift_factor=-0.25),
        clip=dict(hidden_size=18, intermediate_size=40, num_hidden_layers=2, num_attention_heads=3,
                  max_position_embeddings=32, hidden_act="gelu", eos_token_id="tokenizer"),
        t5=dict(d_model=20, d_kv=6, d_ff=48, num_heads=2, num_layers=2, feed_forward_proj="relu",
                relative_attention_num_buckets=8, relative_attention_max_distance=20),
        request=dict(prompts=["The lighthouse's ﬁre at night,  storm clouds", "two owls in a cafe\u0301 — 35 mm"],
                     height=32, width=24, num_inference_steps=3, guidance_scale=0.0, seeds=[7, 8],
                     max_sequence_length=20),
        classic_files=True,
        sharded=True,
    ),
    Model(
        name="m3_schnell",
        transformer=dict(num_layers=1, num_single_layers=1, num_attention_heads=2, attention_head_dim=14,
                         axes_dims_rope=(2, 6, 6), guidance_embeds=False),
        vae=dict(block_out_channels=(16, 8), layers_per_block=1, latent_channels=16, norm_num_groups=8,
                 scaling_factor=0.3611, shift_factor=0.1159),
        clip=dict(hidden_size=64, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1,
                  max_position_embeddings=77, hidden_act="quick_gelu", eos_token_id="tokenizer"),
        t5=dict(d_model=24, d_kv=10, d_ff=32, num_heads=3, num_layers=2, feed_forward_proj="gated-gelu"),
        request=dict(prompts=["steam train crossing a stone bridge, black smoke"], height=28, width=20,
                     num_inference_steps=2, guidance_scale=0.0, seeds=[2**32 + 5], max_sequence_length=32),
        dtype=torch.bfloat16,
        vae_dtype=torch.bfloat16,
    ),
    Model(
        name="m4_dev",
        transformer=dict(num_layers=3, num_single_layers=1, num_attention_heads=5, attention_head_dim=6,
                         axes_dims_rope=(2, 2, 2), guidance_embeds=True),
        vae=dict(block_out_channels=(4, 4, 8, 8), layers_per_block=1, latent_channels=4, norm_num_groups=2,
                 scaling_factor=1.25, shift_factor=0.0609),
        clip=dict(hidden_size=20, intermediate_size=24, num_hidden_layers=3, num_attention_heads=4,
                  max_position_embeddings=20, hidden_act="gelu", eos_token_id="tokenizer"),
        t5=dict(d_model=22, d_kv=4, d_ff=36, num_heads=6, num_layers=3, feed_forward_proj="gated-gelu"),
        # 70 x 44 is rounded down to 64 x 32; the prompt is longer than either encoder takes.
        request=dict(prompts=["Portrait of a woman in a café, she's reading a newspaper, rain on the window, soft "
                              "light, a photo from the 1920s, black and white film, detailed, an old wooden chair"],
                     negative_prompt="cartoon style, bright colors", true_cfg_scale=1.75, height=70, width=44,
                     num_inference_steps=3, guidance_scale=2.5, seeds=[123456789], max_sequence_length=40),
        dtype=torch.float16,
        vae_dtype=torch.float16,
        eos_before_merges=True,
        logvar_beyond_clamp=True,
    ),
]


# ---------------------------------------------------------------------------------------------------- tokenizers


def byte_pair_merges(count: int) -> list[tuple[str, str]]:
    """The most frequent pairs of CORPUS, one after the other; tokenizers' own trainer breaks ties at random."""
    backend = CLIPTokenizer().backend_tokenizer
    words: collections.Counter[tuple[str, ...]] = collections.Counter()
    for line in CORPUS:
        for word, _ in backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(line)):
            words[*word[:-1], word[-1] + "</w>"] += 1
    merges = []
    for _ in range(count):
        pairs: collections.Counter[tuple[str, str]] = collections.Counter()
        for word, times in words.items():
            for pair in itertools.pairwise(word):
                pairs[pair] += times
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        words = collections.Counter({merge(word, best): times for word, times in words.items()})
    return merges


def merge(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    result: list[str] = []
    for symbol in word:
        if result and (result[-1], symbol) == pair:
            result[-1] += symbol
        else:
            result.append(symbol)
    return tuple(result)


def clip_tokenizer(model: Model) -> CLIPTokenizer:
    """A CLIP tokenizer with its 512 byte symbols in OpenAI's order, 40 merges learnt from CORPUS, start and end."""
    merges = byte_pair_merges(40)
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    symbols = [chr(b) for b in printable] + [chr(256 + n) for n in range(256 - len(printable))]
    pieces = symbols + [s + "</w>" for s in symbols]
    special = ["<|startoftext|>", "<|endoftext|>"]
    merged = [first + second for first, second in merges]
    pieces += special + merged if model.eos_before_merges else merged + special
    vocab = {piece: i for i, piece in enumerate(pieces)}
    assert len(vocab) == len(pieces)
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=model.clip["max_position_embeddings"])


def sentencepiece_model(pieces: int) -> bytes:
    """A unigram model trained on CORPUS; ids as T5 has them: pad 0, </s> 1, <unk> 2."""
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as rules:
        rules.write(CHARACTER_RULES)
        rules.flush()
        trained = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(CORPUS), model_writer=trained, model_type="unigram", vocab_size=pieces,
            normalization_rule_tsv=rules.name, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, character_coverage=1.0,
            num_threads=1, minloglevel=2)
    proto = sentencepiece_model_pb2.ModelProto.FromString(trained.getvalue())
    proto.normalizer_spec.ClearField("normalization_rule_tsv")  # a temporary path
    return proto.SerializeToString(deterministic=True)


def t5_tokenizer(model: Model, folder: Path) -> T5Tokenizer:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spiece.model").write_bytes(sentencepiece_model(model.t5_pieces))
    config = dict(tokenizer_class="T5Tokenizer", extra_ids=4, model_max_length=512, eos_token="</s>",
                  unk_token="<unk>", pad_token="<pad>")
    write_json(folder / "tokenizer_config.json", config)
    return T5Tokenizer.from_pretrained(folder)


def write_json(path: Path, value) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


# ------------------------------------------------------------------------------------------------------- weights


def fill(module: torch.nn.Module, salt: str, gain) -> None:
    """Random weights, a function of salt and parameter name alone; gain(name) scales those of a matrix."""
    for name, weight in module.named_parameters():
        rng = np.random.default_rng(zlib.crc32(f"{salt}.{name}".encode()))
        normal = rng.standard_normal(tuple(weight.shape))
        if name.endswith("bias") and weight.ndim == 1:
            value = 0.25 * normal
        elif weight.ndim == 1:
            value = gain(name) * (1 + 0.3 * np.tanh(normal))
        elif "embedding" in name or "shared" in name or "relative_attention_bias" in name:
            value = gain(name) * normal
        else:
            value = gain(name) * normal / np.sqrt(weight[0].numel())
        exact = torch.from_numpy(value).float().bfloat16().float()
        exact[exact.abs() < 2.0**-14] = 0  # below, f16 has no full precision
        weight.data.copy_(exact)


def transformer_gain(name: str) -> float:
    """Attention logits of about 2, gates of about 0.8, attention loud enough for the text to matter."""
    if "norm_q" in name or "norm_k" in name or "norm_added" in name:
        return 1.4
    if "timestep_embedder" in name or "guidance_embedder" in name or "text_embedder" in name:
        return 1.3
    if "to_out" in name or "add_v_proj" in name or "single" in name and "proj_out" in name:
        return 2.0
    return 0.8 if ".norm" in name or "norm_out" in name else 1.2


def clip_gain(name: str) -> float:
    if "embedding" in name:
        return 0.5
    return 1.4 if "q_proj" in name or "k_proj" in name else 1.0


def t5_gain(d_kv: int):
    """T5 does not divide the logits by sqrt(d_kv): q is small instead."""
    return lambda name: (2.0 / d_kv) ** 0.5 if name.endswith("SelfAttention.q.weight") else 1.0


def vae_gain(name: str) -> float:
    return 0.7 if name == "decoder.conv_out.weight" else 1.2


def build(model: Model, folder: Path) -> FluxPipeline:
    """The pipeline with random weights, all in f32; folder receives the files of the T5 tokenizer."""
    tokenizer, tokenizer_2 = clip_tokenizer(model), t5_tokenizer(model, folder)
    eos = tokenizer.eos_token_id if model.clip["eos_token_id"] == "tokenizer" else model.clip["eos_token_id"]
    legacy = eos == 2
    clip_config = dict(model.clip, vocab_size=len(tokenizer), projection_dim=model.clip["hidden_size"],
                       bos_token_id=0 if legacy else tokenizer.bos_token_id, eos_token_id=eos,
                       pad_token_id=1 if legacy else eos)
    t5_config = dict(model.t5, vocab_size=-(-(len(tokenizer_2) + 1) // 8) * 8, is_encoder_decoder=False,
                     use_cache=False)
    latents = model.vae["latent_channels"]
    levels = len(model.vae["block_out_channels"])
    transformer = FluxTransformer2DModel(
        in_channels=4 * latents, joint_attention_dim=model.t5["d_model"],
        pooled_projection_dim=model.clip["hidden_size"], **model.transformer)
    vae = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * levels, up_block_types=["UpDecoderBlock2D"] * levels,
        use_quant_conv=False, use_post_quant_conv=False, sample_size=64, **model.vae)
    clip, t5 = CLIPTextModel(CLIPTextConfig(**clip_config)), T5EncoderModel(T5Config(**t5_config))
    fill(transformer, f"{model.name}.transformer", transformer_gain)
    fill(vae, f"{model.name}.vae", vae_gain)
    fill(clip, f"{model.name}.clip", clip_gain)
    fill(t5, f"{model.name}.t5", t5_gain(model.t5["d_kv"]))
    if model.logvar_beyond_clamp:
        vae.encoder.conv_out.bias.data[latents:latents + 2] = torch.tensor([-40.0, 25.0])
    dev = model.transformer["guidance_embeds"]
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0 if dev else 1.0, use_dynamic_shifting=dev)
    return FluxPipeline(scheduler=scheduler, vae=vae, text_encoder=clip, tokenizer=tokenizer, text_encoder_2=t5,
                        tokenizer_2=tokenizer_2, transformer=transformer)


# -------------------------------------------------------------------------------------------------------- saving


def save(model: Model, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory() as scratch:
        pipe = build(model, Path(scratch) / "t5")
        pipe.to(model.dtype)
        pipe.text_encoder_2.to(model.dtype)  # pipe.to() leaves wo in f32 for f16
        pipe.vae.to(model.vae_dtype)
        pipe.save_pretrained(folder)
        if model.sharded:
            for part, size in (("transformer", 100_000), ("text_encoder_2", 16_000)):
                for weights in (folder / part).glob("*.safetensors"):
                    weights.unlink()
                getattr(pipe, part).save_pretrained(folder / part, max_shard_size=size)
        if model.classic_files:
            write_classic_files(pipe, folder, Path(scratch) / "t5" / "spiece.model")
    if model.published_t5_config:
        path = folder / "text_encoder_2" / "config.json"
        config = json.loads(path.read_text()) | {"dense_act_fn": "gelu_pytorch_tanh"}
        del config["feed_forward_proj"], config["relative_attention_max_distance"]
        write_json(path, config)


def write_classic_files(pipe: FluxPipeline, folder: Path, spiece: Path) -> None:
    """Replaces what transformers 5 writes by the files and tensor names of the published FLUX repositories."""
    clip, t5 = folder / "tokenizer", folder / "tokenizer_2"
    bpe = json.loads((clip / "tokenizer.json").read_text())["model"]
    (clip / "vocab.json").write_text(json.dumps(bpe["vocab"], ensure_ascii=False))
    (clip / "merges.txt").write_text("".join(["#version: 0.2\n", *(" ".join(pair) + "\n" for pair in bpe["merges"])]))
    end = "<|endoftext|>"
    write_json(clip / "tokenizer_config.json",
               dict(tokenizer_class="CLIPTokenizer", model_max_length=pipe.tokenizer.model_max_length,
                    bos_token="<|startoftext|>", eos_token=end, pad_token=end, unk_token=end, do_lower_case=True))
    write_json(clip / "special_tokens_map.json",
               dict(bos_token="<|startoftext|>", eos_token=end, pad_token=end, unk_token=end))
    for name in ("spiece.model", "tokenizer_config.json"):
        shutil.copy(spiece.with_name(name), t5 / name)
    write_json(t5 / "special_tokens_map.json", dict(eos_token="</s>", pad_token="<pad>", unk_token="<unk>"))
    for tokenizer in (clip, t5):
        (tokenizer / "tokenizer.json").unlink()

    for weights in (folder / "text_encoder").glob("*.safetensors"):
        save_file({f"text_model.{k}": v for k, v in load_file(weights).items()}, weights, {"format": "pt"})


# ---------------------------------------------------------------------------------------------------- references


class Recorder:
    """Collects tensors of one transformer call; names are those of BFL's checkpoint."""

    def __init__(self, pipe: FluxPipeline, call: int):
        self.values: dict[str, torch.Tensor] = {}
        self.transformer, self.call, self.calls, self.attentions = pipe.transformer, call, -1, 0

    def __enter__(self):
        t = self.transformer
        hooks = [t.register_forward_pre_hook(self.inputs, with_kwargs=True), t.register_forward_hook(self.keep("out"))]
        for name, module in (("vec", t.time_text_embed), ("img_in", t.x_embedder), ("txt_in", t.context_embedder)):
            hooks.append(module.register_forward_hook(self.keep(name)))
        for i, block in enumerate(t.transformer_blocks):
            hooks.append(block.register_forward_hook(self.keep(f"double_blocks.{i}.txt", f"double_blocks.{i}.img")))
        for i, block in enumerate(t.single_transformer_blocks):
            hooks.append(block.register_forward_hook(self.keep(f"single_blocks.{i}")))
        self.hooks, self.attention = hooks, transformer_flux.dispatch_attention_fn
        transformer_flux.dispatch_attention_fn = self.attend
        return self

    def __exit__(self, *_):
        transformer_flux.dispatch_attention_fn = self.attention
        for hook in self.hooks:
            hook.remove()

    def keep(self, *names):
        def hook(_module, _inputs, outputs):
            if self.calls != self.call:
                return
            parts = outputs if isinstance(outputs, tuple) else (outputs,)
            if names[0].startswith("single_blocks"):
                parts = (torch.cat(parts, dim=1),)  # (text, image) again as one sequence
            self.values.update({name: part.clone() for name, part in zip(names, parts)})

        return hook

    def inputs(self, _module, _args, kwargs):
        self.calls += 1
        self.attentions = 0
        if self.calls == 0:
            self.start = kwargs["hidden_states"].clone()
        if self.calls == self.call:
            names = dict(hidden_states="hidden_states", encoder_hidden_states="encoder_hidden_states",
                         pooled_projections="pooled", timestep="timestep", guidance="guidance", img_ids="img_ids",
                         txt_ids="txt_ids")
            self.values.update({f"transformer.{short}": kwargs[long].clone()
                                for long, short in names.items() if kwargs[long] is not None})

    def attend(self, query, key, value, **options):
        """Queries after RMSNorm and rotation, [B, L, H, K] with the text tokens first."""
        double = self.attentions < len(self.transformer.transformer_blocks)
        if self.calls == self.call and double:
            text = self.values["transformer.txt_ids"].shape[0]
            heads_first = query.transpose(1, 2)
            self.values[f"double_blocks.{self.attentions}.txt_attn.q"] = heads_first[:, :, :text].contiguous()
            self.values[f"double_blocks.{self.attentions}.img_attn.q"] = heads_first[:, :, text:].contiguous()
        self.attentions += 1
        return self.attention(query, key, value, **options)


def encode_text(pipe: FluxPipeline, prompts: list[str], length: int) -> dict[str, torch.Tensor]:
    clip_ids = pipe.tokenizer(prompts, padding="max_length", max_length=pipe.tokenizer.model_max_length,
                              truncation=True, return_tensors="pt").input_ids
    t5_ids = pipe.tokenizer_2(prompts, padding="max_length", max_length=length, truncation=True,
                              return_tensors="pt").input_ids
    clip = pipe.text_encoder(clip_ids)
    return {"clip.ids": clip_ids, "clip.last_hidden": clip.last_hidden_state, "clip.pooled": clip.pooler_output,
            "t5.ids": t5_ids, "t5.out": pipe.text_encoder_2(t5_ids)[0]}


def test_picture(model: Model) -> torch.Tensor:
    """[1, 3, H, W] in [-1, 1], made of 8-bit values: waves and noise; latent sides are odd."""
    factor = 2 ** (len(model.vae["block_out_channels"]) - 1)
    height, width = 5 * factor, 3 * factor
    y, x = np.mgrid[:height, :width]
    rng = np.random.default_rng(5)
    channels = [np.sin(x / (2 + c)) * np.cos(y / (4 - c)) for c in range(3)]
    levels = np.clip(np.rint(127.5 + 100 * np.stack(channels) + 20 * rng.standard_normal((3, height, width))), 0, 255)
    return torch.from_numpy(levels).float()[None] / 127.5 - 1


def reference(model: Model, folder: Path, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Everything that FluxPipeline computes for model.request in dtype."""
    pipe = FluxPipeline.from_pretrained(folder, dtype=dtype)
    pipe.set_progress_bar_config(disable=True)
    request = dict(model.request)
    prompts, seeds = request.pop("prompts"), request.pop("seeds")
    values = encode_text(pipe, prompts, request["max_sequence_length"])
    if "negative_prompt" in request:
        negative = encode_text(pipe, [request["negative_prompt"]], request["max_sequence_length"])
        values |= {f"negative.{k}": v for k, v in negative.items()}

    latents = []
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    with Recorder(pipe, call=forward_call(model)) as recorder:
        decoder = pipe.vae.decoder.register_forward_hook(
            lambda _m, inputs, output: values.update({"vae.decode.input": inputs[0], "vae.decode.output": output}))
        image = pipe(prompt=prompts, generator=generators, output_type="np", **request,
                     callback_on_step_end=lambda _p, _i, _t, kept: latents.append(kept["latents"]) or {}).images
        decoder.remove()
    values |= recorder.values
    values |= {"image": image, "image.u8": np.stack(pipe.image_processor.numpy_to_pil(image))}

    factor = 2 * pipe.vae_scale_factor
    shape = (1, model.vae["latent_channels"], 2 * (request["height"] // factor), 2 * (request["width"] // factor))
    noise = torch.cat([torch.randn(shape, generator=torch.Generator().manual_seed(s), dtype=dtype) for s in seeds])
    assert torch.equal(recorder.start, pipe._pack_latents(noise, len(seeds), *shape[1:]))
    assert torch.equal(values["t5.out"], values["transformer.encoder_hidden_states"])
    values |= {"noise": noise, "latents": torch.stack(latents)}
    values |= {"sigmas": pipe.scheduler.sigmas, "timesteps": pipe.scheduler.timesteps}
    picture = test_picture(model).to(dtype)
    posterior = pipe.vae.encode(picture).latent_dist
    values |= {"vae.encode.input": picture, "vae.encode.mean": posterior.mean, "vae.encode.logvar": posterior.logvar}
    return {name: torch.as_tensor(value).contiguous() for name, value in values.items()}


# What is kept of the bf16 run; the rest is either the same as in f32 (ids, sigmas) or follows from these.
BF16_KEYS = ("clip.pooled", "t5.out", "transformer.hidden_states", "transformer.timestep", "vec", "double_blocks.0.img",
             "single_blocks.", "out", "latents", "vae.decode.output", "vae.encode.mean")


def forward_call(model: Model) -> int:
    """The recorded transformer call: the one of the second step with the prompt (not the negative one)."""
    return 2 if "negative_prompt" in model.request else 1


def check(model: Model, f32: dict, bf16: dict) -> None:
    """The references are worth comparing with: finite, of moderate size, and dependent on text and noise."""
    for name, value in [*f32.items(), *bf16.items()]:
        assert torch.isfinite(value.float()).all(), name
    for name in ("t5.out", "clip.pooled", "vec", "out", "vae.encode.mean"):
        assert 0.3 < f32[name].std() < 3, (name, f32[name].std())
    assert 0.08 < f32["image"].std() < 0.4 and f32["image.u8"].unique().numel() > 100
    assert f32["latents"].abs().max() < 15


def write_references(model: Model) -> None:
    folder = GOLDEN / "models" / model.name
    f32 = reference(model, folder, torch.float32)
    bf16 = reference(model, folder, torch.bfloat16)
    check(model, f32, bf16)
    values = f32 | {f"{name}.bf16": bf16[name] for name in bf16 if name.startswith(BF16_KEYS)}
    values = {k: v.int() if v.dtype == torch.int64 else v for k, v in values.items()}
    settings = dict(model.request, forward_call=forward_call(model), **{k: list(v) if isinstance(v, tuple) else v
                                                                       for k, v in model.transformer.items()})
    save_file(values, GOLDEN / f"{model.name}.safetensors", {"settings": json.dumps(settings, ensure_ascii=False)})


# -------------------------------------------------------------------------------------------- schedule and noise


def write_schedule() -> None:
    rows = []
    for variant, dev in (("dev", True), ("schnell", False)):
        scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0 if dev else 1.0, use_dynamic_shifting=dev)
        for steps, tokens in ((1, 256), (2, 54), (4, 1024), (4, 4096), (20, 1536), (28, 4096), (50, 8160), (7, 16384)):
            mu = calculate_shift(tokens)
            retrieve_timesteps(scheduler, steps, "cpu", sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu)
            rows.append(dict(variant=variant, steps=steps, image_tokens=tokens, mu=mu,
                             sigmas=scheduler.sigmas.tolist(), timesteps=scheduler.timesteps.tolist()))
    (GOLDEN / "schedule.json").write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


def write_noise() -> None:
    values = {}
    for seed in (0, 42, 2**32 - 1, 2**53 + 1, 2**64 - 1):
        for size in (8, 15, 16, 17, 100, 4096):
            for name, dtype in (("f32", torch.float32), ("bf16", torch.bfloat16)):
                generator = torch.Generator().manual_seed(seed)
                values[f"seed_{seed}.n_{size}.{name}"] = torch.randn(size, generator=generator, dtype=dtype)
    save_file(values, GOLDEN / "noise.safetensors")


def main() -> None:
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    torch.use_deterministic_algorithms(True)
    wanted = sys.argv[1:]
    for model in MODELS:
        if not wanted or model.name in wanted:
            save(model, GOLDEN / "models" / model.name)
            write_references(model)
    if not wanted:
        write_schedule()
        write_noise()


if __name__ == "__main__":
    main()

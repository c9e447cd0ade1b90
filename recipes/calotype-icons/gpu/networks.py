"""The model's parts from its configurations, by diffusers and transformers, with initial weights as src/train/initial_weights.cpp."""
import json
import math
import pathlib

import diffusers
import torch
import transformers


def config(model, part):
    values = json.loads((pathlib.Path(model) / part / 'config.json').read_text())
    return {k: v for k, v in values.items() if not k.startswith('_') and k not in ('architectures', 'model_type')}


def autoencoder(model):
    return diffusers.AutoencoderKL(**config(model, 'vae'))


def neighbour_bias(weight):
    """Each head begins by looking at its left or right neighbours, every other pair of heads further away."""
    buckets, heads = weight.shape
    for head in range(heads):
        slope = 2.0 ** (1 - head // 2)
        for bucket in range(buckets):
            distance = bucket % (buckets // 2)
            looked_at = distance > 0 and (bucket >= buckets // 2) == (head % 2 == 0)
            weight[bucket, head] = (slope if looked_at else -4) - slope * distance


@torch.no_grad()
def begin(module):
    for name, p in module.named_parameters():
        if name.endswith('bias') or '.norm1.linear.' in f'.{name}' or 'norm1_context.linear' in name or '.norm.linear.' in name \
                or 'norm_out.linear' in name or name.startswith('proj_out.'):
            p.zero_()
        elif 'relative_attention_bias' in name:
            neighbour_bias(p)
        elif p.ndim == 1:
            p.fill_(1)
        elif name == 'shared.weight':
            p.normal_()
        elif 'embedding.weight' in name:
            p.normal_(0, 0.02)
        else:
            torch.nn.init.xavier_uniform_(p)
            if name.endswith('SelfAttention.q.weight'):
                p.div_(math.sqrt(module.config.d_kv))
    return module


class RmsNorm(torch.nn.Module):
    """torch.nn.RMSNorm in plain operations."""

    def __init__(self, weight, epsilon):
        super().__init__()
        self.weight, self.epsilon = weight, epsilon

    def forward(self, x):
        wide = x.float()
        return (wide * (wide.square().mean(-1, keepdim=True) + self.epsilon).rsqrt()).to(x.dtype) * self.weight


def with_plain_norms(module):
    """The fused kernel's gradient of the weight is suspected of writing out of bounds for half a million rows and more."""
    for child in module.modules():
        for name, norm in list(child.named_children()):
            if isinstance(norm, torch.nn.RMSNorm):
                setattr(child, name, RmsNorm(norm.weight, norm.eps))
    return module


class Flow(torch.nn.Module):
    """Transformer and text encoders, which learn together."""

    def __init__(self, model):
        super().__init__()
        t5 = transformers.T5Config(**config(model, 'text_encoder_2'))
        clip = transformers.CLIPTextConfig(**config(model, 'text_encoder'))
        t5._attn_implementation = clip._attn_implementation = 'eager'
        self.t5 = begin(transformers.T5EncoderModel(t5))
        self.clip = begin(transformers.CLIPTextModel(clip))
        self.transformer = with_plain_norms(begin(diffusers.FluxTransformer2DModel(**config(model, 'transformer'))))

    def encode(self, t5_ids, clip_ids):
        """Ids [B, L] → tokens [B, L, C], pooled vector [B, C]."""
        # Masks are given, because making them copies from the host, which no CUDA graph can do.
        (count, length), device, dtype = clip_ids.shape, clip_ids.device, self.clip.dtype
        ahead = torch.ones(length, length, dtype=torch.bool, device=device).triu(1)
        causal = torch.zeros(length, length, dtype=dtype, device=device).masked_fill(ahead, torch.finfo(dtype).min).expand(count, 1, length, length)
        everything = torch.zeros(count, 1, t5_ids.shape[1], t5_ids.shape[1], dtype=dtype, device=device)
        return self.t5(t5_ids, attention_mask=everything).last_hidden_state, self.clip(clip_ids, attention_mask=causal).pooler_output

    def velocity(self, x_BLC, t_B, guidance_B, text_BLC, pooled_BC):
        """x packed, [B, tokens, 64], of a square picture; t in 0–1, 1 is noise."""
        rows = math.isqrt(x_BLC.shape[1])
        place = torch.arange(rows, device=x_BLC.device)
        ids = torch.stack([torch.zeros(rows, rows, device=x_BLC.device), place[:, None].expand(rows, rows), place[None].expand(rows, rows)], -1)
        dtype = self.transformer.dtype
        return self.transformer(x_BLC.to(dtype), text_BLC, pooled_BC, t_B.to(dtype), ids.reshape(-1, 3),
                                torch.zeros(text_BLC.shape[1], 3, device=x_BLC.device), guidance_B.to(dtype), return_dict=False)[0]


def packed(latents_BChw):
    """[B, C, h, w] → [B, h/2·w/2, 4C], as FluxPipeline._pack_latents."""
    b, c, h, w = latents_BChw.shape
    return latents_BChw.view(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, h * w // 4, 4 * c)


def unpacked(x_BLC):
    b, tokens, c = x_BLC.shape
    rows = math.isqrt(tokens)
    return x_BLC.view(b, rows, rows, c // 4, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(b, c // 4, 2 * rows, 2 * rows)

"""Writes what the gguf package and torch make of a small transformer's weights, for tests/pipeline/convert_test.cpp.

The weights follow a formula that the test knows too, so nothing but checksums is stored: tests/golden/convert.json holds
for each number type {tensor: {"type", "shape", "crc32" of its bytes}}. Which tensor is packed follows the rules of
city96/ComfyUI-GGUF (vectors and small tensors f32) and of Calotype (input and output layers f16).

    python tools/reference/convert.py
"""

import json
import zlib
from pathlib import Path

import gguf
import numpy as np
import torch

WIDTH, HEAD, MLP, TEXT, POOLED, CHANNELS = 32, 16, 256, 48, 24, 16
TYPES = ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "f16", "bf16"]


def shapes() -> dict[str, list[int]]:
    """BFL names of a transformer with one block of each kind."""
    linear = {"img_in": (WIDTH, CHANNELS), "txt_in": (WIDTH, TEXT), "final_layer.linear": (CHANNELS, WIDTH),
              "final_layer.adaLN_modulation.1": (2 * WIDTH, WIDTH)}
    for name, inputs in (("time_in", 256), ("vector_in", POOLED)):
        linear |= {f"{name}.in_layer": (WIDTH, inputs), f"{name}.out_layer": (WIDTH, WIDTH)}
    scales = ["single_blocks.0.norm"]
    for stream in ("double_blocks.0.img", "double_blocks.0.txt"):
        linear |= {f"{stream}_mod.lin": (6 * WIDTH, WIDTH), f"{stream}_attn.qkv": (3 * WIDTH, WIDTH),
                   f"{stream}_attn.proj": (WIDTH, WIDTH), f"{stream}_mlp.0": (MLP, WIDTH),
                   f"{stream}_mlp.2": (WIDTH, MLP)}
        scales.append(f"{stream}_attn.norm")
    linear |= {"single_blocks.0.modulation.lin": (3 * WIDTH, WIDTH),
               "single_blocks.0.linear1": (3 * WIDTH + MLP, WIDTH), "single_blocks.0.linear2": (WIDTH, WIDTH + MLP)}
    result = {}
    for name, shape in linear.items():
        result |= {f"{name}.weight": list(shape), f"{name}.bias": [shape[0]]}
    for name in scales:
        result |= {f"{name}.{which}_norm.scale": [HEAD] for which in ("query", "key")}
    return dict(sorted(result.items()))


def weights() -> dict[str, np.ndarray]:
    """16-bit integers divided by 2^20, which f32 holds exactly and no shorter type does."""
    result = {}
    for number, (name, shape) in enumerate(shapes().items()):
        i = np.arange(np.prod(shape), dtype=np.uint64)
        h = (i * 2654435761 + number * 40503) % 2**32
        result[name] = (((h >> 16).astype(np.int64) - 32768) / 2**20).astype(np.float32).reshape(shape)
    return result


def in_blocks(name: str, value: np.ndarray) -> bool:
    return "_blocks." in name and value.ndim == 2


def as_gguf(name: str, value: np.ndarray, wanted: str) -> tuple[str, bytes]:
    plain = wanted in ("f16", "bf16")
    if value.ndim == 1 or value.size <= 1024:
        kind = "f32"
    else:
        kind = wanted if plain or in_blocks(name, value) else "f16"
    return kind, gguf.quants.quantize(value, gguf.GGMLQuantizationType[kind.upper()]).tobytes()


def as_fp8(weights: dict[str, np.ndarray]) -> dict[str, tuple[str, list[int], bytes]]:
    """ComfyUI's scaled file."""
    result = {"scaled_fp8": ("f8_e4m3", [0], b"")}
    for name, value in weights.items():
        tensor = torch.from_numpy(value)
        if not in_blocks(name, value):
            result[name] = ("f16", list(value.shape), tensor.half().numpy().tobytes())
            continue
        scale = tensor.abs().max() / torch.finfo(torch.float8_e4m3fn).max
        stored = (tensor / scale).to(torch.float8_e4m3fn)
        result[name] = ("f8_e4m3", list(value.shape), stored.view(torch.uint8).numpy().tobytes())
        result[name.removesuffix("weight") + "scale_weight"] = ("f32", [], scale.numpy().tobytes())
    return result


def main() -> None:
    tensors, table = weights(), {}
    for wanted in TYPES:
        made = {name: as_gguf(name, value, wanted) for name, value in tensors.items()}
        table[wanted] = {name: {"type": kind, "shape": list(tensors[name].shape), "crc32": zlib.crc32(stored)}
                         for name, (kind, stored) in made.items()}
    table["f8_e4m3"] = {name: {"type": kind, "shape": shape, "crc32": zlib.crc32(stored)}
                        for name, (kind, shape, stored) in as_fp8(tensors).items()}
    lines = [f'"{kind}": {{\n' + ",\n".join(f"  {json.dumps(n)}: {json.dumps(e)}" for n, e in entries.items()) + "\n}"
             for kind, entries in table.items()]
    path = Path(__file__).parents[2] / "tests" / "golden" / "convert.json"
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()

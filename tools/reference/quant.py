"""Reference values for tests/weights/quant_test.cpp: ggml blocks, fp8, rounding.

Run from the repository root: python tools/reference/quant.py
Writes tests/golden/quant.safetensors with gguf 0.19 and torch 2.13:
  T.bytes, T.f32            random blocks of each ggml type T and what gguf's dequantize makes of them
  f8_e4m3.f32, f8_e5m2.f32  all 256 bytes as torch reads them
  round.f32, round.T        numbers near every kind of rounding decision, and torch's casts to T
  encode.f32, encode.T      blocks of 32 numbers of many sizes, and gguf's quantize
  weights.f32               two rows, normally distributed and heavy-tailed
  rmse.T                    for each of these rows, the error of k-quants rounded between minimum and maximum,
                            for q4_0 and q5_0 that of gguf's quantize
"""

import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import dequantize, quantize
from safetensors.numpy import save_file

SIMPLE = ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0"]
# Where the f16 scales stand in a block.
SCALES = {"q4_0": [0], "q4_1": [0, 2], "q5_0": [0], "q5_1": [0, 2], "q8_0": [0],
          "q2_k": [80, 82], "q3_k": [108], "q4_k": [0, 2], "q5_k": [0, 2], "q6_k": [208]}
# 0, −0, smallest and largest subnormal, smallest normal, ±largest, ordinary ones.
PATTERNS = [0x0000, 0x8000, 0x0001, 0x83FF, 0x0400, 0x7BFF, 0xFBFF, 0x2C00]


def gguf_type(name: str) -> Type:
    return Type[name.upper()]


def blocks(name: str, rng: np.random.Generator) -> np.ndarray:
    """One block for each scale pattern, then blocks of zeros, of ones and of random bytes with ordinary scales."""
    size = GGML_QUANT_SIZES[gguf_type(name)][1]
    out = rng.integers(0, 256, (len(PATTERNS) + (16 if name in SIMPLE else 4), size), dtype=np.uint8)
    out[-1], out[-2] = 0, 255
    for k, at in enumerate(SCALES[name]):
        for i, block in enumerate(out):
            ordinary = int(rng.integers(0x1000, 0x4000)) | int(rng.integers(2)) << 15
            pattern = PATTERNS[(i + 3 * k) % len(PATTERNS)] if i < len(PATTERNS) else ordinary
            block[at:at + 2] = np.frombuffer(np.uint16(pattern).tobytes(), np.uint8)
    return out


def rounding_inputs(rng: np.random.Generator) -> np.ndarray:
    """All fp8 and many f16 and bf16 numbers, the points between neighbours and the f32 next to those points."""
    every = torch.arange(256, dtype=torch.uint8)
    grids = [every.view(torch.float8_e4m3fn).float(), every.view(torch.float8_e5m2).float()]
    for dtype, edges in ((torch.float16, [0, 1, 0x3FF, 0x400, 0x7BFE]), (torch.bfloat16, [0, 1, 0x7F, 0x80, 0x7F7E])):
        lower = np.concatenate([np.array(edges), rng.integers(0, 0x7BFE, 40)])
        grids.append(torch.tensor(np.concatenate([lower, lower + 1]).astype(np.int16)).view(dtype).float())
    points = [np.array([0, np.inf, np.nan, 65504, 65519.996, 65520, 65536, 61440, 3.4e38, 1e-45, 1e-38, 464, 480])]
    for grid in grids:
        values = np.unique(np.abs(grid.numpy()[np.isfinite(grid.numpy())]))
        points += [values, (values[:-1].astype(np.float64) + values[1:]) / 2]
    middle = np.unique(np.concatenate(points).astype(np.float32))
    with np.errstate(over="ignore"):
        below, above = (np.nextafter(middle, np.float32(to)) for to in (0, np.inf))
        near = np.unique(np.concatenate([middle, below, above]))
    return np.concatenate([near, -near])


def encode_inputs(rng: np.random.Generator) -> np.ndarray:
    rows = [rng.normal(0, sigma, 32) for sigma in (1e-6, 1e-4, 0.02, 0.02, 0.02, 1, 30, 1000) for _ in range(8)]
    rows += [np.zeros(32), np.full(32, 0.5), np.full(32, -0.5), np.arange(32), -np.arange(1, 33)]
    rows += [np.eye(32)[5], -np.eye(32)[31]]
    rows += [rng.uniform(0.1, 1, 32), rng.uniform(-1, -0.1, 32), np.tile([7.5, -7.5], 16), rng.integers(-8, 8, 32) / 8]
    return np.array(rows, np.float32)


def fusible_inputs(rng: np.random.Generator) -> np.ndarray:
    """For each of q4_0 q4_1 q5_0 q5_1 a block of numbers half-way between two codes, some of which get another code if
    the product is not rounded before the sum, as in a fused multiply-add."""
    rows = []
    for codes, lowest in ((8, 0), (15, -0.31), (16, 0), (31, -0.31)):
        x = rng.uniform(0.5, 1, (4096, 32)).astype(np.float32)
        low, inverse = np.float32(lowest), 1 / ((x[:, :1] - np.float32(lowest)) / codes)
        x[:, 2:] = (rng.integers(0, codes, (4096, 30)) + 0.5) / inverse + low
        x[:, 1] = lowest
        # Around zero the largest number gets the lowest code, so all signs turn round.
        scaled, half = ((x - low) * inverse, np.float32(0.5)) if lowest else (x * -inverse, np.float32(codes + 0.5))
        exact = (x - low).astype(np.float64) * (inverse if lowest else -inverse)
        differs = np.trunc(scaled + half) != np.trunc((exact + half).astype(np.float32))
        rows.append(x[np.argmax(differs.sum(-1))])
        assert differs.sum(-1).max() > 0
    return np.array(rows)


def simple_rounding(x: np.ndarray, group: int, codes: tuple[int, int], scales: int, offsets: int) -> np.ndarray:
    """k-quants without any search: lines between minimum and maximum of a group, scales rounded to integers."""
    x = x.reshape(-1, 256 // group, group).astype(np.float64)
    low = np.minimum(x.min(-1, keepdims=True), 0) if offsets else 0 * x[..., :1]
    reach = codes[1] if offsets else -codes[0]
    scale = ((x.max(-1, keepdims=True) - low) if offsets else np.abs(x).max(-1, keepdims=True)) / reach

    def multiples(values: np.ndarray, largest: int) -> np.ndarray:
        unit = (values.max(1, keepdims=True) / max(largest, 1)).astype(np.float16).astype(np.float64)
        return np.clip(np.round(values / np.where(unit == 0, 1, unit)), 0, largest) * unit

    scale, low = multiples(scale, scales), -multiples(-low, offsets)
    q = np.clip(np.round((x - low) / np.where(scale == 0, 1, scale)), *codes)
    return (scale * q + low).ravel()


K_GRIDS = {"q2_k": (16, (0, 3), 15, 15), "q3_k": (16, (-4, 3), 31, 0), "q4_k": (32, (0, 15), 63, 63),
           "q5_k": (32, (0, 31), 63, 63), "q6_k": (16, (-32, 31), 127, 0)}


def rmse(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sqrt(np.mean((a.astype(np.float64) - b) ** 2)))


def main() -> None:
    rng = np.random.default_rng(7)
    out = {}
    for name in SCALES:
        data = blocks(name, rng)
        out[f"{name}.bytes"], out[f"{name}.f32"] = data, dequantize(data, gguf_type(name))

    f8 = {"f8_e4m3": torch.float8_e4m3fn, "f8_e5m2": torch.float8_e5m2}
    for name, dtype in f8.items():
        out[f"{name}.f32"] = torch.arange(256, dtype=torch.uint8).view(dtype).float().numpy()

    values = torch.tensor(rounding_inputs(rng))
    out["round.f32"] = values.numpy()
    for name, dtype in f8.items():
        out[f"round.{name}"] = values.to(dtype).view(torch.uint8).numpy()
    for name, dtype in {"f16": torch.float16, "bf16": torch.bfloat16}.items():
        out[f"round.{name}"] = values.to(dtype).view(torch.int16).numpy()

    out["encode.f32"] = np.concatenate([encode_inputs(rng), fusible_inputs(rng)])
    for name in SIMPLE:
        out[f"encode.{name}"] = quantize(out["encode.f32"], gguf_type(name))

    weights = np.stack([rng.normal(0, 0.02, 4096), 0.02 * rng.standard_t(4, 4096)]).astype(np.float32)
    out["weights.f32"] = weights
    for name in ("q4_0", "q5_0"):
        kind = gguf_type(name)
        out[f"rmse.{name}"] = np.array([rmse(row, dequantize(quantize(row, kind), kind)) for row in weights])
    for name, grid in K_GRIDS.items():
        out[f"rmse.{name}"] = np.array([rmse(row, simple_rounding(row, *grid)) for row in weights])
    save_file(out, "tests/golden/quant.safetensors")


if __name__ == "__main__":
    main()

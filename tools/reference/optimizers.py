"""Optimisers over 20 steps with given gradients -> tests/golden/optimizers.safetensors.

Besides requirements.txt this needs the two optimisers that PyTorch does not have:

    build/reference/bin/pip install prodigyopt==1.1.2 bitsandbytes==0.50.2

Names: start.<tensor>; pull.<tensor> and noise.<tensor>, from which gradient() below makes the gradient of every step;
<case>.<tensor> after 20 steps, and after 3 as <case>.3.<tensor>; metadata "settings" has the options and learning
rates of every case. Tensors: matrix [24, 40], vector [24], kernel [6, 4, 3, 3], large [70, 61] (4270 numbers: 8 bits
in bitsandbytes, with a last block that is not full).
"""
import json
import pathlib

import bitsandbytes
import bitsandbytes.backends.cpu.ops as bitsandbytes_cpu
import numpy as np
import prodigyopt
import torch
from diffusers.optimization import get_scheduler
from safetensors.torch import save_file

STEPS = 20
SHAPES = {"matrix": (24, 40), "vector": (24,), "kernel": (6, 4, 3, 3), "large": (70, 61)}
torch.set_num_threads(1)
random = np.random.default_rng(1)
tensors, settings = {}, {}

# Gradients that pull towards an optimum, with noise and of very different sizes, as training gives.
for name, shape in SHAPES.items():
    # Within a block of 8-bit numbers less: its small second moments would round to zero and the steps explode.
    scale = 10.0 ** random.uniform(-1 if name == "large" else -4, 0, shape)
    for part in ("pull", "noise"):
        tensors[f"{part}.{name}"] = torch.tensor(random.standard_normal(shape) * scale, dtype=torch.float32)
    tensors["start." + name] = torch.tensor(random.standard_normal(shape) * 0.5, dtype=torch.float32)


def gradient(name, step):
    """One f32 addition a number, so that any program gets the same bits."""
    return tensors["pull." + name] + tensors["noise." + name].roll(13 * step)


def rate(peak, step):
    """Something that changes from step to step."""
    return peak * (1 + step % 4) / 4


SMALL = ["matrix", "vector", "kernel"]


def run(case, peak, make, options, names=SMALL, absent=(), view=lambda x: x):
    """make(parameters) -> [(optimiser, factor of its rate)]; `absent` are (step, tensor) without a gradient."""
    values = {n: torch.nn.Parameter(view(tensors["start." + n]).clone()) for n in names}
    optimizers = make(values)
    for step in range(STEPS):
        for optimizer, factor in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate(peak, step) * factor
        for n, value in values.items():
            value.grad = None if (step, n) in absent else view(gradient(n, step))
        for optimizer, _ in optimizers:
            optimizer.step()
        for n, value in values.items():
            if step + 1 in (3, STEPS):
                key = f"{case}.3.{n}" if step + 1 == 3 else f"{case}.{n}"
                tensors[key] = value.detach().clone().reshape(SHAPES[n])
    settings[case] = options | {"learning_rates": [rate(peak, s) for s in range(STEPS)],
                                "tensors": list(names), "absent": [list(a) for a in absent]}
    return optimizers


one = lambda optimizer: [(optimizer, 1)]
all_of = lambda values: list(values.values())

options = {"kind": "adamw", "beta1": 0.9, "beta2": 0.99, "epsilon": 1e-6, "weight_decay": 0.1}
run("adamw", 1e-2, lambda v: one(torch.optim.AdamW(all_of(v), betas=(0.9, 0.99), eps=1e-6, weight_decay=0.1)), options,
    names=SHAPES, absent=[(0, "vector"), (7, "kernel")])

# For f32 numbers on a CPU bitsandbytes takes a table look-up that misses the nearest code by up to seven for small
# numbers; for f64 it takes the nearest, as on GPUs and in the paper.
def quantize_to_nearest(values, code, absmax_out, out, blocksize):
    codes, absmax = torch.ops.bitsandbytes.quantize_blockwise(values.double(), code, blocksize)
    out.copy_(codes)
    absmax_out.copy_(absmax)


bitsandbytes_cpu._quant_blockwise_fp32_direct = quantize_to_nearest
options = options | {"kind": "adamw8bit", "beta2": 0.999, "weight_decay": 0.01}
(eight, _), = run("adamw8bit", 1e-3, lambda v: one(bitsandbytes.optim.AdamW8bit(
    all_of(v), betas=(0.9, 0.999), eps=1e-6, weight_decay=0.01)), options,
                  names=SHAPES)
state = next(s for s in eight.state.values() if s["state1"].dtype == torch.uint8)
for ours, theirs in {"exp_avg": "1", "exp_avg_sq": "2"}.items():
    tensors[f"adamw8bit.large.{ours}"] = state["state" + theirs].clone()
    tensors[f"adamw8bit.large.{ours}.scale"] = state["absmax" + theirs].clone()
    tensors[f"adamw8bit.table.{ours}"] = state["qmap" + theirs].clone()
run("adamw32bit", 1e-3, lambda v: one(torch.optim.AdamW(all_of(v), eps=1e-6, weight_decay=0.01)),
    options | {"kind": "adamw"}, names=["large"])

for case, extra, ours in [
    ("prodigy", {}, {}),
    ("prodigy_options",
     {"use_bias_correction": True, "safeguard_warmup": True, "d0": 1e-5, "d_coef": 0.8, "growth_rate": 1.5},
     {"prodigy_bias_correction": True, "prodigy_safeguard_warmup": True, "prodigy_d0": 1e-5, "prodigy_d_factor": 0.8,
      "prodigy_growth_rate": 1.5}),
]:
    options = {"kind": "prodigy", "beta1": 0.9, "beta2": 0.99, "epsilon": 1e-6, "weight_decay": 0.1}
    (prodigy, _), = run(case, 1.0, lambda v: one(prodigyopt.Prodigy(
        all_of(v), betas=(0.9, 0.99), eps=1e-6, weight_decay=0.1, **extra)), options | ours, absent=[(7, "kernel")])
    settings[case]["d"] = prodigy.param_groups[0]["d"]


def muon(values):
    """Matrices by torch's Muon, ten times as fast as the rest by AdamW."""
    matrices = [v for v in values.values() if v.dim() == 2]
    others = [v for v in values.values() if v.dim() != 2]
    return [(torch.optim.Muon(matrices, weight_decay=0.1, momentum=0.95), 10),
            (torch.optim.AdamW(others, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.1), 1)]


# The kernel counts as [6, 36].
flat = lambda x: x.flatten(1) if x.dim() == 4 else x
options = {"kind": "muon", "beta1": 0.9, "beta2": 0.98, "epsilon": 1e-6, "weight_decay": 0.1, "muon_rate": 10}
run("muon_bf16", 1e-3, muon, options, view=flat)
# torch's Muon always rounds to bf16. With that cast turned off it is the same code in f32.
bfloat16, torch.Tensor.bfloat16 = torch.Tensor.bfloat16, torch.Tensor.clone
run("muon_f32", 1e-3, muon, options, view=flat)
# A fused matrix is several: torch's Muon on the rows 0-29, 30-39 and 40-69 of "large".
parts = [30, 10, 30]
pieces = [torch.nn.Parameter(p.clone()) for p in tensors["start.large"].split(parts)]
optimizer = torch.optim.Muon(pieces, weight_decay=0.1, momentum=0.95)
for step in range(STEPS):
    optimizer.param_groups[0]["lr"] = 10 * rate(1e-3, step)
    for piece, part in zip(pieces, gradient("large", step).split(parts)):
        piece.grad = part.clone()
    optimizer.step()
    if step + 1 in (3, STEPS):
        tensors["muon_parts.3.large" if step + 1 == 3 else "muon_parts.large"] = torch.cat([p.detach() for p in pieces])
settings["muon_parts"] = settings["muon_f32"] | {"tensors": ["large"], "row_parts": parts}
torch.Tensor.bfloat16 = bfloat16

# Clipping: all four gradients of step 0.
clipped = {n: torch.nn.Parameter(tensors["start." + n].clone()) for n in SHAPES}
for n, value in clipped.items():
    value.grad = gradient(n, 0)
settings["clip"] = {"max_norm": 1.0, "norm": torch.nn.utils.clip_grad_norm_(all_of(clipped), 1.0).item()}
tensors["clip.matrix"] = clipped["matrix"].grad.clone()

# Averages of a changing value, decay 0.9.
average = torch.optim.swa_utils.AveragedModel(torch.nn.ParameterList([tensors["start.vector"].clone()]),
                                              multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
average.update_parameters(torch.nn.ParameterList([tensors["start.vector"].clone()]))  # the first update copies
for step in range(STEPS):
    average.update_parameters(torch.nn.ParameterList([gradient("vector", step)]))
tensors["average.vector"] = average.module[0].detach().clone()

for schedule in ["constant_with_warmup", "cosine", "linear"]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = get_scheduler(schedule, optimizer, num_warmup_steps=20, num_training_steps=100)
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    tensors["rate." + schedule] = torch.tensor(rates, dtype=torch.float64)

for name, tensor in tensors.items():
    assert tensor.isfinite().all(), name
out = pathlib.Path(__file__).parents[2] / "tests/golden/optimizers.safetensors"
save_file({k: v.contiguous() for k, v in tensors.items()}, out, metadata={"settings": json.dumps(settings)})
print(out, out.stat().st_size)
print({k: v for k, v in settings["prodigy"].items() if k == "d"}, settings["clip"])

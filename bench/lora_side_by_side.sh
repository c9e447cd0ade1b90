#!/bin/bash
# Usage: bench/lora_side_by_side.sh [SIDE] [BATCH] [STEPS]
# Seconds per LoRA training step here and with diffusers + peft (eager, CPU), one after the other on the same model of
# random weights (36 M, width 512), at the same picture size, batch and text length, rank 16 on every layer of the
# blocks, AdamW, f32. Needs the Python of tools/reference/README.md in build/reference.
set -euo pipefail
cd "$(dirname "$0")/.."
readonly side=${1:-256} batch=${2:-1} steps=${3:-15} tokens=128 python=build/reference/bin/python
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

$python bench/peer_lora.py --make-model "$work/model" >/dev/null
mkdir "$work/data"
$python - "$work/data" "$side" <<'PYTHON'
import sys
from PIL import Image
for i in range(8):
    Image.effect_noise((int(sys.argv[2]), int(sys.argv[2])), 20 + 10 * i).convert("RGB").save(f"{sys.argv[1]}/{i}.png")
PYTHON

lscpu | grep -E '^(Model name|CPU\(s\)):'
for round in 1 2; do
  echo "round $round, diffusers + peft:"
  $python bench/peer_lora.py "$work/model" --size "$side" --batch "$batch" --text-tokens $tokens --dtype f32 \
    --warmup 3 --steps "$steps"
  echo "round $round, calotype:"
  build/release/calotype train "$work/data" --model "$work/model" --trigger TOK --resolution "$side" --batch "$batch" \
    --max-sequence-length $tokens --steps $((steps + 3)) --rank 16 --ema 0 --dtype f32 --recompute off --restart \
    --checkpoint-every 0 -o "$work/tok.safetensors" --json-log 2>/dev/null |
    $python -c '
import json, statistics, sys
seconds = [line["seconds"] for line in map(json.loads, sys.stdin) if "seconds" in line][3:]
print(json.dumps({"median": statistics.median(seconds), "min": min(seconds), "max": max(seconds), "steps": len(seconds)}))'
done

#!/bin/bash
# Usage: bench/full_size.sh FOLDER [OPTIONS OF generate]
# Times a full-size run: seconds per stage and peak memory, and beside them the machine's own matrix-product peak.
# FOLDER holds flux1-schnell-q8_0.gguf, t5xxl-q8_0.gguf, clip_l.safetensors and ae.safetensors (true shapes; random weights do).
set -euo pipefail
cd "$(dirname "$0")/.."
readonly weights=$1
shift
lscpu | grep -E '^(Model name|CPU\(s\)):'
build/bench/bench/matmul_bench --benchmark_min_time=1 --benchmark_format=console 2>/dev/null | grep -E 'Linear|Attention' || true
build/release/calotype generate "a lighthouse at dusk, oil on canvas" --transformer "$weights/flux1-schnell-q8_0.gguf" \
  --t5 "$weights/t5xxl-q8_0.gguf" --clip "$weights/clip_l.safetensors" --vae "$weights/ae.safetensors" \
  --width 512 --height 512 --steps 4 --seed 1 --output /tmp/full_size.png --json "$@"

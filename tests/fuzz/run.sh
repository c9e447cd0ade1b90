#!/bin/sh
# Runs each fuzz target that is built for some seconds, from its corpus, and says how many inputs it tried. Exit status 1
# when one of them found something: the input and the report are then in the build's fuzz/ folder.
#
#   cmake --preset fuzz && cmake --build --preset fuzz && tests/fuzz/run.sh 60
#   tests/fuzz/run.sh 600 gguf safetensors            # only these
#   build/fuzz/tests/fuzz/gguf_fuzz FILE              # one input again
set -u
cd "$(dirname "$0")/../.." || exit 1
build=${FUZZ_BUILD:-build/fuzz}
seconds=${1:?usage: tests/fuzz/run.sh SECONDS [TARGET...]}
shift
[ $# -gt 0 ] || set -- $(ls tests/fuzz/*_fuzz.cpp | sed 's|.*/||; s|_fuzz\.cpp$||')
found=$build/fuzz
mkdir -p "$found"

failed=0
for target in "$@"; do
  program=$build/tests/fuzz/${target}_fuzz
  if [ ! -x "$program" ]; then
    echo "$target: not built ($program); run cmake --preset fuzz && cmake --build --preset fuzz" >&2
    failed=1
    continue
  fi
  dictionary=tests/fuzz/dictionaries/$target.dict
  [ -f "$dictionary" ] && words=-dict=$dictionary || words=
  scratch=$(mktemp -d)
  # What is new goes to the scratch folder, so that the committed corpus stays as it is.
  "$program" -max_total_time="$seconds" -max_len=16384 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
    -artifact_prefix="$found/${target}_" $words "$scratch" "tests/fuzz/corpus/$target" >"$found/$target.log" 2>&1
  status=$?
  rm -rf "$scratch"
  runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$found/$target.log")
  if [ $status -eq 0 ]; then
    echo "$target: ${runs:-0} inputs, nothing found"
  else
    failed=1
    echo "$target: exit status $status after ${runs:-?} inputs, see $found/$target.log"
    grep -m 5 -E 'ERROR|SUMMARY|runtime error|broken promise|Test unit written' "$found/$target.log"
  fi
done
exit $failed

#!/bin/bash
# Million instructions a second of the software CPU, on short loops.
#   bench/mips.sh BUILD OUT.json
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
build=$1 out=$2
echo "machine: $(machine)"
table=$("$build/bin/bench_mips")
echo "$table"
jq -n --arg machine "$(machine)" --arg table "$table" '{machine: $machine,
  mips: ($table | split("\n") | map(capture("^(?<key>.*?) +(?<value>[0-9.]+) MIPS") | .value |= tonumber) | from_entries)}' > "$out"

#!/bin/bash
# What a port read costs the guest, by where its device lives, beside the machine's own limits: a bare ping-pong between two
# processes, spinning and on futexes.
#   bench/ioreq.sh BUILD OUT.json
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
build=$1 out=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export XDG_RUNTIME_DIR=$work

reads() {
  "$build/bin/transom" run --kernel "$build/bench/port_read.elf" --memory 64M --cpu soft --console none --timeout 120 \
    --set debug.exit=true --set debug.e9=stdio "$@" < /dev/null > "$work/reads" || [ $? = 33 ]
  cat "$work/reads"
}
{
  "$build/bench/ping_pong" | sed 's/^/limit: round trip, /'
  reads | sed 's/^/adaptive: port read, /'
  reads --set wake.dom0=sleep | sed -n 's/^dom0 /sleep: port read, dom0 /p'
  reads --set wake.dom0=spin | sed -n 's/^dom0 /spin: port read, dom0 /p'
} > "$work/table"
echo "machine: $(machine)"
awk '{ ns = $NF; $NF = ""; printf "%-36s %10s ns\n", $0, ns }' "$work/table"
spin=$(sed -n 's/^limit: round trip, spin //p' "$work/table") dom0=$(sed -n 's/^adaptive: port read, dom0 //p' "$work/table")
echo "awake Dom0 / spin ping-pong: $(ratio "$dom0" "$spin")"
jq -n --arg machine "$(machine)" --rawfile table "$work/table" '{machine: $machine,
  ns: ($table | split("\n") | map(select(. != "") | capture("^(?<key>.*) (?<value>[0-9]+)$") | .value |= tonumber) | from_entries)}' > "$out"

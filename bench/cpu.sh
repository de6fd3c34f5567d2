#!/bin/bash
# The software CPU beside QEMU's TCG: boot to power-off, jobs of a Linux userland (guests/jobs-init), bare-metal loops
# (guests/loops.asm). Both machines take turns; a figure is the median of its runs. About 6 minutes.
#   bench/cpu.sh BUILD OUT.json        RUNS=5 by default
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
build=$1 out=$2 runs=${RUNS:-5}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export XDG_RUNTIME_DIR=$work
say() { echo "cpu: $*" >&2; }

"$root/tests/images/build.sh" "$images" "$kernels"
bench_initrd "$work/boot.initrd"
bench_initrd "$work/jobs.initrd" "$here/guests/jobs-init"
linux="console=ttyS0,115200 panic=-1"

# run MACHINE GUEST: one run, its output on stdout. GUEST: loops, or the name of an initrd.
run_transom() {
  local arguments=(--memory 512M --kernel "$images/vmlinuz" --initrd "$work/$1.initrd" --cmdline "$linux") status=0
  if [ "$1" = loops ]; then
    arguments=(--memory 128M --kernel "$build/bench/loops.elf" --console none --set debug.exit=true --set debug.e9=stdio)
  fi
  "$build/bin/transom" run --cpu soft --timeout 900 --info-at-end "$work/$1.info" "${arguments[@]}" < /dev/null || status=$?
  [ $status = 0 ] || [ "$1 $status" = "loops 33" ]
}
run_qemu() {
  local arguments=(-m 512 -serial stdio -kernel "$images/vmlinuz" -initrd "$work/$1.initrd" -append "$linux") status=0
  if [ "$1" = loops ]; then
    arguments=(-m 128 -debugcon stdio -device isa-debug-exit,iobase=0xf4,iosize=4 -kernel "$build/bench/loops.elf")
  fi
  timeout 900 qemu-system-x86_64 -M pc -accel tcg -nodefaults -display none -no-reboot "${arguments[@]}" < /dev/null ||
    status=$?
  [ $status = 0 ] || [ "$1 $status" = "loops 33" ]
}

# figures GUEST SECONDS: "NAME SECONDS INSTRUCTIONS" a line, from the output of a run that took so long.
figures() {
  case $1 in
    boot) grep -aq BENCH-INIT && echo "boot-to-power-off $2 -" ;;
    jobs) tr -d '\r' | sed -n 's/^JOB \([^ ]*\) \([0-9.]*\)$/\1 \2 -/p' | sed 's/^boot /boot-and-64-MiB-to-tmpfs /' ;;
    loops) awk 'NF == 3 { printf "%s %.6f %s\n", $1, $3 / 1e9, $2 }' ;;
  esac
}

for ((i = 1; i <= runs; ++i)); do
  for guest in boot jobs loops; do
    for machine in transom qemu; do
      say "run $i of $runs: $guest, $machine"
      start=$(now)
      "run_$machine" $guest > "$work/log" 2>&1 || { tail -n 5 "$work/log" >&2; say "$machine failed in $guest"; exit 1; }
      seconds=$(awk -v a="$start" -v b="$(now)" 'BEGIN { printf "%.3f", b - a }')
      figures $guest "$seconds" < "$work/log" | sed "s/^/$machine /" >> "$work/figures"
      if [ $machine = transom ]; then
        counter() { jq -r --arg name "$1" '.vcpus[0].execution[] | select(.name == $name).value' "$work/$guest.info"; }
        echo "$guest $seconds $(counter instructions) $(counter translated)" >> "$work/counted"
      fi
    done
  done
done
[ "$(cut -d ' ' -f 2 "$work/figures" | sort | uniq -c | awk '$1 != 2 * '"$runs" | wc -l)" = 0 ] ||
  { say "a figure is missing"; cat "$work/figures" >&2; exit 1; }

of() { awk -v m="$1" -v n="$2" '$1 == m && $2 == n { print $3 }' "$work/figures"; }
mapfile -t names < <(awk '!seen[$2]++ { print $2 }' "$work/figures")
echo "machine: $(machine), $runs alternating runs, medians"
echo
echo "| | Transom, s | TCG, s | Transom / TCG | Transom, MIPS |"
echo "|---|---|---|---|---|"
for name in "${names[@]}"; do
  # shellcheck disable=SC2046 # numbers, one a word
  a=$(median $(of transom "$name")) b=$(median $(of qemu "$name"))
  count=$(awk -v n="$name" '$2 == n && $4 != "-" { print $4; exit }' "$work/figures")
  mips=$([ -z "$count" ] || awk -v c="$count" -v s="$a" 'BEGIN { printf "%.0f", c / s / 1e6 }')
  printf '| %s | %.3f | %.3f | %s | %s |\n' "${name//-/ }" "$a" "$b" "$(ratio "$a" "$b")" "$mips"
  jq -n --arg name "$name" --arg transom "$a" --arg qemu "$b" --arg mips "$mips" '$ARGS.named' >> "$work/rows"
done
echo
echo "| whole runs, as Transom counts | s | instructions | MIPS | translated |"
echo "|---|---|---|---|---|"
for guest in boot jobs loops; do
  # shellcheck disable=SC2046 # numbers, one a word
  seconds=$(median $(awk -v g=$guest '$1 == g { print $2 }' "$work/counted"))
  # shellcheck disable=SC2046
  count=$(median $(awk -v g=$guest '$1 == g { print $3 }' "$work/counted"))
  # shellcheck disable=SC2046
  translated=$(median $(awk -v g=$guest '$1 == g { print $4 }' "$work/counted"))
  awk -v g=$guest -v s="$seconds" -v c="$count" -v t="$translated" \
    'BEGIN { printf "| %s | %.1f | %.2f G | %.0f | %.2f %% |\n", g, s, c / 1e9, c / s / 1e6, 100 * t / c }'
done
jq -s --arg machine "$(machine)" '{machine: $machine, rows: .}' "$work/rows" > "$out"

#!/bin/bash
# Boot of the stock bzImage to /init and power-off, Transom against QEMU's TCG, alternating; and what each process keeps
# resident (PSS) meanwhile.
#   bench/boot.sh BUILD OUT.json        RUNS=5 by default
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
build=$1 out=$2 runs=${RUNS:-5}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export XDG_RUNTIME_DIR=$work
"$root/tests/images/build.sh" "$images" "$kernels"
bench_initrd "$work/initrd"
command_line="console=ttyS0,115200 panic=-1"

# watch_pss PID FILE: the greatest PSS in KiB of each process below PID, by name, until PID ends.
watch_pss() {
  local pid name kib
  while kill -0 "$1" 2> /dev/null; do
    for pid in "$1" $(pgrep -P "$1" || true); do
      name=$(cat "/proc/$pid/comm" 2> /dev/null || true)
      kib=$(sed -n 's/^Pss: *\([0-9]*\) kB/\1/p' "/proc/$pid/smaps_rollup" 2> /dev/null || true)
      [ -z "$kib" ] || echo "$name $kib"
    done
    sleep 0.2
  done | awk '{ if ($2 > m[$1]) m[$1] = $2 } END { for (n in m) print n, m[n] }' > "$2"
}

# timed NAME COMMAND...: seconds of one boot.
timed() {
  local name=$1 start pid
  shift
  start=$(now)
  "$@" < /dev/null > "$work/$name.log" 2>&1 &
  pid=$!
  watch_pss $pid "$work/$name.pss" &
  wait $pid || { tail -n 5 "$work/$name.log" >&2; echo "$name failed" >&2; exit 1; }
  awk -v a="$start" -v b="$(now)" 'BEGIN { printf "%.2f\n", b - a }'
  grep -aq BENCH-INIT "$work/$name.log" || { echo "$name did not reach /init" >&2; exit 1; }
  wait
}

ours=() theirs=()
for ((i = 0; i < runs; ++i)); do
  ours+=("$(timed transom "$build/bin/transom" run --kernel "$images/vmlinuz" --initrd "$work/initrd" --cpu soft \
    --memory 512M --cmdline "$command_line")")
  theirs+=("$(timed qemu qemu-system-x86_64 -M pc -accel tcg -m 512 -nodefaults -display none -serial stdio -no-reboot \
    -kernel "$images/vmlinuz" -initrd "$work/initrd" -append "$command_line")")
done
a=$(median "${ours[@]}") b=$(median "${theirs[@]}")
echo "machine: $(machine)"
printf '%-10s %8s   %s\n' "" "median s" "runs"
printf '%-10s %8s   %s\n' transom "$a" "${ours[*]}" qemu-tcg "$b" "${theirs[*]}"
echo "transom / qemu-tcg: $(ratio "$a" "$b")"
echo "greatest PSS in KiB:"
sed 's/^/  /' "$work/transom.pss" "$work/qemu.pss"
jq -n --arg machine "$(machine)" --arg ours "${ours[*]}" --arg theirs "${theirs[*]}" --arg ratio "$(ratio "$a" "$b")" \
  --rawfile pss "$work/transom.pss" --rawfile qemu "$work/qemu.pss" \
  '{machine: $machine, seconds: {transom: $ours, qemu: $theirs}, ratio: $ratio, pss_kib: ($pss + $qemu)}' > "$out"

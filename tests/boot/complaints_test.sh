#!/bin/bash
# Linux has nothing to say about our APIC, interrupts, timers, ACPI and PCI that it would not also say of QEMU's PC.
#   tests/boot/complaints_test.sh BUILD IMAGES KERNELS
# Both boot the same kernel from the same disk through the same firmware; lines of the kernel's log that complain are
# compared without numbers. Accepted differences: docs/guest-compatibility.md names each.
# Linux measures its clocks against each other, and finds them wrong if the host takes the processor away in between. So
# a line about such a measurement counts only if three boots in a row say it.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
build=$1 images=$2 kernels=$3
"$here/../images/build.sh" "$images" "$kernels"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export XDG_RUNTIME_DIR=$work

measured='calibrat|clocksource|tsc:|TSC|PM-Timer|timekeeping'
run_ours() {
  cp --sparse=always "$images/disk.raw" "$work/ours.raw"
  "$build/bin/transom" run --disk "$work/ours.raw" --memory 512M --cpu soft --timeout 550 < /dev/null > "$work/ours"
  grep -aq 'reboot: Power down' "$work/ours" || { echo "FAILED: our guest did not power off"; exit 1; }
}
run_theirs() {
  cp --sparse=always "$images/disk.raw" "$work/theirs.raw"
  timeout 550 qemu-system-x86_64 -M pc,hpet=off,usb=off,vmport=off -accel tcg -m 512 -nodefaults -display none \
    -serial stdio -no-reboot -drive "file=$work/theirs.raw,if=ide,format=raw" < /dev/null > "$work/theirs"
  grep -aq 'reboot: Power down' "$work/theirs" || { echo "FAILED: QEMU's guest did not power off"; exit 1; }
}

# complaints LOG: kernel lines with a word of trouble in them, without time stamps and numbers, each once.
complaints() {
  tr -d '\r' < "$1" | sed -n 's/^\[ *[0-9]*\.[0-9]*\] //p' |
    grep -a -i -E 'error|fail|warn|bug|unstable|spurious|bogus|invalid|unable|cannot|can.t|not consistent|conflict|stuck|lost|ignor|missing|disabl|broken|mismatch|unexpected|nobody cared|timeout|timed out' |
    sed -E 's/0x[0-9a-f]+|[0-9]+/N/g' | sort -u
}
# new_lines: what our last boot complains of, QEMU's does not, and nobody accepted.
new_lines() {
  complaints "$work/ours" > "$work/ours.list"
  comm -23 "$work/ours.list" "$work/theirs.list" | { grep -a -v -x -F -f "$work/accepted" || true; }
}

# Accepted: lines of the table in docs/guest-compatibility.md, as `text` in its first column.
sed -n 's/^| `\([^`]*\)` |.*/\1/p' "$here/../../docs/guest-compatibility.md" > "$work/accepted"
run_theirs
complaints "$work/theirs" > "$work/theirs.list"
[ -s "$work/theirs.list" ] || { echo "FAILED: the comparison saw no complaint at all on QEMU; its filter is broken"; exit 1; }
run_ours
new_lines > "$work/new"
for boot in 2 3; do
  if ! [ -s "$work/new" ] || grep -aqvE "$measured" "$work/new"; then break; fi
  echo "boot $boot, because of:" && cat "$work/new"
  run_ours
  new_lines > "$work/again"
  # What was said again, and whatever is no measurement.
  { comm -12 "$work/new" "$work/again"; grep -avE "$measured" "$work/again" || true; } | sort -u > "$work/still"
  mv "$work/still" "$work/new"
done
if [ -s "$work/new" ]; then
  echo "FAILED: Linux says on Transom, and not on QEMU:"
  cat "$work/new"
  exit 1
fi
echo "ok      $(wc -l < "$work/ours.list") lines here, $(wc -l < "$work/theirs.list") on QEMU"

#!/bin/bash
# Linux has nothing to say about our APIC, interrupts, timers, ACPI and PCI that it would not also say of QEMU's PC.
#   tests/boot/complaints_test.sh BUILD IMAGES KERNELS
# Both boot the same kernel from the same disk through the same firmware; lines of the kernel's log that complain are
# compared without numbers. Accepted differences: docs/guest-compatibility.md names each.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
build=$1 images=$2 kernels=$3
"$here/../images/build.sh" "$images" "$kernels"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export XDG_RUNTIME_DIR=$work

cp --sparse=always "$images/disk.raw" "$work/a.raw"
cp --sparse=always "$images/disk.raw" "$work/b.raw"
"$build/bin/transom" run --disk "$work/a.raw" --memory 512M --cpu soft --timeout 550 < /dev/null > "$work/ours"
timeout 550 qemu-system-x86_64 -M pc,hpet=off,usb=off,vmport=off -accel tcg -m 512 -nodefaults -display none \
  -serial stdio -no-reboot -drive "file=$work/b.raw,if=ide,format=raw" < /dev/null > "$work/theirs"

# complaints LOG: kernel lines with a word of trouble in them, without time stamps and numbers, each once.
complaints() {
  tr -d '\r' < "$1" | sed -n 's/^\[ *[0-9]*\.[0-9]*\] //p' |
    grep -a -i -E 'error|fail|warn|bug|unstable|spurious|bogus|invalid|unable|cannot|can.t|not consistent|conflict|stuck|lost|ignor|missing|disabl|broken|mismatch|unexpected|nobody cared|timeout|timed out' |
    sed -E 's/0x[0-9a-f]+|[0-9]+/N/g' | sort -u
}
complaints "$work/ours" > "$work/ours.list"
complaints "$work/theirs" > "$work/theirs.list"
comm -23 "$work/ours.list" "$work/theirs.list" > "$work/only-ours"
# Accepted: lines of the table in docs/guest-compatibility.md, as `text` in its first column.
sed -n 's/^| `\([^`]*\)` |.*/\1/p' "$here/../../docs/guest-compatibility.md" > "$work/accepted"
grep -a -v -x -F -f "$work/accepted" "$work/only-ours" > "$work/new" || true
grep -aq 'reboot: Power down' "$work/ours" || { echo "FAILED: our guest did not power off"; exit 1; }
grep -aq 'reboot: Power down' "$work/theirs" || { echo "FAILED: QEMU's guest did not power off"; exit 1; }
[ -s "$work/theirs.list" ] || { echo "FAILED: the comparison saw no complaint at all on QEMU; its filter is broken"; exit 1; }
if [ -s "$work/new" ]; then
  echo "FAILED: Linux says on Transom, and not on QEMU:"
  cat "$work/new"
  exit 1
fi
echo "ok      $(wc -l < "$work/ours.list") lines here, $(wc -l < "$work/theirs.list") on QEMU, $(wc -l < "$work/only-ours") accepted"

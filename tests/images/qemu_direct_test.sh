#!/bin/bash
# The guest without a disk boots on QEMU's PC.
#   tests/images/qemu_direct_test.sh IMAGES KERNELS
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
"$here/build.sh" "$1" "$2"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
timeout 500 qemu-system-x86_64 -M pc -accel tcg -m 512 -display none -serial stdio -no-reboot \
  -kernel "$1/vmlinuz" -initrd "$1/initrd-direct.img" -append "console=ttyS0,115200 panic=-1" < /dev/null | tee "$log"
grep -aq '^TRANSOM-DIRECT-OK' "$log"
grep -aq 'reboot: Power down' "$log"

#!/bin/bash
# The disk boots from its MBR through GRUB and does its job on QEMU's PC: so what fails on Transom is not the image.
#   tests/images/qemu_test.sh IMAGES KERNELS
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
"$here/build.sh" "$1" "$2"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp --sparse=always "$1/disk.raw" "$work/disk.raw"
timeout 500 qemu-system-x86_64 -M pc -accel tcg -m 512 -display none -serial stdio -no-reboot \
  -drive "file=$work/disk.raw,if=ide,format=raw" < /dev/null | tee "$work/log"
"$here/check.sh" "$work/disk.raw" "$1/demo.sha256" "$work/log"

#!/bin/bash
# Linux calibrates its TSC against the 8254 within 500 ppm of what it is (1 GHz), in each of N boots.
#   tests/boot/tsc_test.sh BUILD IMAGES KERNELS N [ARGUMENTS OF transom run...]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
build=$1 images=$2 kernels=$3 boots=$4
shift 4
"$here/../images/build.sh" "$images" "$kernels"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export XDG_RUNTIME_DIR=$work
for ((i = 1; i <= boots; ++i)); do
  "$build/bin/transom" run --kernel "$images/vmlinuz" --initrd "$images/initrd-direct.img" --memory 256M --cpu soft \
    --cmdline "console=ttyS0,115200 panic=-1" --timeout 300 "$@" < /dev/null > "$work/log" ||
    { tail -n 20 "$work/log"; echo "FAILED: boot $i"; exit 1; }
  line=$(grep -a -m 1 'tsc: Detected' "$work/log")
  khz=$(sed -n 's/.*Detected \([0-9]*\)\.\([0-9]*\) MHz.*/\1\2/p' <<< "$line")
  ppm=$((khz > 1000000 ? khz - 1000000 : 1000000 - khz))
  echo "boot $i: $khz kHz, off by $ppm ppm; $(grep -a -m 1 -o 'tsc: Fast TSC calibration.*\|tsc: Unable.*\|tsc: using.*' "$work/log" || true)"
  [ "$ppm" -le 500 ] || { echo "FAILED: boot $i is off by more than 500 ppm"; exit 1; }
done

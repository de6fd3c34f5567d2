#!/bin/bash
# check.sh passes a disk and a log that are right, and refuses each that is not.
#   tests/images/check_test.sh IMAGES KERNELS
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
images=$1
"$here/build.sh" "$images" "$2"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

expect() { # expect WANTED_STATUS WHAT COMMAND...
  local wanted=$1 what=$2 status=0
  shift 2
  "$@" > "$work/output" 2>&1 || status=$?
  if [ $status = "$wanted" ]; then
    echo "ok: $what"
  else
    echo "FAILED: $what: status $status, not $wanted"
    cat "$work/output"
    failed=1
  fi
}

# A disk as the guest leaves it, without a guest: the job's data, made here and put into the file system.
cp --sparse=always "$images/disk.raw" "$work/disk.raw"
partition="$work/disk.raw?offset=1048576"
debugfs -R "dump /usr/share/demo/seed $work/seed" "$partition" 2> /dev/null
for ((i = 0; i < 64; ++i)); do
  printf 'block %d\n' $i
  cat "$work/seed"
done > "$work/demo.bin"
debugfs -w -R "write $work/demo.bin data/demo.bin" "$partition" > /dev/null 2>&1

cat > "$work/log" << LOG
[    0.000000] Linux version 6.1
TRANSOM-INITRD-START
TRANSOM-ROOT-MOUNTED 6.1
TRANSOM-JOB-WRITTEN 64 MiB 10.0
TRANSOM-DEMO-OK $(cat "$images/demo.sha256")
[   20.000000] reboot: Power down
LOG
check() { "$here/check.sh" "$work/disk.raw" "$images/demo.sha256" "$@"; }

expect 0 "a disk and a log that are right" check "$work/log"
for line in 'Linux version' INITRD-START ROOT-MOUNTED JOB-WRITTEN DEMO-OK 'Power down'; do
  grep -v "$line" "$work/log" > "$work/short"
  expect 1 "a log without $line" check "$work/short"
done
sed 's/DEMO-OK ./DEMO-OK x/' "$work/log" > "$work/other"
expect 1 "a log with another sum" check "$work/other"

# One byte of the file, found by the data that stands before it.
cp --sparse=always "$work/disk.raw" "$work/good.raw"
at=$(grep -abo -m 1 'block 63' "$work/disk.raw" | head -n 1 | cut -d : -f 1)
printf 'X' | dd of="$work/disk.raw" bs=1 seek="$at" conv=notrunc status=none
expect 1 "a disk with one wrong byte in the file" check
mv "$work/good.raw" "$work/disk.raw"
expect 0 "the disk before that" check
# Block 1 of the file system holds the group descriptors, with checksums.
printf '\377\377\377\377' | dd of="$work/disk.raw" bs=1 seek=$((1048576 + 4096)) conv=notrunc status=none
expect 1 "a damaged file system" check
exit $failed

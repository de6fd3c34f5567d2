#!/bin/bash
# After a guest has done its job on a disk of build.sh's: are the bytes in the image what they must be, and did the
# guest say so itself?
#   tests/images/check.sh DISK_IMAGE SHA256_FILE [CONSOLE_LOG]
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
[ $# -ge 2 ] && [ $# -le 3 ] || { sed -n '4s/^# *//p' "$0" >&2; exit 2; }
image=$1 log=${3:-}
expected=$(cat "$2")
failed=0

# step NAME COMMAND...: one line, ok or FAILED.
step() {
  local name=$1
  shift
  if "$@"; then
    echo "ok      $name"
  else
    echo "FAILED  $name"
    failed=1
  fi
}

said() { grep -aq -E "$1" "$log"; }

# The partition begins at 1 MiB.
file_system_is_clean() { e2fsck -fn "$image?offset=1048576" > /dev/null 2>&1; }

bytes_are_there() {
  local copy found
  copy=$(mktemp)
  debugfs -R "dump /data/demo.bin $copy" "$image?offset=1048576" 2> /dev/null
  found=$(sha256sum < "$copy" | cut -d ' ' -f 1)
  rm -f "$copy"
  [ "$found" = "$expected" ] || { echo "        found $found, expected $expected"; return 1; }
}

if [ -n "$log" ]; then
  step "the boot loader loaded the kernel"            said 'Linux version [0-9]'
  step "the kernel started our first process"         said '^TRANSOM-INITRD-START'
  step "the root file system on the disk is mounted"  said '^TRANSOM-ROOT-MOUNTED'
  step "the job wrote its data"                       said '^TRANSOM-JOB-WRITTEN'
  step "the guest read back what it wrote"            said "^TRANSOM-DEMO-OK $expected"
  step "the guest powered off"                        said 'reboot: Power down'
fi
step "the host finds the same bytes in the image"     bytes_are_there
step "the image's file system is clean"               file_system_is_clean
exit $failed

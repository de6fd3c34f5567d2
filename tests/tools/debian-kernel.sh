#!/bin/bash
# Fetches one of Debian's stock kernels with apt and unpacks it below DEST, once.
#   tests/tools/debian-kernel.sh DEST [amd64|686-pae|686]
# Prints two lines: the path of vmlinuz, then that of its modules directory. Needs the network only the first time.
set -euo pipefail
[ $# -ge 1 ] && [ $# -le 2 ] || { sed -n '3s/^# *//p' "$0" >&2; exit 2; }
flavour=${2:-amd64}
case $flavour in
  amd64) architecture=amd64 ;;
  686 | 686-pae) architecture=i386 ;;
  *) echo "$0: there is no kernel $flavour; accepted: amd64, 686-pae, 686" >&2; exit 2 ;;
esac
mkdir -p "$1"
dest=$(cd "$1" && pwd)

answer() {
  vmlinuz=$(find "$dest/root/boot" -name "vmlinuz-*[0-9]-$flavour" 2> /dev/null | sort -V | tail -n 1)
  [ -n "$vmlinuz" ] || return 1
  modules=$dest/root/lib/modules/${vmlinuz##*/vmlinuz-}
  [ -d "$modules" ] || return 1
  printf '%s\n%s\n' "$vmlinuz" "$modules"
}

if [ -e "$dest/complete" ] && answer; then exit 0; fi
"$(dirname "${BASH_SOURCE[0]}")/debian-packages.sh" $architecture "$dest" "linux-image-$flavour:linux-image-[0-9]"
touch "$dest/complete"
answer

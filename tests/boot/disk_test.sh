#!/bin/bash
# The stock Debian boots from its IDE disk through firmware and boot loader, does its job, and powers off; devices ran where
# they were placed, and every placement was really used.
#   tests/boot/disk_test.sh BUILD IMAGES KERNELS [flavour=FLAVOUR] [DEVICE=PLACE]... [-- ARGUMENTS OF transom run...]
# Every device that is not named is expected in its default place. FLAVOUR is that of tests/images/build.sh.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
build=$1 images=$2 kernels=$3
shift 3
declare -A place=([pic_pit]=hypervisor [rtc]=dom0 [piix]=dom0 [ide]=dom0 [ps2]=dom0 [uart0]=dom0)
arguments=()
flavour=amd64
if [[ ${1:-} == flavour=* ]]; then
  flavour=${1#*=}
  shift
fi
while [ $# -gt 0 ] && [ "$1" != -- ]; do
  place[${1%%=*}]=${1#*=}
  arguments+=(--set "placement.$1")
  shift
done
[ $# = 0 ] || shift
arguments+=("$@")

"$here/../images/build.sh" "$images" "$kernels" "$flavour"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export XDG_RUNTIME_DIR=$work
cp --sparse=always "$images/disk.raw" "$work/disk.raw"
printf 'name = "boot"\nmemory = "512M"\ncpu = "soft"\n[[disk]]\npath = "disk.raw"\n' > "$work/vm.toml"

die() { echo "FAILED: $*"; tail -n 30 "$work/console.log"; exit 1; }

"$build/bin/transom" run "$work/vm.toml" --timeout 550 --info-at-end "$work/info.json" "${arguments[@]}" \
  < /dev/null > "$work/console.log" &
run=$!
# While it boots: where does the control panel say that each device is?
for ((i = 0; i < 100; ++i)); do
  if "$build/bin/transom" placement boot --json > "$work/placement.json" 2> /dev/null; then break; fi
  sleep 0.1
done
wait $run || die "transom run ended with status $?"
"$here/../images/check.sh" "$work/disk.raw" "$images/demo.sha256" "$work/console.log"

# counter DEVICE NAME: from the last info.
counter() {
  jq -r --arg d "$1" --arg c "$2" '.devices[] | select(.name == $d) | .counters[] | select(.name == $c) | .value' \
    "$work/info.json"
}
for device in "${!place[@]}"; do
  said=$(jq -r --arg d "$device" '.[] | select(.name == $d) | .place' "$work/placement.json")
  [ "$said" = "${place[$device]}" ] || die "placement says that $device is in '$said', not in ${place[$device]}"
  crossed=$(counter "$device" ioreqs) direct=$(counter "$device" local)
  if [ "$said" = dom0 ]; then
    [ "$crossed" -gt 0 ] && [ "$direct" = 0 ] || die "$device in dom0: $crossed ioreqs, $direct direct calls"
  else
    [ "$crossed" = 0 ] && [ "$direct" -gt 0 ] || die "$device in the hypervisor: $crossed ioreqs, $direct direct calls"
  fi
  echo "ok      $device in $said: $crossed ioreqs, $direct direct calls"
done

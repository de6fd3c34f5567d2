#!/bin/bash
# A user at a terminal: what is typed reaches a shell in the guest by its serial port, and 'exit' ends the run.
#   tests/boot/console_test.sh BUILD IMAGES KERNELS
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
build=$1 images=$2 kernels=$3
"$here/../images/build.sh" "$images" "$kernels"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export XDG_RUNTIME_DIR=$work

die() { echo "FAILED: $*"; tail -n 30 "$work/log"; exit 1; }

# script(1) gives the command a terminal, and passes on what comes by the pipe.
mkfifo "$work/keys"
command="'$build/bin/transom' run --kernel '$images/vmlinuz' --initrd '$images/initrd-direct.img' --memory 512M --cpu soft \
  --cmdline 'console=ttyS0,115200 panic=-1 transom.shell' --timeout 400"
script --quiet --return --flush --command "$command" "$work/typescript" < "$work/keys" > "$work/log" 2>&1 &
run=$!
exec 3> "$work/keys" # stays open: the end of input would end script
for ((i = 0; i < 4000; ++i)); do
  if grep -aq '# $\|# .\[6n' "$work/log" && grep -aq TRANSOM-DIRECT-OK "$work/log"; then break; fi
  kill -0 $run 2> /dev/null || die "the run ended before there was a prompt"
  sleep 0.1
done
printf 'echo typed-$((6 * 7))\r' >&3
for ((i = 0; i < 600; ++i)); do
  if grep -aq '^typed-42' "$work/log"; then break; fi
  kill -0 $run 2> /dev/null || die "the run ended before the guest answered"
  sleep 0.1
done
grep -aq '^typed-42' "$work/log" || { kill $run; die "the guest did not answer to what was typed"; }
printf 'exit\r' >&3
status=0
wait $run || status=$?
[ $status = 0 ] || die "transom run ended with status $status"
grep -aq 'reboot: Power down' "$work/log" || die "the guest did not power off"
echo "ok      typed, answered, powered off"

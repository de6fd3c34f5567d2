#!/bin/bash
# gdb stops a Debian kernel where its unpacked image begins, looks around, and lets it run to its end.
#   tests/boot/gdb_test.sh BUILD IMAGES KERNELS [ARGUMENTS OF transom run...]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
build=$1 images=$2 kernels=$3
shift 3
"$here/../images/build.sh" "$images" "$kernels"
work=$(mktemp -d)
trap 'kill "${domain:-}" 2> /dev/null || true; rm -rf "$work"' EXIT
export XDG_RUNTIME_DIR=$work

"$build/bin/transom" run --kernel "$images/vmlinuz" --initrd "$images/initrd-direct.img" --memory 256M --cpu soft \
  --cmdline "console=ttyS0,115200 nokaslr panic=-1" --set on_reboot=exit --timeout 900 \
  --gdb "unix:$work/gdb" --wait "$@" < /dev/null > "$work/log" 2>&1 &
domain=$!
until grep -q " 00010000 .*$work/gdb\$" /proc/net/unix; do
  kill -0 $domain || { cat "$work/log"; echo "FAILED: transom run ended"; exit 1; }
  sleep 0.1
done
[ ! -s "$work/log" ] || { cat "$work/log"; echo "FAILED: the guest did not wait"; exit 1; }

# 1000000h is where an amd64 kernel is linked to lie; the last breakpoint is on an address that nothing executes.
cat > "$work/script" << 'TEXT'
set pagination off
set confirm off
target remote GDB
hbreak *0x1000000
hbreak *0x1000001
continue
printf "\nunpacked at %lx, long mode %d, paging %d\n", $rip, ($efer >> 10) & 1, ($cr0 >> 31) & 1
stepi 100
printf "a hundred steps\n"
monitor translate 1000000
continue
TEXT
sed -i "s|GDB|$work/gdb|" "$work/script"
gdb -nx -batch -x "$work/script" > "$work/said" 2>&1 || { cat "$work/said"; echo "FAILED: gdb"; exit 1; }
status=0
wait $domain || status=$?
for line in 'unpacked at 1000000, long mode 1, paging 1' 'a hundred steps' '0x1000000 is at physical 0x1000000' 'exited normally'; do
  grep -q "$line" "$work/said" || { cat "$work/said"; echo "FAILED: gdb did not say: $line"; exit 1; }
done
! grep -q 'Breakpoint 2, ' "$work/said" || { cat "$work/said"; echo "FAILED: stopped inside of an instruction"; exit 1; }
grep -a -q 'Linux version' "$work/log" || { tail -n 20 "$work/log"; echo "FAILED: no kernel ran"; exit 1; }
[ $status = 0 ] || { tail -n 20 "$work/log"; echo "FAILED: transom run ended with status $status"; exit 1; }

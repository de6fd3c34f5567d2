# Shared by the benchmark scripts: bench/NAME.sh BUILD OUT.json
# Each prints a table and writes the same as JSON. Times on shared machines drift, so peers alternate within one run, and
# the ratio of medians is what counts.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$here/..
images=$root/build/images kernels=$root/build/debian-kernel

# median NUMBERS...
median() { printf '%s\n' "$@" | sort -g | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }
now() { date +%s.%N; }
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f", a / b }'; }

# bench_initrd FILE [INIT]: a guest of busybox and this init; without one, an init that only says so and powers off.
bench_initrd() {
  local tree
  tree=$(mktemp -d)
  mkdir -p "$tree/bin" "$tree/dev"
  cp "$(command -v busybox)" "$tree/bin/busybox"
  if [ -n "${2:-}" ]; then
    cp "$2" "$tree/init"
  else
    printf '#!/bin/busybox sh\n/bin/busybox echo BENCH-INIT > /dev/console\n/bin/busybox poweroff -f\n' > "$tree/init"
  fi
  chmod +x "$tree/init"
  (cd "$tree" && find . -print0 | cpio --null --create --format=newc --owner=0:0 --quiet) | gzip -n -1 > "$1"
  rm -rf "$tree"
}
machine() { echo "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) CPUs, Linux $(uname -r)"; }

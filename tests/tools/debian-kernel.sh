#!/bin/sh
# Fetches Debian's stock kernel package with apt and unpacks it below DEST, once.
#   tests/tools/debian-kernel.sh DEST
# Prints two lines: the path of vmlinuz, then that of its modules directory. Needs the network only the first time.
set -eu
[ $# -eq 1 ] || { echo "usage: $0 DEST" >&2; exit 2; }
mkdir -p "$1"
dest=$(cd "$1" && pwd)

answer() {
  vmlinuz=$(ls "$dest"/root/boot/vmlinuz-* 2>/dev/null | sort -V | tail -n 1)
  [ -n "$vmlinuz" ] || return 1
  modules=$dest/root/lib/modules/${vmlinuz##*/vmlinuz-}
  [ -d "$modules" ] || return 1
  printf '%s\n%s\n' "$vmlinuz" "$modules"
}

if [ -e "$dest/complete" ] && answer; then exit 0; fi

# One fetch at a time: tests of several build folders may share DEST.
exec 9>"$dest/lock"
flock 9
if [ -e "$dest/complete" ] && answer; then exit 0; fi

package=$(apt-cache depends linux-image-amd64 | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | head -n 1)
[ -n "$package" ] || {
  echo "$0: apt knows no linux-image-amd64: run 'apt-get update' and try again" >&2
  exit 1
}
echo "fetching $package" >&2
rm -rf "$dest/root" "$dest/deb"
mkdir -p "$dest/deb"
# A folder below DEST may belong to an ordinary user, which apt's sandbox user cannot enter.
(cd "$dest/deb" && apt-get -o APT::Sandbox::User=root -qq download "$package") >&2
dpkg-deb -x "$dest"/deb/*.deb "$dest/root"
rm -rf "$dest/deb"
touch "$dest/complete"
answer

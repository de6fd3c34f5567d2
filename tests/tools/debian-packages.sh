#!/bin/bash
# Fetches Debian packages of any architecture with apt and unpacks them below DEST/root, each once; nothing is installed, and
# the host learns of no foreign architecture. Needs the network only the first time.
#   tests/tools/debian-packages.sh ARCHITECTURE DEST PACKAGE...
# META:PREFIX is the first package whose name begins with PREFIX among those that META depends on.
set -euo pipefail
[ $# -ge 3 ] || { sed -n '2,5s/^# *//p' "$0" >&2; exit 2; }
architecture=$1
mkdir -p "$2"
dest=$(cd "$2" && pwd)
shift 2

missing() {
  local package
  for package in "$@"; do
    [ -e "$dest/unpacked/$package" ] || echo "$package"
  done
}
[ -n "$(missing "$@")" ] || exit 0

# One fetch at a time: tests of several build folders may share DEST.
exec 9> "$dest/lock"
flock 9
mapfile -t packages < <(missing "$@")

# A folder below DEST may belong to an ordinary user, which apt's sandbox user cannot enter.
options=(-o APT::Sandbox::User=root)
if [ "$architecture" != "$(dpkg --print-architecture)" ]; then
  # A second state of apt with the host's sources and keys, in which this architecture is the only one.
  state=$dest/apt
  mkdir -p "$state"/lists/partial "$state"/cache/archives/partial
  touch "$state/status"
  options+=(-o APT::Architecture="$architecture" -o APT::Architectures="$architecture" -o Dir::State="$state"
    -o Dir::State::status="$state/status" -o Dir::State::lists="$state/lists" -o Dir::Cache="$state/cache")
  # A source that has nothing for this architecture is no failure: the packages below decide.
  if [ ${#packages[@]} -gt 0 ]; then apt-get "${options[@]}" -qq update >&2 || true; fi
fi

mkdir -p "$dest/unpacked"
for package in "${packages[@]}"; do
  name=$package
  if [[ $package == *:* ]]; then
    name=$(apt-cache "${options[@]}" depends "${package%%:*}" |
      sed -n "s/^ *Depends: \(${package#*:}.*\)\$/\1/p" | head -n 1)
  fi
  [ -n "$name" ] || {
    echo "$0: apt knows no ${package%%:*} for $architecture: run 'apt-get update' and try again" >&2
    exit 1
  }
  echo "fetching $name for $architecture" >&2
  rm -rf "$dest/deb"
  mkdir "$dest/deb"
  (cd "$dest/deb" && apt-get "${options[@]}" -qq download "$name") >&2
  dpkg-deb -x "$dest"/deb/*.deb "$dest/root"
  rm -rf "$dest/deb"
  touch "$dest/unpacked/$package"
done

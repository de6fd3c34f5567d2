#!/bin/bash
# Makes OUT/disk.raw: a Debian 12 as debootstrap installs it, with systemd, perl, Python and a C compiler, that boots from its
# disk by GRUB to a login on the serial port. Needs root (debootstrap does), and the network when it is not made yet.
#   tests/images/build-debian.sh OUT IMAGES KERNEL_FOLDER
# IMAGES is a folder for build.sh, whose kernel and initial RAM disk it uses. The password of root is "transom".
# Guests write to their disks: copy the image (cp --sparse=always) before you boot it.
# What was made from the same packages and settings stays as it is.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[ $# = 3 ] || { sed -n '4,5s/^# *//p' "$0" >&2; exit 2; }
mkdir -p "$1"
out=$(cd "$1" && pwd)
images=$2 kernels=$3

release=bookworm
disk_mib=1024
packages=(systemd systemd-sysv udev dbus kmod perl python3-minimal openssl gcc libc6-dev stress-ng)

# shellcheck source=tests/images/disk.sh
. "$here/disk.sh"
need debootstrap mke2fs grub-mkimage flock
"$here/build.sh" "$images" "$kernels"

exec 9> "$out/lock"
flock 9
inputs=$(cat "$here/build-debian.sh" "$here/disk.sh" "$images/vmlinuz" "$images/initrd-disk.img" | sha256sum)
if [ "$(cat "$out/made-from" 2> /dev/null)" = "$inputs" ]; then
  say "$out is up to date"
  exit 0
fi
[ "$(id -u)" = 0 ] || die "root must make the Debian image: debootstrap creates devices and changes owners. Run: sudo $0 $*"
# The host's own mirror of this release.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' "Codename: $release" | head -n 1)
[ -n "$mirror" ] || die "apt has no source for $release; see /etc/apt"
rm -f "$out/made-from"
work=$(mktemp -d "$out/work.XXXXXX")
trap 'rm -rf "$work"' EXIT

say "installing $release with ${packages[*]}, into $out; this takes some minutes"
root=$work/root
debootstrap --variant=minbase --include="$(IFS=, && echo "${packages[*]}")" "$release" "$root" "$mirror" > "$out/debootstrap.log" 2>&1 ||
  { tail -n 20 "$out/debootstrap.log" >&2; die "debootstrap failed; see $out/debootstrap.log"; }
echo root:transom | chroot "$root" chpasswd
echo debian > "$root/etc/hostname"
printf '127.0.0.1 localhost debian\n' > "$root/etc/hosts"
printf '/dev/sda1 / ext4 defaults 0 1\n' > "$root/etc/fstab"
: > "$root/etc/machine-id" # systemd gives the machine one of its own at the first boot
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,man,locale,info}/* "$root"/dev/*

mkdir -p "$root/boot/grub"
cp "$images/vmlinuz" "$root/boot/vmlinuz"
cp "$images/initrd-disk.img" "$root/boot/initrd.img"
cat > "$root/boot/grub/grub.cfg" << 'CFG'
serial --unit=0 --speed=115200
terminal_input serial
terminal_output serial
linux /boot/vmlinuz root=/dev/sda1 console=ttyS0,115200 panic=-1
initrd /boot/initrd.img
boot
CFG
core_image "$work/core.img"
disk "$work/disk.raw" "$root" $disk_mib "$work/core.img"
mv "$work/disk.raw" "$out/disk.raw"
echo "$inputs" > "$out/made-from"
say "made $out/disk.raw"

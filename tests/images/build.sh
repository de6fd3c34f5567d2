#!/bin/bash
# Makes the guest images that the demo and the boot tests use, from Debian's packages, without root and without loop
# devices.
#   tests/images/build.sh OUT [KERNEL_FOLDER [FLAVOUR]]
# KERNEL_FOLDER is where tests/tools/debian-kernel.sh keeps Debian's stock kernel (default: OUT/../debian-kernel).
# FLAVOUR is amd64 (default), 686-pae or 686: the last two make 32-bit guests, from i386 packages.
#
#   OUT/disk.raw          MBR, GRUB, ext4: boots from the disk, does the job (guest/demo-job), powers off
#   OUT/disk-shell.raw    the same; after the job a shell on the serial console
#   OUT/initrd-disk.img   finds the root file system of such a disk, for a kernel that is booted directly
#   OUT/initrd-direct.img a guest in memory alone (guest/direct-init)
#   OUT/vmlinuz           the stock kernel
#   OUT/demo.sha256       what the job's file must hold, known before any guest ran
#
# Guests write to their disks: copy an image (cp --sparse=always) before you boot it.
# What exists and was made from the same inputs stays as it is.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[ $# -ge 1 ] && [ $# -le 3 ] || { sed -n '3,6s/^# *//p' "$0" >&2; exit 2; }
mkdir -p "$1"
out=$(cd "$1" && pwd)
kernels=${2:-$out/../debian-kernel}
flavour=${3:-amd64}

disk_mib=256 # the whole disk
job_mib=64   # what the job writes
# The drivers below Debian's root file system, and the checksums that they ask for by name.
module_names=(crc32c_generic crct10dif_generic crc64_rocksoft_generic ata_piix sd_mod ext4)

# shellcheck source=tests/images/disk.sh
. "$here/disk.sh"
need busybox cpio gzip grub-mkimage mke2fs objcopy readelf sha256sum flock

{ read -r vmlinuz; read -r modules; } < <("$here/../tools/debian-kernel.sh" "$kernels" "$flavour")
[ -n "${modules:-}" ] || die "there is no kernel"
busybox=$(command -v busybox)
if [ "$flavour" != amd64 ]; then
  "$here/../tools/debian-packages.sh" i386 "$kernels" busybox-static
  busybox=$kernels/root/bin/busybox
fi
if readelf -l "$busybox" | grep -q INTERP; then die "$busybox is not static; install busybox-static"; fi

# One build at a time, and none if nothing changed.
exec 9> "$out/lock"
flock 9
inputs=$(cat "$here"/build.sh "$here"/disk.sh "$here"/guest/* "$busybox" $grub/boot.img $grub/kernel.img "$vmlinuz" | sha256sum)
if [ "$(cat "$out/made-from" 2> /dev/null)" = "$inputs" ]; then
  say "$out is up to date"
  exit 0
fi
rm -f "$out/made-from"
work=$(mktemp -d "$out/work.XXXXXX")
trap 'rm -rf "$work"' EXIT

# ---------------------------------------------------------------------------------------------------- parts of guests

# module_files NAME...: the files of these modules and of all that they need, each once, in an order to load them in.
declare -A listed=()
module_files() {
  local name file needs
  for name in "$@"; do
    [ -z "${listed[${name//-/_}]:-}" ] || continue
    listed[${name//-/_}]=yes
    file=$(find "$modules/kernel" -name "${name//[-_]/[-_]}.ko" -print -quit)
    if [ -z "$file" ]; then
      grep -q "/${name//[-_]/[-_]}\.ko" "$modules/modules.builtin" || die "the kernel has no module $name"
      continue
    fi
    needs=$(objcopy -O binary -j .modinfo "$file" /dev/stdout | tr '\0' '\n' | sed -n 's/^depends=//p' | tr ',' ' ')
    # shellcheck disable=SC2086 # names, one a word
    module_files $needs
    echo "$file"
  done
}

# busybox_tree DIR: the folders of a small system, with busybox under each of its names; the host's knows them, and runs.
busybox_tree() {
  local applet
  mkdir -p "$1"/{bin,sbin,etc,dev,proc,sys,tmp,root,mnt,modules}
  cp "$busybox" "$1/bin/busybox"
  for applet in $(busybox --list); do
    [ "$applet" = busybox ] || ln -sf busybox "$1/bin/$applet"
  done
}

# initrd DIR FILE: DIR as an archive that the kernel unpacks.
initrd() {
  (cd "$1" && find . -print0 | LC_ALL=C sort -z | cpio --null --create --format=newc --owner=0:0 --quiet \
    --reproducible) | gzip -n -9 > "$2"
}

# job_data SEED: what the job writes. No two sectors are equal: each MiB is shifted against the last by its heading.
# guest/demo-job makes the same.
job_data() {
  local i
  for ((i = 0; i < job_mib; ++i)); do
    printf 'block %d\n' "$i"
    cat "$1"
  done
}

# ------------------------------------------------------------------------------------------------------------- build

say "for kernel ${vmlinuz##*/vmlinuz-}, into $out"

mkdir "$work/modules"
while read -r file; do
  cp "$file" "$work/modules/"
  echo "${file##*/}" >> "$work/modules/order"
done < <(module_files "${module_names[@]}")

busybox_tree "$work/disk-initrd"
cp "$work"/modules/* "$work/disk-initrd/modules/"
install -m 755 "$here/guest/disk-initrd-init" "$work/disk-initrd/init"
initrd "$work/disk-initrd" "$work/initrd-disk.img"

busybox_tree "$work/direct-initrd"
install -m 755 "$here/guest/direct-init" "$work/direct-initrd/init"
initrd "$work/direct-initrd" "$work/initrd-direct.img"

# A MiB from the middle of the compressed kernel: fixed bytes without runs or repeats.
dd if="$vmlinuz" of="$work/seed" bs=1M skip=2 count=1 status=none
[ "$(stat -c %s "$work/seed")" = 1048576 ] || die "$vmlinuz is smaller than 3 MiB"
job_data "$work/seed" | sha256sum | cut -d ' ' -f 1 > "$work/demo.sha256"

root=$work/root
busybox_tree "$root"
mkdir -p "$root/boot/grub" "$root/usr/share/demo" "$root/data"
cp "$vmlinuz" "$root/boot/vmlinuz"
cp "$work/initrd-disk.img" "$root/boot/initrd.img"
cp "$work/seed" "$work/demo.sha256" "$root/usr/share/demo/"
echo "$job_mib" > "$root/usr/share/demo/mib"
echo 'root:x:0:0:root:/root:/bin/sh' > "$root/etc/passwd"
install -m 755 "$here/guest/root-init" "$root/sbin/init"
install -m 755 "$here/guest/demo-job" "$root/sbin/demo-job"

core_image "$work/core.img"
for after in poweroff shell; do
  sed "s/@AFTER@/$after/" "$here/guest/grub.cfg" > "$root/boot/grub/grub.cfg"
  disk "$work/$after.raw" "$root" "$disk_mib" "$work/core.img"
done

mv "$work/poweroff.raw" "$out/disk.raw"
mv "$work/shell.raw" "$out/disk-shell.raw"
mv "$work"/initrd-*.img "$work/demo.sha256" "$out/"
cp "$vmlinuz" "$out/vmlinuz"
echo "$inputs" > "$out/made-from"
say "made disk.raw, disk-shell.raw, initrd-disk.img, initrd-direct.img, vmlinuz"

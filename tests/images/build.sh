#!/bin/bash
# Makes the guest images that the demo and the boot tests use, from Debian's packages, without root and without loop
# devices.
#   tests/images/build.sh OUT [KERNEL_FOLDER]
# KERNEL_FOLDER is where tests/tools/debian-kernel.sh keeps Debian's stock kernel (default: OUT/../debian-kernel).
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
[ $# -ge 1 ] && [ $# -le 2 ] || { sed -n '3,5s/^# *//p' "$0" >&2; exit 2; }
mkdir -p "$1"
out=$(cd "$1" && pwd)
kernels=${2:-$out/../debian-kernel}

disk_mib=256      # the whole disk
partition_lba=2048 # the first partition begins at 1 MiB; GRUB's core image lies in the gap before it
job_mib=64        # what the job writes
grub=/usr/lib/grub/i386-pc
grub_modules=(biosdisk part_msdos ext2 serial terminal normal configfile linux echo test sleep)
# The drivers below Debian's root file system, and the checksums that they ask for by name.
module_names=(crc32c_generic crct10dif_generic crc64_rocksoft_generic ata_piix sd_mod ext4)

say() { echo "images: $*" >&2; }
die() { say "$*"; exit 1; }

PATH=$PATH:/usr/sbin:/sbin
for tool in busybox cpio gzip grub-mkimage mke2fs objcopy readelf sha256sum flock; do
  command -v $tool > /dev/null || die "$tool is missing; './dev setup' installs it"
done
[ -e $grub/boot.img ] || die "$grub/boot.img is missing; './dev setup' installs grub-pc-bin"

{ read -r vmlinuz; read -r modules; } < <("$here/../tools/debian-kernel.sh" "$kernels")
[ -n "${modules:-}" ] || die "there is no kernel"
busybox=$(command -v busybox)
if readelf -l "$busybox" | grep -q INTERP; then die "$busybox is not static; install busybox-static"; fi

# One build at a time, and none if nothing changed.
exec 9> "$out/lock"
flock 9
inputs=$(cat "$here"/build.sh "$here"/guest/* "$busybox" $grub/boot.img $grub/kernel.img "$vmlinuz" | sha256sum)
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

# busybox_tree DIR: the folders of a small system, with busybox under each of its names.
busybox_tree() {
  local applet
  mkdir -p "$1"/{bin,sbin,etc,dev,proc,sys,tmp,root,mnt,modules}
  cp "$busybox" "$1/bin/busybox"
  for applet in $("$busybox" --list); do
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

# ------------------------------------------------------------------------------------------------------------- disks

# poke FILE OFFSET BYTES: BYTES as printf(1) reads them.
poke() { printf "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none; }

# le32 N: N as four escapes for poke, least significant byte first.
le32() { printf '\\x%02x\\x%02x\\x%02x\\x%02x' $(($1 & 255)) $(($1 >> 8 & 255)) $(($1 >> 16 & 255)) $(($1 >> 24 & 255)); }

# disk FILE ROOT: an MBR disk whose one partition is ext4 with ROOT's content, and GRUB before it.
# GRUB's boot.img loads one sector from LBA 1, which loads the rest of the core image from LBA 2 on: the numbers
# that are in these files already, so nothing is to be patched.
disk() {
  local sectors=$((disk_mib * 2048))
  rm -f "$1"
  truncate -s "${disk_mib}M" "$1"
  mke2fs -q -F -t ext4 -L demo -U 7a5d0000-0000-4000-8000-000000000001 -O '^metadata_csum_seed,^orphan_file' \
    -E "offset=$((partition_lba * 512)),root_owner=0:0,lazy_itable_init=0" -d "$2" "$1" \
    $(((sectors - partition_lba) / 2))k
  dd if=$grub/boot.img of="$1" bs=440 count=1 conv=notrunc status=none
  dd if="$work/core.img" of="$1" bs=512 seek=1 conv=notrunc status=none
  # The partition table: active, CHS beyond use, type 83h, first sector, sectors; and the boot signature.
  poke "$1" 446 "\\x80\\xfe\\xff\\xff\\x83\\xfe\\xff\\xff$(le32 $partition_lba)$(le32 $((sectors - partition_lba)))"
  poke "$1" 510 '\x55\xaa'
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

grub-mkimage -O i386-pc -o "$work/core.img" -p '(hd0,msdos1)/boot/grub' "${grub_modules[@]}"
(($(stat -c %s "$work/core.img") <= (partition_lba - 1) * 512)) || die "GRUB's core image does not fit before the partition"

for after in poweroff shell; do
  sed "s/@AFTER@/$after/" "$here/guest/grub.cfg" > "$root/boot/grub/grub.cfg"
  disk "$work/$after.raw" "$root"
done

mv "$work/poweroff.raw" "$out/disk.raw"
mv "$work/shell.raw" "$out/disk-shell.raw"
mv "$work"/initrd-*.img "$work/demo.sha256" "$out/"
cp "$vmlinuz" "$out/vmlinuz"
echo "$inputs" > "$out/made-from"
say "made disk.raw, disk-shell.raw, initrd-disk.img, initrd-direct.img, vmlinuz"

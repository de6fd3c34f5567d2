# Sourced by the builders of guest images: disks that boot by GRUB, made without root and without loop devices.
# shellcheck shell=bash

partition_lba=2048 # the first partition begins at 1 MiB; GRUB's core image lies in the gap before it
grub=/usr/lib/grub/i386-pc
grub_modules=(biosdisk part_msdos ext2 serial terminal normal configfile linux echo test sleep)

say() { echo "images: $*" >&2; }
die() { say "$*"; exit 1; }

PATH=$PATH:/usr/sbin:/sbin

# need TOOL...: these programs, and GRUB's images.
need() {
  local tool
  for tool in "$@"; do
    command -v "$tool" > /dev/null || die "$tool is missing; './dev setup' installs it"
  done
  [ -e $grub/boot.img ] || die "$grub/boot.img is missing; './dev setup' installs grub-pc-bin"
}

# poke FILE OFFSET BYTES: BYTES as printf(1) reads them.
poke() { printf "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none; }

# le32 N: N as four escapes for poke, least significant byte first.
le32() { printf '\\x%02x\\x%02x\\x%02x\\x%02x' $(($1 & 255)) $(($1 >> 8 & 255)) $(($1 >> 16 & 255)) $(($1 >> 24 & 255)); }

# core_image FILE: GRUB with what it needs to read /boot/grub/grub.cfg of the disk's partition.
core_image() {
  grub-mkimage -O i386-pc -o "$1" -p '(hd0,msdos1)/boot/grub' "${grub_modules[@]}"
  (($(stat -c %s "$1") <= (partition_lba - 1) * 512)) || die "GRUB's core image does not fit before the partition"
}

# disk FILE ROOT MIB CORE: an MBR disk of so many MiB whose one partition is ext4 with ROOT's content, and GRUB's core
# image before it.
# GRUB's boot.img loads one sector from LBA 1, which loads the rest of the core image from LBA 2 on: the numbers
# that are in these files already, so nothing is to be patched.
disk() {
  local sectors=$(($3 * 2048))
  rm -f "$1"
  truncate -s "$3M" "$1"
  mke2fs -q -F -t ext4 -L demo -U 7a5d0000-0000-4000-8000-000000000001 -O '^metadata_csum_seed,^orphan_file' \
    -E "offset=$((partition_lba * 512)),root_owner=0:0,lazy_itable_init=0" -d "$2" "$1" \
    $(((sectors - partition_lba) / 2))k
  dd if=$grub/boot.img of="$1" bs=440 count=1 conv=notrunc status=none
  dd if="$4" of="$1" bs=512 seek=1 conv=notrunc status=none
  # The partition table: active, CHS beyond use, type 83h, first sector, sectors; and the boot signature.
  poke "$1" 446 "\\x80\\xfe\\xff\\xff\\x83\\xfe\\xff\\xff$(le32 $partition_lba)$(le32 $((sectors - partition_lba)))"
  poke "$1" 510 '\x55\xaa'
}

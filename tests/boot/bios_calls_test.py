#!/usr/bin/env python3
"""A 32-bit kernel that is told to do without ACPI asks the BIOS: BIOS32 for PCI, and the PnP BIOS through 16-bit protected-mode segments.
    tests/boot/bios_calls_test.py BUILD IMAGES KERNELS FLAVOUR
"""

import os
import subprocess
import sys
import tempfile

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(here, "..", "tools"))
from console import Guest  # noqa: E402

build, images, kernels, flavour = sys.argv[1:]
subprocess.run([f"{here}/../images/build.sh", images, kernels, flavour], check=True)

with tempfile.TemporaryDirectory() as work:
    os.environ["XDG_RUNTIME_DIR"] = work
    disk = f"{work}/disk.raw"
    subprocess.run(["cp", "--sparse=always", f"{images}/disk.raw", disk], check=True)
    with open(f"{here}/../images/guest/grub.cfg") as file:
        menu = file.read().replace("@AFTER@", "poweroff").replace("panic=-1", "panic=-1 acpi=off pci=bios")
    with open(f"{work}/grub.cfg", "w") as file:
        file.write(menu)
    for request in ("rm /boot/grub/grub.cfg", f"write {work}/grub.cfg /boot/grub/grub.cfg"):
        subprocess.run(["/sbin/debugfs", "-w", "-R", request, f"{disk}?offset={1 << 20}"], check=True)

    command = [f"{build}/bin/transom", "run", "--disk", disk, "--memory", "512M", "--cpu", "soft", "--timeout", "1200"]
    with Guest(command) as guest:
        guest.expect("Kernel command line: .* acpi=off pci=bios")
        guest.expect("PCI: PCI BIOS revision 2.10 entry at 0xf....")
        guest.expect("PIIX/ICH IRQ router")
        guest.expect("PnPBIOS: PnP BIOS version 1.0, entry 0xf0000:0x....")
        # The answer of SeaBIOS, which has no list of devices here; it came back from a 16-bit segment.
        guest.expect("PnPBIOS: dev_node_info: function not supported on this system")
        guest.expect("TRANSOM-DEMO-OK")
        guest.expect("reboot: System halted")  # nobody can switch it off
    for line in ("general protection", "Oops", "WARNING:", "BUG:"):
        assert line not in guest.text, f"the kernel wrote {line!r}"
print("ok")

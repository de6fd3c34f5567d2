#!/usr/bin/env python3
"""Linux on four virtual processors: all come up, all compute, one goes and comes back.
    tests/boot/smp_test.py BUILD IMAGES KERNELS
"""

import os
import subprocess
import sys
import tempfile

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(here, "..", "tools"))
from console import Guest  # noqa: E402

build, images, kernels = sys.argv[1:]
subprocess.run([f"{here}/../images/build.sh", images, kernels], check=True)

with tempfile.TemporaryDirectory() as work:
    os.environ["XDG_RUNTIME_DIR"] = work
    with Guest(
        [f"{build}/bin/transom", "run", "--kernel", f"{images}/vmlinuz", "--initrd", f"{images}/initrd-direct.img", "--cpu", "soft"]
        + ["--memory", "512M", "--set", "cpus=4", "--timeout", "1200", "--cmdline", "console=ttyS0,115200 panic=-1 transom.shell"]
    ) as guest:
        guest.expect("smp: Brought up 1 node, 4 CPUs")
        guest.expect("TRANSOM-DIRECT-OK")
        guest.expect("# ")
        guest.check("grep -c ^processor /proc/cpuinfo", "4")
        guest.check("grep 'cpu cores' /proc/cpuinfo | sort -u", r"cpu cores\t: 4")
        # Each processor by itself, then all at once; the digest is known from elsewhere.
        job = "dd if=/dev/zero bs=64k count=64 2> /dev/null | sha256sum | cut -c 1-16"
        for cpu in range(4):
            guest.check(f"taskset {1 << cpu:x} sh -c '{job}'", "bb9f8df61474d25e")
        guest.check(f"for i in 1 2 3 4 5 6 7 8; do ({job}) & done; wait", "\n".join(["bb9f8df61474d25e"] * 8))
        # A pipe between two of them: wake-ups by IPI.
        guest.check("taskset 1 seq 1 20000 | taskset 8 md5sum", "e071f707df7bbeee2a6a1eb48011ddd0  -")
        # INIT and start-up again.
        guest.command("echo 0 > /sys/devices/system/cpu/cpu3/online")
        guest.check("cat /sys/devices/system/cpu/online", "0-2")
        guest.command("echo 1 > /sys/devices/system/cpu/cpu3/online")
        guest.check(f"taskset 8 sh -c '{job}'", "bb9f8df61474d25e")
        guest.send("exit\r")
        guest.powers_off()
print("ok")

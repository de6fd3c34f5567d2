#!/usr/bin/env python3
"""stress-ng, which checks its own results, on four virtual processors of a Debian from its disk.
    tests/boot/smp_stress_test.py BUILD IMAGES KERNELS DEBIAN [SECONDS]
DEBIAN is the folder of tests/images/build-debian.sh.
"""

import os
import subprocess
import sys
import tempfile

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(here, "..", "tools"))
from console import Guest  # noqa: E402

build, images, kernels, debian = sys.argv[1:5]
seconds = sys.argv[5] if len(sys.argv) > 5 else "60"
subprocess.run([f"{here}/../images/build-debian.sh", debian, images, kernels], check=True)

with tempfile.TemporaryDirectory() as work:
    os.environ["XDG_RUNTIME_DIR"] = work
    disk = f"{work}/disk.raw"
    subprocess.run(["cp", "--sparse=always", f"{debian}/disk.raw", disk], check=True)
    with Guest(
        [f"{build}/bin/transom", "run", "--disk", disk, "--memory", "512M", "--cpu", "soft", "--set", "cpus=4", "--timeout", "3000"]
    ) as guest:
        guest.expect("login: ")
        guest.send("root\r")
        guest.expect("Password: ")
        guest.send("transom\r")
        guest.expect("# ")
        guest.check("nproc", "4")
        report = guest.command(f"stress-ng --cpu 4 --cpu-method all --verify -t {seconds} --metrics-brief 2>&1")
        for word in ("fail", "error", "unsuccessful"):
            lines = [line for line in report.splitlines() if word in line and "failed: 0" not in line]
            assert not lines, lines
        assert "successful run completed" in report, report
        guest.check("dmesg | grep -c -E 'BUG|soft lockup|rcu.*stall|general protection' || true", "0")
        guest.send("poweroff\r")
        guest.powers_off()
print("ok")

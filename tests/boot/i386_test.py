#!/usr/bin/env python3
"""Debian's 32-bit kernels, booted directly: 32-bit user programs compute, fault and fork, the kernel's own tests pass, and it powers off.
    tests/boot/i386_test.py BUILD IMAGES KERNELS 686-pae|686
"""

import os
import subprocess
import sys
import tempfile

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(here, "..", "tools"))
from console import Guest, processor  # noqa: E402

build, images, kernels, flavour = sys.argv[1:]
subprocess.run([f"{here}/../images/build.sh", images, kernels, flavour], check=True)


def boot():
    return Guest(
        [f"{build}/bin/transom", "run", "--kernel", f"{images}/vmlinuz", "--initrd", f"{images}/initrd-direct.img"]
        + processor(1200) + ["--memory", "512M", "--cmdline", "console=ttyS0,115200 panic=-1 transom.shell"]
    )


with tempfile.TemporaryDirectory() as work:
    os.environ["XDG_RUNTIME_DIR"] = work
    with boot() as guest:
        guest.expect("TRANSOM-DIRECT-OK")
        guest.expect("# ")
        guest.command("dmesg -n 1")  # what a slow processor makes the kernel say is not to stand among the answers
        guest.check("uname -m", "i686")
        guest.check("uname -r", rf"6\.1\.[-0-9]*-{flavour}")
        # The page tables: with PAE the kernel can tell pages that are not for execution.
        nx = guest.command("dmesg | grep 'NX (Execute Disable)'")
        assert ("protection: active" in nx) == (flavour == "686-pae"), nx
        # Integers of 64 bits on a 32-bit processor; floating point, which is the x87's here; sums over bytes.
        guest.check("echo $((123456789 * 987654321 % 1000003)) $((-9223372036854775807 / 3))", "839324 -3074457345618258602")
        guest.check("""awk 'BEGIN { x = 1; for (i = 0; i < 40; ++i) x = (x + 2 / x) / 2; printf "%.15f %.3e %d", x, 1 / 3e7, -7.9 }'""",
                    r"1\.414213562373095 3\.333e-08 -7")
        guest.check("echo '2 v 20 k 2 v p' | dc", r"1\.41421356237309504880")
        guest.check("seq 1 20000 | md5sum", "e071f707df7bbeee2a6a1eb48011ddd0  -")
        guest.check("dd if=/dev/zero bs=64k count=64 2> /dev/null | sha256sum | cut -c 1-16", "bb9f8df61474d25e")
        guest.check("i=0; while [ $i -lt 40 ]; do (exit 3); i=$((i + $?)); done; echo $i", "42")
        # A program that takes a page fault that nobody handles: the signal reaches its parent.
        status, _ = guest.run("sh -c 'kill -SEGV $$'")
        assert status == 139, status
        guest.send("exit\r")
        guest.powers_off()
print("ok")

#!/usr/bin/env python3
"""Memtest86+ as Debian packages it, booted directly, walks 64 MiB through all of its tests and finds no error.
    tests/boot/memtest_test.py BUILD IMAGES KERNELS PACKAGES
PACKAGES is the folder that the package is unpacked in. One test leaves memory alone for 160 s by the guest's clock.
"""

import os
import re
import subprocess
import sys
import tempfile

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(here, "..", "tools"))
from console import Guest, processor  # noqa: E402

build, _, _, packages = sys.argv[1:]
subprocess.run([f"{here}/../tools/debian-packages.sh", "amd64", packages, "memtest86+"], check=True)

# The console shows a glance every two seconds, so that quick tests go by between two of them. The last one waits, so it
# is always seen, and of the nine before it some are.
LAST = "#10 [Bit fade test, 2 patterns]"

with tempfile.TemporaryDirectory() as work:
    os.environ["XDG_RUNTIME_DIR"] = work
    command = [f"{build}/bin/transom", "run", "--kernel", f"{packages}/root/boot/memtest86+x64.bin", "--cmdline", "console=ttyS0,115200"]
    command += ["--memory", "64M"] + processor(3000) + ["--set", "on_reboot=exit"]
    with Guest(command) as guest:
        found = guest.expect(r"Errors: +[1-9]|Pass: +1 +Errors: +0 ")
        assert found.group().startswith("Pass"), found.group()
        seen = set(re.findall(r"#\d+ +\[[^]\n]+\]", guest.text))
        assert LAST in seen and len(seen) >= 3, seen
        guest.send("\x1b")  # Escape: resets the machine
        assert guest.ended() == 0
print("ok")

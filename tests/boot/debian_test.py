#!/usr/bin/env python3
"""A Debian 12 with systemd boots from its disk to a login; its programs give the right answers; it shuts down and leaves a clean file system.
    tests/boot/debian_test.py BUILD IMAGES KERNELS DEBIAN
DEBIAN is the folder of tests/images/build-debian.sh.
"""

import hashlib
import os
import re
import subprocess
import sys
import tempfile

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(here, "..", "tools"))
from console import Guest, processor  # noqa: E402

build, images, kernels, debian = sys.argv[1:]
subprocess.run([f"{here}/../images/build-debian.sh", debian, images, kernels], check=True)

HELLO = r"""#include <stdio.h>
#include <math.h>
int main(void) {
  double sum = 0;
  for (int i = 1; i <= 1000; ++i) sum += sqrt(i) / i;
  printf("%.9f %Lg %d\n", sum, 1.0L / 3, (int)sizeof(long));
}
"""

# What the programs are asked, and what is right. Digests are computed here, by another processor.
digest = hashlib.sha256(("".join(f"{i}\n" for i in range(1, 50001))).encode()).hexdigest()
CHECKS = [
    ("uname -m", "x86_64"),
    ("cat /etc/debian_version", r"12\.\d+"),
    ("apt-get --version | head -n 1", r"apt 2\.6\.\S+ \(amd64\)"),
    ("perl -e 'print join(q(,), map { $_ ** 2 } grep { $_ % 2 } 1..9), qq(\\n); printf(qq(%.12f\\n), atan2(1, 1) * 4)'",
     r"1,9,25,49,81\n3\.141592653590"),
    ("python3 -c 'print(2 ** 200 % 1000000007, sum(1 / n for n in range(1, 1000)), \"é\".encode())'",
     re.escape(f"{2 ** 200 % 1000000007} {sum(1 / n for n in range(1, 1000))} " + r"b'\xc3\xa9'")),
    (f"seq 1 50000 | openssl dgst -sha256 -r", re.escape(digest) + r" \*stdin"),
    ("echo secret | openssl enc -aes-128-cbc -K 00112233445566778899aabbccddeeff -iv 0 2> /dev/null | od -An -tx1",
     subprocess.run("echo secret | openssl enc -aes-128-cbc -K 00112233445566778899aabbccddeeff -iv 0 2> /dev/null | od -An -tx1",
                    shell=True, check=True, capture_output=True, text=True).stdout.strip()),
    ("openssl speed -seconds 1 sha256 aes-128-cbc 2> /dev/null | grep -c -E '^(sha256|aes-128-cbc) .*k$'", "2"),
    ("cd /tmp && gcc -O2 -Wall hello.c -o hello -lm && ./hello", r"61\.801008765 0\.333333 8"),
    ("systemctl is-system-running --wait; systemctl --failed --plain --no-legend", "running"),
    ("mount | grep -c '^/dev/sda1 on / type ext4 (rw'", "1"),
]

with tempfile.TemporaryDirectory() as work:
    os.environ["XDG_RUNTIME_DIR"] = work
    disk = f"{work}/disk.raw"
    subprocess.run(["cp", "--sparse=always", f"{debian}/disk.raw", disk], check=True)
    with Guest([f"{build}/bin/transom", "run", "--disk", disk, "--memory", "512M"] + processor(3000)) as guest:
        guest.expect("login: ")
        guest.send("root\r")
        guest.expect("Password: ")
        guest.send("wrong\r")
        guest.expect("Login incorrect")
        guest.expect("login: ")
        guest.send("root\r")
        guest.expect("Password: ")
        guest.send("transom\r")
        guest.expect("# ")
        guest.command("cat > /tmp/hello.c << 'END'\r" + HELLO.replace("\n", "\r") + "END\r:")
        for command, expected in CHECKS:
            guest.check(command, expected)
        print(guest.command("systemd-analyze; systemd-analyze blame | head"))
        guest.send("poweroff\r")
        guest.powers_off()
    # The partition begins at 1 MiB.
    subprocess.run(["/sbin/e2fsck", "-fn", f"{disk}?offset={1 << 20}"], check=True)
print("ok")

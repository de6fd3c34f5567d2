#!/usr/bin/env python3
"""A GRUB rescue disk without any file system: its shell answers on the serial port, its own tests pass, and it resets the machine.
    tests/boot/grub_test.py BUILD [IMAGES KERNELS]
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

build = sys.argv[1]
GRUB = "/usr/lib/grub/i386-pc"
CONFIG = "serial --unit=0 --speed=115200\nterminal_input serial\nterminal_output serial\n"
LINKED = "biosdisk memdisk tar normal serial terminal"
COMMANDS = "echo test ls cat minicmd lspci lsmmap cpuid hashsum reboot gcry_sha1 gcry_sha256 gcry_sha512 gcry_dsa gcry_rsa pgp xnu_uuid"
# GRUB's tests of its arithmetic, setjmp, hashes and signatures; sleep_test measures time, and is left out.
TESTS = (
    "functional_test exfctest setjmp_test cmp_test div_test mul_test shift_test xnu_uuid_test pbkdf2_test signature_test bswap_test"
    " ctz_test strtoull_test"
)


def make_disk(work):
    """boot.img loads what stands in sector 1 and after it: GRUB's core with all its modules in a memory disk."""
    with open(f"{work}/grub.cfg", "w") as file:
        file.write(CONFIG)
    subprocess.run(
        ["grub-mkstandalone", "-O", "i386-pc", f"--modules={LINKED}", f"--install-modules={LINKED} {COMMANDS} {TESTS}"]
        + ["--locales=", "--fonts=", "--themes=", "-o", f"{work}/core.img", f"boot/grub/grub.cfg={work}/grub.cfg"],
        check=True,
    )
    with open(f"{GRUB}/boot.img", "rb") as file:
        boot = file.read()[:440]
    with open(f"{work}/core.img", "rb") as file:
        core = file.read()
    disk = (boot.ljust(510, b"\0") + b"\x55\xaa" + core).ljust(16 << 20, b"\xe5")
    with open(f"{work}/disk.raw", "wb") as file:
        file.write(disk)
    return disk


with tempfile.TemporaryDirectory() as work:
    os.environ["XDG_RUNTIME_DIR"] = work
    disk = make_disk(work)
    command = [f"{build}/bin/transom", "run", "--disk", f"{work}/disk.raw", "--memory", "128M"] + processor(1200)
    with Guest(command + ["--set", "on_reboot=exit"]) as guest:

        def ask(line, answer):
            guest.expect("^grub> ")
            guest.send(line + "\r")
            guest.expect(r"\n" + answer)

        ask("echo hello from GRUB", "hello from GRUB\n")
        # Firmware without a screen writes to the same port: the end of GRUB's welcome, which it had kept, may come in between.
        ask("ls", r"\(memdisk\)[\s!]*\(hd0\)")
        ask("nonsense", "error: can't find command `nonsense'")
        ask("if cpuid -l; then echo long; else echo short; fi", "long\n")
        ask("lspci", "00:00.0 8086:1237 .*\n00:01.0 8086:7000 .*\n00:01.1 8086:7010 .*\n")
        ask("lsmmap", "base_addr = 0x0, length = 0x9fc00, available RAM\n")
        # The BIOS reads a MiB by PIO in real mode for a program in protected mode.
        ask("hashsum -h sha256 (hd0)0+2048", hashlib.sha256(disk[: 1 << 20]).hexdigest())
        ask("cat (memdisk)/boot/grub/grub.cfg", re.escape(CONFIG.splitlines()[0]) + "\n")
        begin = guest.position
        ask("all_functional_test", "(ALL TESTS PASSED|TEST FAILURE)\n")
        tests = guest.text[begin : guest.position]
        passed = re.findall(r"^(\w+): PASS$", tests, re.MULTILINE)
        assert tests.endswith("ALL TESTS PASSED\n") and len(passed) >= 11, tests
        guest.expect("^grub> ")
        guest.send("reboot\r")
        assert guest.ended() == 0, "a reset is an end with status 0 here, a triple fault is not"
print("ok")

"""Drives a guest by its serial console, as a user at a terminal would: for tests.

    with Guest([transom, "run", "--kernel", ...]) as guest:
        guest.expect(r"login: ")
        guest.send("root\\r")
        assert guest.command("uname -m") == "i686"
        guest.send("poweroff\\r")
        guest.powers_off()

Nothing here measures time: a text that never comes is noticed when the run ends, which its own --timeout sees to.
"""

import ctypes
import os
import re
import signal
import subprocess
import sys
import time
import tty


def processor(timeout):
    """Arguments of `transom run`: the CPU that TRANSOM_BOOT_CPU names, and its time. The one that checks itself is slow."""
    cpu = os.environ.get("TRANSOM_BOOT_CPU", "soft")
    return ["--cpu", cpu, "--timeout", str(timeout if cpu != "soft:check" else max(timeout, CHECKED_TIMEOUT))]


CHECKED_TIMEOUT = 7000


class Failed(Exception):
    """What was expected did not happen; says what, with the end of the console's text."""


def die_with_the_test():
    """In the child: a test that is killed takes its guest along (PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


class Guest:
    """A command that runs on a terminal of its own; everything that it writes there is also shown on our output."""

    def __init__(self, command):
        self.text = ""  # all of it so far, without carriage returns and escape sequences
        self.pending = ""  # the beginning of an escape sequence
        self.position = 0  # what expect() has passed
        self.commands = 0
        self.master, slave = os.openpty()
        tty.setraw(slave)
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, preexec_fn=die_with_the_test)
        os.close(slave)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            while self.read():  # a full terminal would keep it from ending
                pass
            self.process.wait()
        os.close(self.master)

    def read(self):
        """Adds what came to the text; False at the end, when the run has closed its terminal."""
        try:
            data = os.read(self.master, 65536)
        except OSError:
            data = b""
        text = self.pending + data.decode("utf-8", "replace").replace("\r", "")
        text = re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", text)
        self.pending = re.search(r"(\x1b(\[[?0-9;]*)?)?$", text).group()
        text = text[: len(text) - len(self.pending)]
        sys.stdout.write(text)
        sys.stdout.flush()
        self.text += text
        return bool(data)

    def fail(self, reason):
        raise Failed(f"{reason}; the console's last text:\n{self.text[-1500:]}")

    def expect(self, pattern):
        """Waits for a regular expression after what was expected before, and returns the match."""
        while True:
            match = re.compile(pattern, re.MULTILINE).search(self.text, self.position)
            if match:
                self.position = match.end()
                return match
            if not self.read():
                self.fail(f"the run ended before {pattern!r} came")

    def send(self, keys):
        # In small pieces, as nobody types faster; a guest that has not enabled its receiver yet may lose what comes.
        data = keys.encode()
        while data:
            os.write(self.master, data[:8])
            data = data[8:]
            time.sleep(0.02)

    def run(self, command):
        """Runs a command in a POSIX shell that is at its prompt; its exit status and what it wrote."""
        self.commands += 1
        # What the shell echoes has the sum, and only what it runs has the number.
        mark = f"{self.commands}$((40 + 2))"
        seen = f"{self.commands}42"
        self.send(f'echo "<<{mark}"; {command}; echo ">>{mark}:$?"\r')
        self.expect(f"^<<{seen}\n")
        begin = self.position
        end = self.expect(f">>{seen}:(\\d+)\n")
        return int(end.group(1)), self.text[begin : end.start()].strip()

    def command(self, command):
        """As run(), for a command that must succeed: what it wrote."""
        status, output = self.run(command)
        if status != 0:
            self.fail(f"{command!r} ended with status {status}")
        return output

    def check(self, command, expected):
        """The command succeeds, and the regular expression matches all that it wrote."""
        output = self.command(command)
        if not re.fullmatch(expected, output, re.DOTALL):
            self.fail(f"{command!r} wrote {output!r}, expected {expected!r}")

    def ended(self):
        """Waits for the end of the run: its exit status."""
        while self.read():
            pass
        return self.process.wait()

    def powers_off(self):
        """The run ends by itself, after the kernel said so."""
        status = self.ended()
        if status != 0:
            self.fail(f"the run ended with status {status}")
        self.expect("reboot: Power down")

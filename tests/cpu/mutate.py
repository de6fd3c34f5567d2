#!/usr/bin/env python3
"""Do the tests of the software CPU find bugs? Makes small ones, one at a time, and looks who notices.

A mutant is one token of one line changed: an operator, a comparison, a constant, a flag, a condition, a width, a host
instruction, or a statement left out. Mutants are drawn with a fixed seed, kind by kind in turn. What does not compile,
or makes no difference to optimised code (asked of those that get through the quick pass), is not a mutant, and another
is drawn; nor is what nobody finds, and mutants_accepted.txt lists with the reason why it changes nothing that a guest
could see. Each is compiled alone, unoptimised, linked with the fuzzer, and given a quick pass, with a seed that is not
the one of ./dev test. What gets through is compiled with optimisation, and given to the unit tests of the software CPU,
then to the guests that test a processor, then to the fuzzer with more cases.

usage: tests/cpu/mutate.py BUILD_DIR [--count N] [--seed S] [--cases N] [--jobs N] [--quick] [--minutes N] [--list]
N cases are given to each mode three times: instructions by slot, random bytes, blocks; a tenth of them first.
BUILD_DIR is a configured release build. What was judged is kept in BUILD_DIR/../mutants/S/mutants.json: the same command
goes on where it ended, and tries again what nobody found; --quick and --minutes leave work to a later run. A change of
the mutated sources begins anew. Exit status 0: N were found, and none is left open.
"""
import argparse
import concurrent.futures
import difflib
import hashlib
import itertools
import json
import os
import random
import queue
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SOFT = "hypervisor/vcpu/soft"
ACCEPTED = os.path.join(ROOT, "tests/cpu/mutants_accepted.txt")
FILES = """alu.hpp decode.cc decode_tables.cc fpu.cc fpu.hpp handlers_alu.cc handlers_atomic.cc
handlers_branch.cc handlers_io.cc handlers_mov.cc handlers_muldiv.cc handlers_shift.cc handlers_stack.cc
handlers_string.cc native.hpp select.cc simd.cc simd_compute.cc simd_convert.cc simd_move.cc simd_shuffle.cc
simd_state.cc stack.hpp string_ops.hpp x87.cc x87_direct.cc x87_state.cc""".split()
UNIT_TESTS = {"softcpu_test": "*", "softcpu_system_test": "*", "softcpu_decode_test": "*", "cpu_fuzz_test": "Avail*"}
GUEST_TESTS = "processors_test"
GUEST_SECONDS = 240  # they take one
SEED_OF_CASES = 77

# --------------------------------------------------------------------------------------------------- what is changed

OPERATORS = {"+": "-", "-": "+", "*": "+", "/": "*", "%": "/", "&": "|", "|": "&", "^": "|", "<<": ">>", ">>": "<<",
             "&&": "||", "||": "&&", "+=": "-=", "-=": "+=", "|=": "&=", "&=": "|=", "<<=": ">>=", ">>=": "<<="}
COMPARISONS = {"==": "!=", "!=": "==", "<": "<=", "<=": "<", ">": ">=", ">=": ">"}
WIDTHS = {"u8": ["u16"], "u16": ["u8", "u32"], "u32": ["u16", "u64"], "u64": ["u32"],
          "i8": ["i16"], "i16": ["i8", "i32"], "i32": ["i16", "i64"], "i64": ["i32"]}
HOST = {"add": "sub", "sub": "add", "adc": "add", "sbb": "sub", "and": "or", "or": "and", "xor": "or", "test": "cmp",
        "inc": "dec", "dec": "inc", "neg": "not", "not": "neg", "shl": "shr", "shr": "sar", "sar": "shr", "rol": "ror",
        "ror": "rol", "rcl": "rol", "rcr": "ror", "mul": "imul", "imul": "mul", "div": "idiv", "idiv": "div",
        "bsf": "bsr", "bsr": "bsf", "bts": "btr", "btr": "btc", "btc": "bts", "shld": "shrd", "shrd": "shld",
        "seto": "setc", "sahf": "nop", "addb": "subb", "daa": "das", "das": "daa", "aaa": "aas", "aas": "aaa"}
FLAGS = re.compile(r"\b(?:FLAG|LAHF|SET|FSW|FCW|MXCSR|INSN|CR0|CR4|MODE)_[A-Z0-9_]+\b|\bFLAGS_[A-Z]+\b")


def code_of(line):
    """The line with comments blanked, and the same with string literals blanked as well."""
    line = re.sub(r"//.*$", lambda m: " " * len(m[0]), line)
    return line, re.sub(r'"(?:\\.|[^"\\])*"', lambda m: " " * len(m[0]), line)


def negated(line):
    for m in re.finditer(r"\b(if|while) (?:constexpr )?\(", line):
        depth, at = 1, m.end()
        while at < len(line) and depth:
            depth += {"(": 1, ")": -1}.get(line[at], 0)
            at += 1
        if depth == 0:
            yield m.end(), at - 1, "!(" + line[m.end():at - 1] + ")"


def off_by_one(literal):
    text = literal.replace("'", "")
    suffix = re.search(r"[uUlL]*$", text)[0]
    value = int(text[:len(text) - len(suffix)] or "0", 0)
    for changed in (value + 1, value - 1):
        if changed >= 0:
            yield (hex(changed) if text.startswith("0x") else str(changed)) + suffix


STATEMENT = re.compile(r"^\s+(?:[a-z_][\w.\[\]>-]*(?:->)?\s[|&^+*-]?=\s.+|[a-z_][\w.:>-]*(?:<[\w, ]+>)?\(.*\));$")


def changes(line):
    """Every (kind, begin, end, replacement) of a line."""
    text, bare = code_of(line)
    if not bare.strip() or bare.lstrip().startswith(("#", "static_assert", "template", "namespace", "using", "//")):
        if not bare.lstrip().startswith("#define"):
            return
    for m in re.finditer(r"(?<=[\w)\]] )(?:<<=|>>=|<<|>>|&&|\|\||[+|&*-]=|[+*/%&|^-])(?= [\w(~!*-])", bare):
        if m[0] in OPERATORS:
            yield "operator", m.start(), m.end(), OPERATORS[m[0]]
    for m in re.finditer(r"(?<=[\w)\]] )(?:==|!=|<=|>=|<|>)(?= [\w(~!*-])", bare):
        yield "operator", m.start(), m.end(), COMPARISONS[m[0]]
    for m in re.finditer(r"(?<![\w.'])(?:0x[0-9a-f']+|\d[\d']*)[uUlL]*(?![\w.'])", bare):
        for changed in off_by_one(m[0]):
            yield "constant", m.start(), m.end(), changed
    for m in FLAGS.finditer(bare):
        if not re.search(r"constexpr|enum|^\s*" + m[0] + r"\s*=", bare):
            yield "flag", m.start(), m.end(), f"({m[0]} & 0)"
    for begin, end, changed in negated(bare):
        yield "condition", begin, end, "!(" + line[begin:end] + ")"
    for m in re.finditer(r"\b[ui](?:8|16|32|64)\b", bare):
        for changed in WIDTHS[m[0]]:
            yield "width", m.start(), m.end(), changed
    for literal in re.finditer(r'"(?:\\.|[^"\\])*"', text):
        for m in re.finditer(r"(?<![\w%\[])[a-z]+(?![\w\]])", literal[0]):
            if m[0] in HOST:
                yield "host", literal.start() + m.start(), literal.start() + m.end(), HOST[m[0]]
    if STATEMENT.match(bare):
        yield "statement", 0, len(line), re.match(r"\s*", line)[0] + ";"


def candidates():
    """By kind: (file, line number, begin, end, replacement)."""
    found = {}
    for name in FILES:
        with open(os.path.join(ROOT, SOFT, name)) as f:
            for number, line in enumerate(f.read().split("\n")):
                for kind, *rest in changes(line):
                    found.setdefault(kind, []).append((name, number, *rest))
    return found


def drawn(seed):
    """Mutants in the order of the draw."""
    r = random.Random(seed)
    kinds = candidates()
    for kind in sorted(kinds):
        r.shuffle(kinds[kind])
    while any(kinds.values()):
        for kind in sorted(kinds):
            if kinds[kind]:
                yield (kind, *kinds[kind].pop())

# ------------------------------------------------------------------------------------------------------------ building


class Builder:
    """Programs of the release build with the objects of one mutated file put in."""

    def __init__(self, build, folder):
        self.build = os.path.abspath(build)
        self.work = os.path.abspath(folder)
        self.overlay = os.path.join(self.work, "overlay", SOFT)
        self.changed = os.path.join(self.work, "changed")
        self.optimised = [os.path.join(self.work, "optimised", d) for d in ("base", "changed")]
        for d in (self.overlay, self.changed, *self.optimised):
            os.makedirs(d, exist_ok=True)
        self.clean()
        with open(os.path.join(self.build, "compile_commands.json")) as f:
            commands = [c for c in json.load(f) if f"/{SOFT}/" in c["file"] and "transom_softcpu.dir" in c["command"]]
        self.commands = {os.path.basename(c["file"]): self.stripped(c["command"]) for c in commands}
        self.objects = {s: f"{SOFT}/CMakeFiles/transom_softcpu.dir/{s}.o" for s in self.commands}
        self.programs = {name: "tests/" + name for name in UNIT_TESTS}
        self.programs["transom-hypervisor"] = "bin/transom-hypervisor"
        self.ninja("-j1", *self.programs, GUEST_TESTS)
        self.links = {name: self.link_command(name) for name in self.programs}
        for name in ("transom", "transom-dom0"):  # beside the mutated hypervisor
            os.makedirs(os.path.join(self.work, "bin"), exist_ok=True)
            shutil.copy2(os.path.join(self.build, "bin", name), os.path.join(self.work, "bin", name))
        self.cost = {s: os.path.getsize(os.path.join(self.build, o)) for s, o in self.objects.items()}  # roughly
        self.users = {}  # of a header: the sources that see it
        for source, o in self.objects.items():
            for header in re.findall(rf"{SOFT}/(\w+\.hpp)", self.ninja("-t", "deps", o)):
                self.users.setdefault(header, []).append(source)

    def ninja(self, *arguments):
        return subprocess.run(["ninja", "-C", self.build, *arguments], check=True, capture_output=True, text=True).stdout

    def stripped(self, command):
        """Without launcher, warnings, debug information and output; headers of the overlay come first."""
        words = [w for w in shlex.split(command) if not w.startswith(("-W", "-g"))]
        while "ccache" in os.path.basename(words[0]):
            words.pop(0)
        words = words[:words.index("-o")]
        return [words[0], "-I" + os.path.join(self.work, "overlay"), "-w", *words[1:], "-O0"]

    def link_command(self, target):
        lines = self.ninja("-t", "commands", target).strip().split("\n")
        output = f"-o {self.programs[target]} "
        command = next(line for line in reversed(lines) if output in line)
        command = next(part for part in command.split(" && ") if output in part)
        return shlex.split(command)

    def compile(self, source, to, *flags):
        overlaid = os.path.join(self.overlay, source)
        path = overlaid if os.path.exists(overlaid) else os.path.join(ROOT, SOFT, source)
        done = subprocess.run([*self.commands[source], *flags, "-c", path, "-o", os.path.join(to, source + ".o")],
                              capture_output=True, cwd=self.build)
        return done.returncode == 0

    def same_when_optimised(self, name):
        """Whether the mutant in place makes no difference to the optimised code, which is in place from now on: without
        optimisation handlers do not chain but nest, and long runs end in a full stack."""
        for mutated in (True, False):
            if not mutated:
                os.remove(os.path.join(self.overlay, name))
            for source in self.users.get(name, [name]):
                self.compile(source, self.optimised[mutated], "-O2")
        for source in self.users.get(name, [name]):
            shutil.copy2(os.path.join(self.optimised[True], source + ".o"), self.changed)
        for source in self.users.get(name, [name]):
            with open(os.path.join(self.optimised[True], source + ".o"), "rb") as a, \
                    open(os.path.join(self.optimised[False], source + ".o"), "rb") as b:
                if a.read() != b.read():
                    return False
        return True

    def clean(self):
        for d in (self.overlay, self.changed):
            for name in os.listdir(d):
                os.remove(os.path.join(d, name))

    def mutate(self, name, text):
        """Puts the mutant in its place. Answers the groups of sources to compile: of a header, what is quick first,
        because most bugs of a header show in any user."""
        self.clean()
        with open(os.path.join(self.overlay, name), "w") as f:
            f.write(text)
        users = sorted(self.users.get(name, [name]), key=lambda s: self.cost[s])
        half = (len(users) + 1) // 2
        return [g for g in (users[:half], users[half:]) if g]

    def compile_group(self, sources):
        """False if it does not compile."""
        return all(self.compile(source, self.changed) for source in sources)

    def link(self, target):
        program = os.path.join(self.work, "bin", target)
        changed = [os.path.join(self.changed, name) for name in os.listdir(self.changed)]
        objects = changed + [o for s, o in self.objects.items() if s + ".o" not in os.listdir(self.changed)]
        words = []
        for w in self.links[target]:
            if w.endswith("libtransom_softcpu.a"):
                words += objects
                objects = []
            else:
                words.append(w)
        words[words.index("-o") + 1] = program
        subprocess.run(words, check=True, cwd=self.build)
        return program

# ------------------------------------------------------------------------------------------------------------- judging


def run(program, seconds, *arguments, **environment):
    """Empty if the program is content, else what it said."""
    child = subprocess.Popen([program, "--gtest_fail_fast", "--gtest_color=no", *arguments], start_new_session=True,
                             env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        text = child.communicate(timeout=seconds)[0].decode(errors="replace")
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        return "runs for ever"
    if child.returncode == 0:
        return ""
    failed = re.search(r"\[  FAILED  \] ([\w/.]+)", text)
    case = re.search(r"seed \d+ case \d+", text)
    return " ".join(x for x in (failed[1] if failed else "died", case[0] if case else "") if x)


def fuzz(program, cases):
    return run(program, 1800, "--gtest_filter=Differential.*", TRANSOM_FUZZ_STOP="1",
               TRANSOM_FUZZ_SEED=str(SEED_OF_CASES), TRANSOM_FUZZ_CASES=str(cases))


def guests(builder):
    """The guests that test a processor, on a hypervisor with the mutant."""
    return run(os.path.join(builder.build, "tests", GUEST_TESTS), GUEST_SECONDS, "--gtest_filter=*OnTheSoftwareCpu*",
               TRANSOM_TEST_BIN=os.path.dirname(builder.link("transom-hypervisor")))


def judge_quickly(builder, groups, cases):
    """(state, who found it, where)."""
    for group in groups:
        if not builder.compile_group(group):
            return "does not compile", "", ""
        said = fuzz(builder.link("cpu_fuzz_test"), cases // 10)
        if said:
            return "mutant", "fuzzer", said
    return "mutant", "nobody", ""


def judge_on(builder, mutated, cases):
    """The same, of one that has got through the quick pass."""
    if builder.same_when_optimised(mutated):
        return "same code", "", ""
    for name, tests in UNIT_TESTS.items():
        said = run(builder.link(name), 300, "--gtest_filter=" + tests)
        if said:
            return "mutant", "unit test", f"{name}: {said}"
    said = guests(builder)
    if said:
        return "mutant", "guest", said
    said = fuzz(builder.link("cpu_fuzz_test"), cases)  # last, because it takes longest
    return ("mutant", "fuzzer", said) if said else ("mutant", "nobody", "")


def judge_nothing(builder, cases):
    """What the tests say without a mutant: nothing."""
    builder.clean()
    said = fuzz(builder.link("cpu_fuzz_test"), cases)
    for name, tests in UNIT_TESTS.items():
        said = said or run(builder.link(name), 300, "--gtest_filter=" + tests)
    return said or guests(builder)


def accepted():
    """{(file, old line, new line): reason}. Blocks of four lines: file, - old, + new, reason."""
    found = {}
    with open(ACCEPTED) as f:
        for block in re.split(r"\n\s*\n", f.read()):
            lines = [line for line in block.strip().split("\n") if not line.startswith("#")]
            if len(lines) >= 4:
                found[lines[0].strip(), lines[1][1:].strip(), lines[2][1:].strip()] = " ".join(lines[3:])
    return found


class Results:
    """What was judged so far, by the number of the draw."""

    def __init__(self, folder):
        self.folder = folder
        self.file = os.path.join(folder, "mutants.json")
        self.draws, self.seconds, self.begin = {}, 0, time.time()
        self.accepted = accepted()
        digest = hashlib.sha256()
        for name in FILES:
            with open(os.path.join(ROOT, SOFT, name), "rb") as f:
                digest.update(f.read())
        with open(os.path.abspath(__file__), "rb") as f:  # and what decides which mutants are drawn
            digest.update(f.read().split(b"\n# ----------")[1])
        self.sources = digest.hexdigest()
        if os.path.exists(self.file):
            with open(self.file) as f:
                before = json.load(f)
            if before.get("sources") == self.sources:
                self.draws = {int(n): r for n, r in before["draws"].items()}
                self.seconds = before["seconds"]

    def add(self, number, result):
        self.draws[number] = result
        with open(self.file + ".new", "w") as f:
            json.dump({"sources": self.sources, "seconds": self.elapsed(), "draws": self.draws}, f, indent=1)
        os.replace(self.file + ".new", self.file)

    def elapsed(self):
        return round(self.seconds + time.time() - self.begin)

    def mutants(self, count):
        """The first `count` that change something, in the order of the draw."""
        return [(n, r) for n, r in sorted(self.draws.items())
                if r["state"] == "mutant" and not self.changes_nothing(r)][:count]

    def changes_nothing(self, r):
        """Being listed is not enough: everything has tried it, and nobody has found it."""
        return r["by"] == "nobody" and r["passes"] == "all" and (r["file"], r["old"], r["new"]) in self.accepted


def judge(builder, draw, known, options):
    """One draw, from where it got to before."""
    kind, name, number, first, end, replacement = draw
    with open(os.path.join(ROOT, SOFT, name)) as f:
        lines = f.read().split("\n")
    old = lines[number]
    lines[number] = new = old[:first] + replacement + old[end:]
    groups = builder.mutate(name, "\n".join(lines))
    if known:
        state, by, where = judge_on(builder, name, options.cases)
    else:
        state, by, where = judge_quickly(builder, groups, options.cases)
    builder.clean()
    return {"state": state, "by": by, "where": where, "kind": kind, "file": name, "line": number + 1,
            "old": old.strip(), "new": new.strip(), "passes": "all" if known else "quick"}


def work_off(builders, todo, known, results, options):
    """Judges the draws of `todo`, each builder one at a time."""
    free = queue.Queue()
    for builder in builders:
        free.put(builder)

    def one(number, draw):
        if options.minutes and time.time() - results.begin > 60 * options.minutes:
            return number, None
        builder = free.get()
        try:
            return number, judge(builder, draw, known, options)
        finally:
            free.put(builder)

    with concurrent.futures.ThreadPoolExecutor(len(builders)) as pool:
        for done in concurrent.futures.as_completed([pool.submit(one, *t) for t in todo]):
            number, result = done.result()
            if result is None:
                continue
            results.add(number, result)
            print(f"{number:3} {result['kind']:9} {result['file']}:{result['line']}: {result['state']} "
                  f"{result['by']} {result['where']}\n    - {result['old']}\n    + {result['new']}", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a tenth of the cases and nothing else")
    parser.add_argument("--minutes", type=float, help="begin nothing after that time")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    if options.list:
        for kind, of_kind in sorted(candidates().items()):
            print(f"{kind:10} {len(of_kind)}")
        return 0
    folder = os.path.join(os.path.dirname(os.path.abspath(options.build)), "mutants", str(options.seed))
    builders = [Builder(options.build, os.path.join(folder, str(n))) for n in range(options.jobs)]
    results = Results(folder)
    said = judge_nothing(builders[0], options.cases // 10 if results.draws else options.cases)
    assert said == "", f"the tests fail without any mutation: {said}"
    draws = list(enumerate(drawn(options.seed), 1))

    def out_of_time():
        return options.minutes and time.time() - results.begin > 60 * options.minutes

    tried_again = set()
    while not out_of_time():
        missing = options.count - len(results.mutants(options.count))
        if missing > 0:  # the quick pass comes first, and again for what turned out to be none
            todo = itertools.islice((d for d in draws if d[0] not in results.draws), missing)
            work_off(builders, todo, False, results, options)
            continue
        open_ones = {n for n, r in results.mutants(options.count) if r["by"] == "nobody"} - tried_again
        if options.quick or not open_ones:
            break
        work_off(builders, [d for d in draws if d[0] in open_ones], True, results, options)
        tried_again |= open_ones
    return report(results, options)


def report(results, options):
    mutants = [r for _, r in results.mutants(options.count)]
    harmless = [r for _, r in sorted(results.draws.items()) if results.changes_nothing(r)]
    with open(os.path.join(results.folder, "mutants.md"), "w") as f:
        f.write("| # | Kind | Where | Change | Found by |\n|---|---|---|---|---|\n")
        for n, r in [*enumerate(mutants, 1), *(("–", r) for r in harmless)]:
            by = "changes nothing" if n == "–" else r["by"]
            f.write(f"| {n} | {r['kind']} | `{r['file']}:{r['line']}` | {difference(r['old'], r['new'])} | {by} |\n")
    by = {who: sum(r["by"] == who for r in mutants) for who in ("fuzzer", "unit test", "guest", "nobody")}
    long_pass = sum(r["by"] == "fuzzer" and r["passes"] == "all" for r in mutants)
    unfinished = sum(r["by"] == "nobody" and r["passes"] != "all" for r in mutants)
    dropped = {what: sum(r["state"] == what for r in results.draws.values()) for what in ("does not compile", "same code")}
    for r in mutants:
        if r["by"] == "nobody":
            print(f"open: {r['file']}:{r['line']}\n    - {r['old']}\n    + {r['new']}")
    print(f"{len(mutants)} mutants: {by['fuzzer']} found by the fuzzer ({long_pass} in its long pass alone), "
          f"{by['unit test']} by unit tests alone, {by['guest']} by guests alone, {by['nobody']} by nobody ({unfinished} "
          f"not tried with everything). Drawn and dropped: {dropped['does not compile']} did not compile, "
          f"{dropped['same code']} made the same code, {len(harmless)} change nothing. {results.elapsed() / 60:.0f} minutes.")
    return 0 if len(mutants) == options.count and by["nobody"] == 0 else 1


def difference(old, new):
    """The changed words with a little around them, as one table cell."""
    a, b = re.findall(r"\w+|\W", old), re.findall(r"\w+|\W", new)
    blocks = [o for o in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes() if o[0] != "equal"]
    low, high = max(0, blocks[0][1] - 8), blocks[-1][2] + 8
    low_b, high_b = max(0, blocks[0][3] - 8), blocks[-1][4] + 8
    def cell(words):
        return "`" + "".join(words).strip().replace("|", "\\|") + "`"
    return cell(a[low:high]) + " → " + cell(b[low_b:high_b])


if __name__ == "__main__":
    sys.exit(main())

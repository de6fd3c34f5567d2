#!/usr/bin/env python3
"""Does the CPU fuzzer find bugs? Makes small bugs in the software CPU, one at a time, and looks who notices.

A mutant is one token of one line changed: an operator, a comparison, a constant, a flag, a condition, a width, a host
instruction, or a statement left out. Mutants are drawn with a fixed seed, kind by kind in turn. What does not compile,
or makes no difference to the object code (for those that nobody finds, also to optimised code), is not a mutant and another
is drawn. Each is compiled alone and unoptimised, linked with the tests, and given to the fuzzer, with the seed that is not the one of ./dev test; what the fuzzer does not find, the unit
tests of the software CPU may. What nobody finds has to be listed in mutants_accepted.txt, with the reason why it
changes nothing that a guest could see.

usage: tests/cpu/mutate.py BUILD_DIR [--count N] [--seed S] [--cases N] [--survivors FILE] [--list]
N cases are given to each mode three times: instructions by slot, random bytes, blocks.
BUILD_DIR is a configured release build. Exit status 0: enough were found, and every other one is accepted.
"""
import argparse
import difflib
import json
import os
import random
import re
import shlex
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
UNIT_TESTS = ["softcpu_test", "softcpu_system_test", "softcpu_decode_test"]
SEED_OF_CASES = 77
AT_LEAST = 0.98

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

    def __init__(self, build, seed):
        self.build = os.path.abspath(build)
        self.work = os.path.join(os.path.dirname(self.build), "mutants", str(seed))
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
        self.links = {}
        self.link("cpu_fuzz_test")
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
        command = next(line for line in reversed(lines) if f"-o tests/{target}" in line)
        command = next(part for part in command.split(" && ") if f"-o tests/{target}" in part)
        return shlex.split(command)

    def compile(self, source, to, *flags):
        overlaid = os.path.join(self.overlay, source)
        path = overlaid if os.path.exists(overlaid) else os.path.join(ROOT, SOFT, source)
        done = subprocess.run([*self.commands[source], *flags, "-c", path, "-o", os.path.join(to, source + ".o")],
                              capture_output=True, cwd=self.build)
        return done.returncode == 0

    def same_when_optimised(self, name):
        """Whether the mutant in place makes no difference to the optimised code."""
        for mutated in (True, False):
            if not mutated:
                os.remove(os.path.join(self.overlay, name))
            for source in self.users.get(name, [name]):
                self.compile(source, self.optimised[mutated], "-O2")
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
        if target not in self.links:
            self.ninja("-j1", target)
            self.links[target] = self.link_command(target)
        program = os.path.join(self.work, target)
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
    try:
        done = subprocess.run([program, "--gtest_fail_fast", "--gtest_color=no", *arguments], timeout=seconds,
                              env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except subprocess.TimeoutExpired:
        return "runs for ever"
    if done.returncode == 0:
        return ""
    text = done.stdout.decode(errors="replace")
    failed = re.search(r"\[  FAILED  \] (\S+)", text)
    case = re.search(r"seed \d+ case \d+", text)
    return " ".join(x for x in (failed[1] if failed else "died", case[0] if case else "") if x)


def fuzz(program, cases):
    return run(program, 1800, "--gtest_filter=Differential.*", TRANSOM_FUZZ_STOP="1",
               TRANSOM_FUZZ_SEED=str(SEED_OF_CASES), TRANSOM_FUZZ_CASES=str(cases))


def judge(builder, mutated, groups, cases, quick):
    """(state, who found it, where)."""
    for group in groups:
        if not builder.compile_group(group):
            return "does not compile", "", ""
        said = fuzz(builder.link("cpu_fuzz_test"), cases // 10)
        if said:
            return "mutant", "fuzzer", said
    if quick:
        return "mutant", "nobody", ""
    if builder.same_when_optimised(mutated):
        return "same code", "", ""
    said = fuzz(os.path.join(builder.work, "cpu_fuzz_test"), cases)
    if said:
        return "mutant", "fuzzer", said
    for name in UNIT_TESTS:
        said = run(builder.link(name), 300)
        if said:
            return "mutant", "unit test", f"{name}: {said}"
    return "mutant", "nobody", ""


def accepted():
    """{(file, old line, new line): reason}. Blocks of four lines: file, - old, + new, reason."""
    found = {}
    with open(ACCEPTED) as f:
        for block in re.split(r"\n\s*\n", f.read()):
            lines = [line for line in block.strip().split("\n") if not line.startswith("#")]
            if len(lines) >= 4:
                found[lines[0].strip(), lines[1][1:].strip(), lines[2][1:].strip()] = " ".join(lines[3:])
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--quick", action="store_true", help="a tenth of the cases, no unit tests; --survivors goes on")
    parser.add_argument("--survivors", help="mutants.json of a run before: only those that nobody found")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    if options.list:
        for kind, of_kind in sorted(candidates().items()):
            print(f"{kind:10} {len(of_kind)}")
        return 0
    reasons = accepted()
    builder = Builder(options.build, options.seed)
    assert judge_nothing(builder, options.cases), "the tests fail without any mutation"
    results, dropped, begin = [], {"does not compile": 0, "same code": 0}, time.time()
    again = None
    if options.survivors:
        with open(options.survivors) as f:
            again = {(r["file"], r["line"], r["new"]) for r in json.load(f)["results"] if r["by"] == "nobody"}
    for kind, name, number, first, end, replacement in drawn(options.seed):
        if again is not None and not again:
            break
        if len(results) == options.count:
            break
        with open(os.path.join(ROOT, SOFT, name)) as f:
            lines = f.read().split("\n")
        old = lines[number]
        lines[number] = new = old[:first] + replacement + old[end:]
        if again is not None:
            if (name, number + 1, new.strip()) not in again:
                continue
            again.remove((name, number + 1, new.strip()))
        groups = builder.mutate(name, "\n".join(lines))
        state, by, where = judge(builder, name, groups, options.cases, options.quick)
        if state != "mutant":
            dropped[state] += 1
            continue
        index = len(results) + 1
        reason = reasons.get((name, old.strip(), new.strip()), "") if by == "nobody" else ""
        results.append({"number": index, "kind": kind, "file": name, "line": number + 1, "old": old.strip(),
                        "new": new.strip(), "by": by, "where": where, "accepted": reason})
        print(f"{index:3} {kind:9} {name}:{number + 1}: {by} {where}{reason}\n    - {old.strip()}\n    + {new.strip()}",
              flush=True)
        write(builder, results, dropped, time.time() - begin)
    builder.clean()
    return report(builder, results, dropped, time.time() - begin)


def judge_nothing(builder, cases):
    builder.clean()
    return fuzz(builder.link("cpu_fuzz_test"), cases) == ""


def write(builder, results, dropped, seconds):
    with open(os.path.join(builder.work, "mutants.json"), "w") as f:
        json.dump({"results": results, "dropped": dropped, "seconds": round(seconds)}, f, indent=1)
    with open(os.path.join(builder.work, "mutants.md"), "w") as f:
        f.write("| # | Kind | Where | Change | Found by |\n|---|---|---|---|---|\n")
        for r in results:
            cell = difference(r["old"], r["new"])
            f.write(f"| {r['number']} | {r['kind']} | `{r['file']}:{r['line']}` | {cell} | {r['by']} |\n")


def report(builder, results, dropped, seconds):
    by = {who: sum(r["by"] == who for r in results) for who in ("fuzzer", "unit test", "nobody")}
    found = by["fuzzer"] + by["unit test"]
    open_ones = [r for r in results if r["by"] == "nobody" and not r["accepted"]]
    print(f"{len(results)} mutants: {by['fuzzer']} found by the fuzzer, {by['unit test']} by unit tests alone, "
          f"{by['nobody']} by nobody ({by['nobody'] - len(open_ones)} accepted). Drawn and dropped: "
          f"{dropped['does not compile']} did not compile, {dropped['same code']} made the same code. "
          f"{seconds / 60:.0f} minutes.")
    return 0 if not open_ones and found >= AT_LEAST * len(results) else 1


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

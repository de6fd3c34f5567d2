#!/bin/bash
# Who may include whom: prints every #include that crosses a border, and fails if there is one.
#   tests/layering/check.sh [ROOT]
# The rules are the table below. mawk, which every Debian has, is enough.
set -euo pipefail
cd "${1:-.}"

# The part, then the parts that it may include beside itself. A part that is not here may not exist.
rules='
sdk
core                 sdk
firmware             sdk core
pv-drivers           sdk core
pv-drivers/platform  sdk
pv-drivers/frontend  pv-drivers/protocol
display              sdk core
trace                sdk core
dom0                 sdk core pv-drivers firmware
hypervisor           sdk core pv-drivers firmware
control              sdk core pv-drivers firmware dom0 hypervisor display trace
plugins/*            sdk
bench                sdk core pv-drivers firmware dom0 hypervisor display trace control plugins/*
tests                sdk core pv-drivers firmware dom0 hypervisor display trace control plugins/* pv-drivers/platform pv-drivers/frontend
'

sources() {
  find . \( -path ./build -o -path './.*' \) -prune -o -type f \
    \( -name '*.c' -o -name '*.cc' -o -name '*.h' -o -name '*.hpp' \) -printf '%P\n' | LC_ALL=C sort
}

# One line an include: FILE:LINE:DELIMITER NAME
includes() {
  sources | tr '\n' '\0' | xargs -0 -r grep -nHE '^[[:space:]]*#[[:space:]]*(include|import)[[:space:]]*["<]' |
    sed -E 's/^([^:]*:[0-9]+):[^"<]*(["<])([^">]*)[">].*/\1 \2 \3/'
}

awk -v rules="$rules" '
  BEGIN {
    n = split(rules, lines, "\n")
    for (i = 1; i <= n; ++i) {
      words = split(lines[i], word, " ")
      if (words == 0) continue
      known[word[1]] = 1
      for (j = 2; j <= words; ++j) may[word[1], word[j]] = 1
    }
  }

  # The part that a path belongs to: its first folder, or two where these have rules of their own.
  function part(path,    piece) {
    split(path, piece, "/")
    if (piece[1] == "plugins" && path ~ /^plugins\/[^\/]+\//) return "plugins/" piece[2]
    if ((piece[1] "/" piece[2]) in known) return piece[1] "/" piece[2]
    return path ~ /\// ? piece[1] : ""
  }
  function rule(p) { return p ~ /^plugins\// ? "plugins/*" : p }

  # a/b/../c is a/c.
  function normal(path,    piece, n, i, top, kept, text) {
    n = split(path, piece, "/")
    top = 0
    for (i = 1; i <= n; ++i) {
      if (piece[i] == "..") { if (top > 0) --top }
      else if (piece[i] != "." && piece[i] != "") kept[++top] = piece[i]
    }
    text = kept[1]
    for (i = 2; i <= top; ++i) text = text "/" kept[i]
    return text
  }

  # The file of ours that is meant, or nothing: beside the file that includes it, from the root, or of the SDK.
  # Programs that run inside of guests know nothing of the tree: their root is the folder of tests/ that they are in.
  function resolve(from, name, delimiter,    folder, piece, i) {
    folder = from
    sub(/[^\/]*$/, "", folder)
    if (delimiter == "\"" && normal(folder name) in file) return normal(folder name)
    if (name in file) return name
    for (i = 1; i <= 3; ++i) if ((root[i] name) in file) return root[i] name
    split(from, piece, "/")
    if (piece[1] == "tests" && ("tests/" piece[2] "/" name) in file) return "tests/" piece[2] "/" name
    if (delimiter == "\"" && (name ~ /^schema\/.*\.capnp\.h$/ || name ~ /_aml\.hpp$/)) return from # made by the build
    return ""
  }

  function refuse(why) { print where ": " why; ++bad }

  BEGIN { root[1] = "sdk/include/"; root[2] = "sdk/testing/include/"; root[3] = "sdk/manifest/include/" }

  FNR == NR { file[$0] = 1; next }

  {
    where = $1
    from = $1
    sub(/:[0-9]+$/, "", from)
    ++seen
    own = part(from)
    if (own == "") { refuse("a source file outside of all parts"); next }
    if (!(rule(own) in known)) { refuse("the part " own " has no rule in tests/layering/check.sh"); next }
    target = resolve(from, $3, $2)
    if (target == "") {
      if ($2 == "\"") refuse("\"" $3 "\" is no file of ours: say it from the root; <> is for libraries")
      next
    }
    other = part(target)
    if (other != own && !((rule(own), rule(other)) in may)) refuse(own " may not include " target)
    if (own ~ /^plugins\// && target ~ /^sdk\/include\/vdev\/ext\/draft\//)
      refuse(own " may not ask for a draft: " target " is in no released header")
  }

  END {
    if (seen == 0) { print "no includes were found: is this the root?"; exit 1 }
    if (bad > 0) { print bad " includes cross a border"; exit 1 }
    print seen " includes, none crosses a border"
  }
' <(sources) <(includes)

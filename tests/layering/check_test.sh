#!/bin/bash
# check.sh lets through what is allowed, and sees what is not: each rule once.
set -euo pipefail
check=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/check.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

tree() { # the allowed tree, new
  rm -rf "$work/tree"
  mkdir -p "$work"/tree/{sdk/include/vdev/ext/draft,core,firmware,hypervisor,dom0,control,plugins/{ide,uart},tests}
  mkdir -p "$work"/tree/{build,pv-drivers/{platform,protocol}}
  cd "$work/tree"
  touch sdk/include/vdev/{vdev.h,ext/pci.h,ext/draft/new.h} core/types.hpp firmware/acpi.hpp hypervisor/machine.hpp
  touch plugins/{ide/ata.hpp,uart/uart.hpp} dom0/dom0.hpp control/config.hpp tests/bench.hpp pv-drivers/protocol/ring.hpp
  echo '#include "../vdev.h"' > sdk/include/vdev/ext/pci.h
  printf '#include <vector>\n#include "ata.hpp"\n  #  include "vdev/ext/pci.h" // comment\n' > plugins/ide/ata.cc
  printf '#include "core/types.hpp"\n#include "vdev/vdev.h"\n#include "schema/plan.capnp.h"\n' > core/types.cc
  printf '#include "firmware/acpi.hpp"\n#include "core/types.hpp"\n' > hypervisor/machine.cc
  printf '#include "hypervisor/machine.hpp"\n#include "dom0/dom0.hpp"\n' > control/main.cc
  printf '#include "plugins/ide/ata.hpp"\n#include "control/config.hpp"\n' > tests/a_test.cc
  echo '#include "core/types.hpp"' > build/generated.cc
}

report() { # report WANTED WHAT
  local status=0
  "$check" "$work/tree" > "$work/output" || status=$?
  if [ $status = "$1" ]; then echo "ok: $2"; else
    echo "FAILED: $2"
    cat "$work/output"
    failed=1
  fi
}
refused() { # refused FILE INCLUDE
  tree
  echo "#include $2" >> "$1"
  report 1 "$1 with $2"
  grep -q "^$1:" "$work/output" || { echo "FAILED: the message does not name $1"; failed=1; }
}

tree
report 0 "what is allowed"
refused sdk/include/vdev/vdev.h '"core/types.hpp"'
refused core/types.cc '"hypervisor/machine.hpp"'
refused core/types.cc '"../hypervisor/machine.hpp"'
refused core/types.cc '<hypervisor/machine.hpp>'
refused core/types.cc '"plugins/ide/ata.hpp"'
refused firmware/acpi.hpp '"hypervisor/machine.hpp"'
refused hypervisor/machine.cc '"dom0/dom0.hpp"'
refused hypervisor/machine.cc '"control/config.hpp"'
refused dom0/dom0.hpp '"hypervisor/machine.hpp"'
refused plugins/ide/ata.cc '"core/types.hpp"'
refused plugins/ide/ata.cc '"plugins/uart/uart.hpp"'
refused plugins/ide/ata.cc '"../uart/uart.hpp"'
refused plugins/ide/ata.cc '"vdev/ext/draft/new.h"'
refused plugins/ide/ata.cc '"../../core/types.hpp"'
refused plugins/ide/ata.cc '"nowhere.hpp"'
refused control/main.cc '"tests/bench.hpp"'
refused control/main.cc '"plugins/ide/ata.hpp"'
tree
echo '#include "core/types.hpp"' > pv-drivers/platform/plugin.cc
report 1 "the platform plugin with core"
tree
mkdir other
echo '#include "core/types.hpp"' > other/other.cc
report 1 "a part without a rule"
cd /
rm -rf "$work/tree"
mkdir "$work/tree"
report 1 "an empty tree"
exit $failed

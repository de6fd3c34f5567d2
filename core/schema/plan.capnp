@0xfec13c915aa6e750;
# The plan of a domain as the control panel hands it to the hypervisor and to each Dom0 (core/domain_plan.hpp says what
# the fields mean).

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("transom::schema");

struct Drive {
  kind @0 :UInt32;
  name @1 :Text;
  path @2 :Text;
  readOnly @3 :Bool;
  cache @4 :UInt32;
  synchronous @5 :Bool;
  serial @6 :Text;
  delayUs @7 :UInt32;
}

struct Stream {
  kind @0 :UInt32;
  path @1 :Text;
}

struct TextPair {
  key @0 :Text;
  value @1 :Text;
}

struct Binding {
  key @0 :Text;
  value @1 :UInt64;
}

struct Device {
  name @0 :Text;
  plugin @1 :Text;
  id @2 :Text;
  server @3 :UInt32;
  config @4 :List(TextPair);
  regionBases @5 :List(Binding);
  irqLines @6 :List(Binding);
  pciSlot @7 :UInt32;
  drives @8 :List(Drive);
  streams @9 :List(Stream);
}

struct Server {
  name @0 :Text;
  wake @1 :UInt32;
}

struct Plan {
  name @0 :Text;
  memory @1 :UInt64;
  cpus @2 :UInt32;
  cpu @3 :Text;
  cpuModel @4 :Text;
  rebootExits @5 :Bool;
  calendarOffsetNs @6 :Int64;
  firmware @7 :Text;
  kernel @8 :Text;
  initrd @9 :Text;
  cmdline @10 :Text;
  bootOrder @11 :List(Text);
  serialConsole @12 :UInt16;
  devices @13 :List(Device);
  servers @14 :List(Server);
  crashPoint @15 :UInt32;
  crashDevice @16 :Text;
  crashDispatch @17 :UInt32;
  crashEffect @18 :UInt32;
  logLevel @19 :UInt32;
  debuggerSocket @20 :Text;
  debuggerPort @21 :UInt16;
  debuggerWait @22 :Bool;
  debuggerArchitecture @23 :Text;
  codeCache @24 :UInt64;
  perfMap @25 :Bool;
}

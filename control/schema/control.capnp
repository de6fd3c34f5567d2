@0x94acdce163c8cb6f;
# What a running domain answers on its control socket. Every domain is served by its own `transom run`.

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("transom::control::schema");

struct Counter {
  name @0 :Text;
  value @1 :UInt64;
}

struct Vcpu {
  exits @0 :List(Counter);      # by cause
  execution @1 :List(Counter);  # instructions, exceptions, interrupts, …
}

struct Device {
  name @0 :Text;
  plugin @1 :Text;       # path of the library
  id @2 :Text;
  place @3 :Text;        # "hypervisor", or the name of the server that it runs in
  counters @4 :List(Counter);
  quarantined @5 :Bool;
}

struct Process {
  role @0 :Text;
  pid @1 :Int32;
}

struct Info {
  name @0 :Text;
  state @1 :Text;        # starting, running, paused, stopped
  cpu @2 :Text;          # the engine: soft:interp or kvm
  cpuModel @3 :Text;
  cpus @4 :UInt32;
  memory @5 :UInt64;
  uptimeNs @6 :UInt64;   # of the domain's clock
  vcpus @7 :List(Vcpu);
  devices @8 :List(Device);
  processes @9 :List(Process);
}

interface Domain {
  info @0 () -> (info :Info);
  kill @1 () -> ();
}

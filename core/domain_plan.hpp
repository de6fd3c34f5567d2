// The plan of a domain: everything the processes need to know at start, made once by the control panel from vm.toml
// after it checked it, and handed to each process as one message with the descriptors of the shared memory.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/file_descriptor.hpp"
#include "core/result.hpp"
#include "core/types.hpp"

namespace transom {

inline constexpr u32 SERVER_HYPERVISOR = ~0u; // "server" of a device that is placed in the hypervisor

enum class DiskCache : u32 { writeback, writethrough, direct, unsafe };

struct DrivePlan {
  u32 kind = 0;     // VDEV_DRIVE_*; absent drives are listed too, so that the index is the drive number
  std::string name; // "disk0"
  std::string path;
  bool read_only = false;
  DiskCache cache = DiskCache::writeback;
  bool synchronous = false; // dma = "sync"
  std::string serial;
  u32 delay_us = 0; // [debug] block_delay_ms: every request is held this long, for tests of asynchronous DMA
};

enum class StreamKind : u32 { none, stdio, file, unix_socket };
struct StreamPlan {
  StreamKind kind = StreamKind::none;
  std::string path;
};

struct DevicePlan {
  std::string name;                                        // instance: "uart0"
  std::string plugin;                                      // absolute path of the library
  std::string id;                                          // device id inside it
  u32 server = 0;                                          // index into servers, or SERVER_HYPERVISOR
  std::vector<std::pair<std::string, std::string>> config; // key, value as text
  std::vector<std::pair<std::string, u64>> region_bases;   // region name → base other than the default
  std::vector<std::pair<std::string, u32>> irq_lines;      // output name → line (GSI or LINE_INTR)
  u32 pci_slot = ~0u;                                      // for functions that take any slot
  std::vector<DrivePlan> drives;
  std::vector<StreamPlan> streams;
};

enum class WakePolicy : u32 { spin, adaptive, sleep };
struct ServerPlan {
  std::string name; // "dom0"
  WakePolicy wake = WakePolicy::adaptive;
};

struct BootPlan {
  std::string firmware; // path; empty with a kernel
  std::string kernel, initrd, cmdline;
  std::vector<std::string> order; // "disk", "cdrom", "floppy", "network"
  u16 serial_console = 0;         // etc/sercon-port; 0: none
};

// Where a host kills itself, for tests of what a crash leaves behind: at the n-th dispatch of a device.
enum class CrashPoint : u32 {
  none,
  before_entry,
  after_effect, // after each effect: `effect` says which, from 1
  before_commit,
  after_commit,
  after_response
};
struct CrashPlan {
  CrashPoint point = CrashPoint::none;
  std::string device;
  u32 dispatch = 1; // counted from 1
  u32 effect = 1;
};

// Where gdb finds the domain: a unix socket, or a TCP port of this machine alone.
struct DebuggerPlan {
  std::string socket; // path; empty: the port
  u16 port = 0;
  bool wait = false;                        // hold the guest before its first instruction
  std::string architecture = "i386:x86-64"; // or i386, i8086: what gdb is told
};

inline constexpr u64 MIN_CODE_CACHE = 4 << 20, MAX_CODE_CACHE = 512 << 20;

struct DomainPlan {
  std::string name;
  u64 memory = 0;
  u32 cpus = 1;
  std::string cpu = "soft:jit"; // soft:interp, soft:jit, soft:check, kvm, kvm:split
  std::string cpu_model = "v2";
  u64 code_cache = 32 << 20;  // bytes of translated code for each vCPU
  bool perf_map = false;      // the hypervisor writes /tmp/perf-PID.map
  bool reboot_exits = false;  // on_reboot = "exit"
  i64 calendar_offset_ns = 0; // rtc = "localtime": zone offset
  BootPlan boot;
  std::vector<DevicePlan> devices;
  std::vector<ServerPlan> servers;
  CrashPlan crash;
  std::optional<DebuggerPlan> debugger;
  u32 log_level = 2; // VDEV_LOG_*: this and more severe
};

// Descriptors that go with a plan. All processes get all of them except where noted.
struct DomainDescriptors {
  FileDescriptor ram;                      // guest RAM
  FileDescriptor domain;                   // DomainPage
  FileDescriptor hypervisor_page;          // ServerPage of the devices placed in the hypervisor
  std::vector<FileDescriptor> servers;     // ServerPage of each server
  std::vector<FileDescriptor> vcpu_events; // eventfds
  FileDescriptor device_thread_event;
  std::vector<FileDescriptor> doorbells; // eventfd of each server

  Result<DomainDescriptors> duplicate() const;
};

// One message over a socket: length, Cap'n Proto DomainPlan (schema/plan.capnp), descriptors by SCM_RIGHTS.
Result<void> send_plan(int socket, const DomainPlan& plan, const DomainDescriptors& descriptors);
struct ReceivedPlan {
  DomainPlan plan;
  DomainDescriptors descriptors;
};
Result<ReceivedPlan> receive_plan(int socket);

// Refuses counts, indices and enumerations that no part of this installation would make.
Result<void> check_plan(const DomainPlan& plan);

// Creates every shared memory and eventfd that `plan` needs.
Result<DomainDescriptors> create_descriptors(const DomainPlan& plan);

} // namespace transom

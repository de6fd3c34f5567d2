#include "core/domain_plan.hpp"

#include <capnp/message.h>
#include <capnp/serialize.h>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <kj/exception.h>
#include <sys/socket.h>

#include "core/domain_page.hpp"
#include "core/event_channel.hpp"
#include "core/guest_memory.hpp"
#include "core/shared_memory.hpp"
#include "schema/plan.capnp.h"
#include "vdev/ext/block.h"

namespace transom {

namespace {

constexpr u32 MAX_MESSAGE = 4 << 20;
constexpr u32 MAX_DESCRIPTORS = 64;
constexpr u64 MAX_MEMORY = u64{1} << 40;

// ---------------------------------------------------------------------------------------------------- plan → message

void write_device(schema::Device::Builder to, const DevicePlan& from) {
  to.setName(from.name);
  to.setPlugin(from.plugin);
  to.setId(from.id);
  to.setServer(from.server);
  to.setPciSlot(from.pci_slot);
  auto config = to.initConfig(static_cast<u32>(from.config.size()));
  for (u32 i = 0; i < config.size(); ++i) {
    config[i].setKey(from.config[i].first);
    config[i].setValue(from.config[i].second);
  }
  auto bases = to.initRegionBases(static_cast<u32>(from.region_bases.size()));
  for (u32 i = 0; i < bases.size(); ++i) {
    bases[i].setKey(from.region_bases[i].first);
    bases[i].setValue(from.region_bases[i].second);
  }
  auto lines = to.initIrqLines(static_cast<u32>(from.irq_lines.size()));
  for (u32 i = 0; i < lines.size(); ++i) {
    lines[i].setKey(from.irq_lines[i].first);
    lines[i].setValue(from.irq_lines[i].second);
  }
  auto drives = to.initDrives(static_cast<u32>(from.drives.size()));
  for (u32 i = 0; i < drives.size(); ++i) {
    const DrivePlan& d = from.drives[i];
    drives[i].setKind(d.kind);
    drives[i].setName(d.name);
    drives[i].setPath(d.path);
    drives[i].setReadOnly(d.read_only);
    drives[i].setCache(static_cast<u32>(d.cache));
    drives[i].setSynchronous(d.synchronous);
    drives[i].setSerial(d.serial);
    drives[i].setDelayUs(d.delay_us);
  }
  auto streams = to.initStreams(static_cast<u32>(from.streams.size()));
  for (u32 i = 0; i < streams.size(); ++i) {
    streams[i].setKind(static_cast<u32>(from.streams[i].kind));
    streams[i].setPath(from.streams[i].path);
  }
}

void write_plan(schema::Plan::Builder to, const DomainPlan& from) {
  to.setName(from.name);
  to.setMemory(from.memory);
  to.setCpus(from.cpus);
  to.setCpu(from.cpu);
  to.setCpuModel(from.cpu_model);
  to.setCodeCache(from.code_cache);
  to.setPerfMap(from.perf_map);
  to.setRebootExits(from.reboot_exits);
  to.setCalendarOffsetNs(from.calendar_offset_ns);
  to.setFirmware(from.boot.firmware);
  to.setKernel(from.boot.kernel);
  to.setInitrd(from.boot.initrd);
  to.setCmdline(from.boot.cmdline);
  to.setSerialConsole(from.boot.serial_console);
  auto order = to.initBootOrder(static_cast<u32>(from.boot.order.size()));
  for (u32 i = 0; i < order.size(); ++i) order.set(i, from.boot.order[i]);
  auto devices = to.initDevices(static_cast<u32>(from.devices.size()));
  for (u32 i = 0; i < devices.size(); ++i) write_device(devices[i], from.devices[i]);
  auto servers = to.initServers(static_cast<u32>(from.servers.size()));
  for (u32 i = 0; i < servers.size(); ++i) {
    servers[i].setName(from.servers[i].name);
    servers[i].setWake(static_cast<u32>(from.servers[i].wake));
  }
  to.setCrashPoint(static_cast<u32>(from.crash.point));
  to.setCrashDevice(from.crash.device);
  to.setCrashDispatch(from.crash.dispatch);
  to.setCrashEffect(from.crash.effect);
  to.setLogLevel(from.log_level);
  if (from.debugger) {
    to.setDebuggerSocket(from.debugger->socket);
    to.setDebuggerPort(from.debugger->port);
    to.setDebuggerWait(from.debugger->wait);
    to.setDebuggerArchitecture(from.debugger->architecture);
  }
}

// ---------------------------------------------------------------------------------------------------- message → plan

std::string text(capnp::Text::Reader from) { return {from.begin(), from.size()}; }

DevicePlan read_device(schema::Device::Reader from) {
  DevicePlan to;
  to.name = text(from.getName());
  to.plugin = text(from.getPlugin());
  to.id = text(from.getId());
  to.server = from.getServer();
  to.pci_slot = from.getPciSlot();
  for (auto pair : from.getConfig()) to.config.emplace_back(text(pair.getKey()), text(pair.getValue()));
  for (auto pair : from.getRegionBases()) to.region_bases.emplace_back(text(pair.getKey()), pair.getValue());
  for (auto pair : from.getIrqLines())
    to.irq_lines.emplace_back(text(pair.getKey()), static_cast<u32>(pair.getValue()));
  for (auto d : from.getDrives())
    to.drives.push_back(DrivePlan{d.getKind(), text(d.getName()), text(d.getPath()), d.getReadOnly(),
                                  static_cast<DiskCache>(d.getCache()), d.getSynchronous(), text(d.getSerial()),
                                  d.getDelayUs()});
  for (auto s : from.getStreams())
    to.streams.push_back(StreamPlan{static_cast<StreamKind>(s.getKind()), text(s.getPath())});
  return to;
}

DomainPlan read_plan(schema::Plan::Reader from) {
  DomainPlan to;
  to.name = text(from.getName());
  to.memory = from.getMemory();
  to.cpus = from.getCpus();
  to.cpu = text(from.getCpu());
  to.cpu_model = text(from.getCpuModel());
  to.code_cache = from.getCodeCache();
  to.perf_map = from.getPerfMap();
  to.reboot_exits = from.getRebootExits();
  to.calendar_offset_ns = from.getCalendarOffsetNs();
  to.boot.firmware = text(from.getFirmware());
  to.boot.kernel = text(from.getKernel());
  to.boot.initrd = text(from.getInitrd());
  to.boot.cmdline = text(from.getCmdline());
  to.boot.serial_console = from.getSerialConsole();
  for (auto name : from.getBootOrder()) to.boot.order.push_back(text(name));
  for (auto device : from.getDevices()) to.devices.push_back(read_device(device));
  for (auto s : from.getServers())
    to.servers.push_back(ServerPlan{text(s.getName()), static_cast<WakePolicy>(s.getWake())});
  to.crash.point = static_cast<CrashPoint>(from.getCrashPoint());
  to.crash.device = text(from.getCrashDevice());
  to.crash.dispatch = from.getCrashDispatch();
  to.crash.effect = from.getCrashEffect();
  to.log_level = from.getLogLevel();
  const DebuggerPlan debugger{text(from.getDebuggerSocket()), from.getDebuggerPort(), from.getDebuggerWait(),
                              text(from.getDebuggerArchitecture())};
  if (!debugger.socket.empty() || debugger.port != 0) to.debugger = debugger;
  return to;
}

// ---------------------------------------------------------------------------------------------------- descriptors

// Every descriptor in the one order in which they travel.
template <class Visit>
void each(const DomainDescriptors& d, Visit&& visit) {
  visit(d.ram);
  visit(d.domain);
  visit(d.hypervisor_page);
  visit(d.device_thread_event);
  for (const auto& fd : d.servers) visit(fd);
  for (const auto& fd : d.doorbells) visit(fd);
  for (const auto& fd : d.vcpu_events) visit(fd);
}

DomainDescriptors adopt(std::vector<FileDescriptor>&& fds, u32 servers, u32 vcpus) {
  DomainDescriptors d;
  auto next = fds.begin();
  for (FileDescriptor* single : {&d.ram, &d.domain, &d.hypervisor_page, &d.device_thread_event})
    *single = std::move(*next++);
  for (u32 i = 0; i < servers; ++i) d.servers.push_back(std::move(*next++));
  for (u32 i = 0; i < servers; ++i) d.doorbells.push_back(std::move(*next++));
  for (u32 i = 0; i < vcpus; ++i) d.vcpu_events.push_back(std::move(*next++));
  return d;
}

struct Header {
  u32 magic, bytes, descriptors, servers, vcpus;
};
constexpr u32 HEADER_MAGIC = 0x6e616c50; // "Plan"

Result<void> failed(const char* what) { return error(fmt::format("{}: {}", what, std::strerror(errno))); }

Result<void> send_all(int socket, const void* data, size_t bytes) {
  for (const char* p = static_cast<const char*>(data); bytes != 0;) {
    const ssize_t n = ::send(socket, p, bytes, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return failed("sending the domain's plan");
    p += n;
    bytes -= static_cast<size_t>(n);
  }
  return {};
}

Result<void> receive_all(int socket, void* data, size_t bytes) {
  for (char* p = static_cast<char*>(data); bytes != 0;) {
    const ssize_t n = ::recv(socket, p, bytes, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n == 0) return error("receiving the domain's plan: the control panel went away");
    if (n < 0) return failed("receiving the domain's plan");
    p += n;
    bytes -= static_cast<size_t>(n);
  }
  return {};
}

} // namespace

// What every process indexes by without looking again.
Result<void> check_plan(const DomainPlan& plan) {
  const auto refuse = [&](const std::string& what) {
    return error(fmt::format("the plan of domain {} is damaged: {}", plan.name, what));
  };
  if (plan.memory == 0 || plan.memory % PAGE_SIZE != 0 || plan.memory > MAX_MEMORY)
    return refuse(fmt::format("{} bytes of memory", plan.memory));
  if (plan.cpus == 0 || plan.cpus > MAX_VCPUS) return refuse(fmt::format("{} processors", plan.cpus));
  if (plan.code_cache < MIN_CODE_CACHE || plan.code_cache > MAX_CODE_CACHE)
    return refuse(fmt::format("{} bytes for translated code", plan.code_cache));
  if (plan.servers.size() > MAX_SERVERS) return refuse(fmt::format("{} servers", plan.servers.size()));
  for (const ServerPlan& server : plan.servers)
    if (server.wake > WakePolicy::sleep) return refuse("an unknown wake policy");
  if (plan.crash.point > CrashPoint::after_response) return refuse("an unknown crash point");
  for (const DevicePlan& device : plan.devices) {
    if (device.server != SERVER_HYPERVISOR && device.server >= plan.servers.size())
      return refuse(
          fmt::format("device {} belongs to server {} of {}", device.name, device.server, plan.servers.size()));
    for (const DrivePlan& drive : device.drives)
      if (drive.kind > VDEV_DRIVE_FLOPPY || drive.cache > DiskCache::unsafe)
        return refuse(fmt::format("device {} has an unknown kind of drive", device.name));
    for (const StreamPlan& stream : device.streams)
      if (stream.kind > StreamKind::unix_socket)
        return refuse(fmt::format("device {} has an unknown kind of stream", device.name));
  }
  return {};
}

Result<DomainDescriptors> DomainDescriptors::duplicate() const {
  std::vector<FileDescriptor> copies;
  bool ok = true;
  each(*this, [&](const FileDescriptor& fd) {
    copies.emplace_back(::fcntl(fd.get(), F_DUPFD_CLOEXEC, 3));
    ok = ok && copies.back();
  });
  if (!ok) return error(fmt::format("duplicating the domain's descriptors: {}", std::strerror(errno)));
  return adopt(std::move(copies), static_cast<u32>(servers.size()), static_cast<u32>(vcpu_events.size()));
}

Result<void> send_plan(int socket, const DomainPlan& plan, const DomainDescriptors& descriptors) {
  capnp::MallocMessageBuilder message;
  write_plan(message.initRoot<schema::Plan>(), plan);
  const auto words = capnp::messageToFlatArray(message);
  const auto bytes = words.asBytes();

  std::vector<int> fds;
  each(descriptors, [&](const FileDescriptor& fd) { fds.push_back(fd.get()); });
  Header header{HEADER_MAGIC, static_cast<u32>(bytes.size()), static_cast<u32>(fds.size()),
                static_cast<u32>(descriptors.servers.size()), static_cast<u32>(descriptors.vcpu_events.size())};
  iovec part{&header, sizeof header};
  std::vector<char> control(CMSG_SPACE(fds.size() * sizeof(int)));
  msghdr m{};
  m.msg_iov = &part;
  m.msg_iovlen = 1;
  m.msg_control = control.data();
  m.msg_controllen = control.size();
  cmsghdr* c = CMSG_FIRSTHDR(&m);
  c->cmsg_level = SOL_SOCKET;
  c->cmsg_type = SCM_RIGHTS;
  c->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
  std::memcpy(CMSG_DATA(c), fds.data(), fds.size() * sizeof(int));
  if (::sendmsg(socket, &m, MSG_NOSIGNAL) != static_cast<ssize_t>(sizeof header))
    return failed("sending the domain's descriptors");
  return send_all(socket, bytes.begin(), bytes.size());
}

Result<ReceivedPlan> receive_plan(int socket) {
  Header header{};
  iovec part{&header, sizeof header};
  std::vector<char> control(CMSG_SPACE(MAX_DESCRIPTORS * sizeof(int)));
  msghdr m{};
  m.msg_iov = &part;
  m.msg_iovlen = 1;
  m.msg_control = control.data();
  m.msg_controllen = control.size();
  if (::recvmsg(socket, &m, MSG_CMSG_CLOEXEC | MSG_WAITALL) != static_cast<ssize_t>(sizeof header))
    return error("no plan of a domain arrived: this program is started by `transom run`");
  std::vector<FileDescriptor> fds;
  for (cmsghdr* c = CMSG_FIRSTHDR(&m); c != nullptr; c = CMSG_NXTHDR(&m, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    for (size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof fd);
      fds.emplace_back(fd);
    }
  }
  if (header.magic != HEADER_MAGIC || header.bytes > MAX_MESSAGE || header.servers > MAX_SERVERS ||
      header.vcpus > MAX_VCPUS || fds.size() != header.descriptors ||
      header.descriptors != 4 + 2 * header.servers + header.vcpus)
    return error("the plan of the domain is damaged: the parts of this installation do not belong together");

  std::vector<capnp::word> words((header.bytes + sizeof(capnp::word) - 1) / sizeof(capnp::word));
  if (auto got = receive_all(socket, words.data(), header.bytes); !got) return tl::unexpected(got.error());
  ReceivedPlan received;
  try {
    capnp::ReaderOptions limits;
    limits.traversalLimitInWords = 4 * words.size() + 1024; // every field is read once
    capnp::FlatArrayMessageReader reader(kj::ArrayPtr<const capnp::word>(words.data(), words.size()), limits);
    received.plan = read_plan(reader.getRoot<schema::Plan>());
  } catch (const kj::Exception& e) {
    return error(fmt::format("the plan of the domain is damaged: {}", e.getDescription().cStr()));
  }
  if (auto sound = check_plan(received.plan); !sound) return tl::unexpected(sound.error());
  if (received.plan.servers.size() != header.servers || received.plan.cpus != header.vcpus)
    return error("the plan of the domain is damaged: its descriptors are not those of its parts");
  received.descriptors = adopt(std::move(fds), header.servers, header.vcpus);
  return received;
}

Result<DomainDescriptors> create_descriptors(const DomainPlan& plan) {
  if (auto sound = check_plan(plan); !sound) return tl::unexpected(sound.error());
  DomainDescriptors d;
  Error failure;
  const auto make = [&](const std::string& what, u64 size) {
    auto memory = SharedMemory::create(fmt::format("transom-{}-{}", plan.name, what), size);
    if (memory) return FileDescriptor(::fcntl(memory->fd(), F_DUPFD_CLOEXEC, 3));
    failure = memory.error();
    return FileDescriptor();
  };
  const auto event = [&] {
    FileDescriptor fd(make_eventfd());
    if (!fd) failure.text = fmt::format("eventfd: {}", std::strerror(errno));
    return fd;
  };
  d.ram = make("ram", plan.memory);
  d.domain = make("domain", DomainPage::bytes_for(GuestMemory(nullptr, plan.memory).page_span(), plan.cpus));
  d.hypervisor_page = make("hypervisor", sizeof(ServerPage));
  d.device_thread_event = event();
  for (const ServerPlan& server : plan.servers) {
    d.servers.push_back(make(server.name, sizeof(ServerPage)));
    d.doorbells.push_back(event());
  }
  for (u32 v = 0; v < plan.cpus; ++v) d.vcpu_events.push_back(event());
  bool complete = true;
  each(d, [&](const FileDescriptor& fd) { complete = complete && fd; });
  if (!complete) return tl::unexpected(failure);
  return d;
}

} // namespace transom

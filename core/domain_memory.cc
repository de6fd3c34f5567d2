#include "core/domain_memory.hpp"

#include <fcntl.h>

namespace transom {

namespace {
Result<SharedMemory> map(const FileDescriptor& fd, u64 bytes) {
  return SharedMemory::attach(FileDescriptor(::fcntl(fd.get(), F_DUPFD_CLOEXEC, 3)), bytes);
}
} // namespace

Result<DomainMemory> DomainMemory::attach(const DomainPlan& plan, DomainDescriptors descriptors) {
  DomainMemory m;
  m.fds_ = std::move(descriptors);
  m.ram_bytes_ = plan.memory;
  struct Part {
    SharedMemory* into;
    const FileDescriptor* fd;
    u64 bytes;
  };
  m.servers_.resize(m.fds_.servers.size());
  std::vector<Part> parts{
      {&m.ram_, &m.fds_.ram, plan.memory},
      {&m.domain_, &m.fds_.domain, DomainPage::bytes_for(GuestMemory(nullptr, plan.memory).page_span(), plan.cpus)},
      {&m.hypervisor_page_, &m.fds_.hypervisor_page, sizeof(ServerPage)}};
  for (size_t i = 0; i < m.servers_.size(); ++i)
    parts.push_back({&m.servers_[i], &m.fds_.servers[i], sizeof(ServerPage)});
  for (const Part& part : parts) {
    auto mapped = map(*part.fd, part.bytes);
    if (!mapped) return tl::unexpected(mapped.error());
    *part.into = std::move(*mapped);
  }
  return m;
}

} // namespace transom

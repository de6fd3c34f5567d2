// The software CPU as a backend.
#pragma once

#include <string>

#include "hypervisor/vcpu/backend.hpp"
#include "hypervisor/vcpu/soft/soft_vcpu.hpp"

namespace transom {

class SoftBackend final : public VcpuBackend {
 public:
  SoftBackend(const CodePages& code_pages, SoftOptions options)
      : code_pages_(code_pages), options_(std::move(options)) {}

  Result<std::unique_ptr<Vcpu>> create(u32 number, VcpuPlatform& platform, std::atomic<u32>& exit_flag) override {
    return std::make_unique<SoftVcpu>(platform, code_pages_, options_, &exit_flag, number);
  }
  // What a vCPU stores is seen by the decoded code of others only once they stand.
  bool takes_turns() const override { return true; }

 private:
  CodePages code_pages_;
  SoftOptions options_;
};

} // namespace transom

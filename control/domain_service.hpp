// The control socket's answers about one domain (schema/control.capnp), read straight from its shared memory.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "core/domain_memory.hpp"
#include "core/domain_plan.hpp"
#include "schema/control.capnp.h"

namespace transom::control {

using ProcessList = std::vector<std::pair<std::string, int>>; // role, pid

class DomainService final : public schema::Domain::Server {
 public:
  DomainService(const DomainPlan& plan, const DomainMemory& memory, ProcessList processes, std::function<void()> kill)
      : plan_(plan), memory_(memory), processes_(std::move(processes)), kill_(std::move(kill)) {}

  void describe(schema::Info::Builder info) const;
  kj::Promise<void> info(InfoContext context) override;
  kj::Promise<void> kill(KillContext context) override;

 private:
  const DomainPlan& plan_;
  const DomainMemory& memory_;
  ProcessList processes_;
  std::function<void()> kill_;
};

} // namespace transom::control

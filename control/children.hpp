// The processes of a domain, as their parent sees them. With `single_process` they are threads of this process; the
// rest of the supervisor does not notice.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/domain_plan.hpp"
#include "core/result.hpp"

namespace transom::control {

class Child {
 public:
  virtual ~Child() = default;
  virtual int exit_event() const = 0; // descriptor that becomes readable when the child has ended
  virtual int pid() const = 0;
  virtual void ask_to_stop() = 0;               // ends its control socket
  virtual bool wait(unsigned milliseconds) = 0; // true: it has ended
  virtual void kill() = 0;
  // After its end: "" for a plain end, else how it died.
  virtual std::string how_it_ended() = 0;
  virtual std::string reported_failure() = 0; // what it said about itself before it ended
  virtual int socket() const = 0;

  const std::string role;

 protected:
  explicit Child(std::string name) : role(std::move(name)) {}
};

// Starts the hypervisor and every server. The plan and duplicates of the descriptors are handed to each.
Result<std::vector<std::unique_ptr<Child>>> start_children(const DomainPlan& plan, const DomainDescriptors& descriptors,
                                                           bool single_process);

} // namespace transom::control

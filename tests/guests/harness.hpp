// Runs `transom run` on a bare-metal guest and says what came of it.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace transom::tests {

struct GuestRun {
  std::string guest{};  // image in the build's guest folder: "mmio.elf"
  std::string config{}; // TOML behind what every guest gets
  std::string disk{};   // if not empty, the contents of disk0
  std::string module{}; // if not empty, the contents of the Multiboot module or initrd
  std::string cmdline{};
  std::string name = "guest"; // of the domain
  std::string cpu = "soft";
  unsigned cpus = 1;
  bool reboots = false;     // a reset starts it again, instead of ending the run
  bool as_firmware = false; // the image is a ROM, not a kernel
  bool single_process = false;
  unsigned timeout_s = 120;
};

struct GuestResult {
  int status = -1;
  std::string e9, errors;                             // the guest's output, and stderr of `transom run`
  std::map<std::string, unsigned long long> counters; // "mmio0.runs", "exits.intack", "execution.instructions"
};

inline constexpr int GUEST_PASSED = 16 << 1 | 1;

// A folder of its own, gone with the object.
class Scratch {
 public:
  Scratch();
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// The domain's TOML for `run`, its disk and module written into `folder`.
std::filesystem::path write_domain(const GuestRun& run, const Scratch& folder);
std::string read_file(const std::filesystem::path& file);
void write_file(const std::filesystem::path& file, const std::string& content);

// Starts a program with XDG_RUNTIME_DIR and the plugin path set for `folder`; stderr goes to folder/errors.
int start_program(const std::vector<std::string>& arguments, const Scratch& folder, const std::string& output = "");
std::string output_of(const std::vector<std::string>& arguments, const Scratch& folder); // stdout of one that ends
std::map<std::string, unsigned long long> counters_of(const std::string& info_json);
int wait_for_program(int pid);                   // exit status, or 128 + signal
int wait_for_program(int pid, unsigned seconds); // ditto; one that takes longer is killed
std::string program(const std::string& name);
std::string image(const std::string& name); // of a guest

GuestResult run_guest(const GuestRun& run, const Scratch& folder);
GuestResult run_guest(const GuestRun& run);

// The guest passed, and every counter that it named has the value that it expects.
void expect_passed(const GuestResult& result);

} // namespace transom::tests

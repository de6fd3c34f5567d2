// Running the real `transom` and looking at what it leaves behind.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <sys/types.h>
#include <vector>

namespace transom::test {

namespace fs = std::filesystem;

std::string read_file(const fs::path& path);
void write_file(const fs::path& path, const std::string& content);
std::string guest(const std::string& name); // path of a guest's firmware image
std::string plugin(const std::string& file);

// A folder of the test's own, removed at its end. It is the runtime folder of the domains, too.
class Folder {
 public:
  Folder();
  ~Folder();
  fs::path operator/(const std::string& name) const { return path_ / name; }
  const fs::path& path() const { return path_; }
  std::string write(const std::string& name, const std::string& content) const;
  std::string image(const std::string& name, unsigned sectors = 2048) const; // of zeroes
  // Everything in it: relative path → size, time of change and content. What must not have changed.
  std::vector<std::string> inventory() const;
  std::vector<std::string> sockets() const; // of domains

 private:
  fs::path path_;
};

struct Finished {
  int status = -1; // as of a shell: 128 + signal
  std::string out, err;
};

// `transom` with these arguments. Its descriptors 0 and 1 are a pipe, a terminal, a file, or nothing.
class Transom {
 public:
  struct Options {
    bool terminal = false;        // 0 and 1 are a new session's controlling terminal
    bool background = false;      // whose foreground is somebody else
    std::string input;            // file for descriptor 0; empty: a pipe
    std::string output;           // file for descriptor 1; empty: a pipe
    std::vector<int> closed = {}; // descriptors that are closed
    std::vector<std::pair<std::string, std::string>> environment = {};
  };
  Transom(const Folder& folder, const std::vector<std::string>& arguments, const Options& options);
  Transom(const Folder& folder, const std::vector<std::string>& arguments) : Transom(folder, arguments, Options{}) {}
  ~Transom(); // kills what still runs of it, and of its children
  Transom(const Transom&) = delete;
  Transom& operator=(const Transom&) = delete;

  pid_t pid() const { return pid_; }
  int terminal() const { return in_; }
  void type(const std::string& bytes) const;
  void end_input();
  void close_output(); // as a reader that went away
  void pause_reading(bool pause) { paused_ = pause; }
  // Waits until its standard output holds `text`; false after `seconds`.
  bool shows(const std::string& text, int seconds = 60);
  const std::string& output() const { return out_; }
  // Until it ended; after `seconds` it is killed, and the status is -1.
  Finished finish(int seconds = 120);
  // How long from now until it ended.
  double seconds_until_end();
  std::vector<pid_t> children() const;
  std::optional<pid_t> child(const std::string& program) const;

 private:
  void read_some(int milliseconds);

  const Folder& folder_;
  pid_t pid_ = -1;
  int in_ = -1, output_ = -1, error_ = -1;
  bool paused_ = false;
  std::string out_, err_;
};

Finished run_transom(const Folder& folder, const std::vector<std::string>& arguments);
Finished run_transom(const Folder& folder, const std::vector<std::string>& arguments, const Transom::Options& options);

bool alive(pid_t pid); // and no zombie
bool gone_within(pid_t pid, double seconds);
std::vector<std::string> descriptors(pid_t pid);          // what /proc/PID/fd says
std::vector<pid_t> holders_of(const std::string& domain); // processes that map or hold a memfd of the domain

} // namespace transom::test

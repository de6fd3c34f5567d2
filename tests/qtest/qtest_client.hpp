// A QEMU whose processor never runs, driven through its qtest protocol: ports, memory, interrupt inputs. It answers for
// registers, data and interrupts; its clocks stand still (the TCG accelerator has no clock_step).
//
//   QtestClient qemu({"-serial", "null"});
//   qemu.outb(0x3ff, 0x5a);  EXPECT_EQ(qemu.inb(0x3ff), 0x5a);
//   qemu.set_irq_in(qemu.devices("isa-i8259").at(0), 3, true);
//
// Everything throws QtestError when QEMU ends, says FAIL, or is silent for ten seconds.
#pragma once

#include <cinttypes>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <poll.h>
#include <stdexcept>
#include <string>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>
#include <vector>

namespace transom::qtest {

struct QtestError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

inline std::vector<std::string> qemu_command(const std::vector<std::string>& extra) {
  std::vector<std::string> words = {"qemu-system-x86_64",
                                    "-M",
                                    "pc,hpet=off,usb=off,vmport=off",
                                    "-accel",
                                    "tcg",
                                    "-S",
                                    "-display",
                                    "none",
                                    "-nodefaults",
                                    "-qtest-log",
                                    "/dev/null"};
  words.insert(words.end(), extra.begin(), extra.end());
  return words;
}

inline bool qemu_is_installed() {
  static const bool found = std::system("command -v qemu-system-x86_64 >/dev/null 2>&1") == 0;
  return found;
}

// A child process whose standard input and output are one socket.
class Child {
 public:
  explicit Child(const std::vector<std::string>& command) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) throw QtestError("socketpair failed");
    std::vector<char*> arguments;
    for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
    arguments.push_back(nullptr);
    pid_ = fork();
    if (pid_ < 0) throw QtestError("fork failed");
    if (pid_ == 0) {
      dup2(ends[1], 0);
      dup2(ends[1], 1);
      execvp(arguments[0], arguments.data());
      _exit(127);
    }
    close(ends[1]);
    socket_ = ends[0];
  }
  ~Child() {
    close(socket_);
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  void send(const std::string& text) {
    for (std::size_t done = 0; done < text.size();) {
      const ssize_t n = ::send(socket_, text.data() + done, text.size() - done, MSG_NOSIGNAL);
      if (n <= 0) throw QtestError("QEMU has ended");
      done += std::size_t(n);
    }
  }
  // The next line without its end; false at the end of the output.
  bool line(std::string& text) {
    std::size_t end;
    while ((end = buffer_.find('\n')) == std::string::npos) {
      pollfd waiting = {socket_, POLLIN, 0};
      if (poll(&waiting, 1, 10'000) <= 0) throw QtestError("QEMU has been silent for ten seconds");
      char chunk[4096];
      const ssize_t n = recv(socket_, chunk, sizeof chunk, 0);
      if (n <= 0) return false;
      buffer_.append(chunk, std::size_t(n));
    }
    text = buffer_.substr(0, end);
    while (!text.empty() && text.back() == '\r') text.pop_back();
    buffer_.erase(0, end + 1);
    return true;
  }

 private:
  pid_t pid_ = -1;
  int socket_ = -1;
  std::string buffer_;
};

class QtestClient {
 public:
  // `arguments` follow -M pc,… -nodefaults: the devices a test needs.
  explicit QtestClient(std::vector<std::string> arguments = {})
      : arguments_(std::move(arguments)), child_(qemu_command(with(arguments_, {"-qtest", "stdio"}))) {}

  void outb(std::uint16_t port, std::uint8_t value) { out("outb", port, value); }
  void outw(std::uint16_t port, std::uint16_t value) { out("outw", port, value); }
  void outl(std::uint16_t port, std::uint32_t value) { out("outl", port, value); }
  std::uint8_t inb(std::uint16_t port) { return std::uint8_t(in("inb", port)); }
  std::uint16_t inw(std::uint16_t port) { return std::uint16_t(in("inw", port)); }
  std::uint32_t inl(std::uint16_t port) { return std::uint32_t(in("inl", port)); }

  std::vector<std::uint8_t> read_memory(std::uint64_t address, std::uint32_t length) {
    const std::string answer = command(format("read 0x%" PRIx64 " 0x%" PRIx64, address, length)); // "0x00112233…"
    std::vector<std::uint8_t> bytes;
    for (std::size_t i = 2; i + 1 < answer.size(); i += 2)
      bytes.push_back(std::uint8_t(std::stoul(answer.substr(i, 2), nullptr, 16)));
    return bytes;
  }
  void write_memory(std::uint64_t address, const std::vector<std::uint8_t>& bytes) {
    std::string text = format("write 0x%" PRIx64 " 0x%" PRIx64 " 0x", address, bytes.size());
    for (const std::uint8_t byte : bytes) {
      char digits[3];
      std::snprintf(digits, sizeof digits, "%02x", byte);
      text += digits;
    }
    command(text);
  }
  void outl_config(std::uint32_t bdf_register, std::uint32_t value) {
    outl(0xcf8, 0x80000000u | bdf_register), outl(0xcfc, value);
  }
  std::uint32_t inl_config(std::uint32_t bdf_register) { return outl(0xcf8, 0x80000000u | bdf_register), inl(0xcfc); }

  // QOM paths of the devices of a type, in the order QEMU made them. Asks a second QEMU of the same command line.
  std::vector<std::string> devices(const std::string& type) const {
    Child monitor(qemu_command(with(arguments_, {"-monitor", "stdio"})));
    monitor.send("info qom-tree\nquit\n");
    std::map<int, std::string> found;
    for (std::string text; monitor.line(text);) {
      int index = -1;
      const std::size_t at = text.find("/device[");
      if (at == std::string::npos || text.find(" (" + type + ")") == std::string::npos) continue;
      if (std::sscanf(text.c_str() + at, "/device[%d]", &index) == 1)
        found[index] = "/machine/unattached" + text.substr(at, text.find(' ', at) - at);
    }
    std::vector<std::string> paths;
    for (const auto& entry : found) paths.push_back(entry.second);
    return paths;
  }

  // Drives an unnamed input of a device.
  void set_irq_in(const std::string& path, std::uint32_t input, bool level) {
    command("set_irq_in " + path + " unnamed-gpio-in " + std::to_string(input) + (level ? " 1" : " 0"));
  }
  // From now on the outputs that arrive at a device's inputs (or, with "out", leave it) are recorded.
  void intercept_inputs(const std::string& path) { command("irq_intercept_in " + path); }
  bool intercepted(int line) const { return lines_.count(line) != 0 && lines_.at(line); }

  // Any other command; answers what follows OK.
  std::string command(const std::string& text) {
    child_.send(text + "\n");
    for (std::string answer; child_.line(answer);) {
      int line = 0;
      if (std::sscanf(answer.c_str(), "IRQ raise %d", &line) == 1) {
        lines_[line] = true;
      } else if (std::sscanf(answer.c_str(), "IRQ lower %d", &line) == 1) {
        lines_[line] = false;
      } else if (answer.rfind("OK", 0) == 0) {
        return answer.size() > 3 ? answer.substr(3) : "";
      } else if (answer.rfind("FAIL", 0) == 0 || answer.rfind("ERR", 0) == 0) {
        throw QtestError(text + ": " + answer);
      }
    }
    throw QtestError(text + ": QEMU has ended");
  }

 private:
  static std::vector<std::string> with(std::vector<std::string> words, const std::vector<std::string>& more) {
    words.insert(words.end(), more.begin(), more.end());
    return words;
  }
  static std::string format(const char* pattern, std::uint64_t a, std::uint64_t b) {
    char text[96];
    std::snprintf(text, sizeof text, pattern, a, b);
    return text;
  }
  void out(const char* verb, std::uint16_t port, std::uint32_t value) {
    char text[48];
    std::snprintf(text, sizeof text, "%s 0x%x 0x%x", verb, unsigned(port), unsigned(value));
    command(text);
  }
  std::uint64_t in(const char* verb, std::uint16_t port) {
    char text[48];
    std::snprintf(text, sizeof text, "%s 0x%x", verb, unsigned(port));
    return std::stoull(command(text), nullptr, 16);
  }

  std::vector<std::string> arguments_;
  Child child_;
  std::map<int, bool> lines_;
};

} // namespace transom::qtest

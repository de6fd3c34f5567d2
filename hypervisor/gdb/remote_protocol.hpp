// Packets of gdb's remote serial protocol (gdb manual, appendix "Remote Protocol", section Overview): "$data#checksum",
// with "+" and "-" as answers, and the byte 03h between packets as Ctrl-C.
//
// The client is not trusted: a packet has a limit, and nothing grows with what is sent.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "core/types.hpp"

namespace transom::gdb {

inline constexpr size_t MAX_PACKET = 0x4000; // bytes of data; the client is told (PacketSize)

class PacketReader {
 public:
  enum class Event : u8 {
    none,
    packet,       // data() is whole
    bad_checksum, // ask for it again
    too_long,     // the client does not keep to what it was told
    interrupt,
    acknowledged,
    refused, // the client asks for the last packet again
  };
  Event put(u8 byte);
  // Of the last packet, escapes resolved. Valid until the next put().
  std::string_view data() const { return data_; }

 private:
  enum class State : u8 { idle, data, escape, checksum_high, checksum_low };
  Event idle(u8 byte);
  Event add(u8 byte);

  std::string data_;
  State state_ = State::idle;
  u8 sum_ = 0, expected_ = 0;
  bool malformed_ = false;
};

// "$…#xx", with what has a meaning of its own escaped.
std::string packet(std::string_view data);

// --- the hexadecimal that packets are made of
int hex_digit(char c); // -1: none
void append_hex(std::string& to, std::span<const u8> bytes);
std::string hex(std::span<const u8> bytes);
std::string hex(std::string_view text);
// Two digits a byte; nothing if it is not that.
std::optional<std::string> unhex(std::string_view text);

// Takes things off the front of a packet.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : rest_(text) {}
  bool skip(std::string_view prefix);
  std::optional<u64> number(); // 1 to 16 hexadecimal digits
  // What stands in front of `separator`, which goes too; all that is left if it does not come.
  std::string_view until(char separator);
  std::string_view rest() const { return rest_; }
  bool done() const { return rest_.empty(); }

 private:
  std::string_view rest_;
};

} // namespace transom::gdb

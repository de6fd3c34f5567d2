#include "hypervisor/gdb/remote_protocol.hpp"

namespace transom::gdb {

namespace {

constexpr u8 ESCAPE = '}', ESCAPE_XOR = 0x20, CTRL_C = 3;
constexpr char DIGITS[] = "0123456789abcdef";

std::span<const u8> bytes_of(std::string_view text) { return {reinterpret_cast<const u8*>(text.data()), text.size()}; }

} // namespace

PacketReader::Event PacketReader::idle(u8 byte) {
  switch (byte) {
    case '$':
      data_.clear();
      sum_ = 0;
      malformed_ = false;
      state_ = State::data;
      return Event::none;
    case '+': return Event::acknowledged;
    case '-': return Event::refused;
    case CTRL_C: return Event::interrupt;
    default: return Event::none; // noise on the line
  }
}

PacketReader::Event PacketReader::add(u8 byte) {
  if (data_.size() == MAX_PACKET) {
    state_ = State::idle;
    data_.clear();
    return Event::too_long;
  }
  data_ += static_cast<char>(byte);
  return Event::none;
}

PacketReader::Event PacketReader::put(u8 byte) {
  switch (state_) {
    case State::idle: return idle(byte);
    case State::data:
      if (byte == '$') return idle(byte); // the client began anew
      if (byte == '#') {
        state_ = State::checksum_high;
        return Event::none;
      }
      sum_ = static_cast<u8>(sum_ + byte);
      if (byte != ESCAPE) return add(byte);
      state_ = State::escape;
      return Event::none;
    case State::escape:
      state_ = State::data;
      sum_ = static_cast<u8>(sum_ + byte);
      return add(byte ^ ESCAPE_XOR);
    case State::checksum_high:
    case State::checksum_low: break;
  }
  const int digit = hex_digit(static_cast<char>(byte));
  malformed_ |= digit < 0;
  expected_ = static_cast<u8>(expected_ << 4 | (digit & 15));
  if (state_ == State::checksum_high) {
    state_ = State::checksum_low;
    return Event::none;
  }
  state_ = State::idle;
  return malformed_ || expected_ != sum_ ? Event::bad_checksum : Event::packet;
}

std::string packet(std::string_view data) {
  std::string framed = "$";
  framed.reserve(data.size() + 4);
  for (const char c : data) {
    if (c == '$' || c == '#' || c == '}' || c == '*') {
      framed += '}';
      framed += static_cast<char>(c ^ ESCAPE_XOR);
    } else {
      framed += c;
    }
  }
  u8 sum = 0;
  for (size_t n = 1; n < framed.size(); ++n) sum = static_cast<u8>(sum + static_cast<u8>(framed[n]));
  framed += '#';
  append_hex(framed, {&sum, 1});
  return framed;
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

void append_hex(std::string& to, std::span<const u8> bytes) {
  for (const u8 byte : bytes) {
    to += DIGITS[byte >> 4];
    to += DIGITS[byte & 15];
  }
}

std::string hex(std::span<const u8> bytes) {
  std::string text;
  text.reserve(2 * bytes.size());
  append_hex(text, bytes);
  return text;
}

std::string hex(std::string_view text) { return hex(bytes_of(text)); }

std::optional<std::string> unhex(std::string_view text) {
  if (text.size() % 2 != 0) return {};
  std::string bytes;
  bytes.reserve(text.size() / 2);
  for (size_t n = 0; n < text.size(); n += 2) {
    const int high = hex_digit(text[n]), low = hex_digit(text[n + 1]);
    if (high < 0 || low < 0) return {};
    bytes += static_cast<char>(high << 4 | low);
  }
  return bytes;
}

bool Scanner::skip(std::string_view prefix) {
  if (!rest_.starts_with(prefix)) return false;
  rest_.remove_prefix(prefix.size());
  return true;
}

std::optional<u64> Scanner::number() {
  u64 value = 0;
  size_t digits = 0;
  for (; digits < rest_.size() && hex_digit(rest_[digits]) >= 0; ++digits) {
    if (digits == 16) return {};
    value = value << 4 | static_cast<u64>(hex_digit(rest_[digits]));
  }
  if (digits == 0) return {};
  rest_.remove_prefix(digits);
  return value;
}

std::string_view Scanner::until(char separator) {
  const size_t at = rest_.find(separator);
  const std::string_view part = rest_.substr(0, at);
  rest_.remove_prefix(at == std::string_view::npos ? rest_.size() : at + 1);
  return part;
}

} // namespace transom::gdb

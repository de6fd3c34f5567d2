#include "mc146818.hpp"

namespace rtc {

namespace {

Format format_of(const State& s) { return {b::DM(s.cells[REGISTER_B]) != 0, b::HOURS_24(s.cells[REGISTER_B]) != 0}; }

bool is_held(const State& s) { return a::DV(s.cells[REGISTER_A]) >= a::DV_RESET; }
bool is_set(const State& s) { return b::SET(s.cells[REGISTER_B]) != 0; }

// Time since the current second began. The divider chain: every periodic rate divides a second, so it is their phase.
u64 phase(const State& s, u64 now) { return now + NS_PER_SECOND - s.next_update; }

// Register A's rate in periods of 32.768 kHz; 0 = none. Rates 1 and 2 repeat 8 and 9 [periodic interrupt rates].
u64 period(const State& s) {
  const u32 rs = a::RS(s.cells[REGISTER_A]);
  return rs == 0 ? 0 : u64{1} << ((rs <= 2 ? rs + 7 : rs) - 1);
}

struct Time {
  i64 days = 0;    // since 0000-01-01
  u32 second = 0;  // of the day
  u32 weekday = 1; // counted on its own, as the chip does
};

// What the registers mean. A byte that is no number of its kind counts as the least one.
Time get_time(const State& s) {
  const Format format = format_of(s);
  const auto number = [&](u8 address, u32 least, u32 greatest) {
    const u32 value = format.decode(s.cells[address]).value_or(least);
    return value < least || value > greatest ? least : value;
  };
  Date date;
  date.year = number(CENTURY, 0, 99) * 100 + number(YEAR, 0, 99);
  date.month = number(MONTH, 1, 12);
  date.day = number(DATE_OF_MONTH, 1, days_in_month(date.year, date.month));
  const u32 hour = format.decode_hour(s.cells[HOURS]).value_or(0);
  return {days_from_date(date), hour * 3600 + number(MINUTES, 0, 59) * 60 + number(SECONDS, 0, 59),
          number(DAY_OF_WEEK, 1, 7)};
}

void put_time(State& s, const Time& time) {
  const Format format = format_of(s);
  const Date date = date_from_days(time.days);
  s.cells[SECONDS] = format.encode(time.second % 60);
  s.cells[MINUTES] = format.encode(time.second / 60 % 60);
  s.cells[HOURS] = format.encode_hour(time.second / 3600);
  s.cells[DAY_OF_WEEK] = format.encode(time.weekday);
  s.cells[DATE_OF_MONTH] = format.encode(date.day);
  s.cells[MONTH] = format.encode(date.month);
  s.cells[YEAR] = format.encode(date.year % 100);
  s.cells[CENTURY] = format.encode(date.year / 100);
}

Alarm get_alarm(const State& s) {
  const Format format = format_of(s);
  const auto part = [&](u8 address, bool hour) -> AlarmPart {
    const u8 raw = s.cells[address];
    if (raw >= DONT_CARE) return {AlarmPart::ANY, 0};
    const auto value = hour ? format.decode_hour(raw) : format.decode(raw);
    return value ? AlarmPart{AlarmPart::EXACT, *value} : AlarmPart{};
  };
  return {part(HOURS_ALARM, true), part(MINUTES_ALARM, false), part(SECONDS_ALARM, false)};
}

void update(State& s, u64 seconds) {
  Time time = get_time(s);
  const auto alarm = get_alarm(s).seconds_until(time.second);
  if (alarm && *alarm <= seconds) c::AF.set(s.cells[REGISTER_C], 1);
  c::UF.set(s.cells[REGISTER_C], 1);

  const u64 total = time.second + seconds;
  const u64 days = total / u64(SECONDS_PER_DAY);
  time.second = u32(total % u64(SECONDS_PER_DAY));
  time.days += i64(days);
  time.weekday = u32((time.weekday - 1 + days) % 7) + 1;
  put_time(s, time);
}

} // namespace

void advance(State& s, u64 now) {
  if (now <= s.seen) return;
  if (is_held(s)) { // the phase stands still
    s.next_update = now + (s.next_update - s.seen);
    s.seen = now;
    return;
  }
  const u64 from = phase(s, s.seen), to = phase(s, now);
  if (const u64 p = period(s); p != 0 && RTC_RATE.ticks(to) / p != RTC_RATE.ticks(from) / p) {
    c::PF.set(s.cells[REGISTER_C], 1); // one pending tick, however many there were
  }
  s.seen = now;
  const u64 seconds = to / NS_PER_SECOND;
  if (seconds == 0) return;
  s.next_update += seconds * NS_PER_SECOND;
  if (!is_set(s)) update(s, seconds); // SET inhibits updates, not the divider [register B]
}

void set_calendar(State& s, i64 calendar_ns, u64 now) {
  const i64 seconds = floor_div(calendar_ns, i64(NS_PER_SECOND));
  const i64 days = floor_div(seconds, SECONDS_PER_DAY) + DAYS_TO_1970;
  put_time(s, {days, u32(floor_mod(seconds, SECONDS_PER_DAY)), weekday_of(days)});
  s.seen = now;
  s.next_update = now + NS_PER_SECOND - u64(floor_mod(calendar_ns, i64(NS_PER_SECOND)));
}

const char* parse_cmos(const char* text, std::array<u8, 128>& cells) {
  const auto digit = [](char ch) -> int {
    if (ch >= '0' && ch <= '9') return ch - '0';
    if (ch >= 'a' && ch <= 'f') return ch - 'a' + 10;
    if (ch >= 'A' && ch <= 'F') return ch - 'A' + 10;
    return -1;
  };
  const auto byte = [&](const char* at) -> int { // -1 also at the end of the text, before reading past it
    return digit(at[0]) < 0 || digit(at[1]) < 0 ? -1 : digit(at[0]) * 16 + digit(at[1]);
  };
  std::array<bool, 128> given{};
  if (*text == '\0') return nullptr;
  for (;; ++text) {
    const int address = byte(text);
    if (address < 0 || text[2] != '=') return "cmos: expected a pair of two-digit hex numbers such as 34=1f";
    const int value = byte(text + 3);
    if (value < 0) return "cmos: expected two hex digits after '='";
    if (address < FIRST_RAM || address > 0x7f) return "cmos: the index must lie in 0e-7f";
    if (address == CENTURY) return "cmos: index 32 is the century; it follows the clock";
    if (given[u32(address)]) return "cmos: an index is given twice";
    given[u32(address)] = true;
    cells[u32(address)] = u8(value);
    text += 5;
    if (*text == '\0') return nullptr;
    if (*text != ',') return "cmos: expected ',' between pairs";
  }
}

Mc146818::Mc146818(State& s, const Host& host)
    : state(s), clock_(host.required<Clock>()), irq8_(host.required<Irq>(0)) {
  if (const char* why = parse_cmos(host.config().string("cmos"), cells_at_power_on_)) host.refuse(VDEV_INVALID, why);
  if (!host.fresh()) return;
  state.cells = cells_at_power_on_;
  set_calendar(state, clock_.calendar(), clock_.now());
}

// RESET#: the battery keeps clock, calendar and memory going [pin RESET].
void Mc146818::reset() {
  advance(state, clock_.now());
  u8& control = state.cells[REGISTER_B];
  b::PIE.set(control, 0), b::AIE.set(control, 0), b::UIE.set(control, 0), b::SQWE.set(control, 0);
  state.cells[REGISTER_C] = 0;
}

u8 Mc146818::read(u64 offset) {
  if (offset != DATA) return 0xff; // 70h cannot be read
  advance(state, clock_.now());
  const u8 value = peek(offset);
  if (index::ADDRESS(state.index) == REGISTER_C) state.cells[REGISTER_C] &= u8(~c::FLAGS);
  return value;
}

u8 Mc146818::peek(u64 offset) const {
  if (offset != DATA) return 0xff;
  State s = state;
  advance(s, clock_.now());
  const u8 address = index::ADDRESS(s.index);
  u8 value = s.cells[address];
  if (address == REGISTER_A) a::UIP.set(value, !is_held(s) && !is_set(s) && s.next_update - s.seen <= UIP_NS);
  if (address == REGISTER_C) c::IRQF.set(value, (value & s.cells[REGISTER_B] & c::FLAGS) != 0);
  return value;
}

void Mc146818::write(u64 offset, u8 value) {
  if (offset != DATA) {
    state.index = value;
    return;
  }
  advance(state, clock_.now());
  write_cell(index::ADDRESS(state.index), value);
}

void Mc146818::write_cell(u8 address, u8 value) {
  switch (address) {
    case REGISTER_A: {
      const bool was_held = is_held(state);
      write_masked(state.cells[REGISTER_A], value, a::WRITABLE);
      if (was_held && !is_held(state)) state.next_update = state.seen + DIVIDER_RELEASE_NS; // [divider control]
      break;
    }
    case REGISTER_B:
      if (b::SET(value)) b::UIE.set(value, 0); // SET going high clears UIE [register B]
      state.cells[REGISTER_B] = value;
      break;
    case REGISTER_C:
    case REGISTER_D: break; // read-only
    default: state.cells[address] = value; break;
  }
}

// Only what would raise IRQ 8 needs a timer; every other flag is worked out when somebody looks.
u64 Mc146818::next_event() const {
  const u8 enabled = state.cells[REGISTER_B], flags = state.cells[REGISTER_C];
  if (is_held(state) || (enabled & flags & c::FLAGS) != 0) return VDEV_NEVER;
  u64 event = VDEV_NEVER;
  const auto at = [&](u64 when) { event = when < event ? when : event; };
  if (const u64 p = period(state); p != 0 && b::PIE(enabled)) {
    const u64 edge = (RTC_RATE.ticks(phase(state, state.seen)) / p + 1) * p;
    at(state.next_update - NS_PER_SECOND + RTC_RATE.ns(edge));
  }
  if (is_set(state)) return event;
  if (b::UIE(enabled)) at(state.next_update);
  if (b::AIE(enabled)) {
    const auto alarm = get_alarm(state).seconds_until(get_time(state).second);
    if (alarm) at(time_add(state.next_update, (u64{*alarm} - 1) * NS_PER_SECOND));
  }
  return event;
}

} // namespace rtc

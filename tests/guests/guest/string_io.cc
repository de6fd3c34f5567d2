// String instructions on a port: one request for each contiguous run within a page, registers exact at every fault.
#include "tests/guests/lib/mmio_test.hpp"

namespace {

constexpr u64 WINDOW = 0x40000000; // two pages here, apart in guest RAM
constexpr u64 FIRST = 0x600000, SECOND = 0x700000;
constexpr u16 PORT = mmio0.port;
u64 runs, elements; // of the whole guest, for the host's counters

void reset_device() { out32(PORT + TestDevice::SUM, 0); }

struct Registers {
  u64 rcx, rdi, rsi;
};
Registers ins16(u64 address, u64 count, bool backward) {
  u64 rcx = count, rdi = address;
  if (backward)
    asm volatile("std; rep insw; cld" : "+D"(rdi), "+c"(rcx) : "d"(PORT) : "memory", "cc");
  else
    asm volatile("cld; rep insw" : "+D"(rdi), "+c"(rcx) : "d"(PORT) : "memory", "cc");
  return {rcx, rdi, 0};
}
Registers outs16(u64 address, u64 count, bool backward) {
  u64 rcx = count, rsi = address;
  if (backward)
    asm volatile("std; rep outsw; cld" : "+S"(rsi), "+c"(rcx) : "d"(PORT) : "memory", "cc");
  else
    asm volatile("cld; rep outsw" : "+S"(rsi), "+c"(rcx) : "d"(PORT) : "memory", "cc");
  return {rcx, 0, rsi};
}

void device_saw(u64 expected_runs, u64 expected_elements, const char* what) {
  check_equal(in32(PORT + TestDevice::RUNS), expected_runs, what);
  check_equal(in32(PORT + TestDevice::ELEMENTS), expected_elements, what);
  runs += expected_runs, elements += expected_elements;
}

volatile u16& word(u64 index) { return at<u16>(WINDOW + 4096 - 256 + 2 * index); } // 128 words before the border

void forward() {
  reset_device();
  const Registers r = ins16(WINDOW + 4096 - 256, 256, false);
  check(r.rcx == 0 && r.rdi == WINDOW + 4096 + 256, "rep insw: registers at the end");
  for (u32 i = 0; i < 256; ++i) check_equal(word(i), i, "rep insw over a page border: data");
  device_saw(2, 256, "rep insw of 256 words over a page border is two requests");

  reset_device();
  u64 sum = 0;
  for (u32 i = 0; i < 256; ++i) {
    word(i) = static_cast<u16>(3 * i + 1);
    sum += 3 * i + 1;
  }
  const Registers o = outs16(WINDOW + 4096 - 256, 256, false);
  check(o.rcx == 0 && o.rsi == WINDOW + 4096 + 256, "rep outsw: registers at the end");
  check_equal(in32(PORT + TestDevice::SUM), sum, "rep outsw over a page border: data");
  device_saw(2, 256, "rep outsw of 256 words over a page border is two requests");

  reset_device();
  ins16(WINDOW, 256, false);
  device_saw(1, 256, "rep insw within a page is one request");
}

void backward() {
  reset_device();
  const Registers r = ins16(WINDOW + 4096 + 254, 256, true);
  check(r.rcx == 0 && r.rdi == WINDOW + 4096 - 258, "rep insw with DF: registers at the end");
  for (u32 i = 0; i < 256; ++i) check_equal(word(255 - i), i, "rep insw with DF: data goes down");
  device_saw(2, 256, "rep insw with DF over a page border is two requests");

  reset_device();
  const Registers o = outs16(WINDOW + 4096 + 254, 256, true);
  check(o.rcx == 0 && o.rsi == WINDOW + 4096 - 258, "rep outsw with DF: registers at the end");
  check_equal(in32(PORT + TestDevice::SUM), 255 * 256 / 2, "rep outsw with DF: data");
  device_saw(2, 256, "rep outsw with DF over a page border is two requests");
}

// An element that itself lies over the border belongs to neither run.
void straddling() {
  reset_device();
  const Registers r = ins16(WINDOW + 4096 - 255, 256, false);
  check(r.rcx == 0 && r.rdi == WINDOW + 4096 + 257, "rep insw at an odd address: registers");
  bool good = true;
  for (u32 i = 0; i < 256; ++i) good &= at<u16>(WINDOW + 4096 - 255 + 2 * i) == i;
  check(good, "rep insw at an odd address: data");
  check_equal(in32(PORT + TestDevice::ELEMENTS), 256, "rep insw at an odd address: every element once");
  runs += in32(PORT + TestDevice::RUNS);
}

// --- a page of the buffer is missing
volatile u64 faults, fault_rcx, fault_rdi, fault_rsi, fault_cr2, fault_elements, fault_error;
void on_page_fault(Frame& frame) {
  faults = faults + 1;
  fault_rcx = frame.rcx;
  fault_rdi = frame.rdi;
  fault_rsi = frame.rsi;
  fault_error = frame.error;
  fault_cr2 = fault_address();
  fault_elements = in32(PORT + TestDevice::ELEMENTS);
  if (faults > 1) die("the page fault repeats");
  map_page(WINDOW, WINDOW + 4096, SECOND);
  map_page(WINDOW, WINDOW, FIRST);
}

void faulting() {
  handle(14, on_page_fault);
  faults = 0;
  map_page(WINDOW, WINDOW + 4096, 0, false);
  reset_device();
  const Registers r = ins16(WINDOW + 4096 - 256, 256, false);
  check_equal(faults, 1, "the missing second page faults once");
  check(fault_rcx == 128 && fault_rdi == WINDOW + 4096, "registers stand at the page border in the fault");
  check(fault_cr2 == WINDOW + 4096 && fault_error == 2, "the fault names the second page and a write");
  check_equal(fault_elements, 128, "the device gave the first page's words and no more");
  check(r.rcx == 0 && r.rdi == WINDOW + 4096 + 256, "the instruction goes on after the fault");
  for (u32 i = 0; i < 256; ++i) check_equal(word(i), i, "nothing is lost over the fault");
  device_saw(2, 256, "faulting rep insw: two requests");

  faults = 0;
  map_page(WINDOW, WINDOW + 4096, 0, false);
  reset_device();
  outs16(WINDOW + 4096 - 256, 256, false);
  check(faults == 1 && fault_rcx == 128 && fault_rsi == WINDOW + 4096, "rep outsw stands at the border in the fault");
  check_equal(fault_error, 0, "rep outsw faults as a read");
  check_equal(in32(PORT + TestDevice::SUM), 255 * 256 / 2, "rep outsw: nothing is lost over the fault");
  device_saw(2, 256, "faulting rep outsw: two requests");

  faults = 0;
  map_page(WINDOW, WINDOW, 0, false);
  reset_device();
  ins16(WINDOW + 4096 + 254, 256, true);
  check(faults == 1 && fault_rcx == 128 && fault_rdi == WINDOW + 4094, "with DF the first page faults at its end");
  for (u32 i = 0; i < 256; ++i) check_equal(word(255 - i), i, "with DF nothing is lost over the fault");
  device_saw(2, 256, "faulting rep insw with DF: two requests");

  // A fault on the very first element: the device is not touched.
  faults = 0;
  map_page(WINDOW, WINDOW, 0, false);
  reset_device();
  u64 rdi = WINDOW;
  asm volatile("insw" : "+D"(rdi) : "d"(PORT) : "memory");
  check(faults == 1 && fault_elements == 0, "a fault comes before the device is touched");
  check_equal(in32(PORT + TestDevice::ELEMENTS), 1, "and the access happens once");
  handle(14, nullptr);
}

void narrow_and_wide() {
  reset_device();
  u64 rdi = WINDOW, rcx = 100;
  asm volatile("rep insb" : "+D"(rdi), "+c"(rcx) : "d"(PORT) : "memory");
  check(rcx == 0 && at<u8>(WINDOW + 99) == 99, "rep insb");
  rdi = WINDOW, rcx = 100;
  asm volatile("rep insl" : "+D"(rdi), "+c"(rcx) : "d"(PORT) : "memory");
  check(rcx == 0 && at<u32>(WINDOW + 396) == 199, "rep insl");
  device_saw(2, 200, "rep insb and rep insl are a request each");
  rcx = 0, rdi = WINDOW;
  asm volatile("rep insw" : "+D"(rdi), "+c"(rcx) : "d"(PORT) : "memory");
  check_equal(in32(PORT + TestDevice::ELEMENTS), 200, "a count of zero touches nothing");
}

} // namespace

void guest_main() {
  open_window(WINDOW);
  map_page(WINDOW, WINDOW, FIRST);
  map_page(WINDOW, WINDOW + 4096, SECOND);
  forward();
  backward();
  straddling();
  faulting();
  narrow_and_wide();
  expect("mmio0.runs", runs);
}

/* ticker: a sample device in plain C, without the C++ face: a periodic timer with an interrupt, and a byte port.
 *
 * Region "regs", bytes:   0 CTRL    bit 0 run, bit 1 interrupt enable; the others read as zero
 *                         1 STATUS  bit 0 expired; writing a 1 clears it
 *                         2 DATA    write: sends a byte; read: takes the received byte (0 when there is none)
 *                         3 ID      reads 5Ah, ignores writes
 * Region "period", 32 bit: 0 PERIOD in microseconds; 0 stops. Takes effect when CTRL is written.
 *
 * Compiled with BROKEN_…, it breaks one promise: the bench's own tests show that the bench notices. */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#ifdef BROKEN_FOREIGN
#include <pthread.h>
#endif

#include "vdev/ext/clock.h"
#include "vdev/ext/irq.h"
#include "vdev/ext/lifecycle.h"
#include "vdev/ext/log.h"
#include "vdev/ext/state.h"
#include "vdev/ext/stream.h"
#include "vdev/manifest.h"
#include "vdev/vdev.h"

enum { CTRL, STATUS, DATA, ID };
enum { CTRL_RUN = 1, CTRL_IRQ = 2, STATUS_EXPIRED = 1, ID_VALUE = 0x5a };
enum { REGS, PERIOD };

typedef struct state {
  uint64_t deadline; /* ns; VDEV_NEVER while stopped */
  uint32_t period;   /* us */
  uint8_t ctrl, status, data, received;
} state;

typedef struct ticker {
  vdev_device abi;
  const vdev_host* host;
  const vdev_host_irq* irq;
  const vdev_host_clock* clock;
  const vdev_host_stream* stream;
  state* s;
  uint8_t outside; /* BROKEN_LEAK keeps a register here */
} ticker;

static ticker* self(const vdev_device* device) { return (ticker*)device->device_data; }

static void put_reset_values(state* s) {
  memset(s, 0, sizeof *s);
  s->deadline = VDEV_NEVER;
}

static void sync(ticker* t) {
  const uint32_t level = (t->s->status & STATUS_EXPIRED) && (t->s->ctrl & CTRL_IRQ);
  t->irq->set_level(t->host, 0, level);
}

static vdev_status init(const vdev_device* device) {
  ticker* t = self(device);
  uint32_t fresh = 1;
  const vdev_host_state_memory* memory = t->host->get_extension(t->host, VDEV_HOST_STATE_MEMORY);
  t->irq = t->host->get_extension(t->host, VDEV_HOST_IRQ);
  t->clock = t->host->get_extension(t->host, VDEV_HOST_CLOCK);
  t->stream = t->host->get_extension(t->host, VDEV_HOST_STREAM);
  if (!memory || !t->irq || !t->clock || !t->stream) return VDEV_UNSUPPORTED;
  t->s = memory->memory(t->host, sizeof *t->s, &fresh);
  if (!t->s) return VDEV_NO_MEMORY;
  if (fresh) put_reset_values(t->s);
  sync(t);
  return VDEV_OK;
}

static void destroy(const vdev_device* device) { free(self(device)); }

static void reset(const vdev_device* device) {
  ticker* t = self(device);
#ifdef BROKEN_RESET
  const uint8_t kept = t->s->data;
#endif
  put_reset_values(t->s);
#ifdef BROKEN_RESET
  t->s->data = kept;
#endif
  t->outside = 0;
  sync(t);
}

static uint64_t value_at(const ticker* t, uint32_t region, uint64_t offset) {
  if (region == PERIOD) return t->s->period;
  switch (offset) {
    case CTRL: return t->s->ctrl;
    case STATUS: return t->s->status;
#ifdef BROKEN_LEAK
    case DATA: return t->outside;
#else
    case DATA: return t->s->received ? t->s->data : 0;
#endif
    default: return ID_VALUE;
  }
}

static vdev_status read(const vdev_device* device, uint32_t region, uint64_t offset, uint32_t width, uint64_t* value) {
  ticker* t = self(device);
  (void)width;
  *value = value_at(t, region, offset);
  if (region == REGS && offset == DATA) {
    t->s->received = 0;
    t->outside = 0;
  }
  sync(t);
  return VDEV_OK;
}

static void write_ctrl(ticker* t, uint8_t value) {
  const int runs = (value & CTRL_RUN) && t->s->period != 0;
  t->s->ctrl = value & (CTRL_RUN | CTRL_IRQ);
  t->s->deadline = runs ? t->clock->now(t->host) + 1000ull * t->s->period : VDEV_NEVER;
}

#ifdef BROKEN_FOREIGN
static void* from_another_thread(void* data) {
  sync(data);
  return NULL;
}
#endif

static vdev_status write(const vdev_device* device, uint32_t region, uint64_t offset, uint32_t width, uint64_t value) {
  ticker* t = self(device);
  const uint8_t byte = (uint8_t)value;
  (void)width;
  if (region == PERIOD) {
    t->s->period = (uint32_t)value;
  } else if (offset == CTRL) {
    write_ctrl(t, byte);
  } else if (offset == STATUS) {
    t->s->status &= (uint8_t)~byte;
  } else if (offset == DATA) {
    t->stream->write(t->host, 0, &byte, 1);
  }
#ifdef BROKEN_READ_ONLY
  else {
    t->s->data = byte;
  }
#endif
  sync(t);
#ifdef BROKEN_CONTROL
  const vdev_host_state_memory* memory = t->host->get_extension(t->host, VDEV_HOST_STATE_MEMORY);
  uint32_t fresh;
  if (byte == 0x7f) memory->memory(t->host, sizeof *t->s, &fresh);
#endif
#ifdef BROKEN_BUDGET
  if (byte == 0xff) {
    for (uint32_t i = 0; i < 2000000; ++i) sync(t);
  }
#endif
#ifdef BROKEN_FOREIGN
  pthread_t thread;
  if (pthread_create(&thread, NULL, from_another_thread, t) == 0) pthread_join(thread, NULL);
#endif
#ifdef BROKEN_STATUS
  if (byte == 0x7f) return VDEV_INVALID; /* a guest's nonsense is no status */
#endif
  return VDEV_OK;
}

/* vdev.timer/1 */
static uint64_t next_event(const vdev_device* device) {
  ticker* t = self(device);
#ifdef BROKEN_EVENT
  return (t->s->ctrl & CTRL_RUN) ? t->clock->now(t->host) + 1000 : VDEV_NEVER; /* not a function of the state */
#else
  return t->s->deadline;
#endif
}
static void expire(const vdev_device* device, uint64_t now) {
  ticker* t = self(device);
  const uint64_t period = 1000ull * t->s->period;
  t->s->status |= STATUS_EXPIRED;
#ifndef BROKEN_STUCK
  if (period == 0) {
    t->s->deadline = VDEV_NEVER;
  } else {
    t->s->deadline += ((now - t->s->deadline) / period + 1) * period; /* the periods missed are one expiry */
  }
#else
  (void)now, (void)period;
#endif
  sync(t);
}
static const vdev_timer timer_table = {next_event, expire};

/* vdev.stream/1 */
static uint32_t room(const vdev_device* device, uint32_t stream) {
  (void)stream;
  return !self(device)->s->received;
}
static void receive(const vdev_device* device, uint32_t stream, const uint8_t* bytes, uint32_t length) {
  ticker* t = self(device);
  (void)stream;
  if (length == 0) return;
  t->s->data = bytes[0];
  t->s->received = 1;
  t->outside = bytes[0];
  sync(t);
}
static const vdev_stream stream_table = {room, receive, NULL};

/* vdev.inspect/1 */
static vdev_status peek(const vdev_device* device, uint32_t region, uint64_t offset, uint32_t width, uint64_t* value) {
#ifdef BROKEN_PEEK
  return read(device, region, offset, width, value);
#else
  (void)width;
  *value = value_at(self(device), region, offset);
  return VDEV_OK;
#endif
}
static const vdev_inspect inspect_table = {peek};

/* vdev.state/1: one list of fields serves save and load. */
#ifdef BROKEN_TAGS
#define TAG_DATA 4
#else
#define TAG_DATA 5
#endif
typedef struct field {
  vdev_state_field field;
  uint32_t offset;
} field;
#define FIELD(tag, member, maximum) \
  { {sizeof(vdev_state_field), tag, #member, sizeof(((state*)0)->member), 1, maximum}, offsetof(state, member) }
static const field fields[] = {
    FIELD(1, deadline, UINT64_MAX),      FIELD(2, period, UINT32_MAX),
#ifndef BROKEN_FIELDS
    FIELD(3, ctrl, CTRL_RUN | CTRL_IRQ),
#endif
    FIELD(4, status, STATUS_EXPIRED),    FIELD(TAG_DATA, data, 0xff),  FIELD(6, received, 1),
};
enum { FIELD_COUNT = sizeof fields / sizeof fields[0] };

static vdev_status save(const vdev_device* device, const vdev_state_sink* sink) {
  const uint8_t* bytes = (const uint8_t*)self(device)->s;
  for (uint32_t i = 0; i < FIELD_COUNT; ++i) {
    uint64_t value = 0;
    memcpy(&value, bytes + fields[i].offset, fields[i].field.width);
    const vdev_status status = sink->put(sink, &fields[i].field, &value);
    if (status < 0) return status;
  }
  return VDEV_OK;
}
static vdev_status load(const vdev_device* device, uint32_t version, const vdev_state_source* source) {
  ticker* t = self(device);
  state parsed;
  if (version != 1) return VDEV_UNSUPPORTED;
  put_reset_values(&parsed);
  for (uint32_t i = 0; i < FIELD_COUNT; ++i) {
    uint64_t value = 0;
    const vdev_status status = source->get(source, &fields[i].field, &value);
    if (status == VDEV_NOT_FOUND) continue;
    if (status < 0) return status;
#ifndef BROKEN_LOAD
    if (value > fields[i].field.maximum) return VDEV_INVALID;
#endif
    memcpy((uint8_t*)&parsed + fields[i].offset, &value, fields[i].field.width);
  }
  *t->s = parsed;
  sync(t);
  return VDEV_OK;
}
static vdev_status check(const vdev_device* device, const void* memory, uint32_t bytes) {
  (void)device;
  if (bytes != sizeof(state)) return VDEV_INVALID;
  for (uint32_t i = 0; i < FIELD_COUNT; ++i) {
    uint64_t value = 0;
    memcpy(&value, (const uint8_t*)memory + fields[i].offset, fields[i].field.width);
    if (value > fields[i].field.maximum) return VDEV_INVALID;
  }
  return VDEV_OK;
}
static const vdev_state state_table = {save, load, check};

static const void* get_extension(const vdev_device* device, const char* id) {
#ifdef BROKEN_THREAD
  sync(self(device)); /* [dispatch] from [any] */
#endif
  (void)device;
  if (strcmp(id, VDEV_TIMER) == 0) return &timer_table;
  if (strcmp(id, VDEV_STREAM) == 0) return &stream_table;
  if (strcmp(id, VDEV_INSPECT) == 0) return &inspect_table;
  if (strcmp(id, VDEV_STATE) == 0) return &state_table;
  return NULL;
}

static const vdev_region regions[] = {
    {sizeof(vdev_region), VDEV_SPACE_PIO, "regs", 0x500, 4, VDEV_WIDTH_1, 0},
    {sizeof(vdev_region), VDEV_SPACE_PIO, "period", 0x504, 4, VDEV_WIDTH_4, 0},
};
static const char* const irq_names[] = {"tick"};
static const vdev_descriptor descriptor = {
    sizeof descriptor, 1, "org.transom.example.ticker", "Ticker", "Transom", "1.0.0", regions, 2, 1, irq_names};

static uint32_t count(void) { return 1; }
static const vdev_descriptor* descriptor_at(uint32_t index) { return index == 0 ? &descriptor : NULL; }
static const vdev_device* create(const vdev_host* host, const char* id) {
  if (strcmp(id, descriptor.id) != 0) return NULL;
  ticker* t = calloc(1, sizeof *t);
  if (!t) return NULL;
  t->host = host;
  t->abi = (vdev_device){t, init, destroy, reset, read, write, get_extension};
  return &t->abi;
}
static const vdev_factory factory = {count, descriptor_at, create};

static vdev_status library_init(const char* path) {
  (void)path;
  return VDEV_OK;
}
static void library_deinit(void) {}
static const void* get_factory(const char* id) { return strcmp(id, VDEV_FACTORY) == 0 ? &factory : NULL; }

VDEV_EXPORT const vdev_entry_t vdev_entry = {VDEV_ABI_MAJOR, VDEV_ABI_MINOR, library_init, library_deinit, get_factory};

#ifdef BROKEN_MANIFEST
#define WRONG_BASE 4
#else
#define WRONG_BASE 0
#endif
/* The manifest: plain records in their own section. */
struct manifest {
  vdev_manifest_header header;
  vdev_manifest_device device;
  vdev_manifest_region regions[2];
};
__attribute__((section(VDEV_MANIFEST_SECTION), used, aligned(8))) static const struct manifest manifest = {
    {{'V', 'D', 'E', 'V', 'M', 'A', 'N', '1'}, sizeof(struct manifest), VDEV_ABI_MAJOR, VDEV_ABI_MINOR, 3, 0},
    {.size = sizeof(vdev_manifest_device),
     .kind = VDEV_MANIFEST_DEVICE,
     .id = "org.transom.example.ticker",
     .name = "Ticker",
     .vendor = "Transom",
     .version = "1.0.0",
     .state_version = 1,
     .irq_count = 1,
     .stream_count = 1,
     .state_bytes = sizeof(state)},
    {{.size = sizeof(vdev_manifest_region),
      .kind = VDEV_MANIFEST_REGION,
      .name = "regs",
      .space = VDEV_SPACE_PIO,
      .default_base = 0x500,
      .length = 4,
      .widths = VDEV_WIDTH_1},
     {.size = sizeof(vdev_manifest_region),
      .kind = VDEV_MANIFEST_REGION,
      .name = "period",
      .space = VDEV_SPACE_PIO,
      .default_base = 0x504 + WRONG_BASE,
      .length = 4,
      .widths = VDEV_WIDTH_4}},
};

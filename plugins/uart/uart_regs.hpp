// Names of the 16550's registers. Source: National Semiconductor TL/C/8652, "PC16550D Universal Asynchronous
// Receiver/Transmitter with FIFOs" (June 1995), Table II; "[8.n]" = its section.
#pragma once

#include <vdev/cpp.hpp>

namespace uart {
using namespace vdev;

enum : u64 { RBR_THR_DLL = 0, IER_DLM, IIR_FCR, LCR, MCR, LSR, MSR, SCR };

namespace ier { // [8.7]
inline constexpr Field<0> ERBFI;
inline constexpr Field<1> ETBEI;
inline constexpr Field<2> ELSI;
inline constexpr Field<3> EDSSI;
inline constexpr u8 WRITABLE = 0x0f;
} // namespace ier

namespace iir { // [8.6, Table IV]
enum : u8 { MODEM_STATUS = 0, NONE = 1, THR_EMPTY = 2, RX_DATA = 4, LINE_STATUS = 6, CHARACTER_TIMEOUT = 0x0c };
inline constexpr u8 FIFOS_ENABLED = 0xc0;
} // namespace iir

namespace fcr { // [8.5]
inline constexpr Field<0> FIFO_ENABLE;
inline constexpr Field<1> RCVR_FIFO_RESET;
inline constexpr Field<2> XMIT_FIFO_RESET;
inline constexpr Field<6, 2> RCVR_TRIGGER;
inline constexpr u8 KEPT = 0xc9; // the resets clear themselves
} // namespace fcr

namespace lcr { // [8.1]
inline constexpr Field<0, 2> WLS;
inline constexpr Field<2> STB;
inline constexpr Field<3> PEN;
inline constexpr Field<7> DLAB;
} // namespace lcr

namespace mcr { // [8.8]
inline constexpr Field<0> DTR;
inline constexpr Field<1> RTS;
inline constexpr Field<2> OUT1;
inline constexpr Field<3> OUT2;
inline constexpr Field<4> LOOP;
inline constexpr u8 WRITABLE = 0x1f;
} // namespace mcr

namespace lsr { // [8.4]
inline constexpr Field<0> DR;
inline constexpr Field<1> OE;
inline constexpr Field<5> THRE;
inline constexpr Field<6> TEMT;
} // namespace lsr

namespace msr { // [8.9]
inline constexpr Field<0> DCTS;
inline constexpr Field<1> DDSR;
inline constexpr Field<2> TERI;
inline constexpr Field<3> DDCD;
inline constexpr Field<4> CTS;
inline constexpr Field<5> DSR;
inline constexpr Field<6> RI;
inline constexpr Field<7> DCD;
inline constexpr u8 DELTAS = 0x0f;
} // namespace msr

} // namespace uart

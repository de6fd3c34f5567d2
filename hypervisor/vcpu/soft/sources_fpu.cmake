# x87, MMX and SSE (handlers_simd.hpp).
set(SOFTCPU_FPU_SOURCES
  fpu.cc x87.cc x87_direct.cc x87_state.cc simd.cc simd_compute.cc simd_convert.cc simd_move.cc simd_shuffle.cc simd_state.cc)

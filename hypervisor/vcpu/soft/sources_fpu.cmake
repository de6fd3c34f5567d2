# x87, MMX and SSE (handlers_x87.hpp, handlers_simd.hpp).
set(SOFTCPU_FPU_SOURCES stubs_fpu.cc)

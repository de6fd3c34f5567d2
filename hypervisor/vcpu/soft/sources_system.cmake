# Segments, far transfers, interrupt delivery, control registers, MSRs, CPUID (handlers_system.hpp).
set(SOFTCPU_SYSTEM_SOURCES stubs_system.cc)

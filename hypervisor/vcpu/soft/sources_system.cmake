# Segments, far transfers, interrupt delivery, control registers, MSRs, CPUID (handlers_system.hpp).
set(SOFTCPU_SYSTEM_SOURCES
  control.cc cpuid.cc deliver.cc descriptor.cc far_return.cc far_transfer.cc io_permission.cc msr.cc reset.cc
  segment.cc syscall.cc system_handler.cc task_switch.cc)

# Guest code in every mode against the system half (system_bench.hpp).
transom_test(softcpu_system_test
  control_test.cc cpuid_test.cc deliver_test.cc segment_test.cc syscall_test.cc system_random_test.cc task_test.cc
  transfer_test.cc fpu_test.cc
  LIBS transom_softcpu LABELS softcpu AGAIN jit TRANSOM_TEST_CPU=jit)

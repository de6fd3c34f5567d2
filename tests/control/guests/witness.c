/* A library whose constructor leaves a trace: who opens it, runs it. */
#include <stdio.h>
#include <stdlib.h>

__attribute__((constructor)) static void leave_a_trace(void) {
  const char* path = getenv("CONTROL_TEST_WITNESS");
  FILE* file = path ? fopen(path, "w") : NULL;
  if (file) fclose(file);
}

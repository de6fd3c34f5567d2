// What every process that `transom run` starts does first.
#pragma once

#include <csignal>
#include <sys/prctl.h>
#include <unistd.h>

namespace transom {

inline constexpr int CONTROL_SOCKET = 3; // where its control socket is

// Its control socket is what stops a process, in order: the signals of the terminal are ignored from before its start.
// Should the supervisor be gone and the process be too stuck to notice, an alarm ends it.
inline void begin_child_process() {
  constexpr unsigned PATIENCE_S = 30;
  struct sigaction orphaned {};
  orphaned.sa_handler = [](int) { ::alarm(PATIENCE_S); };
  orphaned.sa_flags = SA_RESTART;
  ::sigaction(SIGUSR1, &orphaned, nullptr);
  std::signal(SIGALRM, SIG_DFL);
  std::signal(SIGPIPE, SIG_IGN); // a reader of the console, or the supervisor, went away
  ::prctl(PR_SET_PDEATHSIG, SIGUSR1);
}

} // namespace transom

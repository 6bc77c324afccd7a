// How the kernel shares the processors between live flows and batch work.
#pragma once

namespace penstock::daemon {

// The calling thread does batch work: nice 10 and the lowest best-effort I/O priority. It also asks for long turns of the
// processor, 100 ms, the most there is: whoever has shorter ones, as nearly all have, is let in before such a turn is over
// (Linux 6.12; before that the length means nothing). All of it goes on to the programs that are started from the thread.
void give_way();

// The calling thread goes before everything that has no real-time policy: SCHED_RR at `rank`, 1 to 99 (sched(7)). What is
// started from it, threads and programs, is ordinary again. False: the kernel refuses, as it does without CAP_SYS_NICE
// where RLIMIT_RTPRIO is below the rank; the thread then stays as it is.
bool go_first(int rank);
constexpr int live_rank = 1;     // of the flows
constexpr int control_rank = 2;  // of the control thread and of those that write: requests are answered while flows are busy

}  // namespace penstock::daemon

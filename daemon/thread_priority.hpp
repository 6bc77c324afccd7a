// How the kernel shares the processors between live flows and batch work.
#pragma once

namespace penstock::daemon {

// The calling thread does batch work: nice 10 and the lowest best-effort I/O priority. It also asks for long turns of the
// processor, 100 ms, the most there is: whoever has shorter ones, as nearly all have, is let in before such a turn is over
// (Linux 6.12; before that the length means nothing). All of it goes on to the programs that are started from the thread.
void give_way();

}  // namespace penstock::daemon

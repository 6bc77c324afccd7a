// How the kernel shares the processors between live flows and batch work. Each call is about the calling thread alone.
#pragma once

namespace penstock::daemon {

// Live work: woken, it runs at once, also where batch work computes on every core. Asks the scheduler for short turns,
// which let a thread in before the turn of another one is over (Linux 6.12; before that they mean nothing, and waking is
// enough). Programs that are started from the thread get turns of the usual length.
void run_when_woken();

// Batch work: nice 10 and the lowest best-effort I/O priority, which the programs started from the thread inherit.
void give_way();

}  // namespace penstock::daemon

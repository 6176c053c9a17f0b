// Package bench measures a gateway as its clients see it, and checks that it
// keeps its promises meanwhile.
//
// It knows scenarios, a market on a schedule, thousands of clients on a few
// event loops, and reports. It speaks to a gateway over its sockets only, and
// never shares a process with it.
//
// The load is open: when a tick is due is fixed before anything waits, the due
// time travels in the tick as its event time, and a tick that is late counts as
// old. A run that this program itself was too slow for says so and is invalid.
//
// Nothing that it receives is lost on its side. What clients are sent waits in
// the kernel until it is read, and TCP slows the sender, which is its to bear;
// a message is read whole or its connection ends, which is a violation; what
// loops are asked to do is a list without a bound, made by few callers. Bounded
// are: histograms (times above two minutes are counted, and a run with more
// than a few is invalid), the trace for the floor (what was cut is told), and the
// violations that are kept whole (all are counted). How late ticks were made, how
// long one look of an event loop took, and how long sockets that were ready waited
// for it is measured: a run in which one of these is above 5 ms (p99), and the
// last above a tenth of the ages, is invalid.
//
// A [Run] is: start, connect, warm up, measure, stop the market, let every
// client catch up, compare what each holds with what the market made, ask for
// the ledgers. What is found to be wrong is a [Violation]; one fails the run.
package bench

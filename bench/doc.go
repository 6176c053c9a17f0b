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
// A [Run] is: start, connect, warm up, measure, stop the market, let every
// client catch up, compare what each holds with what the market made, ask for
// the ledgers. What is found to be wrong is a [Violation]; one fails the run.
package bench

// Package statuspage answers the status page: the overview, the page of one cycle, and
// cycles.json for programs. It shows recorded state, and changes nothing.
//
// # Overview
//
// The headline is made from the state of the cycles at the time of the read. The hourly health
// report stands below it, with its age. The history has a cell for each cycle of the window, or for
// each day where a pipeline by the hour shows more than [maxHours] days.
//
// # Kinds
//
// A cycle has one kind: its state, or a qualifier of it. Headline, legend and cells count kinds,
// so their numbers agree.
//
//	late         published, first after the deadline
//	without_all  published without a processor that the mode expects
//	made_up      overdue, and a later mode of the period was handed over
//	unknown      the documents of the period cannot be read
//
// # Cost
//
// The number of calls of the store does not depend on the number of days. A transition takes 2 scans
// and 1 get of its hold. The start of its management takes 1, or 2 until a relay has recorded it. The
// locks take 2; report, heartbeats, sweeps and quarantine 1 each, and the open receipts of guards 1, or 2 if there are any.
// The page of a cycle takes 9 at most.
// Documents: each period of the window has 1 or 2, and 1 for each hand-over. The page of a cycle
// reads the audit records of its weeks, [mostRecords] at most.
//
// A request joins a read for the same days that began at most a second before, so that any number
// of requests at once causes one read. Settled periods at the beginning of the window are read once
// in [keepFor]: no completion and no job changes them. All others are read for each request. One
// overview is read at a time, so that its memory is that of one.
//
// # Failures
//
// A source that cannot be read is shown as unknown in its place, and nothing is taken for empty. A
// failed read is not kept: the next request reads again. All reads together get [limit].
package statuspage

// Package cycle is the engine: it records completions and hands over each cycle once its policy is
// met.
//
// [Engine.Record] writes a report. [Engine.Converge] reads the state, decides and acts, until
// nothing is due or another instance holds the claim. Any process may call it at any time: the
// function that recorded a completion, the relay, an operator.
//
// Terms: a cycle is a transition, a period and a mode. A run is one report, identified by a hash
// of its content. A batch is one hand-over: a frozen set of runs, with one message for each
// processor. A claim is the right to work on a batch for a short time. A group is the completions
// of one period that share a commit and an evaluation ([Engine.Complete]).
//
// States of a batch:
//
//	grace ──► checking ──► publishing ──► published
//	              │  ▲
//	              ▼  │ at next_attempt
//	            blocked
//
//	grace       the quorum is met, and the rest is waited for
//	checking    claimed; readiness is checked
//	blocked     readiness failed or is unknown
//	publishing  frozen: runs and payloads are fixed, some messages have no id yet
//	published   the broker gave an id for every message
//
// Guarantees: a cycle has batches 1, 2, 3 and so on, or from a higher number on where documents of
// its period may have expired ([snapshot.number]); nothing is published otherwise. Runs and payloads
// of a frozen batch never change. A batch is created only if it is absent; every later write is a
// compare-and-set on the version that was read. Handlers record, then read; the holder of a claim
// reads again after each write. So a run is in the snapshot of the holder, or its handler finds the
// batch done and continues. Nothing that is open expires (expiry.go).
//
// Failures: if a process dies, its claim expires, and the redelivered message or the relay
// continues at the first message without an id. If an answer is lost, the next read shows whose
// write it was. If a message was accepted and its id is lost, a copy with the same trigger_id
// follows. An unknown readiness or schedule blocks, and never passes or closes a cycle.
//
// A relay marks a period in which nothing is due, and skips it until its document changes (settled.go).
// An engine in shadow decides and stores everything in its own collections, and publishes nothing.
package cycle

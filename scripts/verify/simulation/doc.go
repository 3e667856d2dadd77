// Package simulation plays whole systems: the real functions transition and reconcile, with the engine, the
// relay, quarantine, reconciliation, locks and the shadow behind them, on the memory store. A
// broker, tables and processors are simulated. docs/explanation/robustness.md describes what is played.
//
// It has tests alone.
package simulation

// Package pipelinetest writes pipeline files of many processors and of many transitions.
package pipelinetest

import (
	"fmt"
	"strings"
)

const relay = "schedules: [{name: relay, cron: \"*/5 * * * *\", function: reconcile, job: relay}]"

func lines(all ...string) string { return strings.Join(all, "\n") + "\n" }

// Wide is a transition of n processors by the day, {prefix}_0 and so on, which are all critical.
func Wide(n int, prefix string) string {
	var processors strings.Builder
	names := make([]string, n)
	for i := range n {
		names[i] = fmt.Sprintf("%s_%d", prefix, i)
		fmt.Fprintf(&processors, "      - {name: %s, kind: thing, table: d.t%d, date_column: day, key: [day, id], order_by: processed_at}\n", names[i], i)
	}
	return lines("schema: 1", "name: wide", "time_zone: America/New_York", "calendar: day", "kinds: {thing: things}", relay, "phases:",
		"  - name: up",
		"    processors:") + processors.String() + fmt.Sprintf(lines(
		"  - name: down",
		"    processors: [{name: cache, kind: thing, table: d.cache, date_column: day, key: [day], order_by: processed_at}]",
		"transitions:",
		"  - id: phase3_to_phase4",
		"    upstream: {phase: up, topic: completed}",
		"    downstream: {phase: down, topic: trigger, triggered_by: us, parent_processor: Us, order: [%[1]s]}",
		"    compatibility_collection: phase3_completion",
		"    trigger_within: 72h",
		"    modes:",
		"      - {name: overnight, event: after, critical: [%[1]s], complete: all, counts_from: \"00:00\", second_runs: ignore}"),
		strings.Join(names, ", "))
}

// Hourly is n transitions by the hour, t0 and so on. Transition i waits for one processor of each name,
// {name}{i}.
func Hourly(n int, names ...string) string {
	var phases, transitions strings.Builder
	for i := range n {
		order := make([]string, len(names))
		fmt.Fprintf(&phases, "  - name: up%d\n    processors:\n", i)
		for k, name := range names {
			order[k] = fmt.Sprint(name, i)
			fmt.Fprintf(&phases, "      - {name: %[1]s, kind: thing, table: d.%[1]s, date_column: hour, key: [hour], order_by: at}\n", order[k])
		}
		fmt.Fprintf(&phases, "  - name: down%[1]d\n    processors:\n      - {name: c%[1]d, kind: thing, table: d.c%[1]d, date_column: hour, key: [hour], order_by: at}\n", i)
		fmt.Fprintf(&transitions, lines(
			"  - id: t%[1]d",
			"    upstream: {phase: up%[1]d, topic: completed%[1]d}",
			"    downstream: {phase: down%[1]d, topic: trigger%[1]d, triggered_by: us, parent_processor: Us, order: [%[2]s]}",
			"    compatibility_collection: shown%[1]d",
			"    trigger_within: 72h",
			"    modes:",
			"      - {name: hourly, event: after, critical: [%[2]s], complete: all, counts_from: \"+1h :00\", second_runs: ignore}"),
			i, strings.Join(order, ", "))
	}
	return lines("schema: 1", "name: many", "time_zone: UTC", "calendar: hour", "kinds: {thing: things}", relay, "phases:") +
		phases.String() + lines("transitions:") + transitions.String()
}

//go:build unix && !race

package cycle

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/phasegate/phasegate/shared/wire"
)

// simRun is what a report says, as its writer meant it.
type simRun struct {
	key         string // under which the engine keeps it
	processor   string // "" for a stranger
	status      wire.Status
	event       time.Time
	execution   string
	correlation string
	count       *int64
	entities    []string
	incremental bool
	truncated   bool // it changed something and does not say what

	bare      *simRun // what a full period keeps of it: without its entities; nil for the same
	bareValue string
}

func (r *simRun) succeeded() bool {
	return r.status == wire.StatusSuccess || r.status == wire.StatusPartial
}

// simText is one report as it is published, and what the versions of a definition read in
// it. The function decodes it at every delivery; decoding is pure, and here it is done once.
type simText struct {
	envelope wire.Envelope
	hopeless bool // invalid: such a report belongs into quarantine, and no other does
	as       []simReading
}

type simReading struct {
	decoded wire.Completion
	value   string // of the recorded run
	run     *simRun
}

// write makes the reports that scenarios choose from: every processor, unknown processors and
// invalid reports, at the times that matter to some mode. It compares what the decoder reads
// with what was meant.
func (f *simFamily) write() {
	rng := rand.New(rand.NewPCG(2, uint64(len(f.name))))
	for i := range 240 {
		t, meant := f.report(rng, i)
		for _, r := range f.versions {
			c, _, err := wire.DecodeCompletion(t.envelope, r.tr)
			if (err != nil) != t.hopeless {
				panic(fmt.Sprintf("%s: %s: hopeless %t, decoded: %v", f.name, t.envelope.Data, t.hopeless, err))
			}
			if t.hopeless {
				continue
			}
			run := *meant
			if !slices.Contains(r.order, run.processor) {
				run.processor = ""
			}
			if problem := run.differs(c); problem != "" {
				panic(fmt.Sprintf("%s: %s: decoded as %+v: %s", f.name, t.envelope.Data, c, problem))
			}
			reading := simReading{decoded: c, run: &run}
			run.key, reading.value = c.Record()
			if known := f.byKey[run.key]; known != nil { // the version before reads the same
				reading.run = known
			} else {
				f.byKey[run.key] = &run
			}
			if len(run.entities) > 0 && reading.run.bare == nil {
				bare := run
				bare.entities, bare.truncated = nil, true
				bare.key, reading.run.bareValue = c.WithoutEntities().Record()
				reading.run.bare, f.byKey[bare.key] = &bare, &bare
			}
			t.as = append(t.as, reading)
		}
		f.texts = append(f.texts, t)
	}
	r := f.versions[0]
	for i := range r.modes {
		f.good = append(f.good, map[string][]*simText{})
		for k := range f.texts {
			t := &f.texts[k]
			if !t.hopeless && r.counts(i, t.as[0].run) && r.inTime(t.as[0].run) {
				f.good[i][t.as[0].run.processor] = append(f.good[i][t.as[0].run.processor], t)
			}
		}
	}
}

func (r *simRun) differs(c wire.Completion) string {
	switch {
	case c.Processor != r.processor:
		return "processor"
	case c.Status != r.status:
		return "status"
	case !c.EventTime.Equal(r.event):
		return "event time"
	case c.ExecutionID != r.execution, c.CorrelationID != r.correlation:
		return "ids"
	case (c.RecordCount == nil) != (r.count == nil), r.count != nil && *c.RecordCount != *r.count:
		return "record count"
	case !slices.Equal(c.Entities, r.entities), c.Incremental != r.incremental, c.Truncated != r.truncated:
		return "entities"
	}
	return ""
}

// report writes one report, and says what it means. Its kind is uneven on purpose: most
// are successes in the time of a mode that wants them.
func (f *simFamily) report(rng *rand.Rand, i int) (simText, *simRun) {
	r := f.versions[rng.IntN(len(f.versions))]
	processor := r.order[rng.IntN(len(r.order))]
	m := r.modes[rng.IntN(len(r.modes))]
	for !slices.Contains(m.names(), processor) {
		m = r.modes[rng.IntN(len(r.modes))]
	}
	run := &simRun{
		processor: processor, status: wire.StatusSuccess, event: r.moment(rng, m),
		execution: fmt.Sprintf("e%d", i), correlation: fmt.Sprintf("c%d", i),
	}
	if rng.IntN(4) > 0 {
		n := int64(100 + rng.IntN(2))
		run.count = &n
	}
	fields := map[string]any{"processor_name": simSpelling(rng, processor), "game_date": string(simPeriod)}
	var t simText
	switch rng.IntN(16) {
	case 0:
		run.status = []wire.Status{wire.StatusFailed, wire.StatusNoData, wire.StatusSkipped}[rng.IntN(3)]
	case 1:
		run.status = wire.StatusPartial
	case 2:
		run.processor = ""
		fields["processor_name"] = []string{"RosterHistoryProcessor", "alpha", "alpha_table ", "../x"}[rng.IntN(4)]
	case 3:
		t.hopeless = true
		switch rng.IntN(3) {
		case 0:
			fields["game_date"] = []string{"YESTERDAY", "2026-02-30", ""}[rng.IntN(3)]
		case 1:
			run.status = "done"
		case 2:
			delete(fields, "processor_name")
		}
	case 4: // a report that names no time of its own, or an impossible one
		run.event = run.event.Truncate(time.Microsecond)
		if rng.IntN(2) == 0 {
			fields["timestamp"] = run.event.Add(6 * time.Minute).Format(time.RFC3339Nano)
		}
	}
	published := run.event
	if rng.IntN(16) > 0 && fields["timestamp"] == nil {
		published = run.event.Add([]time.Duration{0, time.Second, time.Second, time.Hour, 20 * time.Hour}[rng.IntN(5)])
		if rng.IntN(6) == 0 {
			published = run.event.Add(-4 * time.Minute) // its clock is ahead
		}
		fields["timestamp"] = run.event.Format("2006-01-02T15:04:05.999999")
		if rng.IntN(2) == 0 {
			fields["timestamp"] = run.event.Format(time.RFC3339Nano)
		}
	}
	fields["status"], fields["execution_id"], fields["correlation_id"] = run.status, run.execution, run.correlation
	if run.count != nil {
		fields["record_count"] = []any{*run.count, float64(*run.count), fmt.Sprint(*run.count)}[rng.IntN(3)]
	}
	switch rng.IntN(4) {
	case 0:
		run.incremental = true
		for e := range 1 + rng.IntN(3) {
			run.entities = append(run.entities, fmt.Sprintf("%s%d", processor[:1], e+rng.IntN(2)))
		}
		run.entities = slices.Compact(run.entities)
		fields["metadata"] = map[string]any{"is_incremental": true, "entities_changed": run.entities}
	case 1:
		if rng.IntN(3) == 0 {
			run.incremental, run.truncated = true, true
			fields["metadata"] = map[string]any{"is_incremental": true}
		}
	}
	id := fmt.Sprintf("m%d", i)
	if rng.IntN(8) == 0 { // absent ids
		delete(fields, "execution_id")
		run.execution = id
	}
	if rng.IntN(8) == 0 {
		delete(fields, "correlation_id")
		run.correlation = run.execution
	}
	data, err := json.Marshal(fields)
	if err != nil {
		panic(err)
	}
	t.envelope = wire.Envelope{MessageID: id, PublishTime: published, Data: data}
	return t, run
}

// moment is an event time that matters to a mode: near one of its bounds, in the
// midst of it, in another's time, or long after everything.
func (r *simRules) moment(rng *rand.Rand, m simMode) time.Time {
	at := map[int]time.Duration{-1: -5 * time.Hour, 0: 11 * time.Hour, 1: 30 * time.Hour}[m.relation]
	switch rng.IntN(12) {
	case 0:
		at = m.from
	case 1:
		at = m.from - time.Microsecond
	case 2, 3:
		at = []time.Duration{-5 * time.Hour, 11 * time.Hour, 20 * time.Hour, 30 * time.Hour}[rng.IntN(4)]
	case 4:
		at = 24*time.Hour + simWithin + time.Duration(rng.IntN(3)-1)*time.Microsecond
	case 5:
		at = []time.Duration{0, 24 * time.Hour}[rng.IntN(2)] - time.Duration(rng.IntN(2))*time.Microsecond
	default:
		at += time.Duration(rng.IntN(90)) * time.Minute
	}
	return r.start.Add(at)
}

// simSpelling is one of the names under which a processor reports.
func simSpelling(rng *rand.Rand, processor string) string {
	words := strings.Split(processor, "_")
	var class string
	for _, w := range words {
		class += strings.ToUpper(w[:1]) + w[1:]
	}
	return []string{processor, class + "Processor", "Async" + class + "Processor", class}[rng.IntN(4)]
}

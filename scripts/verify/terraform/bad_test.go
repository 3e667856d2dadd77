package terraform

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/audit"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/dedup"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/notify"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/pipeline/pipelinetest"
	"github.com/phasegate/phasegate/shared/policy"
	"github.com/phasegate/phasegate/shared/processor"
	"github.com/phasegate/phasegate/shared/receipt"
	rec "github.com/phasegate/phasegate/shared/reconcile"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/warehouse"
	"github.com/phasegate/phasegate/shared/wire"
)

// bad has a fault for each alert that has to fire on it, by the alert's runbook page.
var bad = map[string]func(*recorder){
	"function-errors": func(r *recorder) {
		r.SetDown(true)
		r.complete(morning, r.Pipeline.Transitions[0].Order[0])
		r.relay()
		r.deliver("sweep", []byte(`{"job":"sweep"}`))
		r.deliver("health", []byte(`{"job":"health"}`))
	},
	"hand-over-latency": func(r *recorder) {
		// The last processor ended 16 minutes before its message was handled.
		r.SetNow(morning)
		r.complete(morning.Add(-16*time.Minute), r.Pipeline.Transitions[0].Order...)
		// A further run of the night, which only the relay evaluates.
		r.SetNow(morning.Add(20 * time.Minute))
		c := wire.Completion{Processor: r.Pipeline.Transitions[0].Order[0], Reported: "late", Period: "2026-02-03", Status: wire.StatusSuccess,
			EventTime: morning.Add(time.Minute), ExecutionID: "late", CorrelationID: "late"}
		if err := r.Engine.Record(r.t.Context(), cycle.Key{Transition: r.Pipeline.Transitions[0], Period: "2026-02-03"}, c); err != nil {
			r.t.Fatal(err)
		}
		r.relay()
	},
	"cycle-blocked": func(r *recorder) {
		r.rebuild(func(context.Context, cycle.Key, string, []string) cycle.Readiness {
			return cycle.Readiness{Outcome: cycle.Failed, Reasons: []string{"coverage 60 %, at least 80 % are needed"}}
		})
		r.complete(morning, r.Pipeline.Transitions[0].Order...)
		r.relay()
	},
	"check-unknown": func(r *recorder) {
		unanswered := func(context.Context, cycle.Key, string, []string) cycle.Readiness {
			return policy.Assess([]pipeline.Check{{Name: "row_count", Unknown: pipeline.UnknownBlocks}}, []policy.Measurement{{Problem: "Not found: Column points"}})
		}
		r.rebuild(unanswered)
		r.complete(morning, r.Pipeline.Transitions[0].Order...)
		r.SetNow(morning.Add(10 * time.Minute))
		r.relay()
		r.App.Warehouse = warehouse.New("test", denied(r.t))
		r.deliver("sweep", []byte(`{"job":"sweep"}`))
	},
	"cycle-overdue": func(r *recorder) {
		r.complete(morning, r.Pipeline.Transitions[0].Order[0])
		r.SetNow(time.Date(2026, 2, 4, 15, 1, 0, 0, time.UTC)) // 10:01 in New York, a minute after the deadline
		r.relay()
	},
	"left-unfinished": func(r *recorder) {
		r.complete(morning, r.Pipeline.Transitions[0].Order[0])
		r.SetNow(morning.AddDate(0, 0, 9))
		r.relay()
	},
	"guard-lost":    (*recorder).takenOver,
	"guard-overlap": (*recorder).takenOver, // both runs report success
	"guard-unknown": func(r *recorder) {
		r.deliveredTo(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, receipt.MinTTL, "a")
	},
	"guard-unrecorded": func(r *recorder) {
		r.deliveredTo(func(http.ResponseWriter, *http.Request) {
			doc := r.reused()
			if _, err := r.written.Apply(context.Background(), store.DeleteIf(doc.Ref, doc.Version)); err != nil {
				panic(err)
			}
		}, receipt.MinTTL, "a")
	},
	"guard-key-reused": func(r *recorder) {
		r.deliveredTo(func(http.ResponseWriter, *http.Request) {}, receipt.MinTTL, "a", "b")
	},
	"lock-lost": func(r *recorder) {
		r.processed("2026-02-03", func(l *lease.Lease) {
			if _, err := r.Locks.Break(r.t.Context(), l.Key().String(), audit.Record{Action: "lock_release", Actor: "ann", Reason: "its machine is gone"}); err != nil {
				r.t.Fatal(err)
			}
			if err := l.Renew(r.t.Context()); !errors.Is(err, lease.ErrLost) {
				r.t.Fatal(err)
			}
		})
	},
	"write-fenced": func(r *recorder) {
		if err := r.work(true); !errors.Is(err, warehouse.ErrFenced) {
			r.t.Fatal(err)
		}
	},
	"lock-leaked": func(r *recorder) {
		r.processed("2026-02-02", func(*lease.Lease) {}) // and its process dies
		r.SetNow(r.Now().Add(31 * time.Minute))
		r.relay()
	},
	"findings-left": func(r *recorder) {
		r.deliver("reconcile", []byte(`{"job":"dance"}`)) // and it stays in quarantine
		r.nightly()
	},
	"reconcile-unknown": func(r *recorder) { // no BigQuery is configured
		r.complete(morning, r.Pipeline.Transitions[0].Order...)
		r.nightly()
	},
	"tracking-accuracy": func(r *recorder) {
		t := r.Pipeline.Transitions[0]
		rec.New(r.App).LogReport(r.t.Context(), t, rec.Report{From: "2026-02-02", To: "2026-02-03", Tables: 10, Shown: 6})
		r.keep("phasegate-reconcile")
	},
	"message-quarantined": func(r *recorder) {
		r.deliver("transition", []byte(`{"processor_name":"PlayerGameSummaryProcessor","game_date":"TODAY","status":"success"}`))
		r.deliver("reconcile", []byte(`{"job":"dance"}`))
		r.deliver("sweep", []byte(`{"job":"dance"}`))
		r.deliver("health", []byte(`{"job":"dance"}`))
	},
	"notify-failed": func(r *recorder) {
		revoked := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }))
		r.t.Cleanup(revoked.Close)
		r.Notifier.Slack = notify.FromEnv(func(name string) string { return map[string]string{"SLACK_WEBHOOK_URL": revoked.URL}[name] })
		for _, f := range []string{"transition", "reconcile", "sweep", "health"} {
			r.deliver(f, []byte(`{"job":"dance"}`)) // each function tries to notify Slack of it
		}
	},
	"health-failing": func(r *recorder) {
		r.processed("2026-02-02", func(*lease.Lease) {}) // and its process dies
		r.SetNow(r.Now().Add(31 * time.Minute))
		r.deliver("health", []byte(`{"job":"health"}`))
	},
	"health-unknown": func(r *recorder) { // no BigQuery is configured
		r.deliver("health", []byte(`{"job":"health"}`))
	},
	"duplicates": func(r *recorder) {
		r.App.Warehouse = warehouse.New("test", doubled(r.t, 30))
		r.deliver("sweep", []byte(`{"job":"sweep"}`))
	},
}

// work is a run of a processor in Go. With fenced, a later run has revoked its fencing token.
func (r *recorder) work(fenced bool) error {
	r.guarded()
	runner := processor.New(processor.Config{Pipeline: r.Pipeline, Store: r.written, Locks: r.Locks, Warehouse: warehouse.New("test", bigQuery(r.t, fenced)),
		Publish: r.Broker.Publish, Now: r.Now, NewID: rand.Text, Staging: r.App.Config.Staging(), TimeLimit: time.Minute, Log: r.App.Log})
	_, err := runner.Run(r.t.Context(), "player_game_summary", "2026-02-05", processor.Request{}, func(context.Context, processor.Run) (processor.Output, error) {
		return processor.Output{Rows: []dedup.Row{{"game_date": "2026-02-05", "player_lookup": "a", "processed_at": r.Now()}}}, nil
	})
	r.keep("nba-phase3-analytics-processors")
	return err
}

// bigQuery accepts every write, or refuses the last one if fenced. It is only good enough for the log
// lines and documents of a run; other tests write to the emulator.
func bigQuery(t *testing.T, fenced bool) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		body, err := io.ReadAll(req.Body)
		if err != nil {
			t.Error(err)
		}
		reference := `"status":{"state":"DONE"},"jobReference":{"projectId":"test","jobId":"j"}`
		query := `{` + reference + `,"configuration":{"labels":{"phasegate":"fence"},"query":{"query":"SELECT 1"}}}`
		switch path := req.URL.Path; {
		case strings.Contains(path, "/tables") && req.Method == http.MethodGet:
			fmt.Fprint(w, `{"type":"TABLE","schema":{"fields":[{"name":"game_date","type":"DATE"},{"name":"player_lookup","type":"STRING"},{"name":"processed_at","type":"TIMESTAMP"}]}}`)
		case strings.Contains(path, "/tables"):
			fmt.Fprint(w, `{}`)
		case strings.Contains(path, "upload"):
			fmt.Fprint(w, `{`+reference+`,"configuration":{"load":{"destinationTable":{}}}}`)
		case strings.Contains(path, "/queries"):
			fmt.Fprint(w, `{"jobComplete":true,"totalRows":"1","schema":{"fields":[{"name":"n","type":"INTEGER"}]},"rows":[{"f":[{"v":"0"}]}],"jobReference":{"projectId":"test","jobId":"j"}}`)
		case strings.Contains(string(body), "SELECT") && !fenced:
			fmt.Fprint(w, query)
		case strings.Contains(string(body), "MERGE") && !fenced:
			fmt.Fprint(w, query)
		case strings.Contains(string(body), "MERGE"):
			w.WriteHeader(http.StatusConflict)
			fmt.Fprint(w, `{"error":{"code":409,"message":"Already Exists: Job","errors":[{"reason":"duplicate"}]}}`)
		case strings.Contains(path, "phasegate-"):
			fmt.Fprint(w, query)
		default:
			fmt.Fprint(w, `{`+reference+`,"configuration":{"load":{"destinationTable":{}}}}`)
		}
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// resumed is a hand-over whose process died in its readiness check.
func resumed(r *recorder) {
	r.rebuild(func(context.Context, cycle.Key, string, []string) cycle.Readiness {
		r.SetDown(true)
		return cycle.Readiness{Outcome: cycle.NotChecked}
	})
	r.complete(morning, r.Pipeline.Transitions[0].Order...)
	r.SetDown(false)
	r.rebuild(cycle.Unchecked)
	r.SetNow(morning.Add(2 * time.Minute))
	r.relay()
}

// inParts is a night whose messages are larger than a document.
func inParts(r *recorder) {
	tr := r.Pipeline.Transitions[0]
	for i := range 16 {
		c := wire.Completion{Processor: tr.Order[i%4], Reported: "large", Period: "2026-02-03", Status: wire.StatusSuccess,
			EventTime: morning, ExecutionID: strconv.Itoa(i), CorrelationID: "large", Incremental: true}
		for n := range 195 {
			c.Entities = append(c.Entities, fmt.Sprintf("%0240d", 1000*i+n))
		}
		if err := r.Engine.Record(r.t.Context(), cycle.Key{Transition: tr, Period: "2026-02-03"}, c); err != nil {
			r.t.Fatal(err)
		}
	}
	r.complete(morning.Add(time.Minute), tr.Order[4:]...)
}

// inShards is a night of a transition whose runs are not stored in the period's document.
func inShards(r *recorder) {
	p, err := pipeline.Parse([]byte(pipelinetest.Wide(501, "processor")))
	if err != nil {
		r.t.Fatal(err)
	}
	r.rebuild(func(context.Context, cycle.Key, string, []string) cycle.Readiness {
		return cycle.Readiness{Outcome: cycle.Passed}
	})
	r.SetNow(morning)
	p.Transitions[0].DownstreamTopic = r.Pipeline.Transitions[0].DownstreamTopic
	key := cycle.Key{Transition: p.Transitions[0], Period: "2026-02-03"}
	for _, name := range append(key.Transition.Order, "") { // the last is of no mode
		c := wire.Completion{Processor: name, Reported: "wide", Period: "2026-02-03", Status: wire.StatusSuccess, EventTime: morning, ExecutionID: name, CorrelationID: "wide"}
		if err := r.Engine.Record(r.t.Context(), key, c); err != nil {
			r.t.Fatal(err)
		}
	}
	if _, err := r.Engine.Converge(r.t.Context(), key, "wide"); err != nil {
		r.t.Fatal(err)
	}
}

// oddities write documents and fields that an ordinary night does not.
func oddities(r *recorder) {
	tr := r.Pipeline.Transitions[0]
	r.complete(morning, "RosterHistoryProcessor") // of no mode
	r.deliver("transition", fmt.Appendf(nil, `{"game_date":"TODAY","padding":"%s"}`, strings.Repeat("x", 1<<20)))
	key := cycle.Key{Transition: tr, Period: "2026-02-03"}
	if _, err := r.Engine.Hold(r.t.Context(), key, "overnight", time.Hour, "ann", "the source is being repaired"); err != nil {
		r.t.Fatal(err)
	}
	if _, err := r.Engine.Close(r.t.Context(), key, tr.Modes[0], "ann", "it shall never run"); err != nil {
		r.t.Fatal(err)
	}
}

// onHold is a night that an operator holds beyond its deadline.
func onHold(r *recorder) {
	tr := r.Pipeline.Transitions[0]
	r.complete(morning, tr.Order[0])
	if _, err := r.Engine.Hold(r.t.Context(), cycle.Key{Transition: tr}, "", 12*time.Hour, "ann", "the source is being repaired"); err != nil {
		r.t.Fatal(err)
	}
	r.SetNow(time.Date(2026, 2, 4, 15, 1, 0, 0, time.UTC)) // 10:01 in New York, a minute after the deadline
	r.relay()
}

// inShadow does the same as a smoke test: its completions arrive one by one after the deadline of
// the cycle, and a relay in shadow finds other cycles overdue.
func inShadow(r *recorder) {
	r.query = "?shadow=1"
	r.relay() // the first, two days before
	r.complete(morning.Add(6*time.Hour), r.Pipeline.Transitions[0].Order...)
	r.relay()
}

package terraform

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/phasegate/phasegate/scripts/dev/serve"
	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/app/apptest"
	"github.com/phasegate/phasegate/shared/audit"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/dedup"
	"github.com/phasegate/phasegate/shared/guard"
	healthy "github.com/phasegate/phasegate/shared/health"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/notify"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/policy"
	"github.com/phasegate/phasegate/shared/processor"
	"github.com/phasegate/phasegate/shared/receipt"
	rec "github.com/phasegate/phasegate/shared/reconcile"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/telemetry"
	"github.com/phasegate/phasegate/shared/warehouse"
	"github.com/phasegate/phasegate/shared/wire"
)

// recorder runs the functions and keeps what they log, as the platform would, and what
// they write.
type recorder struct {
	*apptest.World
	t       *testing.T
	entries []entry
	written *writes
	sent    int
	query   string // of the subscription that delivers
}

var morning = time.Date(2026, 2, 4, 11, 5, 0, 0, time.UTC) // 06:05 in New York, the day after

func record(t *testing.T) *recorder {
	r := &recorder{World: apptest.New(t, morning.AddDate(0, 0, -2)), t: t}
	r.written = &writes{Store: r.Store, fields: map[string]map[string]bool{}, wide: map[string]map[string]bool{}}
	r.rebuild(nil)
	return r
}

// rebuild makes the engine anew on the recording store, with other readiness checks.
func (r *recorder) rebuild(check cycle.Check) {
	c := r.Engine.Config
	r.App.Store, c.Store, r.Notifier.Store = r.written, r.written, r.written
	if check != nil {
		c.Check = check
	}
	r.App.Engine = cycle.New(c)
}

// deliver posts a message to a function and keeps what it logs.
func (r *recorder) deliver(function string, data []byte) int {
	r.t.Helper()
	r.sent++
	body := wire.Envelope{MessageID: fmt.Sprint(r.sent), PublishTime: r.Now(), Data: data}.Push()
	rec := httptest.NewRecorder()
	h := serve.Handler(function, func(context.Context) (*app.App, error) { return r.App, nil })
	h.ServeHTTP(rec, httptest.NewRequest(http.MethodPost, "/"+r.query, strings.NewReader(string(body))))
	r.keep("phasegate-" + function)
	e := requested("phasegate-"+function, rec.Code)
	e.at = r.Now()
	r.entries = append(r.entries, e)
	return rec.Code
}

// keep takes what was logged since the last time as a service's.
func (r *recorder) keep(service string) {
	for _, line := range r.Logs.Drain() {
		e := logged(service, line)
		e.at = r.Now()
		r.entries = append(r.entries, e)
	}
}

// processed is a processor's run under its lock, in a container of its own; meanwhile
// happens while it is at work.
func (r *recorder) processed(date string, meanwhile func(*lease.Lease)) {
	r.t.Helper()
	locks := lease.New(r.Locks.Config)
	locks.Store = r.written
	got, err := locks.Acquire(r.t.Context(), lease.Key{Class: "PlayerGameSummaryProcessor", Period: pipeline.Period(date)}, "run-1")
	if err != nil {
		r.t.Fatal(err)
	}
	meanwhile(got)
	r.keep("nba-phase3-analytics-processors")
}

// logged is a line of a service's standard output as Cloud Logging keeps it: the
// severity is taken out of the payload.
func logged(service string, line map[string]any) entry {
	e := ofService(service, "stdout")
	e.Severity, _ = line["severity"].(string)
	e.JSONPayload = maps.Clone(line)
	delete(e.JSONPayload, "severity")
	return e
}

// ofService is an entry of one of the logs that Cloud Run keeps of a service.
func ofService(service, log string) entry {
	e := entry{LogName: "projects/" + project + "/logs/run.googleapis.com%2F" + log}
	e.Resource.Type, e.Resource.Labels = "cloud_run_revision", map[string]string{"service_name": service}
	return e
}

// requested is the entry that Cloud Run itself writes for an answer.
// https://cloud.google.com/run/docs/logging: a 4xx is a warning, a 5xx an error.
func requested(service string, status int) entry {
	e := ofService(service, "requests")
	e.HTTPRequest = map[string]any{"status": status, "requestMethod": http.MethodPost}
	e.Severity = "INFO"
	switch {
	case status >= http.StatusInternalServerError:
		e.Severity = "ERROR"
	case status >= http.StatusBadRequest:
		e.Severity = "WARNING"
	}
	return e
}

// complete reports processors as done for the night at a time.
func (r *recorder) complete(at time.Time, processors ...string) {
	r.t.Helper()
	r.completeFor("2026-02-03", at, processors...)
}

func (r *recorder) completeFor(date string, at time.Time, processors ...string) {
	r.t.Helper()
	if r.Now().Before(at) {
		r.SetNow(at)
	}
	for _, name := range processors {
		data, err := json.Marshal(map[string]any{"processor_name": name, "game_date": date, "status": "success",
			"execution_id": name + at.String(), "timestamp": at.Format(time.RFC3339), "record_count": 100})
		if err != nil {
			r.t.Fatal(err)
		}
		r.deliver("transition", data)
	}
}

// guarded is a delivery to a service behind phasectl guard.
func (r *recorder) guarded() {
	r.t.Helper()
	receipts := receipt.New(receipt.Config{Store: r.written, Now: r.Now, NewID: rand.Text, TTL: receipt.MinTTL, Instance: "i", Log: r.App.Log})
	c, err := receipts.Claim(r.t.Context(), receipt.Delivery{Scope: "phase4", Route: "/", Key: rand.Text()})
	if err == nil {
		_, err = c.Done(r.t.Context(), 200)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *recorder) relay() int {
	r.t.Helper()
	return r.deliver("reconcile", []byte(`{"job":"relay"}`))
}

func (r *recorder) nightly() {
	r.t.Helper()
	r.deliver("reconcile", []byte(`{"job":"nightly"}`))
}

// good is a night on which everything goes well: nothing in it may set off an alert.
func good(t *testing.T) *recorder {
	r := record(t)
	order := r.Pipeline.Transitions[0].Order
	upcoming := order[3:]
	r.completeFor("2026-02-03", morning.Add(-37*time.Hour), upcoming...) // 17:05 of the day before
	r.completeFor("2026-02-03", morning.Add(-19*time.Hour), upcoming...) // 11:05 of the day
	r.completeFor("2026-02-04", morning.Add(-13*time.Hour), upcoming...) // 17:05 of the day
	r.relay()
	r.processed("2026-02-03", func(l *lease.Lease) {
		if err := errors.Join(l.Renew(r.t.Context()), l.Release(r.t.Context())); err != nil {
			r.t.Fatal(err)
		}
	})
	r.complete(morning, order[:2]...)
	r.relay()
	if err := r.work(false); err != nil {
		t.Fatal(err)
	}
	r.complete(morning, order[2:]...)
	if code := r.relay(); code != http.StatusNoContent || len(r.PubSub.Messages()) != 3*len(upcoming)+len(order)+1 { // and the completion of the run
		t.Fatalf("the good night is none: relay answered %d, %d messages", code, len(r.PubSub.Messages()))
	}
	// Copies of one message: another worker has it, which is expected and no fault.
	held, err := r.Locks.Acquire(t.Context(), lease.Key{Class: "PhasegateNightly", Period: r.Pipeline.Calendar.At(r.Now())}, "message-other")
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if code := r.deliver("reconcile", []byte(`{"job":"nightly"}`)); code != http.StatusTooManyRequests {
			t.Fatalf("next to another worker: %d", code)
		}
	}
	if err := held.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	// A drill sets off no alert: a message to people is all that comes of it.
	if code := r.deliver("health", []byte(`{"job":"health","date":"2000-01-01"}`)); code != http.StatusNoContent {
		t.Fatalf("the drill: %d", code)
	}
	fine := healthy.Report{Overall: healthy.OK, Checks: []healthy.Check{{ID: healthy.HandOvers, State: healthy.OK, Evidence: []string{"every cycle is handed over"}}}}
	healthy.New(r.App).LogReport(t.Context(), fine)
	r.keep("phasegate-health")
	rec.New(r.App).LogReport(t.Context(), r.Pipeline.Transitions[0], rec.Report{From: "2026-02-02", To: "2026-02-05", Tables: 10, Shown: 10})
	r.keep("phasegate-reconcile")
	return r
}

// deliveredTo posts deliveries to a guard in front of a service, and keeps what it logs.
func (r *recorder) deliveredTo(service http.HandlerFunc, ttl time.Duration, data ...string) {
	r.t.Helper()
	up := httptest.NewServer(service)
	defer up.Close()
	address, err := url.Parse(up.URL)
	if err != nil {
		r.t.Fatal(err)
	}
	receipts := receipt.New(receipt.Config{Store: r.written, Now: time.Now, NewID: rand.Text, TTL: receipt.MinTTL, Instance: "i", Log: r.App.Log})
	g, err := guard.New(guard.Config{Receipts: receipts, Upstream: address, Scope: "reports", Paths: []string{"/"}, Success: []int{200}, Limit: time.Minute, NewID: rand.Text, Log: r.App.Log})
	if err != nil {
		r.t.Fatal(err)
	}
	receipts.TTL = ttl
	for n, d := range data {
		body := wire.Envelope{MessageID: fmt.Sprint(n), PublishTime: r.Now(), Attributes: map[string]string{"trigger_id": "reused"}, Data: []byte(d)}.Push()
		g.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/", strings.NewReader(string(body))))
	}
	r.keep("nba-phase4-precompute-processors")
}

// reused is the receipt of the deliveries of deliveredTo.
func (r *recorder) reused() store.Doc {
	snap, err := r.written.Get(context.Background(), store.Ref{Collection: "receipts", ID: receipt.Delivery{Scope: "reports", Route: "/", Key: "reused"}.ID()})
	if err != nil {
		panic(err)
	}
	return snap.Docs[0]
}

// takenOver has another guard take the claim of a run, and returns once its guard has noticed.
func (r *recorder) takenOver() {
	noticed := make(chan struct{})
	log := r.App.Log
	r.App.Log = slog.New(noticing{log.Handler(), noticed})
	r.deliveredTo(func(http.ResponseWriter, *http.Request) {
		if _, err := r.written.Apply(context.Background(), store.Merge(r.reused().Ref, store.F("another", "holder"))); err != nil {
			panic(err)
		}
		<-noticed
	}, 30*time.Millisecond, "a")
	r.App.Log = log
}

// noticing says when a lost claim is logged.
type noticing struct {
	slog.Handler
	lost chan struct{}
}

func (n noticing) WithAttrs(as []slog.Attr) slog.Handler {
	return noticing{n.Handler.WithAttrs(as), n.lost}
}

func (n noticing) Handle(ctx context.Context, line slog.Record) error {
	err := n.Handler.Handle(ctx, line)
	line.Attrs(func(a slog.Attr) bool {
		if a.Value.String() == telemetry.GuardLost {
			close(n.lost)
		}
		return true
	})
	return err
}

// bad holds, by the page of the alert that has to notice it, what goes wrong.
var bad = map[string]func(*recorder){
	"function-errors": func(r *recorder) {
		r.SetDown(true)
		r.complete(morning, r.Pipeline.Transitions[0].Order[0])
		r.relay()
		r.deliver("sweep", []byte(`{"job":"sweep"}`))
		r.deliver("health", []byte(`{"job":"health"}`))
	},
	"hand-over-latency": func(r *recorder) {
		// The last one ended 16 minutes before its message could be handled.
		r.SetNow(morning)
		r.complete(morning.Add(-16*time.Minute), r.Pipeline.Transitions[0].Order...)
		// Another night, found by the relay.
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
		r.deliver("reconcile", []byte(`{"job":"dance"}`)) // and nobody looks at it
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
			r.deliver(f, []byte(`{"job":"dance"}`)) // of which somebody should hear
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

// work is a run of a processor in Go; fenced: a later run has taken its right to write.
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

// bigQuery takes every write, or has none left to make: its part in what is logged and
// recorded. Writes themselves are tried on the emulator.
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

// oddities write what a night without them does not.
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

// onHold is a night that a person keeps on hold beyond its deadline.
func onHold(r *recorder) {
	tr := r.Pipeline.Transitions[0]
	r.complete(morning, tr.Order[0])
	if _, err := r.Engine.Hold(r.t.Context(), cycle.Key{Transition: tr}, "", 12*time.Hour, "ann", "the source is being repaired"); err != nil {
		r.t.Fatal(err)
	}
	r.SetNow(time.Date(2026, 2, 4, 15, 1, 0, 0, time.UTC)) // 10:01 in New York, a minute after the deadline
	r.relay()
}

// inShadow is what a smoke test leaves: a cycle past its deadline that is completed one
// by one, and a relay in shadow that finds others overdue.
func inShadow(r *recorder) {
	r.query = "?shadow=1"
	r.relay() // the first, two days before
	r.complete(morning.Add(6*time.Hour), r.Pipeline.Transitions[0].Order...)
	r.relay()
}

// writes notes which fields of which collections are written, and which of them are
// wide: maps, lists and stored messages.
type writes struct {
	store.Store
	mu           sync.Mutex
	fields, wide map[string]map[string]bool
}

func note(into map[string]map[string]bool, collection, field string) {
	if into[collection] == nil {
		into[collection] = map[string]bool{}
	}
	into[collection][field] = true
}

// Apply implements store.Store.
func (w *writes) Apply(ctx context.Context, ws ...store.Write) ([]store.Version, error) {
	w.mu.Lock()
	for _, x := range ws {
		for _, f := range x.Fields {
			note(w.fields, x.Ref.Collection, f.Path[0])
			if len(f.Path) > 1 || isWide(f.Value) {
				note(w.wide, x.Ref.Collection, f.Path[0])
			}
		}
	}
	w.mu.Unlock()
	return w.Store.Apply(ctx, ws...)
}

func isWide(v any) bool {
	if s, ok := v.(string); ok {
		return strings.HasPrefix(s, "{")
	}
	switch reflect.ValueOf(v).Kind() {
	case reflect.Map, reflect.Slice:
		return true
	}
	return reflect.TypeOf(v) == reflect.TypeOf(store.Union("x"))
}

// sharedRecordings are made once: every test reads the same entries.
var sharedRecordings = struct {
	sync.Once
	good, shadow, all []entry
	bad               map[string][]entry
	// fields by collection, over all of them
	written, wide map[string]map[string]bool
}{}

func recordings(t *testing.T) (goodEntries []entry, badEntries map[string][]entry, all []entry) {
	t.Helper()
	s := &sharedRecordings
	s.Do(func() {
		s.bad, s.written, s.wide = map[string][]entry{}, map[string]map[string]bool{}, map[string]map[string]bool{}
		keep := func(r *recorder) []entry {
			for _, x := range []struct{ from, to map[string]map[string]bool }{{r.written.fields, s.written}, {r.written.wide, s.wide}} {
				for collection, fields := range x.from {
					for field := range fields {
						note(x.to, collection, field)
					}
				}
			}
			s.all = append(s.all, r.entries...)
			return r.entries
		}
		s.good = keep(good(t))
		for page, wrong := range bad {
			r := record(t)
			wrong(r)
			s.bad[page] = keep(r)
		}
		for _, scene := range []func(*recorder){resumed, oddities, onHold, inShadow} {
			r := record(t)
			scene(r)
			s.shadow = keep(r) // of the last
		}
	})
	return s.good, s.bad, s.all
}

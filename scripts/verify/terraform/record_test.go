package terraform

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/scripts/dev/serve"
	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/app/apptest"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/guard"
	healthy "github.com/phasegate/phasegate/shared/health"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/receipt"
	rec "github.com/phasegate/phasegate/shared/reconcile"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/telemetry"
	"github.com/phasegate/phasegate/shared/wire"
)

// recorder runs the functions, and keeps their log lines, as the platform does, and the fields that
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

// rebuild makes a new engine on the recording store, with other readiness checks.
func (r *recorder) rebuild(check cycle.Check) {
	c := r.Engine.Config
	r.App.Store, c.Store, r.Notifier.Store = r.written, r.written, r.written
	if check != nil {
		c.Check = check
	}
	r.App.Engine = cycle.New(c)
}

// deliver posts a message to a function and keeps its log lines.
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

// keep adds the log lines since the last call as entries of a service.
func (r *recorder) keep(service string) {
	for _, line := range r.Logs.Drain() {
		e := logged(service, line)
		e.at = r.Now()
		r.entries = append(r.entries, e)
	}
}

// processed is a processor's run under its lock, in a container of its own. It calls meanwhile
// during the run.
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

// good is a night on which everything goes well: none of its log lines may fire an alert.
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
		t.Fatalf("the good night has a fault: relay answered %d, %d messages", code, len(r.PubSub.Messages()))
	}
	// Copies of a message are refused while another worker handles it. That is no fault.
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
	// A drill fires no alert: it only sends a notification.
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

// deliveredTo posts deliveries to a guard in front of a service, and keeps its log lines.
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

// takenOver lets another guard take over the claim of a run. It returns when the first guard has
// logged the loss.
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

// noticing closes lost when a lost claim is logged.
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

package terraform

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/phasegate/phasegate/scripts/dev/serve"
	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/warehouse"
	"github.com/phasegate/phasegate/shared/wire"
)

// push is a message on its way to a function.
type push struct {
	function, id, subscription string
	data                       []byte
	sent, due                  time.Time
	backoff                    time.Duration
}

func (w *play) write(name string, period pipeline.Period) {
	_, p, _ := w.Pipeline.Processor(name)
	w.contents[p.Table][period] = warehouse.Slice{Rows: 100, Oldest: w.Now(), Newest: w.Now()}
}

func (w *play) nextPhase(period pipeline.Period) {
	for _, p := range w.Pipeline.Phases[1].Processors {
		w.write(p.Name, period)
	}
}

// run is one processor's run under its lock, which writes its rows and reports.
func (w *play) run(name string, period pipeline.Period) {
	_, p, _ := w.Pipeline.Processor(name)
	deployed, bad := !w.Now().Before(w.since), period == badDay && w.onBadDay(5, 24)
	id := fmt.Sprint("run-", len(w.runs))
	if bad && name == w.wrong.failed {
		w.report(name, period, id, "failed")
		return
	}
	if deployed {
		held, err := w.Locks.Acquire(w.t.Context(), lease.Key{Class: p.Class, Period: period}, id)
		if err == nil && !(bad && w.wrong.leaked && name == "team_offense_game_summary") {
			err = held.Release(w.t.Context())
		}
		if err != nil && !w.wrong.down {
			w.t.Fatal(err)
		}
		w.keep(w.Pipeline.Phases[0].Service)
	}
	if bad && name == w.wrong.silent {
		return
	}
	w.write(name, period)
	if bad && w.wrong.surplus > 0 && name == "player_game_summary" {
		s := w.contents[p.Table][period]
		s.Rows, s.Surplus = s.Rows+int64(w.wrong.surplus), int64(w.wrong.surplus)
		w.contents[p.Table][period] = s
	}
	w.runs = append(w.runs, warehouse.ProcessorRun{Processor: p.Class, Period: period, ID: id, Began: w.Now(), Ended: w.Now().Add(30 * time.Second)})
	switch {
	case !deployed:
		// The other orchestrator hands over.
		now := w.Now()
		w.SetNow(now.Add(10 * time.Minute))
		w.nextPhase(period)
		w.SetNow(now)
	case bad && name == w.wrong.backfilled:
	default:
		w.report(name, period, id, "success")
	}
}

func (w *play) report(name string, period pipeline.Period, id, status string) {
	data, err := json.Marshal(map[string]any{"processor_name": name, "game_date": period, "status": status, "execution_id": id,
		"timestamp": w.Now().UTC().Format(time.RFC3339), "record_count": 100})
	if err != nil {
		w.t.Fatal(err)
	}
	m := w.message("transition", data)
	w.deliverAndRetry(m)
	if w.wrong.again && period == badDay {
		w.deliverAndRetry(m)
	}
}

// message makes a message to a function's subscription.
func (w *play) message(function string, data []byte) *push {
	w.messages++
	m := &push{function: function, id: fmt.Sprint("m", w.messages), data: data, sent: w.Now(), due: w.Now(), backoff: 10 * time.Second, subscription: "phasegate-" + function + "-" + function}
	if function == "transition" {
		m.subscription = w.Pipeline.Transitions[0].UpstreamTopic + "-transition"
	}
	return m
}

// deliverAndRetry pushes a message. A refused message is redelivered.
func (w *play) deliverAndRetry(m *push) {
	rr := httptest.NewRecorder()
	h := serve.Handler(m.function, func(context.Context) (*app.App, error) { return w.App, nil })
	h.ServeHTTP(rr, httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(wire.Envelope{MessageID: m.id, PublishTime: m.sent, Data: m.data}.Push())))
	w.keep("phasegate-" + m.function)
	w.answered(m, rr.Code)
}

// answered records an answer in the metrics and logs, as the platform does.
func (w *play) answered(m *push, code int) {
	e := requested("phasegate-"+m.function, code)
	e.at = w.Now()
	w.entries = append(w.entries, e)
	w.metrics.add("run_googleapis_com:request_count", map[string]string{"monitored_resource": "cloud_run_revision", "service_name": "phasegate-" + m.function,
		"response_code_class": fmt.Sprintf("%dxx", code/100)}, w.Now(), 1)
	class := "ack"
	if code >= 300 {
		class = fmt.Sprintf("remote_server_%dxx", code/100)
		m.due, m.backoff = w.Now().Add(m.backoff), min(2*m.backoff, 10*time.Minute)
		w.refused = append(w.refused, m)
	}
	w.metrics.add("pubsub_googleapis_com:subscription_push_request_count", map[string]string{"monitored_resource": "pubsub_subscription", "subscription_id": m.subscription, "response_class": class}, w.Now(), 1)
}

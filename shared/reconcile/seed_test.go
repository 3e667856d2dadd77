package reconcile

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/emulatortest"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/store/firestore"
	"github.com/phasegate/phasegate/shared/warehouse/warehousetest"
	"github.com/phasegate/phasegate/shared/wire"
)

// The night that this began with: 1 of 5 shown complete and the flag set by hand, while
// all five tables were there and nothing had been sent. On Firestore's and BigQuery's
// emulators.
func TestReconcile_IncidentNightIsRepaired(t *testing.T) {
	emulatortest.Firestore(t)
	w := warehousetest.NBA(t)
	data := w.Sample()
	if err := data.CreateFurther(t.Context()); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "pipeline.yaml")
	if err := os.WriteFile(file, []byte(w.Definition()), 0o600); err != nil {
		t.Fatal(err)
	}
	server := pstest.NewServer()
	defer server.Close()
	config := app.Config{Project: fmt.Sprintf("reconcile-%016x", rand.Uint64()), PipelineFile: file, Claim: time.Minute, Lease: lease.Max, Local: true,
		PubSubHost: server.Addr, BigQueryHost: w.Host}
	a, err := app.Open(t.Context(), config, func(ctx context.Context, c app.Config) (store.Store, error) {
		return firestore.Open(ctx, c.Project, "")
	}, time.Now, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	tr := a.Pipeline.Transitions[0]
	if _, err := a.Broker.Client.TopicAdminClient.CreateTopic(t.Context(), &pubsubpb.Topic{Name: "projects/" + config.Project + "/topics/" + tr.DownstreamTopic}); err != nil {
		t.Fatal(err)
	}
	// The server's clock is the emulator's: the nights are those before yesterday's.
	today := tr.Calendar().At(time.Now())
	good, bad := tr.Calendar().Add(today, -3), tr.Calendar().Add(today, -2)
	for _, night := range []pipeline.Period{good, bad} {
		day := warehousetest.Complete
		day.Date = night
		w.Fill(day)
		at := tr.Calendar().Instant(night, pipeline.Offset{Periods: 1, Minute: 6*60 + 3})
		for _, p := range a.Pipeline.Phases[0].Processors {
			if err := data.Exec(t.Context(), fmt.Sprintf("UPDATE %s SET processed_at = TIMESTAMP '%s' WHERE game_date = DATE '%s'", p.Table, at.Format("2006-01-02 15:04:05"), night)); err != nil {
				t.Fatal(err)
			}
			if night == bad && p.Name != "team_defense_game_summary" {
				continue
			}
			rows := map[string]int64{"player_game_summary": 350, "upcoming_player_game_context": 300}[p.Name]
			if rows == 0 {
				rows = 20
			}
			c := wire.Completion{Processor: p.Name, Reported: p.Name, Period: night, Status: wire.StatusSuccess, EventTime: at, ExecutionID: p.Name, CorrelationID: p.Name, RecordCount: &rows}
			if err := a.Engine.Record(t.Context(), cycle.Key{Transition: tr, Period: night}, c); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := a.Engine.Converge(t.Context(), cycle.Key{Transition: tr, Period: night}, ""); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(server.Messages()); n != 5 {
		t.Fatalf("%d messages of the good night", n)
	}
	byHand := store.Merge(store.Ref{Collection: tr.CompatibilityCollection, ID: string(bad)}, store.F(true, "_triggered"))
	if _, err := a.Store.Apply(t.Context(), byHand); err != nil {
		t.Fatal(err)
	}

	r := New(a)
	before, err := r.Run(t.Context(), tr, good, bad, "")
	if err != nil {
		t.Fatal(err)
	}
	if before.pct() != 60 || before.Left() != 5 || len(before.Unknown) != 0 {
		t.Errorf("before: %s, accuracy %v, unknown %q", types(before), before.pct(), before.Unknown)
	}
	fixed, err := r.Run(t.Context(), tr, good, bad, "ada@host")
	if err != nil {
		t.Fatal(err)
	}
	if fixed.pct() != 100 || fixed.Left() != 0 || len(server.Messages()) != 10 {
		t.Errorf("after: %s, accuracy %v, %d messages", types(fixed), fixed.pct(), len(server.Messages()))
	}
	again, err := r.Run(t.Context(), tr, good, bad, "ada@host")
	if err != nil || len(again.Findings)+len(again.Unknown) != 0 || len(server.Messages()) != 10 {
		t.Errorf("again: %s, unknown %q, %d messages, %v", types(again), again.Unknown, len(server.Messages()), err)
	}
}

package processor

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/phasegate/phasegate/shared/warehouse/warehousetest"
	"github.com/phasegate/phasegate/shared/wire"
)

// A refusal that BigQuery repeats each time is published once as a failure, with its reason,
// and is not retried. If the table's metadata show it, the work is not done.
func TestRun_PublishesARefusalForGoodOnce(t *testing.T) {
	w := newWorld(t)
	w.Exec("CREATE TABLE nba_analytics.other (game_date DATE, player_lookup STRING, points INT64, processed_at TIMESTAMP)")
	for _, c := range []struct {
		name, statement string
		refusal         warehousetest.Refusal
		want            string
	}{
		{"a_value_at_load", "LOAD", warehousetest.Refusal{Code: 400, Reason: "invalid",
			Message: "Error while reading data, error message: JSON table encountered too many errors, giving up. Rows: 1; errors: 1. Please look into the errors[] collection for more details.",
			Detail:  "Error while reading data, error message: JSON parsing error in row starting at position 0: Could not parse 'x' as DATE"},
			"Could not parse 'x' as DATE"},
		{"a_statement", "MERGE", warehousetest.Refusal{Code: 400, Reason: "invalid",
			Message: "DELETE/UPDATE/MERGE DMLs are currently not supported over tables that had UPSERT streams."}, "UPSERT streams"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.published = nil
			m := w.machine()
			m.faults.Statement, m.faults.Fail = c.statement, []*warehousetest.Refusal{&c.refusal}
			w.wantRefused(m, 1, c.want)
			w.want(night, "0 0 -1 -1")
		})
	}
	w.Exec("DROP TABLE nba_analytics.player_game_summary")
	t.Run("no_table", func(t *testing.T) {
		w.published = nil
		w.wantRefused(w.machine(), 0, "does not exist")
	})
	w.Exec("CREATE VIEW nba_analytics.player_game_summary AS SELECT * FROM nba_analytics.other")
	t.Run("a_view", func(t *testing.T) {
		w.published = nil
		w.wantRefused(w.machine(), 0, "is of type VIEW")
	})
}

func (w *world) wantRefused(m *machine, worked int, want string) {
	w.t.Helper()
	times := 0
	out, err := m.run(night, Request{}, func(ctx context.Context, run Run) (Output, error) {
		times++
		return making(10, 3)(ctx, run)
	})
	if err != nil || out.Status != wire.StatusFailed || out.Category != FailedData || times != worked {
		w.t.Errorf("%+v, %v, the work was done %d times", out, err, times)
	}
	if got := w.statuses(night); got != "failed" || !strings.Contains(w.published[0].ErrorMessage, want) {
		w.t.Errorf("published %q: %+v", got, w.published)
	}
}

func TestRun_IsRetriedAfterARefusalThatMayPass(t *testing.T) {
	w := newWorld(t)
	for name, c := range map[string]struct {
		answer error
		want   string
	}{
		"denied": {&warehousetest.Refusal{Code: http.StatusForbidden, Reason: "accessDenied", Message: "Access Denied: Table t"}, "Access Denied"},
		"dead":   {errDead, "418"},
	} {
		t.Run(name, func(t *testing.T) {
			m := w.machine()
			m.faults.Get = func(_ int, path string) error {
				if strings.HasSuffix(path, "/tables/player_game_summary") {
					return c.answer
				}
				return nil
			}
			out, err := m.run(night, Request{}, making(10, 3))
			if err == nil || out.Category != FailedWarehouse || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%+v, %v", out, err)
			}
		})
	}
	w.want(night, "0 0 -1 -1")
	if out, err := w.machine().run(night, Request{}, making(10, 3)); err != nil {
		t.Errorf("%+v, %v", out, err)
	}
}

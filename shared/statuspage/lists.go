package statuspage

import (
	"fmt"
	"slices"
	"time"

	"github.com/phasegate/phasegate/shared/health"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/receipt"
)

// listing is a table of the lower part of the page.
type listing struct {
	ID, Caption string
	Empty       string // what no rows mean
	Problem     string // why nothing is known
	Columns     []string
	Rows        []listRow
	More        int
	All         string // the command that shows the rest
}

// listRow is a row: its first cell is its name, its second the state, its last the command.
type listRow struct {
	Name, Tone, Symbol, State string
	Cells                     []string
	Command                   string
}

// bound keeps the first rows, bad ones first.
func (l listing) bound() listing {
	if l.More = len(l.Rows) - mostRows; l.More > 0 {
		slices.SortStableFunc(l.Rows, func(a, b listRow) int { return bad(b) - bad(a) })
		l.Rows = l.Rows[:mostRows]
	}
	return l
}

func bad(r listRow) int {
	if r.Tone == "bad" {
		return 1
	}
	return 0
}

func ago(clk clock, t time.Time) string {
	if t.IsZero() {
		return "—"
	}
	return clk.short(t) + ", " + clk.age(t) + " ago"
}

func locks(s *state, clk clock) listing {
	l := listing{ID: "locks", Caption: "Locks of processors", Empty: "No lock has a document.", Columns: []string{"Lock", "State", "Since", "Last renewal", "Execution", "Command"}, All: "phasectl locks list"}
	if s.locksErr != nil {
		l.Problem = s.locksErr.Error()
		return l
	}
	for _, lock := range s.locks {
		row := listRow{Name: lock.Key, Tone: "calm", Symbol: "ok", State: "held", Cells: []string{clk.short(lock.Since), ago(clk, lock.Renewed), lock.Execution}}
		switch {
		case lock.Leaked(s.locksAt):
			row.Tone, row.Symbol, row.State, row.Command = "bad", "over", "leaked", "phasectl locks release "+lock.Key+" --reason '…'"
		case lock.Expired(s.locksAt):
			row.Tone, row.Symbol, row.State = "fair", "miss", "expired"
		case lock.Foreign:
			row.State = "held by another runner"
		}
		l.Rows = append(l.Rows, row)
	}
	return l.bound()
}

func sweeps(s *state, clk clock) listing {
	l := listing{ID: "sweeps", Caption: "Sweeps: duplicate rows that were removed, kept for 30 days", Empty: "No sweep removed rows in the last 30 days.",
		Columns: []string{"At", "State", "Table", "Period", "Rows", "By", "Undo"}, All: "phasectl sweep list"}
	if s.removalsErr != nil {
		l.Problem = s.removalsErr.Error()
		return l
	}
	for _, r := range slices.Backward(s.removals) {
		row := listRow{Name: clk.short(r.At), Tone: "calm", Symbol: "ok", State: r.State, Cells: []string{r.Table, string(r.Period), fmt.Sprint(r.Removed), r.Actor}}
		if r.Undoable {
			row.Command = "phasectl sweep undo " + r.ID
		}
		if r.State == "unreadable" {
			row.Tone, row.Symbol = "bad", "ask"
		}
		l.Rows = append(l.Rows, row)
	}
	return l.bound()
}

func quarantine(s *state, clk clock) listing {
	l := listing{ID: "quarantine", Caption: "Quarantine: invalid messages that wait for an operator", Empty: "No message waits in quarantine.",
		Columns: []string{"Message", "State", "Received", "Function", "Reason", "Command"}, All: "phasectl quarantine list"}
	if s.quarantineErr != nil {
		l.Problem = s.quarantineErr.Error()
		return l
	}
	for _, q := range s.quarantine {
		l.Rows = append(l.Rows, listRow{Name: q.ID, Tone: "fair", Symbol: "over", State: "waiting", Cells: []string{ago(clk, q.ReceivedAt), q.Function, cut(q.Reason)}, Command: "phasectl quarantine show " + q.ID})
	}
	return l.bound()
}

func receipts(s *state, clk clock) listing {
	l := listing{ID: "receipts", Caption: "Receipts of guards: deliveries that are lost, unknown or worked twice at once", Empty: "No delivery under a guard is lost, unknown or worked twice at once.",
		Columns: []string{"Delivery", "State", "Since", "Service", "Reason", "Command"}, All: "phasectl receipt list --limit 1000"}
	for _, p := range s.receipts.Problems {
		tone := "fair"
		if p.Kind == receipt.Lost {
			tone = "bad"
		}
		l.Rows = append(l.Rows, listRow{Name: cut(p.Key), Tone: tone, Symbol: "over", State: p.Kind, Cells: []string{ago(clk, p.Since), cut(p.Scope + p.Route), cut(p.Why)}, Command: "phasectl receipt show " + p.ID})
	}
	switch {
	case s.receiptsErr != nil && len(l.Rows) == 0: // those that can be read are shown
		l.Problem = s.receiptsErr.Error()
	case s.receiptsErr != nil:
		l.Caption += "; others cannot be read: " + s.receiptsErr.Error()
	case s.receipts.More && len(l.Rows) == 0:
		l.Problem = fmt.Sprintf("more than %d deliveries are open, and the others were not read: %s", health.MostReceipts, l.All)
	case s.receipts.More:
		l.Caption += fmt.Sprintf("; of more than %d open deliveries", health.MostReceipts)
	}
	return l
}

// cut bounds a text of another system.
func cut(s string) string { return pipeline.Clip(s, 200) }

func lastEnd(j health.Job, clk clock) string {
	if j.Last.IsZero() {
		return "it has never finished, and was due at " + clk.short(j.Due)
	}
	return "it last finished at " + clk.short(j.Last) + ", and was due at " + clk.short(j.Due)
}

func jobs(s *state, clk clock) listing {
	l := listing{ID: "jobs", Caption: "Jobs", Empty: "The pipeline schedules no jobs.", Columns: []string{"Job", "State", "Last end", "Due next", "Function", "Source"}}
	if s.jobsErr != nil {
		l.Problem = s.jobsErr.Error()
		return l
	}
	for _, j := range s.jobs {
		row := listRow{Name: j.Name, Tone: "good", Symbol: "ok", State: "in time", Cells: []string{ago(clk, j.Last), clk.short(j.Next), j.Function, j.Source}}
		switch j.State {
		case health.Unknown:
			row.Tone, row.Symbol, row.State = "calm", "wait", "not evaluated yet"
		case health.Failing:
			row.Tone, row.Symbol, row.State = "bad", "over", "late since "+clk.short(j.Due)
		case health.OK:
			if j.Pending {
				row.Tone, row.Symbol, row.State = "calm", "wait", "not due yet"
			}
		}
		l.Rows = append(l.Rows, row)
	}
	return l
}

package cycle

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/wire"
)

// The names of the default definition and what they become.
const (
	late = "- name: late\n        formerly: [overnight]"
	box  = "box_scores"
)

// boxScores renames the processor player_game_summary; formerly is the YAML of its former names.
func boxScores(formerly string) []string {
	return []string{"- name: " + pgs + "\n", "- name: " + box + "\n        class: Box\n" + formerly, "- " + pgs + "\n", "- " + box + "\n", "[" + pgs + ",", "[" + box + ","}
}

// sentOnce checks that no trigger id and no run was sent twice.
func (w *world) sentOnce() {
	w.t.Helper()
	w.eachRunOnce()
	ids := map[string]bool{}
	for _, m := range w.broker.got {
		if ids[m.TriggerID] {
			w.t.Errorf("%s was sent twice", m.TriggerID)
		}
		ids[m.TriggerID] = true
	}
}

func TestRenaming_HandsNothingOverAgain(t *testing.T) {
	for name, tc := range map[string]struct {
		changes   []string
		mode      string // of which a second run is
		processor string // by its present name
		next      string // trigger id of the second run
	}{
		"mode":             {[]string{"- name: overnight", late}, "late", pgs, "phase3_to_phase4_2026-02-03_overnight~2/" + pgs},
		"mode_twice":       {[]string{"- name: overnight", "- name: last\n        formerly: [overnight, late]"}, "last", pgs, "phase3_to_phase4_2026-02-03_overnight~2/" + pgs},
		"mode_not_said":    {[]string{"- name: overnight", "- name: late"}, "late", pgs, "phase3_to_phase4_2026-02-03_late~1/" + pgs},
		"transition":       {[]string{"- id: phase3_to_phase4", "- id: up_to_down\n    formerly: [phase3_to_phase4]"}, "overnight", pgs, "phase3_to_phase4_2026-02-03_overnight~2/" + pgs},
		"processor":        {boxScores("        formerly: [" + pgs + "]\n"), "overnight", box, "phase3_to_phase4_2026-02-03_overnight~2/" + pgs},
		"processor_twice":  {boxScores("        formerly: [" + pgs + ", scores]\n"), "overnight", box, "phase3_to_phase4_2026-02-03_overnight~2/" + pgs},
		"all_at_once":      {append(boxScores("        formerly: ["+pgs+"]\n"), "- name: overnight", late, "- id: phase3_to_phase4", "- id: up_to_down\n    formerly: [phase3_to_phase4]"), "late", box, "phase3_to_phase4_2026-02-03_overnight~2/" + pgs},
		"nothing":          {nil, "overnight", pgs, "phase3_to_phase4_2026-02-03_overnight~2/" + pgs},
		"said_to_be_a_new": {[]string{"- name: overnight", "- name: late\n        formerly: []"}, "late", pgs, "phase3_to_phase4_2026-02-03_late~1/" + pgs},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "memory")
			w.clock.set(at("2026-02-04 06:00"))
			w.mustDeliver(overnight()...)
			if len(w.broker.got) != 7 { // two of them for the mode tomorrow
				t.Fatalf("%d messages", len(w.broker.got))
			}
			w.tr = changed(t, tc.changes...)
			w.relay()
			// The broker redelivers the same reports, which have the former names.
			for _, c := range overnight() {
				c.Processor = w.tr.Present(c.Processor)
				w.mustDeliver(c)
			}
			w.relay()
			if s, err := w.engine.read(context.Background(), w.key("2026-02-03"), nil); err != nil || len(s.runs) != len(overnight()) {
				t.Errorf("%v: a redelivered report is another run: %d runs are recorded", err, len(s.runs))
			}
			if st := w.statuses()[tc.mode]; len(w.broker.got) != 7 || st.State != "published" || len(st.Missing) != 0 {
				t.Fatalf("%d messages; %s, %s; missing %v", len(w.broker.got), st.State, st.Reason, st.Missing)
			}
			if doc := w.doc("phase3_completion", "2026-02-03").Data; doc["_mode"] != tc.mode || doc["_triggered"] != true || doc["_completed_count"] != int64(5) {
				t.Errorf("shown: %v", doc)
			}
			// A further run is handed over once more, and only that.
			w.mustDeliver(run(tc.processor, "2026-02-04 07:10", count(348)))
			w.relay()
			m := w.broker.got[len(w.broker.got)-1]
			if len(w.broker.got) != 8 || m.TriggerID != tc.next || m.SourceTable != tc.processor || m.Mode != tc.mode || m.TriggerReason != "second_run" {
				t.Errorf("%d messages, the last %+v", len(w.broker.got), m)
			}
			w.sentOnce()
		})
	}
}

// A cycle that began under one name continues under the other, in each of its states.
func TestRenaming_GoesOnWithWhatWasBegun(t *testing.T) {
	renamed := append(boxScores("        formerly: ["+pgs+"]\n"), "- name: overnight", late)
	for name, tc := range map[string]struct {
		before, after []wire.Completion
		broken        bool
		state         string // before
	}{
		"waiting":    {overnight()[:4], overnight()[4:], false, ""},
		"publishing": {overnight(), nil, true, "publishing"},
		"grace":      {[]wire.Completion{run(pgs, "2026-02-04 06:01"), run(upg, "2026-02-04 06:02"), run(utg, "2026-02-04 06:03")}, []wire.Completion{run(tdef, "2026-02-04 06:04"), run(toff, "2026-02-04 06:05")}, false, "grace"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "memory")
			w.clock.set(at("2026-02-04 06:00"))
			if tc.broken {
				w.broker.fail = func(n int, _ wire.Trigger) error {
					if n > 1 {
						return errBroker
					}
					return nil
				}
			}
			for _, c := range tc.before {
				_, _ = w.deliver(c)
			}
			w.broker.fail = nil
			w.tr = changed(t, renamed...)
			w.pass(2 * time.Minute)
			w.mustDeliver(tc.after...)
			w.relay()
			if st := w.statuses()["late"]; st.State != "published" || len(st.Batches) != 1 || st.Batches[0].ID != overnightOne {
				t.Fatalf("%s: %s, %v", st.State, st.Reason, described(st))
			}
			sent := map[string]bool{}
			for _, m := range w.broker.got {
				if m.Mode != "tomorrow" {
					sent[m.TriggerID] = true
				}
			}
			for _, processor := range five {
				if !sent[overnightOne+"/"+processor] {
					t.Errorf("%s was not sent: %v", processor, sent)
				}
			}
			if len(sent) != 5 {
				t.Errorf("%d trigger ids: %v", len(sent), sent)
			}
		})
	}
}

// A hold that was made under the former name is in force, and can be released.
func TestRenaming_KeepsHolds(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-04 05:30"))
	m, _ := w.tr.Mode("overnight")
	if _, err := w.engine.Hold(ctx, w.key("2026-02-03"), m.Name, time.Hour, "me", "wait"); err != nil {
		t.Fatal(err)
	}
	w.tr = changed(t, "- name: overnight", late)
	w.mustDeliver(overnight()...)
	if st := w.statuses()["late"]; st.Hold == nil || len(w.broker.got) != 2 {
		t.Fatalf("%s: %s", st.State, st.Reason)
	}
	if r, err := w.engine.Release(ctx, w.key("2026-02-03"), "late", "me", "go"); err != nil || r.Hold == nil {
		t.Fatalf("%+v, %v", r, err)
	}
	if st := w.statuses()["late"]; st.Hold != nil || st.State != "published" {
		t.Errorf("%s: %s", st.State, st.Reason)
	}
	w.sentOnce()
}

// Processors that report by a former name count for the present one.
func TestRenaming_CountsReportsByFormerNames(t *testing.T) {
	tr := changed(t, boxScores("        formerly: ["+pgs+", scores]\n")...)
	for _, name := range []string{box, pgs, "scores", "PlayerGameSummaryProcessor", "BoxScoresProcessor"} {
		data := fmt.Sprintf(`{"processor_name": %q, "game_date": "2026-02-03", "status": "success"}`, name)
		c, _, err := wire.DecodeCompletion(wire.Envelope{MessageID: "m", PublishTime: at("2026-02-04 06:00"), Data: []byte(data)}, tr)
		if err != nil || c.Processor != box {
			t.Errorf("%s: %q, %v", name, c.Processor, err)
		}
	}
}

// History is shown with the names of its time.
func TestExplain_ShowsTheNamesOfItsTime(t *testing.T) {
	for name, formerly := range map[string]string{"said": "        formerly: [" + pgs + "]\n", "not_said": ""} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "memory")
			w.clock.set(at("2026-02-04 06:00"))
			w.mustDeliver(overnight()...)
			w.tr = changed(t, boxScores(formerly)...)
			m, _ := w.tr.Mode("overnight")
			x, err := w.engine.Explain(context.Background(), w.key("2026-02-03"), m)
			if err != nil {
				t.Fatal(err)
			}
			if len(x.Batches) != 1 || len(x.Batches[0].Messages) != 5 || x.Batches[0].Messages[pgs] == "" {
				t.Errorf("messages: %v", x.Batches)
			}
			if len(x.Batches[0].Runs) != 5 || !slices.ContainsFunc(x.Batches[0].Runs, func(r string) bool { return strings.HasPrefix(r, pgs+"@") }) {
				t.Errorf("runs of the batch: %v", x.Batches[0].Runs)
			}
			shown := map[string]int{}
			for _, r := range x.Runs {
				shown[r.Processor] = r.Batch
			}
			if len(shown) != 5 || shown[pgs] != 1 {
				t.Errorf("runs: %v", shown)
			}
		})
	}
}

func TestRenamed_NamesWhatTheDefinitionDoesNotSay(t *testing.T) {
	for name, tc := range map[string]struct {
		changes []string
		want    string // "" for none
	}{
		"nothing":                {nil, ""},
		"mode":                   {[]string{"- name: overnight", "- name: late"}, `mode "overnight" has state of 2026-02-03 to 2026-02-03 and is not in the definition; "late" is, and has no state`},
		"mode_said":              {[]string{"- name: overnight", late}, ""},
		"mode_declared_new":      {[]string{"- name: overnight", "- name: late\n        formerly: []"}, ""},
		"mode_of_another_name":   {[]string{"- name: overnight", "- name: late\n        formerly: [night]"}, `mode "overnight"`},
		"transition":             {[]string{"- id: phase3_to_phase4", "- id: up_to_down"}, `transition "phase3_to_phase4" has state of 2026-02-03 to 2026-02-03 and is not in the definition; "up_to_down" is, and has no state`},
		"transition_said":        {[]string{"- id: phase3_to_phase4", "- id: up_to_down\n    formerly: [phase3_to_phase4]"}, ""},
		"transition_said_second": {[]string{"- id: phase3_to_phase4", "- id: up_to_down\n    formerly: [other, phase3_to_phase4]"}, `transition "phase3_to_phase4"`},
		"transition_new":         {[]string{"- id: phase3_to_phase4", "- id: up_to_down\n    formerly: []"}, ""},
		"processor":              {boxScores(""), `processor "player_game_summary" has state of 2026-02-03 to 2026-02-03 and is not in the definition; "box_scores" is, and has no state`},
		"processor_said":         {boxScores("        formerly: [" + pgs + "]\n"), ""},
		"processor_new":          {boxScores("        formerly: []\n"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "memory")
			w.clock.set(at("2026-02-04 06:00"))
			w.mustDeliver(overnight()...)
			p := parsedChange(t, tc.changes...)
			got, err := w.engine.Renamed(context.Background(), p)
			if err != nil {
				t.Fatal(err)
			}
			if tc.want == "" && len(got) != 0 || tc.want != "" && (len(got) != 1 || !strings.HasPrefix(got[0].String(), tc.want)) {
				t.Errorf("%v, want %q", got, tc.want)
			}
			// A period older than the relay's window is history.
			w.clock.set(at("2026-02-14 06:00"))
			if got, err := w.engine.Renamed(context.Background(), p); err != nil || len(got) != 0 {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
}

// A run that was handed over is shown with its batch. This is so even if the mode was renamed since,
// or no longer waits for the processor.
func TestExplain_ShowsWhatWasHandedOverByAnEarlierDefinition(t *testing.T) {
	for name, tc := range map[string]struct {
		mode    string
		changes []string
	}{
		"the mode was renamed": {"late", []string{"- name: overnight", "- name: late"}},
		"the mode drops a processor": {"overnight", []string{"optional: [team_defense_game_summary, team_offense_game_summary, upcoming_team_game_context]", "optional: [team_defense_game_summary, team_offense_game_summary]",
			"accept_earlier: [upcoming_player_game_context, upcoming_team_game_context]", "accept_earlier: [upcoming_player_game_context]"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "memory")
			w.clock.set(at("2026-02-04 06:00"))
			w.mustDeliver(overnight()...)
			w.tr = changed(t, tc.changes...)
			m, known := w.tr.Mode(tc.mode)
			if !known {
				t.Fatal(tc.mode)
			}
			x, err := w.engine.Explain(context.Background(), w.key("2026-02-03"), m)
			if err != nil {
				t.Fatal(err)
			}
			shown := map[string]int{}
			for _, r := range x.Runs {
				shown[r.Processor] = r.Batch
			}
			for _, name := range five {
				if shown[name] != 1 {
					t.Errorf("%s: batch %d", name, shown[name])
				}
			}
		})
	}
}

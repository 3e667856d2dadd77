package guardtest

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// verdictOf collects what judge reports.
type verdictOf struct {
	testing.TB
	wrong []string
}

func (v *verdictOf) Helper() {}

func (v *verdictOf) Errorf(format string, a ...any) {
	v.wrong = append(v.wrong, fmt.Sprintf(format, a...))
}

// judge must report every result that the documented limits do not allow; otherwise the kill test
// would always pass.
func TestJudge_NoticesWhatTheLimitsDoNotAllow(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(1000+s), 0) }
	first := delivery{id: 1, key: "k", began: at(0), end: at(3), status: 200}
	broken := delivery{id: 1, key: "k", began: at(0), end: at(3)}
	copied := delivery{id: 2, key: "k", slot: 1, began: at(40), end: at(43), status: 200}
	worked := &run{key: "k", delivery: 1, began: at(1), effect: at(2)}
	again := &run{key: "k", delivery: 2, began: at(41), effect: at(42)}
	next := &run{key: "k", delivery: 2, began: at(1), effect: at(42)}
	killed := disturbance{what: "guard killed", from: at(2), until: at(2)}
	elsewhere := disturbance{slot: 1, what: "guard killed", from: at(2), until: at(2)}
	pause := disturbance{what: "suspended", from: at(1), until: at(3)}
	beyond := disturbance{what: "suspended", from: at(1), until: at(39), beyond: true}
	for _, test := range []struct {
		name       string
		runs       []*run
		deliveries []delivery
		done       []disturbance
		want       string // "" if it is allowed
	}{
		{"once", []*run{worked}, []delivery{first}, nil, ""},
		{"never", nil, []delivery{broken}, []disturbance{killed}, "never done"},
		{"acknowledged without an effect", []*run{again}, []delivery{first, copied}, nil, "has had no effect"},
		{"twice without a cause", []*run{worked, again}, []delivery{broken, copied}, nil, "2 times"},
		{"twice, killed before the record", []*run{worked, again}, []delivery{broken, copied}, []disturbance{killed}, ""},
		{"twice, suspended beyond the claim", []*run{worked, again}, []delivery{broken, copied}, []disturbance{beyond}, ""},
		{"twice, suspended for a moment", []*run{worked, again}, []delivery{broken, copied}, []disturbance{pause}, "2 times"},
		{"twice, another instance killed", []*run{worked, again}, []delivery{broken, copied}, []disturbance{elsewhere}, "2 times"},
		{"twice, although the first was acknowledged", []*run{worked, again}, []delivery{first, copied}, []disturbance{killed}, "2 times"},
		{"at once without a cause", []*run{worked, next}, []delivery{broken, copied}, nil, "was at work"},
		{"undisturbed, with a run that failed", []*run{{key: "k", delivery: 1, began: at(1), failure: at(2)}, again}, []delivery{{id: 1, key: "k", began: at(0), end: at(3), status: 500}, copied}, nil, ""},
		{"undisturbed, with a run that ended without a result", []*run{{key: "k", delivery: 1, began: at(1)}, again}, []delivery{broken, copied}, nil, "undisturbed"},
	} {
		v := &verdictOf{TB: t}
		judge(v, []string{"k"}, test.runs, test.deliveries, test.done)
		if got := strings.Join(v.wrong, "; "); (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}

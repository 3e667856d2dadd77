package policy

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// A document takes 1 MiB, and an entry of Cloud Logging 256 KB.
func TestDecide_NamesTwentyOfThousandsOfProcessors(t *testing.T) {
	after := at("2026-02-04 06:00")
	for _, n := range []int{1000, 10_000} {
		all := wide(t, n, n-1)
		for _, tc := range []struct {
			name string
			edit func(*Input)
			want string
		}{
			{"half is missing", func(in *Input) {
				in.Runs = slices.DeleteFunc(in.Runs, func(r Run) bool { return r.Processor[len(r.Processor)-1]%2 == 0 })
			}, fmt.Sprintf(" and %d more (critical)", n/4-MostNames)},
			{"half failed", func(in *Input) {
				for i := range in.Runs {
					if i%2 == 0 {
						failed("Timeout")(&in.Runs[i])
					}
				}
			}, fmt.Sprintf(", and %d more reported no success", n/2-MostNames)},
			{"all too late", func(in *Input) {
				for i := range in.Runs {
					in.Runs[i].FoundLate = true
				}
			}, "not handed over automatically"},
			{"half too late", func(in *Input) {
				in.Mode.Critical, in.Mode.Complete = in.Mode.Critical[:1], "critical"
				for i := range in.Runs {
					in.Runs[i].FoundLate = i%2 == 1
				}
			}, fmt.Sprintf("; and %d more are too late, too", n/2-1-MostNames)},
			{"nothing expected, and no rows", func(in *Input) {
				in.Expected = ExpectedNone
				for i := range in.Runs {
					count(0)(&in.Runs[i])
				}
			}, fmt.Sprintf(", and %d more brought no rows", n-1-MostNames)},
			{"all unexpected", func(in *Input) {
				for i := range in.Runs {
					in.Runs[i].Reported, in.Runs[i].Processor = in.Runs[i].Processor, ""
				}
			}, "missing"},
		} {
			in := all
			in.Runs = slices.Clone(all.Runs)
			for i, r := range in.Runs {
				c := *r.Completion
				c.EventTime = after // in the time of the mode
				in.Runs[i].Completion = &c
			}
			tc.edit(&in)
			v := Decide(in)
			stored, err := json.Marshal(v.Capped())
			if err != nil {
				t.Fatal(err)
			}
			if len(stored) > 16<<10 || !strings.Contains(v.Reason, tc.want) {
				t.Errorf("%d processors, %s: a verdict of %d bytes, and %q in %.2000s", n, tc.name, len(stored), tc.want, v.Reason)
			}
		}
	}
}

func TestCapped_SaysHowManyMoreThereAre(t *testing.T) {
	var names []string
	for i := range MostNames + 1 {
		names = append(names, fmt.Sprint("n", i))
	}
	if got := Capped(names[:MostNames]); !slices.Equal(got, names[:MostNames]) {
		t.Errorf("%q", got)
	}
	if got := Listed(names); !strings.HasSuffix(got, "n18, n19, and 1 more") {
		t.Errorf("%q", got)
	}
}

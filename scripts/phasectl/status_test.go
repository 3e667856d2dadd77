package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/cycle"
)

// Where the pipeline has several transitions, each row names its own, whichever rows there are.
func TestStatus_NamesTransition(t *testing.T) {
	for _, several := range []bool{false, true} {
		p := &page{zone: time.UTC}
		(&statusAnswer{Cycles: []cycle.Status{{Transition: "ingest_to_enrich", Period: "2026-02-03", Mode: "hourly", State: "waiting"}}, several: several}).text(p)
		var b bytes.Buffer
		if err := p.writeTo(&b); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(b.String(), "hourly of ingest_to_enrich") != several {
			t.Errorf("several %v: %s", several, b.String())
		}
	}
}

package devcmd

import (
	"bytes"
	"testing"
)

// The lines of an evaluation would push the addresses of phasectl local off a terminal.
func TestLocalLogs_SumUpHealthInOneLine(t *testing.T) {
	var out bytes.Buffer
	logs := &shortHealth{to: &out}
	for _, record := range []string{
		`{"severity":"WARNING","message":"first","event":"other"}`,
		`{"event":"finding","by":"health","check":"locks","state":"ok","evidence":["none"]}`,
		`{"event":"finding","by":"health","check":"duplicates","state":"unknown","evidence":["a.b: no BigQuery is configured","and 3 more"]}`,
		`{"event":"finding","by":"health","check":"late_upstream","state":"unknown","evidence":["no BigQuery is configured"]}`,
		`{"event":"finding","by":"health","check":"deployed_services","state":"unknown","evidence":["nothing is deployed on this machine"]}`,
		`{"event":"finding","by":"health","check":"heartbeats","state":"unknown","evidence":["relay has never finished"]}`,
		`{"event":"finding","by":"health","check":"hand_overs","state":"failing","evidence":["overdue"]}`,
		`{"message":"health is failing","event":"report","overall":"failing"}`,
		`{"event":"finding","by":"reconcile","check":"x"}`,
		`no JSON`,
	} {
		if n, err := logs.Write([]byte(record + "\n")); n != len(record)+1 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	}
	const want = `{"severity":"WARNING","message":"first","event":"other"}
health: 1 ok, 1 failing: hand_overs, 1 unknown, 3 not checked on this machine: no BigQuery (make build/bqemu), nothing deployed (phasectl health --verbose)
{"event":"finding","by":"reconcile","check":"x"}
no JSON
`
	if out.String() != want {
		t.Errorf("%s", out.String())
	}
}

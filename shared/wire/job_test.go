package wire_test

import (
	"strings"
	"testing"

	"github.com/phasegate/phasegate/shared/wire"
)

func TestJob_IsDecoded(t *testing.T) {
	for data, want := range map[string]wire.Job{
		`{"job":"relay"}`:   {Job: wire.JobRelay},
		`{"job":"nightly"}`: {Job: wire.JobNightly},
		`{"job":"health"}`:  {Job: wire.JobHealth},
		`{"job":"verify"}`:  {Job: wire.JobVerify},
		` {"job":"sweep","table":"player_game_summary","date":"2026-02-03"} `: {Job: wire.JobSweep, Table: "player_game_summary", Date: "2026-02-03"},
		`{"job":"sweep","table":null,"date":null}`:                            {Job: wire.JobSweep},
	} {
		if got, err := wire.DecodeJob(delivered(data)); err != nil || got != want {
			t.Errorf("%s: %+v, error %v, want %+v", data, got, err, want)
		}
	}
}

func TestJob_InvalidIsPermanent(t *testing.T) {
	for _, tc := range []struct{ data, field, part string }{
		{``, "data", "is required"},
		{`relay`, "data", "(relay)"},
		{`"relay"`, "data", "is not a JSON object"},
		{`{}`, "job", "is required"},
		{`{"job":null}`, "job", "is required"},
		{`{"job":""}`, "job", "is required"},
		{`{"job":5}`, "job", "(5)"},
		{`{"job":"relax"}`, "job", `relay, nightly, sweep, health, verify ("relax")`},
		{`{"job":"RELAY"}`, "job", `("RELAY")`},
		{`{"Job":"relay"}`, "Job", `is no field of a job ("relay")`},
		{`{"job":"sweep","tabel":"t"}`, "tabel", `("t")`},
		{`{"job":"sweep","table":["t"]}`, "table", `(["t"])`},
		{`{"job":"sweep","date":20260203}`, "date", "(20260203)"},
		{`{"job":"sweep","":null}`, "", "is no field"},
		{`{"job":"relay"}{"job":"sweep"}`, "data", "after top-level value"},
		{`{"` + strings.Repeat("x", 5000) + `":1,"job":"relay"}`, strings.Repeat("x", 200), "is no field"},
	} {
		got, err := wire.DecodeJob(delivered(tc.data))
		wantPermanent(t, err, tc.field, tc.part)
		if got != (wire.Job{}) {
			t.Errorf("%s: %+v", tc.data, got)
		}
	}
}

package wire

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

// The jobs that the scheduler sends.
const (
	JobRelay   = "relay"   // drive on what is unfinished
	JobNightly = "nightly" // reconcile against the warehouse
	JobSweep   = "sweep"   // remove duplicate rows
	JobHealth  = "health"  // check and report
	JobVerify  = "verify"  // check the readiness checks against the schema
)

var jobs = []string{JobRelay, JobNightly, JobSweep, JobHealth, JobVerify}

// Job is one task for a scheduled function.
type Job struct {
	Job   string `json:"job"`             // one of the Job constants
	Table string `json:"table,omitempty"` // "" for all
	Date  string `json:"date,omitempty"`  // as sent, "" for the job's own choice
}

// Outgoing returns the job as a message.
func (j Job) Outgoing() (Outgoing, error) {
	data, err := json.Marshal(j)
	return Outgoing{Data: data}, err
}

// DecodeJob reads a job strictly: a typo must not run the job for everything. The
// error is a [*PermanentError]. Which jobs a function serves, and what table and date
// mean to it, is the function's to check.
func DecodeJob(e Envelope) (Job, error) {
	f, err := decodeObject("data", e.Data)
	if err != nil {
		return Job{}, err
	}
	var j Job
	targets := map[string]*string{"job": &j.Job, "table": &j.Table, "date": &j.Date}
	for _, key := range slices.Sorted(maps.Keys(f)) {
		into, known := targets[key]
		if !known {
			return Job{}, permanent(clip(key), f[key], "is no field of a job")
		}
		if *into, err = f.text(key, key); err != nil {
			return Job{}, err
		}
	}
	if j.Job == "" {
		return Job{}, missing("job")
	}
	if !slices.Contains(jobs, j.Job) {
		return Job{}, permanent("job", f["job"], "is not one of %s", strings.Join(jobs, ", "))
	}
	return j, nil
}

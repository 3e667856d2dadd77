package warehousetest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
)

// load begins a job that loads rows. Its request has two parts: the job and the rows.
func (p *Platform) load(r *http.Request, identity string, body []byte, forward func() *httptest.ResponseRecorder) error {
	_, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		return err
	}
	parts := multipart.NewReader(bytes.NewReader(body), params["boundary"])
	var read [2][]byte
	for i := range read {
		part, err := parts.NextPart()
		if err != nil {
			return err
		}
		if read[i], err = io.ReadAll(part); err != nil {
			return err
		}
	}
	var job struct {
		JobReference  map[string]any
		Configuration struct {
			Load struct {
				DestinationTable struct{ DatasetID, TableID string }
				Schema           struct{ Fields []loadField }
			}
		}
	}
	var raw map[string]any
	if err := errors.Join(json.Unmarshal(read[0], &job), json.Unmarshal(read[0], &raw)); err != nil {
		return err
	}
	into := job.Configuration.Load.DestinationTable
	if err := p.place(job.JobReference, []string{into.DatasetID + "." + into.TableID}); err != nil {
		return err
	}
	begun := &platformJob{owner: identity, reference: job.JobReference, configuration: raw["configuration"], statement: "LOAD"}
	if err := p.enter(begun); err != nil {
		return err
	}
	if problem := unreadable(job.Configuration.Load.Schema.Fields, read[1]); problem != "" {
		// Without two words of it, https://github.com/r-dbi/bigrquery/issues/344
		return begun.fail(&Refusal{Code: http.StatusBadRequest, Reason: "invalid", Detail: problem,
			Message: "Error while reading data, error message: JSON table encountered too many errors. Rows: 1; errors: 1. Please look into the errors[] collection for more details."})
	}
	p.forwarded(begun, forward())
	return nil
}

type loadField struct {
	Name, Type, Mode string
	Fields           []loadField
}

// unreadable returns why a row cannot be loaded, "" if all can.
func unreadable(fields []loadField, data []byte) string {
	for line := range bytes.Lines(data) {
		dec := json.NewDecoder(bytes.NewReader(line))
		dec.UseNumber()
		var row map[string]any
		if err := dec.Decode(&row); err != nil {
			return err.Error()
		}
		if problem := misfit(fields, row); problem != "" {
			return problem
		}
	}
	return ""
}

func misfit(fields []loadField, row map[string]any) string {
	for _, f := range fields {
		values := []any{row[f.Name]}
		if list, repeated := row[f.Name].([]any); repeated {
			values = list
		}
		for _, v := range values {
			problem := ""
			if record, nested := v.(map[string]any); nested && len(f.Fields) > 0 {
				problem = misfit(f.Fields, record)
			} else if v != nil {
				problem = wrong(f, text(v))
			}
			if problem != "" {
				return problem
			}
		}
	}
	return ""
}

var (
	numeric = regexp.MustCompile(`^-?\d{1,29}(?:\.\d{1,9})?$`)
	dated   = regexp.MustCompile(`^\d{4}-\d\d-\d\d(?:[T ]\d{1,2}:\d{1,2}:\d{1,2}(?:\.\d{1,6})?(?:Z| ?UTC|[+-]\d\d(?::?\d\d)?)?)?$`)
	clock   = regexp.MustCompile(`^\d{1,2}:\d{1,2}:\d{1,2}(?:\.\d{1,6})?$`)
)

// wrong returns what BigQuery says of a value that its column does not take, "" if it does.
//
// NUMERIC: "Precision: 38", "Scale: 9". DATE, DATETIME and TIMESTAMP: "0001-01-01 to 9999-12-31",
// with at most six digits of a second: https://cloud.google.com/bigquery/docs/reference/standard-sql/data-types.
// The texts: https://github.com/googleapis/nodejs-bigquery/issues/1221 ("Invalid NUMERIC value: …") and
// https://github.com/airbytehq/airbyte/issues/75187 ("Invalid datetime string \"2026-03-03T14:59:33.4902601\"").
func wrong(f loadField, v string) string {
	allowed := map[string]*regexp.Regexp{"NUMERIC": numeric, "DATE": dated, "DATETIME": dated, "TIMESTAMP": dated, "TIME": clock}[f.Type]
	if allowed == nil || allowed.MatchString(v) {
		return ""
	}
	kind := "Invalid " + strings.ToLower(f.Type) + " string " + fmt.Sprintf("%q", v)
	if f.Type == "NUMERIC" {
		kind = "Invalid NUMERIC value: " + v
	}
	return kind + " Field: " + f.Name + "; Value: " + v
}

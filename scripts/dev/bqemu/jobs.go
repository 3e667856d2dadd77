package main

import (
	"bytes"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"

	"github.com/goccy/bigquery-emulator/server"
	_ "github.com/ncruces/go-sqlite3/driver"
	_ "github.com/ncruces/go-sqlite3/vfs/memdb" // memory that several connections share
)

// storage is where the emulator keeps everything: in memory, under a name by which a second
// connection can open it.
const storage server.Storage = "file:/bqemu?vfs=memdb"

const (
	// keepJobs is how many of the newest jobs the emulator sees, of all projects together.
	keepJobs = 8
	// moveEvery is how many more there may be before the older ones are moved.
	moveEvery = 8
	// uploadHead is where the body of an upload names its job: rows come after it.
	uploadHead = 64 << 10
)

// jobs moves old jobs out of the emulator's table, and back when they are asked for.
// Requests pass one at a time.
type jobs struct {
	db   *sql.DB
	more int // requests that may have made a job, since the last move
}

func openJobs() (*jobs, error) {
	db, err := sql.Open("sqlite3", string(storage))
	if err != nil {
		return nil, err
	}
	if _, err := db.Exec("CREATE TABLE old_jobs AS SELECT * FROM jobs; CREATE INDEX old_jobs_id ON old_jobs (projectID, id)"); err != nil {
		db.Close()
		return nil, err
	}
	return &jobs{db: db}, nil
}

// before brings back the job that a request names, if it is an old one. head is the
// beginning of the request's body.
func (j *jobs) before(r *http.Request, head []byte) (back bool, err error) {
	id := named(r, head)
	if id == "" {
		return false, nil
	}
	key := []any{text(project(r.URL.Path)), text(id)}
	var found int
	if err := j.db.QueryRow("SELECT COUNT(*) FROM old_jobs WHERE projectID = ? AND id = ?", key...).Scan(&found); err != nil || found == 0 {
		return false, err
	}
	tx, err := j.db.Begin()
	if err != nil {
		return false, err
	}
	defer func() { _ = tx.Rollback() }() // after a commit there is nothing to take back
	for _, statement := range []string{
		"INSERT INTO jobs SELECT * FROM old_jobs WHERE projectID = ? AND id = ?",
		"DELETE FROM old_jobs WHERE projectID = ? AND id = ?",
	} {
		if _, err := tx.Exec(statement, key...); err != nil {
			return false, fmt.Errorf("bring back job %s: %w", id, err)
		}
	}
	// The emulator finds a job by its project's list, which it writes anew with each job that it adds.
	rows, err := tx.Query("SELECT id FROM jobs WHERE projectID = ?", key[0])
	if err != nil {
		return false, err
	}
	var ids []string
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return false, err
		}
		ids = append(ids, id)
	}
	if err := rows.Err(); err != nil {
		return false, err
	}
	list, err := json.Marshal(ids)
	if err != nil {
		return false, err
	}
	if _, err := tx.Exec("UPDATE projects SET jobIDs = ? WHERE id = ?", value("array", string(list)), key[0]); err != nil {
		return false, err
	}
	return true, tx.Commit()
}

// after moves old jobs away, if the request may have made another.
func (j *jobs) after(r *http.Request) error {
	if r.Method == http.MethodGet {
		return nil
	}
	if j.more++; j.more < moveEvery {
		return nil
	}
	j.more = 0
	const old = " FROM jobs WHERE rowid <= (SELECT MAX(rowid) FROM jobs) - ?"
	tx, err := j.db.Begin()
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // after a commit there is nothing to take back
	for _, statement := range []string{"INSERT INTO old_jobs SELECT *" + old, "DELETE" + old} {
		if _, err := tx.Exec(statement, keepJobs); err != nil {
			return err
		}
	}
	return tx.Commit()
}

var (
	pathOfJob = regexp.MustCompile(`/projects/[^/]+/(?:jobs|queries)/([^/]+)`)
	bodyOfJob = regexp.MustCompile(`"jobId"\s*:\s*"([^"]+)"`)
)

// named returns the id of the job that a request is about, "" if it names none.
func named(r *http.Request, head []byte) string {
	if m := pathOfJob.FindStringSubmatch(r.URL.Path); m != nil {
		return m[1]
	}
	if id := r.URL.Query().Get("upload_id"); id != "" { // the rows of an upload in parts
		return id
	}
	if m := bodyOfJob.FindSubmatch(head); m != nil && strings.HasSuffix(r.URL.Path, "/jobs") {
		return string(m[1])
	}
	return ""
}

// peek returns the beginning of a request's body: all of a query, whose parameters come before
// its job's name.
func peek(r *http.Request) ([]byte, error) {
	if r.Method != http.MethodPost || !strings.HasSuffix(r.URL.Path, "/jobs") && !strings.HasSuffix(r.URL.Path, "/queries") {
		return nil, nil
	}
	body := io.Reader(r.Body)
	if strings.HasPrefix(r.URL.Path, "/upload/") {
		body = io.LimitReader(body, uploadHead)
	}
	head, err := io.ReadAll(body)
	if err != nil {
		return nil, fmt.Errorf("read the request: %w", err)
	}
	r.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(head), r.Body), r.Body}
	return head, nil
}

// text is a string as the emulator writes it into its tables.
func text(s string) string { return value("string", s) }

func value(kind, body string) string {
	b, err := json.Marshal(struct {
		Header string `json:"header"`
		Body   string `json:"body"`
	}{kind, body})
	if err != nil {
		panic(err) // strings are always encoded
	}
	return base64.StdEncoding.EncodeToString(b)
}

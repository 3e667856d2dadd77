package store

import "time"

// Kept is how long the platform keeps a document after its last write, if nothing in it is open.
// It is a year and five weeks: people compare a week with the same week of the year before. The
// engine itself needs no document that is older than a few weeks. Events are kept longer, in
// BigQuery. A constant, because numbers of batches rest on it (shared/cycle/expiry.go).
const Kept = 400 * 24 * time.Hour

// ExpiresAt is the field whose time Firestore compares with its clock: it deletes a document up to
// a day after that time, at any moment, each document by itself. The other drivers delete nothing.
const ExpiresAt = "expires_at"

// Expires lets a document expire that nothing is open in, [Kept] after a time.
func Expires(from time.Time) Field { return F(from.Add(Kept).UTC(), ExpiresAt) }

// Stays keeps a document in which something is open.
func Stays() Field { return F(nil, ExpiresAt) }

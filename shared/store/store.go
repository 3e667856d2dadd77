// Package store is the document store for all durable state: three
// methods with the semantics of Firestore, so that what is proved on the memory
// driver holds in production.
//
//   - [Store.Get] reads several documents as one snapshot, with the server's time.
//   - [Store.Apply] commits several writes atomically, without a transaction.
//   - [Store.Scan] streams the documents of one id range in order.
//
// There is no read-modify-write transaction. Callers that need one read, decide,
// and write with the version they have read ([MergeIf], [DeleteIf]) or with
// [Create]; on [ErrConflict] or [ErrExists] they read again. Writers therefore
// never wait for each other.
//
// # Values
//
// A document is a map of field names to values. A value is one of: nil, bool,
// int64 (int is accepted when writing), float64, string, time.Time (UTC,
// truncated to microseconds), []any of scalars, map[string]any of values. Drivers
// refuse anything else with [ErrInvalid], naming the field. A nil slice or map is
// an empty one. Two placeholders are resolved by the server at commit, as a field's
// value or anywhere in a map: [ServerTime] and [Union].
//
// # Versions
//
// A [Version] is the commit time of a document's last change in microseconds
// since the Unix epoch. Versions of one document only grow, also across a delete
// and a re-creation. A write that changes nothing keeps the version.
//
// # Failures
//
// [ErrExists], [ErrConflict], [ErrTooLarge] and [ErrInvalid] mean that nothing was
// written. Any other error of Apply is ambiguous: the commit may have happened. A
// driver may retry a commit whose answer was lost. So even ErrExists and ErrConflict
// can be caused by the caller's own write: read back and compare the holder first.
package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"
)

// Errors that callers decide on; drivers wrap them with the document concerned.
var (
	// ErrExists: a [Create] met an existing document.
	ErrExists = errors.New("document exists")
	// ErrConflict: the document of a [MergeIf] or [DeleteIf] is missing or has another version.
	ErrConflict = errors.New("document changed")
	// ErrTooLarge: a document would exceed [MaxDocumentBytes].
	ErrTooLarge = errors.New("document too large")
	// ErrInvalid: a reference, path or value is outside the rules of this package.
	// The error names it; trying again cannot help.
	ErrInvalid = errors.New("invalid argument")
)

// MaxDocumentBytes is Firestore's limit for one document
// (https://cloud.google.com/firestore/quotas, "Maximum size for a document").
const MaxDocumentBytes = 1 << 20

// ScanPage is how many documents a Scan reads at a time. A loop that ends early pays for no more,
// and a list of any length needs the memory of a page. A relay of a daily pipeline and its nightly
// reconciliation read one page, so paging costs them no call.
const ScanPage = 100

// Store is implemented by the drivers in the packages below this one; each passes
// the suite in storetest.
type Store interface {
	// Get returns the documents of one consistent snapshot in the order of refs, of
	// which there must be one, missing ones with Exists false. The snapshot carries
	// the server's read time, also when every document is missing.
	Get(ctx context.Context, refs ...Ref) (Snapshot, error)

	// Apply commits all writes or none, and returns the version of each document
	// written, 0 for a deleted one. A document may appear in one write only. It is
	// idempotent exactly as far as its writes are.
	Apply(ctx context.Context, writes ...Write) ([]Version, error)

	// Scan yields the documents of a collection with from <= id <= to in ascending
	// order of id (bytewise); both bounds must be possible ids. It is not a snapshot: it reads
	// [ScanPage] documents at a time, and the next ones when the caller's loop has had these. So a
	// change that is made at least a page ahead of the loop is seen. After an error it yields
	// nothing more.
	Scan(ctx context.Context, collection, from, to string) iter.Seq2[Doc, error]
}

// Ref names a document. Neither part may be empty, longer than 1,500 bytes, ".",
// "..", of the form __x__, or contain a slash.
type Ref struct{ Collection, ID string }

func (r Ref) String() string { return r.Collection + "/" + r.ID }

// Version is a document's commit time in microseconds since the Unix epoch; 0 for
// a missing document.
type Version int64

// Time returns the version as an instant in UTC.
func (v Version) Time() time.Time { return time.UnixMicro(int64(v)).UTC() }

// Doc is a document as read.
type Doc struct {
	Ref     Ref
	Exists  bool
	Version Version
	Data    map[string]any
}

// Snapshot is the answer of one Get.
type Snapshot struct {
	ReadTime time.Time // the server's, UTC
	Docs     []Doc
}

// Op is the kind of a [Write].
type Op int

// The four kinds of writes.
const (
	OpCreate   Op = iota // create if absent
	OpMerge              // set the named fields, creating the document if needed
	OpMergeIf            // set the named fields if the version is still Version
	OpDeleteIf           // delete if the version is still Version
)

func (o Op) String() string {
	switch o {
	case OpCreate:
		return "create"
	case OpMerge:
		return "merge"
	case OpMergeIf:
		return "merge-if-version"
	case OpDeleteIf:
		return "delete-if-version"
	}
	return fmt.Sprintf("op %d", int(o))
}

// Write is one document's part of an Apply.
type Write struct {
	Op      Op
	Ref     Ref
	Version Version // of OpMergeIf and OpDeleteIf; 0, a missing document's, never fits
	Fields  []Field // of all but OpDeleteIf; paths must not overlap
}

// Field is a value at a path of field names. Setting a path replaces the whole
// value there, a map included, and leaves its neighbours alone.
type Field struct {
	Path  []string
	Value any
}

// F makes a field. Path segments are taken literally: a dot in one separates nothing.
func F(value any, path ...string) Field { return Field{Path: path, Value: value} }

// Create writes a document that must not exist yet; else ErrExists.
func Create(ref Ref, fields ...Field) Write { return Write{Op: OpCreate, Ref: ref, Fields: fields} }

// Merge sets fields without looking, creating the document if needed.
func Merge(ref Ref, fields ...Field) Write { return Write{Op: OpMerge, Ref: ref, Fields: fields} }

// MergeIf sets fields of a document that still has version v; else ErrConflict.
func MergeIf(ref Ref, v Version, fields ...Field) Write {
	return Write{Op: OpMergeIf, Ref: ref, Version: v, Fields: fields}
}

// IfUnchanged sets the named fields of a document that is still as it was read: absent, or of that
// version. Otherwise the commit fails with [ErrExists] or [ErrConflict].
func IfUnchanged(doc Doc, fields ...Field) Write {
	if !doc.Exists {
		return Create(doc.Ref, fields...)
	}
	return MergeIf(doc.Ref, doc.Version, fields...)
}

// DeleteIf deletes a document that still has version v; else ErrConflict.
func DeleteIf(ref Ref, v Version) Write { return Write{Op: OpDeleteIf, Ref: ref, Version: v} }

type serverTime struct{}

// ServerTime stands for the time of the commit by the server's clock, in whole
// milliseconds. It can lie before the version of the same commit: never compare the
// two. Written twice within a millisecond, it changes nothing the second time, and
// the version stays.
var ServerTime any = serverTime{}

// UnionValue is what [Union] returns; drivers resolve it.
type UnionValue struct{ Values []any }

// Union adds the scalars that the array at this path does not hold yet, in order.
func Union(values ...any) any { return UnionValue{Values: values} }

// IsServerTime reports whether a field's value is [ServerTime].
func IsServerTime(v any) bool { _, ok := v.(serverTime); return ok }

package receipt

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/phasegate/phasegate/shared/store"
)

// Overdue is how long a claim may have expired before it counts as lost. Pub/Sub delivers
// again after 600 s at most, so a delivery that still comes has taken the claim by then.
const Overdue = 15 * time.Minute

// Kinds of problems.
const (
	Lost        = "lost"        // the claim has expired, and no delivery has taken it over
	Unknown     = "unknown"     // the guard does not know the result of the run
	Overlapping = "overlapping" // one run is recorded as done, and a second one may be at work
)

// Problem is a receipt that may need a person.
type Problem struct {
	Receipt
	Kind  string
	Since time.Time // the server's clock, UTC
	Why   string    // in words
}

// Open says what is at work, and what may need a person.
type Open struct {
	AtWork   int // runs whose claims are live
	Problems []Problem
	More     bool // there are further open receipts, which were not read
}

// Problems reads the open receipts of all scopes, most of them at most. It calls the store
// twice for each [store.ScanPage] of them, and twice at least: receipts that are done or
// released cost nothing. An error about one receipt does not hide the others.
func Problems(ctx context.Context, s store.Store, prefix string, most int) (Open, error) {
	var o Open
	var ids []string
	for doc, err := range s.Scan(ctx, prefix+openCollection, "!", "~") {
		if err != nil {
			return o, fmt.Errorf("read the open receipts: %w", err)
		}
		if o.More = len(ids) == most; o.More {
			break
		}
		ids = append(ids, doc.Ref.ID)
	}
	r := New(Config{Store: s, Prefix: prefix})
	var problems []error
	for page := range slices.Chunk(ids, store.ScanPage) {
		var refs []store.Ref
		for _, id := range page {
			refs = append(refs, r.ref(id), r.open(id))
		}
		snap, err := s.Get(ctx, refs...)
		if err != nil {
			return o, fmt.Errorf("read the open receipts: %w", err)
		}
		for pair := range slices.Chunk(snap.Docs, 2) {
			if err := o.add(pair[0], pair[1], snap.ReadTime); err != nil {
				problems = append(problems, err)
			}
		}
	}
	return o, errors.Join(problems...)
}

// add judges one receipt and its open document, of one snapshot.
func (o *Open) add(doc, open store.Doc, at time.Time) error {
	if !doc.Exists || !open.Exists { // it has ended since, or has expired
		return nil
	}
	found, err := parse(doc)
	if err != nil {
		return err
	}
	holder, _ := open.Data["holder"].(string)
	unknown, _ := open.Data["unknown"].(string)
	switch {
	case found.State == Working && unknown != "" && holder == found.holder:
		o.Problems = append(o.Problems, Problem{found, Unknown, open.Version.Time(), unknown})
	case found.Live(at):
		o.AtWork++
	case found.State == Working && at.Sub(found.Until) > Overdue:
		o.Problems = append(o.Problems, Problem{found, Lost, found.Until, fmt.Sprintf("the claim of %s was not renewed, and no delivery has taken it over", found.Instance)})
	case found.Overlap && at.Before(found.Finished.Add(MaxRun)):
		o.Problems = append(o.Problems, Problem{found, Overlapping, found.Finished,
			fmt.Sprintf("%s has recorded its run as done while another one had the claim; that may be at work until %s", found.Instance, found.Finished.Add(MaxRun).Format(time.RFC3339))})
	}
	return nil
}

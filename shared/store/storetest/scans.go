package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/phasegate/phasegate/shared/store"
)

var scanTests = []test{
	{"ranges_of_1000_ids", ranges},
	{"order_is_bytewise", bytewise},
	{"prefixes", prefixes},
	{"documents_are_whole", wholeDocs},
	{"consumer_stops_early", stopsEarly},
	{"delete_while_scanning", deleteWhileScanning},
	{"changes_between_pages", changesBetweenPages},
	{"whole_pages", wholePages},
	{"context_ends_on_the_way", endsOnTheWay},
}

// scan returns the ids of a range and expects them in order.
func (b bench) scan(from, to string) []string {
	b.t.Helper()
	var ids []string
	for doc, err := range b.store.Scan(b.ctx, b.collection, from, to) {
		if err != nil {
			b.t.Fatalf("Scan(%q, %q): %v", from, to, err)
		}
		if !doc.Exists || doc.Ref.Collection != b.collection || doc.Version == 0 {
			b.t.Fatalf("Scan(%q, %q) yielded %+v", from, to, doc)
		}
		ids = append(ids, doc.Ref.ID)
	}
	return ids
}

// fill creates documents with these ids.
func (b bench) fill(ids []string) {
	b.t.Helper()
	for chunk := range slices.Chunk(ids, 100) {
		var writes []store.Write
		for _, id := range chunk {
			writes = append(writes, store.Create(b.ref(id), store.F(id, "id")))
		}
		b.apply(writes...)
	}
}

func numbered(from, to int) []string {
	var ids []string
	for i := from; i <= to; i++ {
		ids = append(ids, fmt.Sprintf("id-%04d", i))
	}
	return ids
}

func ranges(t *testing.T, b bench) {
	b.fill(numbered(0, 999))
	for _, c := range []struct {
		from, to string
		want     []string
	}{
		{"id-0000", "id-0999", numbered(0, 999)},
		{"a", "z", numbered(0, 999)},
		{"id-0250", "id-0749", numbered(250, 749)},
		{"id-0500", "id-0500", numbered(500, 500)},
		{"id-0998", "id-9999", numbered(998, 999)},
		{"id-0099~", "id-0100~", numbered(100, 100)},
		{"id-0100", "id-0199", numbered(100, 199)},
		{"id-0100", "id-0299", numbered(100, 299)},
		{"a", "id-0000", numbered(0, 0)},
		{"id-1000", "z", nil},
		{"a", "b", nil},
		{"id-0002", "id-0001", nil},
	} {
		if got := b.scan(c.from, c.to); !slices.Equal(got, c.want) {
			t.Errorf("Scan(%q, %q) = %d ids %.80q, want %d", c.from, c.to, len(got), got, len(c.want))
		}
	}
}

func bytewise(_ *testing.T, b bench) {
	parts := []string{"a", "A", "b", "B", "\x00", " ", "~", "_", "é", "\uf8ff", "\uffee", "\U0001F600", "0", "10", "9", "-", "aa"}
	var ids []string
	for _, part := range parts {
		for _, next := range parts {
			ids = append(ids, "x"+part+"x"+next)
		}
	}
	b.fill(ids)
	slices.Sort(ids)
	b.equal(b.scan("a", "\U0010FFFD"), ids)
}

func prefixes(_ *testing.T, b bench) {
	b.fill([]string{
		"night_2026-02-03", "night_2026-02-03~1", "night_2026-02-03~10", "night_2026-02-03~2", "night_2026-02-03_x",
		"night_2026-02-030", "night_2026-02-04", "night_2026-02-04~1", "nightly_2026-02-03", "shadow_night_2026-02-03",
	})
	b.equal(b.scan("night_2026-02-03~", "night_2026-02-03~~"),
		[]string{"night_2026-02-03~1", "night_2026-02-03~10", "night_2026-02-03~2"})
	b.equal(b.scan("night_2026-02-03", "night_2026-02-03~~"), []string{
		"night_2026-02-03", "night_2026-02-030", "night_2026-02-03_x",
		"night_2026-02-03~1", "night_2026-02-03~10", "night_2026-02-03~2",
	})
	b.equal(b.scan("night_2026-02-04", "night_~"), []string{"night_2026-02-04", "night_2026-02-04~1"})
	b.equal(b.scan("night_", "night_~")[0], "night_2026-02-03")
}

func wholeDocs(_ *testing.T, b bench) {
	v := b.create("doc", store.F(1, "n"), store.F(fields{"list": []any{"x"}}, "m"))
	var got []store.Doc
	for doc, err := range b.store.Scan(b.ctx, b.collection, "doc", "doc") {
		if err != nil {
			b.t.Fatalf("Scan: %v", err)
		}
		got = append(got, doc)
	}
	b.equal(got, []store.Doc{
		{Ref: b.ref("doc"), Exists: true, Version: v, Data: fields{"n": int64(1), "m": fields{"list": []any{"x"}}}},
	})
}

func stopsEarly(_ *testing.T, b bench) {
	b.fill(numbered(0, 299))
	seq := b.store.Scan(b.ctx, b.collection, "a", "z")
	for range 3 { // each loop over the same sequence starts anew
		var ids []string
		for doc, err := range seq {
			if err != nil {
				b.t.Fatalf("Scan: %v", err)
			}
			if ids = append(ids, doc.Ref.ID); len(ids) == 5 {
				break
			}
		}
		b.equal(ids, numbered(0, 4))
	}
	b.create("after", store.F(1, "n")) // nothing is left locked
}

func deleteWhileScanning(t *testing.T, b bench) {
	b.fill(numbered(0, 249))
	var seen []string
	for doc, err := range b.store.Scan(b.ctx, b.collection, "a", "z") {
		if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, doc.Ref.ID)
		b.apply(store.DeleteIf(doc.Ref, doc.Version))
	}
	b.equal(seen, numbered(0, 249))
	b.equal(b.scan("a", "z"), []string(nil))

	// A document ahead of the scan may or may not be seen, the others must.
	b.fill(numbered(0, 249))
	ahead := b.get("id-0200")
	seen = nil
	for doc, err := range b.store.Scan(b.ctx, b.collection, "a", "z") {
		if err != nil {
			t.Fatal(err)
		}
		if len(seen) == 0 {
			b.apply(store.DeleteIf(ahead.Ref, ahead.Version))
		}
		seen = append(seen, doc.Ref.ID)
	}
	without := func(ids []string) []string {
		return slices.DeleteFunc(ids, func(id string) bool { return id == "id-0200" })
	}
	b.equal(without(seen), without(numbered(0, 249)))
}

// A change that is made at least a page ahead is seen, and one behind the loop never is.
func changesBetweenPages(t *testing.T, b bench) {
	const page = store.ScanPage
	ids := numbered(0, 4*page-1)
	b.fill(ids)
	changed, gone := ids[page+20], b.get(ids[2*page+20])
	appeared, behind := ids[3*page+20]+"a", ids[0]+"a"
	var seen []string
	for doc, err := range b.store.Scan(b.ctx, b.collection, "a", "z") {
		if err != nil {
			t.Fatal(err)
		}
		if seen = append(seen, doc.Ref.ID); len(seen) == 10 {
			b.apply(store.Merge(b.ref(changed), store.F("changed", "state")), store.DeleteIf(gone.Ref, gone.Version),
				store.Create(b.ref(appeared), store.F(1, "n")), store.Create(b.ref(behind), store.F(1, "n")))
		}
		if doc.Ref.ID == changed && doc.Data["state"] != "changed" {
			t.Errorf("%s as it was a page before: %v", changed, doc.Data)
		}
	}
	want := slices.DeleteFunc(append(ids, appeared), func(id string) bool { return id == gone.Ref.ID })
	slices.Sort(want)
	b.equal(seen, want)
}

// A range that ends with a page, and documents that vanish where a page ends.
func wholePages(t *testing.T, b bench) {
	ids := numbered(0, 2*store.ScanPage-1)
	b.fill(ids)
	b.equal(b.scan("a", "z"), ids)
	b.equal(b.scan(ids[0], ids[store.ScanPage-1]), ids[:store.ScanPage])
	var seen []string
	for doc, err := range b.store.Scan(b.ctx, b.collection, "a", "z") {
		if err != nil {
			t.Fatal(err)
		}
		if seen = append(seen, doc.Ref.ID); len(seen) == store.ScanPage {
			for _, id := range ids[store.ScanPage-2 : store.ScanPage] {
				b.apply(store.DeleteIf(b.ref(id), b.get(id).Version))
			}
		}
	}
	b.equal(seen, ids)
}

func endsOnTheWay(t *testing.T, b bench) {
	b.fill(numbered(0, 249))
	ctx, cancel := context.WithCancel(b.ctx)
	defer cancel()
	docs := 0
	var ended []error
	for _, err := range b.store.Scan(ctx, b.collection, "a", "z") {
		if err != nil {
			ended = append(ended, err)
			continue // after an error nothing more comes
		}
		if docs++; docs == 3 {
			cancel()
		}
	}
	if docs != 3 || len(ended) != 1 || !errors.Is(ended[0], context.Canceled) {
		t.Errorf("%d documents, then %v", docs, ended)
	}
	if ended != nil && strings.TrimSpace(ended[0].Error()) == context.Canceled.Error() {
		t.Error("the error does not say what was being done")
	}
}

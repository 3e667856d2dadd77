package storetest

import (
	"fmt"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/store"
)

var readTests = []test{
	{"missing_documents_have_a_read_time_and_keep_their_places", missing},
	{"one_document_named_twice", namedTwice},
	{"get_is_one_snapshot", oneSnapshot},
	{"read_sees_what_was_applied_before_it", readYourWrites},
	{"collections_are_apart", collectionsApart},
	{"ids_are_literal", literalIDs},
}

func missing(t *testing.T, b bench) {
	none := b.snapshot(b.refs("x", "y")...)
	b.equal(none.Docs, []store.Doc{{Ref: b.ref("x")}, {Ref: b.ref("y")}})
	if none.ReadTime.IsZero() || none.ReadTime.Location() != time.UTC {
		t.Errorf("read time %v without any document", none.ReadTime)
	}
	c, a := b.create("c", store.F("c", "id")), b.create("a", store.F("a", "id"))
	some := b.snapshot(b.refs("d", "c", "b", "a")...)
	b.equal(some.Docs, []store.Doc{
		{Ref: b.ref("d")},
		{Ref: b.ref("c"), Exists: true, Version: c, Data: fields{"id": "c"}},
		{Ref: b.ref("b")},
		{Ref: b.ref("a"), Exists: true, Version: a, Data: fields{"id": "a"}},
	})
	if some.ReadTime.Before(none.ReadTime) || some.ReadTime.Before(a.Time()) {
		t.Errorf("read time %v, after %v and version %v", some.ReadTime, none.ReadTime, a.Time())
	}
}

func namedTwice(_ *testing.T, b bench) {
	b.create("doc", store.F(fields{"n": 1}, "m"))
	docs := b.snapshot(b.refs("doc", "missing", "doc", "missing")...).Docs
	b.equal(docs[2], docs[0])
	b.equal(docs[3], docs[1])
	docs[0].Data["m"].(map[string]any)["n"] = int64(2)
	b.equal(docs[2].Data, fields{"m": fields{"n": int64(1)}})
}

func oneSnapshot(t *testing.T, b bench) {
	ids := []string{"a", "b", "c", "d", "e"}
	write := func(n int) error {
		var writes []store.Write
		for _, id := range ids {
			writes = append(writes, store.Merge(b.ref(id), store.F(n, "n")))
		}
		_, err := b.store.Apply(b.ctx, writes...)
		return err
	}
	if err := write(0); err != nil {
		t.Fatal(err)
	}
	written := make(chan struct{})
	errs := together(5, func(i int) error {
		if i == 0 {
			defer close(written)
			for n := range 50 {
				if err := write(n + 1); err != nil {
					return err
				}
			}
			return nil
		}
		for {
			snap, err := b.store.Get(b.ctx, b.refs(ids...)...)
			if err != nil {
				return err
			}
			if err := b.untorn(snap); err != nil {
				return err
			}
			select {
			case <-written:
				return nil
			default:
			}
		}
	})
	for _, err := range errs {
		if err != nil {
			t.Error(err)
		}
	}
}

// untorn expects documents that are always written together, in this order.
func (b bench) untorn(snap store.Snapshot) error {
	first := snap.Docs[0]
	for i, doc := range snap.Docs {
		if doc.Version.Time().After(snap.ReadTime) {
			return fmt.Errorf("version %v read at %v", doc.Version.Time(), snap.ReadTime)
		}
		if doc.Version == first.Version && doc.Data["n"] == first.Data["n"] {
			continue
		}
		before := snap.Docs[i-1]
		behind := first.Data["n"].(int64) - doc.Data["n"].(int64)
		if !b.tornReads || behind != 1 || doc.Version > before.Version {
			return fmt.Errorf("torn: %+v behind %+v", doc, first)
		}
	}
	return nil
}

func readYourWrites(t *testing.T, b bench) {
	for i, err := range together(8, func(i int) error {
		id := fmt.Sprint(i)
		for n := range 10 {
			versions, err := b.store.Apply(b.ctx, store.Merge(b.ref(id), store.F(n, "n")))
			if err != nil {
				return err
			}
			snap, err := b.store.Get(b.ctx, b.ref(id))
			if err != nil {
				return err
			}
			if doc := snap.Docs[0]; doc.Version != versions[0] || doc.Data["n"] != int64(n) {
				return fmt.Errorf("applied %d at %d, read %v at %d", n, versions[0], doc.Data["n"], doc.Version)
			}
			if snap.ReadTime.Before(versions[0].Time()) {
				return fmt.Errorf("read at %v after a commit at %v", snap.ReadTime, versions[0].Time())
			}
		}
		return nil
	}) {
		if err != nil {
			t.Errorf("writer %d: %v", i, err)
		}
	}
}

func collectionsApart(_ *testing.T, b bench) {
	other := store.Ref{Collection: b.collection + "-other", ID: "doc"}
	b.create("doc", store.F(1, "n"))
	b.apply(store.Create(other, store.F(2, "n")))
	docs := b.snapshot(other, b.ref("doc")).Docs
	b.equal(docs[0].Data, fields{"n": int64(2)})
	b.equal(docs[1].Data, fields{"n": int64(1)})
}

func literalIDs(t *testing.T, b bench) {
	ids := []string{
		"a.b", "a b", "a%2Fb", "a?b#c", "ä☃😀", "`", "\\", "\"'", "*~[]", "0", "00", "-", "_", "__x", " ", "\n", "a\x00b", "A", "a",
		"trigger_2026-02-03~1", ";--", "é", "e\u0301",
	}
	for i, id := range ids {
		b.create(id, store.F(i, "n"))
	}
	for i, id := range ids {
		b.data(id, fields{"n": int64(i)})
		for doc, err := range b.store.Scan(b.ctx, b.collection, id, id) {
			if err != nil {
				t.Fatal(err)
			}
			b.equal(doc, b.get(id))
		}
	}
}

package storetest

import (
	"fmt"
	"testing"

	"github.com/phasegate/phasegate/shared/store"
)

// Benchmark measures what the engine does most, on the stores that open returns.
func Benchmark(b *testing.B, open func(b *testing.B) store.Store) {
	b.Run("get_5_documents", func(b *testing.B) {
		bench := newBench(b.Context(), b, open(b))
		ids := []string{"a", "b", "c", "d", "e"}
		for _, id := range ids {
			bench.create(id, benchmarkFields(20)...)
		}
		for b.Loop() {
			bench.snapshot(bench.refs(ids...)...)
		}
	})
	b.Run("merge_one_field", func(b *testing.B) {
		bench := newBench(b.Context(), b, open(b))
		bench.create("doc", benchmarkFields(20)...)
		for n := 0; b.Loop(); n++ {
			bench.apply(store.Merge(bench.ref("doc"), store.F(n, "runs", "processor-0", "key")))
		}
	})
	b.Run("300_rivals_compare_and_set_one_document", func(b *testing.B) {
		bench := newBench(b.Context(), b, open(b))
		bench.create("doc", store.F(0, "n"))
		for b.Loop() {
			for _, err := range together(300, func(int) error { return bench.increment() }) {
				if err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}

func benchmarkFields(n int) []store.Field {
	var fields []store.Field
	for i := range n {
		fields = append(fields, store.F(`{"status":"success","record_count":1234}`, "runs", fmt.Sprint("processor-", i), "key"))
	}
	return fields
}

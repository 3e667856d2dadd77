package health

import (
	"context"

	"github.com/phasegate/phasegate/shared/receipt"
	"github.com/phasegate/phasegate/shared/telemetry"
)

// MostReceipts bounds how many open receipts are read, so that any number of them takes 2 calls.
const MostReceipts = 100

// OpenReceipts returns what guards have at work, and which of their receipts may need an operator.
func (c *Checker) OpenReceipts(ctx context.Context) (receipt.Open, error) {
	return receipt.Problems(ctx, c.Store, c.Prefix, MostReceipts)
}

// guardReceipts names the receipts that are lost, unknown or overlapping. Released and finished ones are not read.
func guardReceipts(f *facts) Check {
	v := verdict{action: "phasectl receipt list", whenUnknown: "phasectl receipt list"}
	for _, p := range f.receipts.Problems {
		v.item("phasectl receipt show "+p.ID, "%s of %s%s is %s since %s: %s", p.Key, p.Scope, p.Route, p.Kind, f.local(p.Since), p.Why)
	}
	if f.receiptsErr != nil { // those that could be read are judged
		v.notKnown("%v", f.receiptsErr)
	}
	if f.receipts.More {
		v.notKnown("more than %d deliveries are open; the others were not read", MostReceipts)
	}
	v.ok("%s at work under a guard", telemetry.Count(f.receipts.AtWork))
	return v.check()
}

package warehouse

// For tests that stand between a warehouse and an emulator, and so in another package.
var (
	Fit     = fit
	Scanned = scanned
	// AnyValue draws what a processor may give for a column.
	AnyValue = anyValue
)

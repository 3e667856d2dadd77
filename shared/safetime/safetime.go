// Package safetime computes how long the holder of a lease may rely on it. The server decides
// when a lease expires, by the time of its own commit. The holder does not know that time, so
// it counts from the start of the attempt that the server confirmed, which was earlier.
package safetime

import "time"

// Left returns the safe remaining time of a lease of ttl whose confirmed attempt began at
// began, both read from the same local clock. It ends a tenth of ttl before the lease. The
// stricter of the monotonic and the wall clock decides: while a machine is suspended, one of
// them can stand still. It is negative once the safe time is over.
func Left(ttl time.Duration, began, now time.Time) time.Duration {
	elapsed := max(now.Sub(began), now.Round(0).Sub(began.Round(0)))
	return ttl - ttl/10 - elapsed
}

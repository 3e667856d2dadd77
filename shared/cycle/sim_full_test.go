//go:build unix && !race

package cycle

import (
	"context"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/phasegate/phasegate/shared/store"
)

// In a seventh of the worlds the period's first document is full but for some reports, or to its
// last bytes. Fields of other programs take the room.

var simFiller = strings.Repeat("x", store.MaxDocumentBytes)

// fill draws whether this is such a world, and how much room is left.
func (s *simulation) fill() {
	if s.seed/10%7 != 3 {
		return
	}
	rng := rand.New(rand.NewPCG(s.seed, 6))
	s.full = true
	ref := store.Ref{Collection: periodsCollection, ID: simID + "_" + string(simPeriod)}
	room := []int{0, 0, 300, 800, 2000, 5000}[rng.IntN(6)]
	s.stuff(ref, room)
	s.fillShards(rng, room)
}

// refill takes the room that the period's first document has left, and an end counts from now.
func (s *simulation) refill() {
	doc := s.doc(store.Ref{Collection: periodsCollection, ID: simID + "_" + string(simPeriod)})
	if !doc.Exists {
		return
	}
	data := store.Clone(doc.Data)
	data["refilled"] = ""
	if room := store.MaxDocumentBytes - store.Size(doc.Ref, data); room >= 0 && room < store.MaxDocumentBytes/4 {
		fields := []store.Field{store.F(simFiller[:room], "refilled")}
		if _, ends := data[store.ExpiresAt].(time.Time); ends {
			end := s.now.Add(store.Kept).UTC().Truncate(time.Microsecond) // as it is stored
			s.past.end = end
			fields = append(fields, store.F(end, store.ExpiresAt))
		}
		if _, err := s.mem.Apply(context.Background(), store.Merge(doc.Ref, fields...)); err != nil {
			panic(err)
		}
	}
}

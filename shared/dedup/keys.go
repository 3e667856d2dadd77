package dedup

import "hash/maphash"

// keys numbers different keys in the order in which they are seen. They lie in one piece
// of memory, which the garbage collector does not look into: a map of texts took a third
// longer.
type keys struct {
	seed   maphash.Seed
	bytes  []byte // all keys, one behind the other
	ends   []int  // of each, by number
	newest map[uint64]int32
	before []int32 // the key of the same hash that was seen before, -1 for none
}

func newKeys(n int) *keys {
	return &keys{seed: maphash.MakeSeed(), bytes: make([]byte, 0, 48*n), ends: make([]int, 0, n), newest: make(map[uint64]int32, n), before: make([]int32, 0, n)}
}

func (k *keys) at(i int32) []byte {
	begin := 0
	if i > 0 {
		begin = k.ends[i-1]
	}
	return k.bytes[begin:k.ends[i]]
}

// add returns the number of a row's key, and whether it was seen before.
func (k *keys) add(r Rule, row Row) (at int, again bool, bad *KeyError) {
	begin := len(k.bytes)
	if k.bytes, bad = r.appendKey(k.bytes, row); bad != nil {
		k.bytes = k.bytes[:begin]
		return 0, false, bad
	}
	key := k.bytes[begin:]
	hash := maphash.Bytes(k.seed, key)
	last, ok := k.newest[hash]
	if !ok {
		last = -1
	}
	for i := last; i >= 0; i = k.before[i] {
		if string(k.at(i)) == string(key) {
			k.bytes = k.bytes[:begin]
			return int(i), true, nil
		}
	}
	n := int32(len(k.ends))
	k.ends, k.before, k.newest[hash] = append(k.ends, len(k.bytes)), append(k.before, last), n
	return int(n), false, nil
}

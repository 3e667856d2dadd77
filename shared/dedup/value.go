package dedup

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"cloud.google.com/go/civil"
)

// A key is encoded value by value: a letter for the kind, then the value, texts with
// their length before them. So two keys are the same bytes exactly if they are the same
// values.

// appendKey appends the encoded key of a row.
func (r Rule) appendKey(b []byte, row Row) ([]byte, *KeyError) {
	for _, c := range r.Key {
		v := row[c]
		switch v := v.(type) { // what keys are made of, first
		case string:
			b = appendString(b, 's', v)
			continue
		case int64:
			b = appendInt(b, v)
			continue
		}
		var ok bool
		if b, ok = appendValue(b, v); !ok {
			return b, &KeyError{Column: c, Value: v}
		}
	}
	return b, nil
}

func appendString(b []byte, kind byte, s string) []byte {
	b = binary.AppendUvarint(append(b, kind), uint64(len(s)))
	return append(b, s...)
}

func appendInt(b []byte, n int64) []byte { return binary.AppendVarint(append(b, 'i'), n) }

func appendValue(b []byte, v any) ([]byte, bool) {
	switch v := v.(type) {
	case bool:
		return strconv.AppendBool(append(b, 'b'), v), true
	case []byte:
		return appendString(b, 'y', string(v)), true
	case time.Time:
		return binary.AppendVarint(append(b, 't'), v.UnixMicro()), true
	case civil.Date:
		return appendString(b, 'd', v.String()), true
	case civil.DateTime:
		return appendString(b, 'D', v.String()), true
	case civil.Time:
		return appendString(b, 'T', v.String()), true
	case string:
		return appendString(b, 's', v), true
	}
	if n, ok := numberOf(v); ok {
		return n.append(b), true
	}
	return b, false
}

// number is the value of any number: an int64 where it is one, a float64 where that is
// exact, else a fraction.
type number struct {
	kind byte // i, f, r
	i    int64
	f    float64
	r    *big.Rat
}

func (n number) append(b []byte) []byte {
	switch n.kind {
	case 'i':
		return appendInt(b, n.i)
	case 'f':
		return binary.BigEndian.AppendUint64(append(b, 'f'), math.Float64bits(n.f))
	}
	return appendString(b, 'r', n.r.RatString())
}

func numberOf(v any) (number, bool) {
	switch v := v.(type) {
	case int:
		return number{kind: 'i', i: int64(v)}, true
	case int64:
		return number{kind: 'i', i: v}, true
	case int32:
		return number{kind: 'i', i: int64(v)}, true
	case int16:
		return number{kind: 'i', i: int64(v)}, true
	case int8:
		return number{kind: 'i', i: int64(v)}, true
	case uint8:
		return number{kind: 'i', i: int64(v)}, true
	case uint16:
		return number{kind: 'i', i: int64(v)}, true
	case uint32:
		return number{kind: 'i', i: int64(v)}, true
	case uint64:
		return unsigned(v), true
	case uint:
		return unsigned(uint64(v)), true
	case float32:
		return floating(float64(v)), true
	case float64:
		return floating(v), true
	case json.Number:
		if i, err := strconv.ParseInt(v.String(), 10, 64); err == nil {
			return number{kind: 'i', i: i}, true
		}
		if len(v) > 400 || !json.Valid([]byte(v)) { // 1e999999999 is a short text and an endless number
			return number{}, false
		}
		if e := strings.IndexAny(v.String(), "eE"); e >= 0 {
			if exp, err := strconv.Atoi(v.String()[e+1:]); err != nil || exp > 400 || exp < -400 {
				return number{}, false
			}
		}
		r, ok := new(big.Rat).SetString(v.String())
		if !ok {
			return number{}, false
		}
		return fraction(r), true
	case *big.Rat:
		if v == nil {
			return number{}, false
		}
		return fraction(v), true
	}
	return number{}, false
}

// Rational returns the value of any finite number that this package knows.
func Rational(v any) (*big.Rat, bool) {
	n, ok := numberOf(v)
	if !ok || n.kind == 'f' && (math.IsNaN(n.f) || math.IsInf(n.f, 0)) {
		return nil, false
	}
	return n.rat(), true
}

func unsigned(v uint64) number {
	if v <= math.MaxInt64 {
		return number{kind: 'i', i: int64(v)}
	}
	return fraction(new(big.Rat).SetFrac(new(big.Int).SetUint64(v), big.NewInt(1)))
}

func floating(f float64) number {
	switch {
	case f == math.Trunc(f) && f >= -1<<63 && f < 1<<63:
		return number{kind: 'i', i: int64(f)}
	case math.IsNaN(f):
		return number{kind: 'f', f: math.NaN()} // one of its many forms
	}
	return number{kind: 'f', f: f}
}

func fraction(r *big.Rat) number {
	if r.IsInt() && r.Num().IsInt64() {
		return number{kind: 'i', i: r.Num().Int64()}
	}
	if f, exact := r.Float64(); exact {
		return floating(f)
	}
	return number{kind: 'r', r: r}
}

// rank orders values of different kinds, so that any two can be compared.
func rank(v any) int {
	switch v.(type) {
	case nil:
		return 0
	case bool:
		return 1
	case string:
		return 3
	case []byte:
		return 4
	case time.Time:
		return 5
	case civil.Date:
		return 6
	case civil.DateTime:
		return 7
	case civil.Time:
		return 8
	}
	if _, ok := numberOf(v); ok {
		return 2
	}
	return 9
}

// compareValues orders any two values, NULL before everything.
func compareValues(a, b any) int {
	if ta, ok := a.(time.Time); ok { // what order columns are
		if tb, ok := b.(time.Time); ok {
			return cmp.Compare(ta.UnixMicro(), tb.UnixMicro())
		}
	}
	ra, rb := rank(a), rank(b)
	if ra != rb {
		return cmp.Compare(ra, rb)
	}
	switch ra {
	case 0:
		return 0
	case 2:
		na, _ := numberOf(a)
		nb, _ := numberOf(b)
		return compareNumbers(na, nb)
	case 3:
		return strings.Compare(a.(string), b.(string))
	}
	ta, _ := appendText(nil, a)
	tb, _ := appendText(nil, b)
	return bytes.Compare(ta, tb)
}

func compareNumbers(a, b number) int {
	if a.kind == 'i' && b.kind == 'i' {
		return cmp.Compare(a.i, b.i)
	}
	// No fraction: NaN, which is below every number, and the infinities.
	fa, fb := a.float(), b.float()
	if math.IsNaN(fa) || math.IsNaN(fb) || math.IsInf(fa, 0) || math.IsInf(fb, 0) {
		return cmp.Compare(fa, fb)
	}
	return a.rat().Cmp(b.rat())
}

func (n number) float() float64 {
	switch n.kind {
	case 'i':
		return float64(n.i)
	case 'f':
		return n.f
	}
	f, _ := n.r.Float64()
	if math.IsInf(f, 0) { // finite, and larger than any float
		return math.Copysign(math.MaxFloat64, f)
	}
	return f
}

func (n number) rat() *big.Rat {
	switch n.kind {
	case 'i':
		return new(big.Rat).SetInt64(n.i)
	case 'f':
		return new(big.Rat).SetFloat64(n.f)
	}
	return n.r
}

// Hash is the SHA-256 of a row's canonical text: its columns as a JSON object, in the
// table's order, NULL where there is nothing.
func (r Rule) Hash(row Row) [sha256.Size]byte {
	b := []byte{'{'}
	for i, c := range r.Columns {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendQuoted(b, c), ':')
		b, _ = appendText(b, row[c])
	}
	return sha256.Sum256(append(b, '}'))
}

// appendText appends a value's canonical JSON; false when there is none, and then the
// value as Go prints it.
func appendText(b []byte, v any) ([]byte, bool) {
	switch v := v.(type) {
	case nil:
		return append(b, "null"...), true
	case bool:
		return strconv.AppendBool(b, v), true
	case string:
		return appendQuoted(b, v), true
	case []byte:
		return append(base64.StdEncoding.AppendEncode(append(b, '"'), v), '"'), true
	case time.Time:
		return v.UTC().Truncate(time.Microsecond).AppendFormat(b, `"2006-01-02T15:04:05.999999Z"`), true
	case civil.Date, civil.DateTime, civil.Time:
		return appendQuoted(b, fmt.Sprint(v)), true
	case []any:
		b = append(b, '[')
		all := true
		for i, e := range v {
			if i > 0 {
				b = append(b, ',')
			}
			var ok bool
			b, ok = appendText(b, e)
			all = all && ok
		}
		return append(b, ']'), all
	case map[string]any:
		b = append(b, '{')
		all := true
		for i, k := range slices.Sorted(maps.Keys(v)) {
			if i > 0 {
				b = append(b, ',')
			}
			var ok bool
			b, ok = appendText(append(appendQuoted(b, k), ':'), v[k])
			all = all && ok
		}
		return append(b, '}'), all
	}
	if n, ok := numberOf(v); ok {
		return n.text(b), true
	}
	return appendQuoted(b, fmt.Sprintf("%T %v", v, v)), false
}

func (n number) text(b []byte) []byte {
	switch {
	case n.kind == 'i':
		return strconv.AppendInt(b, n.i, 10)
	case n.kind == 'r':
		decimal := n.r.FloatString(38) // the digits of a BIGNUMERIC
		if back, ok := new(big.Rat).SetString(decimal); ok && back.Cmp(n.r) == 0 {
			return append(b, strings.TrimSuffix(strings.TrimRight(decimal, "0"), ".")...)
		}
		return append(b, n.r.RatString()...)
	case math.IsNaN(n.f), math.IsInf(n.f, 0):
		return appendQuoted(b, map[bool]string{true: "NaN", false: strconv.FormatFloat(n.f, 'g', -1, 64)}[math.IsNaN(n.f)])
	}
	return strconv.AppendFloat(b, n.f, 'g', -1, 64)
}

const hexDigits = "0123456789abcdef"

// appendQuoted appends a text as JSON does, escaping no more than it must. Bytes that
// are no UTF-8 stand as themselves: different texts stay different.
func appendQuoted(b []byte, s string) []byte {
	b = append(b, '"')
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			_, n := utf8.DecodeRuneInString(s[i:])
			b = append(b, s[i:i+n]...)
			i += n
			continue
		}
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < 0x20:
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		default:
			b = append(b, c)
		}
		i++
	}
	return append(b, '"')
}

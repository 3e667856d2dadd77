package statuspage

import (
	"maps"
	"net/url"
)

// query is what a request asks for.
type query struct {
	Days      int
	State     kind
	Processor string
	Refresh   int
	values    url.Values // as asked, known names alone
}

// With is the address of the overview with another value.
func (q query) With(name, value string) string {
	values := url.Values{}
	maps.Copy(values, q.values)
	values.Del(name)
	if value != "" {
		values.Set(name, value)
	}
	return "?" + values.Encode()
}

func (q query) ofProcessor(c *shown) bool { return q.Processor == "" || c.mode.Names(q.Processor) }

func (q query) matches(c *shown) bool {
	return q.ofProcessor(c) && (q.State == "" || q.State == c.kind)
}

func (q query) Filters() bool { return q.State != "" || q.Processor != "" }

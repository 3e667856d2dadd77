package statuspage

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	_ "embed" // the templates and the style
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/wire"
)

var (
	//go:embed overview.html
	overviewTemplate string
	//go:embed common.html
	commonTemplate string
	//go:embed style.css
	style string
	//go:embed symbols.svg
	symbols string // each stands next to its word, or in an element with a label
)

// policy allows the page's own style and nothing else: no script, nothing from another address.
var contentPolicy = func() string {
	sum := sha256.Sum256([]byte(style))
	return fmt.Sprintf("default-src 'none'; style-src 'sha256-%s'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'", base64.StdEncoding.EncodeToString(sum[:]))
}()

var functions = template.FuncMap{
	// The style is part of the program.
	"style": func() template.CSS { return template.CSS(style) },
	"words": strings.Fields,
	"nw": func(s string) string { // a short value stays on its line
		if len(s) <= mostOnLine {
			return "nw"
		}
		return "wide"
	},
	"inc":     func(i int) int { return i + 2 },                       // past the name and the state
	"symbols": func() template.HTML { return template.HTML(symbols) }, // so are they
}

var (
	common       = template.Must(template.New("common").Funcs(functions).Parse(commonTemplate))
	overviewPage = template.Must(template.Must(common.Clone()).New("overview").Parse(overviewTemplate))
)

// Page answers the requests of one function. It is safe for concurrent use.
type Page struct {
	reads   reads
	one     sync.Mutex // one overview is read at a time: it may take a fifth of the instance's memory
	settled settled
}

const (
	mostOnLine   = 24 // bytes
	defaultDays  = 14
	leastRefresh = 30   // seconds
	mostRefresh  = 3600 // seconds
)

// Overview answers the overview.
func (p *Page) Overview(ctx context.Context, a *app.App, r *http.Request, w http.ResponseWriter) error {
	q, err := parseQuery(a, r.URL.Query())
	if err != nil {
		return err
	}
	s, err := p.read(ctx, a, q.Days)
	if err != nil {
		return err
	}
	return answer(w, r, overviewPage, newOverview(a, s, q))
}

func (p *Page) read(ctx context.Context, a *app.App, days int) (*state, error) {
	got, err := p.reads.do(ctx, strconv.Itoa(days), func(ctx context.Context) any { return p.readAll(ctx, a, days) })
	if err != nil {
		return nil, err
	}
	return got.(*state), nil
}

// parseQuery reads what a request asks for. An unknown value is the reader's fault; an unknown
// name may be that of a proxy.
func parseQuery(a *app.App, values url.Values) (query, error) {
	q := query{Days: defaultDays, values: url.Values{}}
	bad := func(name, problem string) error {
		return &wire.PermanentError{Field: name, Value: values.Get(name), Problem: problem}
	}
	number := func(name string, into *int, least, most int) error {
		v := values.Get(name)
		if v == "" {
			return nil
		}
		n, err := strconv.Atoi(v)
		if err != nil || n < least || n > most {
			return bad(name, fmt.Sprintf("is no number from %d to %d", least, most))
		}
		*into = n
		return nil
	}
	if err := errors.Join(number("days", &q.Days, 1, maxDays), number("refresh", &q.Refresh, leastRefresh, mostRefresh)); err != nil {
		return q, err
	}
	if q.State = kind(values.Get("state")); q.State != "" && rank(q.State) < 0 {
		var names []string
		for _, l := range looks {
			names = append(names, string(l.Kind))
		}
		return q, bad("state", "is none of "+strings.Join(names, ", "))
	}
	q.Processor = values.Get("processor")
	expects := func(t *pipeline.Transition) bool { return t.Expects(q.Processor) }
	if q.Processor != "" && !slices.ContainsFunc(a.Pipeline.Transitions, expects) {
		return q, bad("processor", "is no processor that a transition expects")
	}
	for _, name := range []string{"days", "refresh", "state", "processor"} {
		if values.Get(name) != "" {
			q.values[name] = []string{values.Get(name)}
		}
	}
	return q, nil
}

// answer answers with a page as HTML. All values are escaped. An error comes before the answer has
// begun. A page by the hour repeats itself: compressed it has a tenth of its bytes.
func answer(w http.ResponseWriter, r *http.Request, t *template.Template, data any) error {
	var b bytes.Buffer
	if err := t.Execute(&b, data); err != nil {
		return fmt.Errorf("render the page: %w", err)
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", contentPolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	if !strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		_, _ = w.Write(b.Bytes()) // a client that has gone is all that can fail here
		return nil
	}
	h.Set("Content-Encoding", "gzip")
	z, _ := gzip.NewWriterLevel(w, gzip.BestSpeed) // fails for an unknown level alone
	_, _ = z.Write(b.Bytes())
	_ = z.Close()
	return nil
}

func answerJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(v) // a client that has gone is all that can fail here
}

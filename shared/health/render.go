package health

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // the page's template and style
	"encoding/base64"
	"fmt"
	"html/template"
	"net/http"
	"time"
)

//go:embed page.html
var pageTemplate string

//go:embed page.css
var pageStyle string

// pagePolicy allows the page's own style and nothing else: no script, nothing from anywhere.
var pagePolicy = func() string {
	sum := sha256.Sum256([]byte(pageStyle))
	return fmt.Sprintf("default-src 'none'; style-src 'sha256-%s'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'", base64.StdEncoding.EncodeToString(sum[:]))
}()

// choices are the numbers of days to choose from.
var choices = []int{7, PageDays, 30, MaxPageDays}

// atOnce is how much evidence of a check is shown at once.
const atOnce = 3

// labelled is a listing with what stands around it.
type labelled struct {
	ID, Title, Caption string
	List               Listing
	Columns            []string
}

var page = template.Must(template.New("page").Funcs(template.FuncMap{
	// The style is ours, and part of the program.
	"style":   func() template.CSS { return template.CSS(pageStyle) },
	"choices": func() []int { return choices },
	"tone": func(s State) string {
		return map[State]string{OK: "good", Failing: "bad", Unknown: "fair"}[s]
	},
	"clock": func(t time.Time) string { return t.Format("2006-01-02 15:04 MST") },
	"few":   func(s []string) []string { return s[:min(len(s), atOnce)] },
	"more":  func(s []string) []string { return s[min(len(s), atOnce):] },
	"newest": func(batches []CellBatch) *CellBatch {
		for i := len(batches) - 1; i >= 0; i-- {
			if batches[i].At != "" {
				return &batches[i]
			}
		}
		return nil
	},
	"listing": func(id, title, caption string, l Listing, columns ...string) labelled {
		return labelled{id, title, caption, l, columns}
	},
}).Parse(pageTemplate))

// Serve answers with the page as HTML. All values are escaped. An error comes before the
// answer has begun.
func (p Page) Serve(w http.ResponseWriter) error {
	var b bytes.Buffer
	if err := page.Execute(&b, p); err != nil {
		return fmt.Errorf("render the page: %w", err)
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", pagePolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	_, _ = w.Write(b.Bytes()) // a client that has gone is all that can fail here
	return nil
}

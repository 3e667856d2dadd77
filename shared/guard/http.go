package guard

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/phasegate/phasegate/shared/receipt"
	"github.com/phasegate/phasegate/shared/wire"
)

const (
	// maxBody bounds what is buffered of a request. A push is smaller: 10 MB of data in base64
	// (https://cloud.google.com/pubsub/quotas#resource_limits), with its attributes.
	maxBody = 16 << 20
	// maxAnswer bounds what is kept of an answer. Pub/Sub reads the status alone.
	maxAnswer = 1 << 20
)

// ServeHTTP implements http.Handler.
func (g *Guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost || !slices.Contains(g.Paths, r.URL.Path) || r.Header.Get("Upgrade") != "" {
		g.pass.ServeHTTP(w, r)
		return
	}
	body, err := readBody(r)
	if err != nil {
		http.Error(w, "read the request's body: "+err.Error(), http.StatusBadRequest)
		return
	}
	if len(body) > maxBody {
		g.other(w, r, io.MultiReader(bytes.NewReader(body), r.Body), fmt.Errorf("the body is larger than %d bytes", maxBody))
		return
	}
	g.decoding.Lock()
	d, err := g.delivery(r, body)
	g.decoding.Unlock()
	if err != nil {
		g.other(w, r, bytes.NewReader(body), err)
		return
	}
	if !g.begin() {
		http.Error(w, "this instance stops", http.StatusServiceUnavailable)
		return
	}
	defer g.running.Done()
	a := g.deliver(r.Context(), d, func(ctx context.Context) answer { return g.send(ctx, r, body) })
	maps.Copy(w.Header(), a.header)
	w.WriteHeader(a.status)
	if a.status != http.StatusNoContent {
		_, _ = w.Write(a.body) // the client may have gone; the receipt has the result
	}
}

// readBody reads a body up to a byte more than maxBody. It is kept until the run ends, so it
// takes no more memory than it needs.
func readBody(r *http.Request) ([]byte, error) {
	body := bytes.NewBuffer(make([]byte, 0, max(0, min(r.ContentLength, maxBody))+bytes.MinRead))
	_, err := body.ReadFrom(io.LimitReader(r.Body, maxBody+1))
	return body.Bytes(), err
}

// other handles a POST on a guarded path that is no delivery with a key.
func (g *Guard) other(w http.ResponseWriter, r *http.Request, body io.Reader, why error) {
	if g.RefuseOther {
		http.Error(w, "only Pub/Sub deliveries are taken here: "+why.Error(), http.StatusBadRequest)
		return
	}
	r = r.Clone(r.Context())
	r.Body = io.NopCloser(body)
	g.pass.ServeHTTP(w, r)
}

// delivery reads what identifies a delivery.
func (g *Guard) delivery(r *http.Request, body []byte) (receipt.Delivery, error) {
	text, err := decoded(r.Header, body, maxBody)
	if err != nil {
		return receipt.Delivery{}, err
	}
	read := r.Clone(r.Context())
	read.Body = io.NopCloser(bytes.NewReader(text))
	e, err := wire.FromRequest(read)
	if err != nil {
		return receipt.Delivery{}, err
	}
	d := receipt.Delivery{Scope: g.Scope, Route: r.URL.RequestURI(), Key: e.Attributes["trigger_id"], MessageID: e.MessageID, Data: e.Data}
	if d.Key == "" {
		d.Key = e.Subscription + " " + e.MessageID
	}
	return d, nil
}

// decoded returns a body as it was before its compression, with a limit for what it comes to.
func decoded(header http.Header, body []byte, most int) ([]byte, error) {
	switch encoding := strings.ToLower(header.Get("Content-Encoding")); encoding {
	case "", "identity":
		return body, nil
	case "gzip":
		unzip, err := gzip.NewReader(bytes.NewReader(body))
		if err != nil {
			return nil, fmt.Errorf("the body is not gzip, as its Content-Encoding says: %w", err)
		}
		text, err := io.ReadAll(io.LimitReader(unzip, int64(most)+1))
		if err == nil && len(text) > most {
			err = fmt.Errorf("it is larger than %d bytes", most)
		}
		if err != nil {
			return nil, fmt.Errorf("decompress the body: %w", err)
		}
		return text, nil
	default:
		return nil, fmt.Errorf("the body has Content-Encoding %q, and guard reads gzip alone", encoding)
	}
}

// hopByHop are the headers of one connection (https://www.rfc-editor.org/rfc/rfc9110#section-7.6.1).
var hopByHop = []string{"Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade"}

// send forwards a delivery, and reads the whole answer.
func (g *Guard) send(ctx context.Context, r *http.Request, body []byte) answer {
	out, err := http.NewRequestWithContext(ctx, r.Method, "http://"+g.Upstream.Host+r.URL.RequestURI(), bytes.NewReader(body))
	if err != nil {
		return answer{result: notSent, err: err}
	}
	out.Header, out.Host, out.GetBody = r.Header.Clone(), r.Host, nil
	for _, name := range hopByHop {
		out.Header.Del(name)
	}
	if out.Header.Get("Accept-Encoding") != "" && len(g.SuccessJSON) > 0 {
		out.Header.Set("Accept-Encoding", "gzip") // an answer that guard can read
	}
	resp, err := g.transport.RoundTrip(out)
	if err != nil {
		if dial, ok := errors.AsType[*net.OpError](err); ok && dial.Op == "dial" {
			return answer{result: notSent, err: err}
		}
		return answer{result: unknown, err: fmt.Errorf("the connection to the service broke: %w", err)}
	}
	defer resp.Body.Close()
	kept, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err == nil {
		_, err = io.Copy(io.Discard, resp.Body)
	}
	if err != nil {
		return answer{result: unknown, err: fmt.Errorf("the answer of the service broke off: %w", err)}
	}
	a := answer{status: resp.StatusCode, header: resp.Header, body: kept}
	for _, name := range append(hopByHop, "Content-Length") {
		a.header.Del(name)
	}
	if err := g.failure(a); err != nil {
		a.result, a.err = failed, err
	}
	if len(kept) > maxAnswer {
		a.body = nil
	}
	return a
}

// failure says why an answer does not mean that the work was done.
func (g *Guard) failure(a answer) error {
	if !slices.Contains(g.Success, a.status) {
		return fmt.Errorf("it answered %d", a.status)
	}
	if len(g.SuccessJSON) == 0 {
		return nil
	}
	text, err := decoded(a.header, a.body, maxAnswer)
	if err != nil {
		return fmt.Errorf("it answered %d: %w", a.status, err)
	}
	var fields map[string]any
	if err := json.Unmarshal(text, &fields); err != nil {
		return fmt.Errorf("it answered %d without a JSON object: %w", a.status, err)
	}
	for _, name := range slices.Sorted(maps.Keys(g.SuccessJSON)) {
		if value := fmt.Sprint(fields[name]); !slices.Contains(g.SuccessJSON[name], value) {
			return fmt.Errorf("it answered %d with %s %q, not one of %q", a.status, name, value, g.SuccessJSON[name])
		}
	}
	return nil
}

package warehousetest

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"

	"github.com/phasegate/phasegate/shared/warehouse"
)

// Through returns the same warehouse as somebody else's client sees it: each of its
// requests is carried out by pass, which may call forward, change its answer, or fail. A
// request that fails is not tried again by the library. It needs the emulator.
func (w *World) Through(pass func(r *http.Request, body []byte, forward func() *httptest.ResponseRecorder) error) *warehouse.Warehouse {
	w.t.Helper()
	if w.Host == "" {
		w.t.Skip("what stands between needs the emulator")
	}
	host := w.Host
	if !strings.Contains(host, "://") {
		host = "http://" + host
	}
	target, err := url.Parse(host)
	if err != nil {
		w.t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	server := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		r.Host = target.Host
		body, err := io.ReadAll(r.Body)
		if err != nil {
			w.t.Error(err)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		rec := httptest.NewRecorder()
		forward := func() *httptest.ResponseRecorder {
			proxy.ServeHTTP(rec, r)
			return rec
		}
		if err := pass(r, body, forward); err != nil {
			http.Error(out, `{"error":{"code":418,"message":"dead"}}`, http.StatusTeapot)
			return
		}
		rec.Header().Del("Content-Length")
		for k, v := range rec.Header() {
			out.Header()[k] = v
		}
		out.WriteHeader(rec.Code)
		_, _ = io.Copy(out, rec.Body)
	}))
	wh := warehouse.New(w.Project, server.URL)
	w.t.Cleanup(func() { wh.Close(); server.Close() })
	return wh
}

// Package delivery receives the deliveries of the functions and answers them, so that no
// message is lost and none is redelivered for ever:
//
//	204  done, or done before
//	202  invalid: kept in quarantine/{message id}, with the reason
//	429  busy: another worker has it; the broker redelivers with backoff
//	503  a fault: the broker redelivers with backoff, up to its dead letter
//
// Cloud Run logs a 5xx as an error and counts it as a failed request, a 429 as neither.
// Pub/Sub redelivers after any answer but 102, 200, 201, 202 and 204, so an invalid message
// must not be answered 4xx. A GET returns the running version.
//
// With ?shadow=1 a delivery is handled in the shadow: with all steps, in collections of its
// own, and without publishing.
package delivery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"
	"time"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/notify"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/telemetry"
	"github.com/phasegate/phasegate/shared/wire"
)

// ErrBusy means that another worker handles the message, such as an earlier attempt. The
// broker redelivers it. This is expected, and not logged as an error.
var ErrBusy = errors.New("another worker handles this message")

// Function is one deployable function.
type Function struct {
	Name string
	// Open returns the application; each request calls it.
	Open func(ctx context.Context) (*app.App, error)
	// Source tells where the messages of a request come from, by its query.
	Source func(a *app.App, query url.Values) (Source, error)
	// Handle does the work: nil, a [*wire.PermanentError], or what may pass. With or without an
	// error it returns what people are to be notified of, afterwards.
	Handle func(ctx context.Context, r Request) ([]notify.Notification, error)
	// Timeout bounds one request, well within the subscription's ack deadline.
	Timeout time.Duration
	// Pages answer a GET, by path. A path that ends with "/" answers the paths below it, except
	// "/". Every other path tells what is running, as "/" does for a client that does not ask for
	// HTML. They change nothing. A [*wire.PermanentError] is the reader's fault.
	Pages map[string]func(ctx context.Context, a *app.App, r *http.Request, w http.ResponseWriter) error
}

// Source is where messages come from.
type Source struct {
	Topic      string
	Transition *pipeline.Transition // nil for jobs
}

// Jobs is the source of a function's jobs.
func Jobs(function string) func(*app.App, url.Values) (Source, error) {
	return func(*app.App, url.Values) (Source, error) {
		return Source{Topic: pipeline.Schedule{Function: function}.Topic()}, nil
	}
}

// Request is a message that was delivered to a function.
type Request struct {
	*app.App
	Source
	wire.Envelope
}

// setAside is the body of a 202: why the message was set aside, and where it is.
type setAside struct {
	State      string `json:"state"`
	Reason     string `json:"reason"`
	Field      string `json:"field"`
	Value      string `json:"value"`
	MessageID  string `json:"message_id"`
	Quarantine string `json:"quarantine"` // id of the document
	Help       string `json:"help"`
}

// ServeHTTP implements http.Handler.
func (f Function) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		at := path.Join("/", r.URL.Path)
		if page := f.page(at); page != nil && (at != "/" || strings.Contains(r.Header.Get("Accept"), "text/html")) {
			f.get(w, r, page)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		// A client that has gone is all that can fail here.
		_ = json.NewEncoder(w).Encode(map[string]string{"name": f.Name, "version": app.Version, "source_hash": app.SourceHash})
	case http.MethodPost:
		f.post(w, r)
	default:
		w.Header().Set("Allow", "GET, HEAD, POST")
		http.Error(w, r.Method+" is not served here", http.StatusMethodNotAllowed)
	}
}

func (f Function) page(at string) func(ctx context.Context, a *app.App, r *http.Request, w http.ResponseWriter) error {
	if page := f.Pages[at]; page != nil {
		return page
	}
	for folder, page := range f.Pages {
		if folder != "/" && strings.HasSuffix(folder, "/") && strings.HasPrefix(at, folder) {
			return page
		}
	}
	return nil
}

func (f Function) get(w http.ResponseWriter, r *http.Request, page func(context.Context, *app.App, *http.Request, http.ResponseWriter) error) {
	ctx, cancel := context.WithTimeout(r.Context(), f.Timeout)
	defer cancel()
	a, err := f.Open(ctx)
	if err == nil {
		err = page(ctx, a, r, w)
	}
	var fault *wire.PermanentError
	switch {
	case err == nil:
	case errors.As(err, &fault):
		http.Error(w, err.Error(), http.StatusBadRequest)
	default:
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	}
}

func (f Function) post(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), f.Timeout)
	defer cancel()
	a, err := f.Open(ctx)
	if err != nil {
		if log, logErr := telemetry.New(os.Stdout, ""); logErr == nil { // there is no App to log with
			log.ErrorContext(ctx, "cannot start: "+err.Error(), "function", f.Name)
		}
		http.Error(w, "not ready: "+err.Error(), http.StatusServiceUnavailable)
		return
	}
	ctx = telemetry.WithTrace(ctx, r, a.Config.Project)
	m, notifications, err := f.receive(ctx, a, r)
	log := m.Log.With("function", f.Name)
	var permanent *wire.PermanentError
	var id string
	if errors.As(err, &permanent) {
		var kept []notify.Notification
		id, kept, err = quarantine(ctx, log, f.Name, m, permanent)
		notifications = append(notifications, kept...)
	}
	m.Notifier.Notify(ctx, notifications...)
	switch {
	case err == nil && permanent != nil:
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusAccepted)
		// A client that has gone is all that can fail here.
		_ = json.NewEncoder(w).Encode(setAside{"quarantined", permanent.Error(), permanent.Field, permanent.Value, m.MessageID, id,
			"phasectl quarantine show " + id})
	case err == nil:
		w.WriteHeader(http.StatusNoContent)
	case errors.Is(err, ErrBusy):
		log.InfoContext(ctx, err.Error(), "message_id", m.MessageID)
		http.Error(w, err.Error(), http.StatusTooManyRequests)
	default:
		log.ErrorContext(ctx, err.Error(), "message_id", m.MessageID, "delivery_attempt", m.DeliveryAttempt)
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	}
}

// receive decodes a request as far as it can, and handles it.
func (f Function) receive(ctx context.Context, a *app.App, r *http.Request) (m Request, notifications []notify.Notification, err error) {
	if m.App, err = inShadow(a, r); err != nil {
		return m, nil, err
	}
	if m.Source, err = f.Source(m.App, r.URL.Query()); err != nil {
		return m, nil, err
	}
	if m.Envelope, err = wire.FromRequest(r); err != nil {
		return m, nil, err
	}
	notifications, err = f.Handle(ctx, m)
	return m, notifications, err
}

// inShadow returns the application that a request asks for. Like a wrong id, a wrong
// value is the subscription's fault: its messages are sound and end in the dead letter.
func inShadow(a *app.App, r *http.Request) (*app.App, error) {
	switch v := r.URL.Query().Get("shadow"); v {
	case "":
		return a, nil
	case "1":
		return a.Shadowed(), nil
	default:
		return a, fmt.Errorf("?shadow=%q: is not 1", v)
	}
}

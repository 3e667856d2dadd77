package wire

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const (
	// maxData is the largest data of a message:
	// https://cloud.google.com/pubsub/quotas#resource_limits
	maxData = 10 << 20
	// maxBody bounds a request: the data in base64, and room for the attributes (100
	// of up to 1,280 bytes, each byte escaped at worst) and for the envelope.
	maxBody = (maxData+2)/3*4 + 1<<20
	// maxMessageID bounds a message's id in bytes; the platform's have about 20.
	maxMessageID = 1024
)

// FromRequest reads the delivery in a request. It accepts a Pub/Sub push envelope, a push
// with payload unwrapping and metadata (the body is the data), and a CloudEvent of type
// google.cloud.pubsub.topic.v1.messagePublished, binary or structured, with that envelope.
//
// A [*PermanentError] means that the request can never be read. The Envelope then has the
// readable parts, for the quarantine. Unreadable data is replaced by the raw body, and an
// unreadable id by "sha256-" with half the hash of the body. Any other error is transient:
// the client went away before its whole body arrived.
func FromRequest(r *http.Request) (Envelope, error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil {
		return Envelope{}, fmt.Errorf("read the request's body: %w", err)
	}
	if len(body) > maxBody {
		body = body[:maxBody]
		return rejected(Envelope{}, body), permanent("body", body, "is larger than %d bytes", maxBody)
	}
	e, err := readDelivery(r.Header, body)
	if err != nil {
		return rejected(e, body), err
	}
	return e, nil
}

// rejected completes what could be read of a request for quarantine.
func rejected(e Envelope, body []byte) Envelope {
	if len(e.Data) == 0 {
		e.Data = body
	}
	if e.MessageID == "" {
		e.MessageID = hashID(body)
	}
	return e
}

func readDelivery(header http.Header, body []byte) (Envelope, error) {
	if header.Get(unwrappedID) != "" {
		return readUnwrapped(header, body)
	}
	if !isCloudEvent(header) {
		return readPush(body, Envelope{})
	}
	event, err := readCloudEvent(header, body)
	if err != nil {
		return Envelope{}, permanent("body", body, "is no CloudEvent: %v", err)
	}
	e := Envelope{MessageID: event.ID(), PublishTime: event.Time().UTC()}
	if event.Type() != messagePublished {
		return e, permanent("type", []byte(event.Type()), "is not %s", messagePublished)
	}
	return readPush(event.Data(), e)
}

// readPush reads a push envelope. What e has already serves where the message says
// nothing. It reads on after a problem, so that quarantine has all there is.
func readPush(data []byte, e Envelope) (Envelope, error) {
	outer, err := decodeObject("body", data)
	if err != nil {
		return e, err
	}
	raw, ok := outer.lookup("message")
	if !ok {
		return e, noMessage(outer, data)
	}
	msg, err := decodeObject("message", raw)
	if err != nil {
		return e, err
	}
	var first error
	for _, read := range []func() error{
		func() error { return e.readID(msg) },
		func() error { return e.readPublishTime(msg) },
		func() error { return e.readData(msg) },
		func() error { return e.readAttributes(msg) },
		func() error { return e.readSubscription(outer) },
	} {
		if err := read(); err != nil && first == nil {
			first = err
		}
	}
	e.readAttempt(outer)
	return e, first
}

func (e *Envelope) readID(msg fields) error {
	id, err := msg.either("messageId", "message_id")
	if err != nil {
		return err
	}
	if id != "" {
		e.MessageID = id
	}
	if e.MessageID == "" {
		return missing("message.messageId")
	}
	if len(e.MessageID) > maxMessageID {
		return permanent("message.messageId", []byte(e.MessageID), "is longer than %d bytes", maxMessageID)
	}
	return nil
}

func (e *Envelope) readPublishTime(msg fields) error {
	const path = "message.publishTime"
	s, err := msg.either("publishTime", "publish_time")
	if err != nil {
		return err
	}
	if s == "" && e.PublishTime.IsZero() {
		return missing(path)
	}
	t := e.PublishTime
	if s != "" {
		// UnmarshalText is RFC 3339 to the letter; time.Parse takes more.
		if err := t.UnmarshalText([]byte(s)); err != nil {
			e.PublishTime = time.Time{}
			return permanent(path, []byte(s), "is no RFC 3339 time")
		}
	}
	e.PublishTime = t.UTC()
	// A clock that was never set must not decide a mode; and times derived from this
	// one have to stay within four digits of year.
	if y := e.PublishTime.Year(); y < 1970 || y > 9998 {
		e.PublishTime = time.Time{}
		return permanent(path, []byte(t.Format(time.RFC3339Nano)), "is no plausible time")
	}
	return nil
}

func (e *Envelope) readData(msg fields) error {
	s, err := msg.text("data", "message.data")
	if err != nil || s == "" {
		return err
	}
	data, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return permanent("message.data", []byte(s), "is not base64: %v", err)
	}
	e.Data = data
	return nil
}

func (e *Envelope) readAttributes(msg fields) error {
	raw, ok := msg.lookup("attributes")
	if !ok {
		return nil
	}
	attributes, err := decodeObject("message.attributes", raw)
	if err != nil || len(attributes) == 0 {
		return err
	}
	e.Attributes = make(map[string]string, len(attributes))
	for key, raw := range attributes {
		s, ok := asText(raw)
		if !ok { // such as a number: no reader needs it to be a string
			s = string(raw)
		}
		e.Attributes[key] = s
	}
	return nil
}

func (e *Envelope) readSubscription(outer fields) (err error) {
	e.Subscription, err = outer.text("subscription", "subscription")
	return err
}

// readAttempt reads a count, also between quotes. It is for people alone: any
// other value counts as absent.
func (e *Envelope) readAttempt(outer fields) {
	raw, _ := outer.lookup("deliveryAttempt")
	if n, err := strconv.Atoi(strings.Trim(string(raw), `"`)); err == nil && n >= 0 {
		e.DeliveryAttempt = n
	}
}

// either returns a field of the message that the platform writes in two spellings,
// "" when neither is there.
func (f fields) either(key, other string) (string, error) {
	s, err := f.text(key, "message."+key)
	if err != nil || s != "" {
		return s, err
	}
	return f.text(other, "message."+other)
}

// pushEnvelope is the JSON of a push delivery as Push writes it.
type pushEnvelope struct {
	Message struct {
		Attributes  map[string]string `json:"attributes,omitempty"`
		Data        []byte            `json:"data,omitempty"`
		MessageID   string            `json:"messageId"`
		PublishTime string            `json:"publishTime,omitempty"`
	} `json:"message"`
	Subscription string `json:"subscription,omitempty"`
}

// Push returns the same delivery as the JSON of a Pub/Sub push, without its attempt.
// [FromRequest] reads it back, so that the handler that
// refused a message can receive it again from quarantine. An envelope without publish time is refused again:
// no other time may replace an unknown one.
func (e Envelope) Push() []byte {
	var p pushEnvelope
	p.Message.Attributes = e.Attributes
	p.Message.Data = e.Data
	p.Message.MessageID = e.MessageID
	if !e.PublishTime.IsZero() {
		p.Message.PublishTime = e.PublishTime.UTC().Format(time.RFC3339Nano)
	}
	p.Subscription = e.Subscription
	b, err := json.Marshal(p)
	if err != nil {
		panic(fmt.Sprintf("strings and bytes always have a JSON: %v", err))
	}
	return b
}

var documentIDForm = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,200}$`)

// DocumentID returns the id of the document that stands for this message: its own id
// where Firestore takes that for a document's, else "sha256-" with half its hash.
func (e Envelope) DocumentID() string {
	id := e.MessageID
	reserved := id == "." || id == ".." || strings.HasPrefix(id, "__") && strings.HasSuffix(id, "__")
	if reserved || !documentIDForm.MatchString(id) {
		return hashID([]byte(id))
	}
	return id
}

func hashID(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256-" + hex.EncodeToString(sum[:16])
}

package local

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/phasegate/phasegate/shared/app"
)

// Pub/Sub's emulator serves gRPC and REST on one port, and clients know one address. Here REST
// publishes, which is all that a processor does by curl or without a client library.

// helloTimeout bounds the wait for a client's first bytes, which show its protocol.
const helloTimeout = 10 * time.Second

// rest returns the server of what is not gRPC.
func (s *pubsubServer) rest() *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/projects/{project}/topics/{call}", s.publishREST)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		refuse(w, status.Errorf(codes.Unimplemented, "%s %s: REST only publishes here: POST /v1/projects/PROJECT/topics/TOPIC:publish; other calls take gRPC", r.Method, r.URL.Path))
	})
	return &http.Server{Handler: mux, ReadHeaderTimeout: helloTimeout}
}

// publishREST publishes as https://cloud.google.com/pubsub/docs/reference/rest/v1/projects.topics/publish.
func (s *pubsubServer) publishREST(w http.ResponseWriter, r *http.Request) {
	topic, verb, _ := strings.Cut(r.PathValue("call"), ":")
	if verb != "publish" {
		refuse(w, status.Errorf(codes.Unimplemented, "%s: REST only publishes here: POST …/topics/TOPIC:publish", r.URL.Path))
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 2*app.MaxPublish)) // base64 is a third longer than the data
	if err != nil {
		refuse(w, status.Errorf(codes.InvalidArgument, "read the request: %v", err))
		return
	}
	var req pubsubpb.PublishRequest
	if err := protojson.Unmarshal(body, &req); err != nil {
		refuse(w, status.Errorf(codes.InvalidArgument, `the body is not {"messages":[{"data":"BASE64","attributes":{}}]}: %v`, err))
		return
	}
	req.Topic = fmt.Sprintf("projects/%s/topics/%s", r.PathValue("project"), topic)
	resp, err := s.Publish(r.Context(), &req)
	if err != nil {
		refuse(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string][]string{"messageIds": resp.MessageIds}) // the client may have left
}

// refuse answers an error in Google's form: https://cloud.google.com/apis/design/errors#http_mapping.
func refuse(w http.ResponseWriter, err error) {
	st := status.Convert(err)
	answer := cmp.Or(map[codes.Code]int{codes.InvalidArgument: http.StatusBadRequest, codes.NotFound: http.StatusNotFound,
		codes.Unimplemented: http.StatusNotImplemented}[st.Code()], http.StatusInternalServerError)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(answer)
	_ = json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{"code": answer, "message": st.Message(), "status": code.Code(st.Code()).String()}})
}

// split serves the connections of a listener, by their first bytes: HTTP/2, which gRPC begins
// with, and everything else. It returns when the listener is closed.
func split(l net.Listener, grpc, rest *lane) {
	open, end := context.WithCancel(context.Background())
	var hello sync.WaitGroup
	defer func() { end(); hello.Wait(); grpc.end(); rest.end() }()
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		hello.Go(func() {
			stop := context.AfterFunc(open, func() { _ = conn.Close() })
			_ = conn.SetReadDeadline(time.Now().Add(helloTimeout))
			c := &peeked{Conn: conn, first: bufio.NewReader(conn)}
			first, err := c.first.Peek(len("PRI"))
			_ = conn.SetReadDeadline(time.Time{})
			switch {
			case !stop() || err != nil:
				_ = conn.Close() // the client has left without a word, or the server ends
			case string(first) == "PRI":
				grpc.take(c)
			default:
				rest.take(c)
			}
		})
	}
}

// peeked is a connection whose first bytes were read ahead.
type peeked struct {
	net.Conn
	first *bufio.Reader
}

func (c *peeked) Read(b []byte) (int, error) { return c.first.Read(b) }

// lane is a listener that is handed its connections.
type lane struct {
	addr  net.Addr
	conns chan net.Conn
	ctx   context.Context
	end   context.CancelFunc
}

func newLane(addr net.Addr) *lane {
	ctx, end := context.WithCancel(context.Background())
	return &lane{addr: addr, conns: make(chan net.Conn), ctx: ctx, end: end}
}

func (l *lane) take(c net.Conn) {
	select {
	case l.conns <- c:
	case <-l.ctx.Done():
		_ = c.Close()
	}
}

// Accept implements net.Listener.
func (l *lane) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *lane) Close() error { l.end(); return nil }

// Addr implements net.Listener.
func (l *lane) Addr() net.Addr { return l.addr }

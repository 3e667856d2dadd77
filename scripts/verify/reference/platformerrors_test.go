package reference

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/bigquery"
	"cloud.google.com/go/firestore/apiv1/firestorepb"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/api/googleapi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/store/firestore"
	"github.com/phasegate/phasegate/shared/warehouse"
	"github.com/phasegate/phasegate/shared/wire"
)

// platformError is a row of docs/reference/platform-errors.md.
type platformError struct {
	service, status, reason, text, decision string
}

func platformErrors(t *testing.T) (out []platformError) {
	page, err := os.ReadFile("../../../docs/reference/platform-errors.md")
	if err != nil {
		t.Fatal(err)
	}
	service := ""
	for line := range strings.Lines(string(page)) {
		line = strings.TrimSpace(line)
		if heading, ok := strings.CutPrefix(line, "## "); ok {
			service = heading
		}
		var cells []string
		for _, c := range strings.Split(strings.Trim(line, "|"), "|") {
			cells = append(cells, strings.Trim(strings.TrimSpace(c), "`"))
		}
		if service != "BigQuery" && len(cells) == 5 {
			cells = append(cells[:1:1], append([]string{""}, cells[1:]...)...)
		}
		if service == "" || len(cells) != 6 || cells[0] == "Status" || strings.HasPrefix(cells[0], "---") {
			continue
		}
		if !strings.HasPrefix(cells[5], "[") || !strings.Contains(cells[5], "](https://") {
			t.Errorf("%q names no source", cells[2])
		}
		out = append(out, platformError{service, cells[0], cells[1], cells[2], cells[3]})
	}
	return out
}

// The test gives each text on the page to the code that decides about it.
func TestPlatformErrors_AreDecidedAsThePageSays(t *testing.T) {
	decide := map[string]func(*testing.T, platformError) string{"BigQuery": bigQueryDecision, "Firestore": firestoreDecision, "Pub/Sub": pubSubDecision}
	count := map[string]int{}
	for _, e := range platformErrors(t) {
		count[e.service]++
		t.Run(fmt.Sprintf("%s_%s_%d", e.service, e.status, count[e.service]), func(t *testing.T) {
			if got := decide[e.service](t, e); got != e.decision {
				t.Errorf("%s: %s, the page says %s", e.text, got, e.decision)
			}
		})
	}
	if count["BigQuery"] < 30 || count["Firestore"] < 10 || count["Pub/Sub"] < 5 {
		t.Errorf("the page has %v errors", count)
	}
}

func bigQueryDecision(t *testing.T, e platformError) string {
	var answers []error
	if e.reason != "" {
		answers = append(answers, &bigquery.Error{Reason: e.reason, Message: e.text})
	}
	if e.status != "job" {
		code, err := strconv.Atoi(e.status)
		if err != nil {
			t.Fatal(err)
		}
		answer := &googleapi.Error{Code: code, Body: e.text}
		if e.reason != "" {
			answer.Message, answer.Errors = e.text, []googleapi.ErrorItem{{Reason: e.reason, Message: e.text}}
		}
		answers = append(answers, answer)
	}
	decision := ""
	for _, answer := range answers {
		err := fmt.Errorf("job j: %w", answer)
		one := "unknown"
		switch passing, permanent := warehouse.Passing(err), warehouse.Permanent(err); {
		case passing && permanent:
			one = "retry and permanent"
		case passing:
			one = "retry"
		case permanent:
			one = "permanent"
		}
		if decision != "" && decision != one {
			t.Errorf("of a job %s, of a request %s", decision, one)
		}
		decision = one
	}
	return decision
}

func codeOf(t *testing.T, name string) (code codes.Code) {
	if err := code.UnmarshalJSON([]byte(strconv.Quote(name))); err != nil {
		t.Fatal(err)
	}
	return code
}

// serveOnce serves until the test ends.
func serveOnce(t *testing.T, register func(*grpc.Server)) (address string) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	register(server)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return listener.Addr().String()
}

// refusingStore answers the first commit with an error.
type refusingStore struct {
	firestorepb.UnimplementedFirestoreServer
	err     error
	commits atomic.Int32
}

func (r *refusingStore) Commit(context.Context, *firestorepb.CommitRequest) (*firestorepb.CommitResponse, error) {
	if r.commits.Add(1) == 1 {
		return nil, r.err
	}
	return &firestorepb.CommitResponse{WriteResults: []*firestorepb.WriteResult{{UpdateTime: timestamppb.New(time.UnixMicro(7))}}}, nil
}

func firestoreDecision(t *testing.T, e platformError) string {
	server := &refusingStore{err: status.Error(codeOf(t, e.status), e.text)}
	t.Setenv("FIRESTORE_EMULATOR_HOST", serveOnce(t, func(s *grpc.Server) { firestorepb.RegisterFirestoreServer(s, server) }))
	s, err := firestore.Open(t.Context(), "project", "")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_, err = s.Apply(t.Context(), store.Merge(store.Ref{Collection: "c", ID: "d"}, store.F("x", "a")))
	switch {
	case err == nil && server.commits.Load() > 1:
		return "retry"
	case errors.Is(err, store.ErrTooLarge):
		return "permanent"
	}
	return "unknown"
}

// refusingTopic answers the first publish with an error.
type refusingTopic struct {
	pubsubpb.UnimplementedPublisherServer
	err      error
	requests atomic.Int32
}

func (r *refusingTopic) Publish(context.Context, *pubsubpb.PublishRequest) (*pubsubpb.PublishResponse, error) {
	if r.requests.Add(1) == 1 {
		return nil, r.err
	}
	return &pubsubpb.PublishResponse{MessageIds: []string{"1"}}, nil
}

func pubSubDecision(t *testing.T, e platformError) string {
	server := &refusingTopic{err: status.Error(codeOf(t, e.status), e.text)}
	b, err := app.NewBroker(t.Context(), "project", serveOnce(t, func(s *grpc.Server) { pubsubpb.RegisterPublisherServer(s, server) }))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	sent := b.Publish(t.Context(), "topic", []wire.Outgoing{{Data: []byte("x")}})[0]
	switch {
	case sent.Err == nil && sent.ID == "1" && server.requests.Load() > 1:
		return "retry"
	case errors.Is(sent.Err, app.ErrTooLarge):
		return "permanent"
	}
	return "unknown"
}

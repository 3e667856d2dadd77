package app_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"strconv"
	"testing"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/wire"
)

// answers makes the broker answer a request to publish with these ids.
type answers []string

func (a answers) React(any) (bool, any, error) {
	return true, &pubsubpb.PublishResponse{MessageIds: a}, nil
}

func TestBroker_ConfirmsOnlyWhatHasAnID(t *testing.T) {
	server := pstest.NewServer(pstest.ServerReactorOption{FuncName: "Publish", Reactor: answers{"m1", ""}})
	defer server.Close()
	b, err := app.NewBroker(t.Context(), "p", server.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	got := b.Publish(t.Context(), "topic", make([]wire.Outgoing, 3))
	if got[0].ID != "m1" || got[0].Err != nil {
		t.Errorf("the first: %+v", got[0])
	}
	if got[1].ID != "" || !errors.Is(got[1].Err, cycle.ErrUnconfirmed) {
		t.Errorf("the second, whose id is empty: %+v", got[1])
	}
	if got[2].ID != "" || got[2].Err == nil {
		t.Errorf("the third, for which there is no id: %+v", got[2])
	}
}

func TestBroker_PublishesNothingThatPubSubNeverTakes(t *testing.T) {
	server := pstest.NewServer(pstest.ServerReactorOption{FuncName: "Publish", Reactor: answers{"m1"}})
	defer server.Close()
	b, err := app.NewBroker(t.Context(), "p", server.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	got := b.Publish(t.Context(), "topic", []wire.Outgoing{{Data: make([]byte, app.MaxPublish)}})
	if got[0].ID != "" || !errors.Is(got[0].Err, app.ErrTooLarge) {
		t.Errorf("%+v", got[0])
	}
}

// counted answers each request to publish with an id for each of its messages, and refuses what
// Pub/Sub refuses.
type counted struct {
	pubsubpb.UnimplementedPublisherServer
	sizes []int
}

func (c *counted) Publish(_ context.Context, r *pubsubpb.PublishRequest) (*pubsubpb.PublishResponse, error) {
	c.sizes = append(c.sizes, len(r.Messages))
	if len(r.Messages) > 1000 || proto.Size(r) > 10_000_000 {
		return nil, status.Errorf(codes.InvalidArgument, "%d messages, %d bytes", len(r.Messages), proto.Size(r))
	}
	resp := &pubsubpb.PublishResponse{}
	for _, m := range r.Messages {
		resp.MessageIds = append(resp.MessageIds, m.Attributes["n"])
	}
	return resp, nil
}

func TestBroker_PublishesInRequestsThatPubSubTakes(t *testing.T) {
	for name, tc := range map[string]struct {
		messages, bytes int
		want            []int
	}{
		"none":                  {0, 0, nil},
		"one request":           {1000, 10, []int{1000}},
		"one message too many":  {1001, 10, []int{1000, 1}},
		"two requests and more": {2500, 10, []int{1000, 1000, 500}},
		"too many bytes":        {5, 4_000_000, []int{2, 2, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			c := &counted{}
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			server := grpc.NewServer(grpc.MaxRecvMsgSize(100_000_000))
			pubsubpb.RegisterPublisherServer(server, c)
			go func() { _ = server.Serve(l) }() // ends when it is stopped
			defer server.Stop()
			b, err := app.NewBroker(t.Context(), "p", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			msgs := make([]wire.Outgoing, tc.messages)
			for i := range msgs {
				msgs[i] = wire.Outgoing{Data: make([]byte, tc.bytes), Attributes: map[string]string{"n": strconv.Itoa(i)}}
			}
			got := b.Publish(t.Context(), "topic", msgs)
			if len(got) != tc.messages || !slices.Equal(c.sizes, tc.want) {
				t.Fatalf("%d answers, requests of %d messages, want %d", len(got), c.sizes, tc.want)
			}
			for i, p := range got {
				if p.Err != nil || p.ID != strconv.Itoa(i) {
					t.Fatalf("message %d: %+v", i, p)
				}
			}
		})
	}
}

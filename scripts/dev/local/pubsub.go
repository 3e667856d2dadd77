package local

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/phasegate/phasegate/shared/app"
)

// pubsubServer serves the library's Pub/Sub server. Ten minutes after publishing, by its
// clock, that server drops messages that are not being delivered: those in backoff and
// every dead letter. So its clock stands still, and publish times are set on the way out.
// Its ack deadlines stand still too: a client that pulls a message and does not
// acknowledge it must return it (a deadline of 0).
type pubsubServer struct {
	*pstest.GServer
	Addr string // host:port

	inner    *pstest.Server
	listener net.Listener
	serving  sync.WaitGroup
	grpc     *grpc.Server
	http     *http.Server // of REST
	now      func() time.Time
	news     *signal // raised by each message that is published

	mu            sync.RWMutex
	published     map[string]*timestamppb.Timestamp // by message id
	subscriptions map[string]*subscription          // by name
	deadLetters   bool                              // a subscription has a dead-letter policy: nothing is parked
	closed        bool                              // nothing is parked or put back: a call can outlive its connection
}

// servePubSub starts a server on the loopback interface; port 0 picks a free one.
func servePubSub(port int, now func() time.Time) (*pubsubServer, error) {
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return nil, fmt.Errorf("serve Pub/Sub: %w", err)
	}
	inner := pstest.NewServerWithAddress("127.0.0.1:0")
	began := now()
	inner.SetTimeNowFunc(func() time.Time { return began })
	s := &pubsubServer{GServer: &inner.GServer, Addr: l.Addr().String(), inner: inner, listener: l,
		now: now, news: newSignal(), published: map[string]*timestamppb.Timestamp{}, subscriptions: map[string]*subscription{}}
	s.grpc = grpc.NewServer(grpc.MaxRecvMsgSize(2*app.MaxPublish), grpc.UnaryInterceptor(s.administer))
	pubsubpb.RegisterPublisherServer(s.grpc, s)
	pubsubpb.RegisterSubscriberServer(s.grpc, s)
	s.http = s.rest()
	calls, requests := newLane(l.Addr()), newLane(l.Addr())
	// They end when they are stopped; nothing else can end a listener on loopback.
	s.serving.Go(func() { split(l, calls, requests) })
	s.serving.Go(func() { _ = s.grpc.Serve(calls) })
	s.serving.Go(func() { _ = s.http.Serve(requests) })
	return s, nil
}

// Publish notes the time of what is published before anybody can pull it.
// It takes as much as Pub/Sub does.
func (s *pubsubServer) Publish(ctx context.Context, req *pubsubpb.PublishRequest) (*pubsubpb.PublishResponse, error) {
	if size := proto.Size(req); size > app.MaxPublish {
		return nil, status.Errorf(codes.InvalidArgument, "The value for request_size is too large. You passed %d in the request, but the maximum value is %d.", size, app.MaxPublish)
	}
	if n := len(req.Messages); n > app.MaxMessages {
		return nil, status.Errorf(codes.InvalidArgument, "The value for message_count is too large. You passed %d in the request, but the maximum value is %d.", n, app.MaxMessages)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	at := timestamppb.New(s.now())
	for _, sub := range s.subscriptions {
		if sub.topic == req.Topic {
			s.unpark(sub)
		}
	}
	resp, err := s.GServer.Publish(ctx, req)
	for _, id := range resp.GetMessageIds() {
		s.published[id] = at
	}
	for name, sub := range s.subscriptions {
		if sub.topic == req.Topic {
			for _, id := range resp.GetMessageIds() {
				sub.unacked[id] = true
			}
			s.park(name, sub)
		}
	}
	s.news.raise()
	return resp, err
}

// Pull hands out messages with the times at which they were published.
func (s *pubsubServer) Pull(ctx context.Context, req *pubsubpb.PullRequest) (*pubsubpb.PullResponse, error) {
	defer s.use(req.Subscription)()
	resp, err := s.GServer.Pull(ctx, req)
	return &pubsubpb.PullResponse{ReceivedMessages: s.stamped(resp.GetReceivedMessages())}, err
}

// StreamingPull is Pull for clients that hold a stream.
func (s *pubsubServer) StreamingPull(stream pubsubpb.Subscriber_StreamingPullServer) error {
	stamping := &stampingStream{Subscriber_StreamingPullServer: stream, server: s, done: func() {}}
	defer func() { stamping.done() }()
	return s.GServer.StreamingPull(stamping)
}

// stamped copies: the messages belong to the server within, which works on them.
func (s *pubsubServer) stamped(ms []*pubsubpb.ReceivedMessage) []*pubsubpb.ReceivedMessage {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := make([]*pubsubpb.ReceivedMessage, len(ms))
	for i, m := range ms {
		out[i] = proto.CloneOf(m)
		out[i].Message.PublishTime = s.published[m.Message.MessageId]
	}
	return out
}

// Close ends every call. What was not acknowledged is gone.
func (s *pubsubServer) Close() {
	_ = s.listener.Close() // never an error that matters: it is closed after it
	_ = s.http.Close()
	s.grpc.Stop()
	s.serving.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	_ = s.inner.Close() // never an error
}

type stampingStream struct {
	pubsubpb.Subscriber_StreamingPullServer
	server       *pubsubServer
	subscription string // "" before the first request
	done         func()
}

// Recv notes which subscription the stream uses, and what is acknowledged on it.
func (s *stampingStream) Recv() (*pubsubpb.StreamingPullRequest, error) {
	req, err := s.Subscriber_StreamingPullServer.Recv()
	if err != nil {
		return nil, err
	}
	if s.subscription == "" {
		s.subscription = req.Subscription
		s.done = s.server.use(req.Subscription)
	}
	s.server.acknowledged(s.subscription, req.AckIds)
	return req, nil
}

func (s *stampingStream) Send(resp *pubsubpb.StreamingPullResponse) error {
	out := proto.CloneOf(resp)
	out.ReceivedMessages = s.server.stamped(resp.ReceivedMessages)
	return s.Subscriber_StreamingPullServer.Send(out)
}

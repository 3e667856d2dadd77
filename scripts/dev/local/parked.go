package local

import (
	"context"
	"path"
	"strings"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
)

// The library's server wakes for each of its subscriptions every 10 ms, which costs more of a
// processor than everything else while nothing happens. So a subscription is in that server only
// while it has messages, or a client uses it; otherwise it is parked here.

// subscription is one that a client has made.
type subscription struct {
	topic   string
	parked  *pubsubpb.Subscription // nil while it is in the library's server
	users   int                    // calls at work on it
	unacked map[string]bool        // ids of its messages
	stays   bool                   // in the server: its messages are not known here
}

// unpark puts a subscription into the library's server. Call it with the lock held.
func (s *pubsubServer) unpark(sub *subscription) {
	if sub.parked == nil || s.closed {
		return
	}
	if _, err := s.GServer.CreateSubscription(context.Background(), sub.parked); err == nil { // else its topic was deleted
		sub.parked = nil
	}
}

// park takes a subscription out of the library's server if it may go. Call it with the lock held.
func (s *pubsubServer) park(name string, sub *subscription) {
	if sub.parked != nil || sub.users > 0 || len(sub.unacked) > 0 || sub.stays || s.deadLetters || s.closed {
		return
	}
	now, err := s.GServer.GetSubscription(context.Background(), &pubsubpb.GetSubscriptionRequest{Subscription: name})
	if err != nil { // a client has deleted it
		delete(s.subscriptions, name)
		return
	}
	if now.Topic != sub.topic { // which was deleted
		return
	}
	kept := proto.CloneOf(now)
	if _, err := s.GServer.DeleteSubscription(context.Background(), &pubsubpb.DeleteSubscriptionRequest{Subscription: name}); err == nil {
		sub.parked = kept
	}
}

// use keeps a subscription in the library's server until it is done.
func (s *pubsubServer) use(name string) (done func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sub := s.subscriptions[name]
	if sub == nil { // the server says so
		return func() {}
	}
	sub.users++
	s.unpark(sub)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		sub.users--
		s.park(name, sub)
	}
}

// acknowledged notes that messages are not delivered again; an ack id is a message's id and
// the number of the delivery.
func (s *pubsubServer) acknowledged(name string, ackIDs []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sub := s.subscriptions[name]; sub != nil {
		for _, id := range ackIDs {
			id, _, _ := strings.Cut(id, ":")
			delete(sub.unacked, id)
		}
	}
}

// administer serves what is neither publishing nor delivering with every subscription in the
// library's server.
func (s *pubsubServer) administer(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	switch path.Base(info.FullMethod) {
	case "Publish", "Pull", "Acknowledge", "ModifyAckDeadline":
		return handler(ctx, req)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sub := range s.subscriptions {
		s.unpark(sub)
	}
	resp, err := handler(ctx, req)
	switch made, _ := req.(*pubsubpb.Subscription); {
	case err != nil:
	case made != nil:
		s.deadLetters = s.deadLetters || made.DeadLetterPolicy != nil // the library's server publishes by itself then
		s.subscriptions[made.Name] = &subscription{topic: made.Topic, unacked: map[string]bool{}, stays: made.Filter != ""}
	default:
		if seek, ok := req.(*pubsubpb.SeekRequest); ok && s.subscriptions[seek.Subscription] != nil {
			s.subscriptions[seek.Subscription].stays = true
		}
	}
	for name, sub := range s.subscriptions {
		s.park(name, sub)
	}
	return resp, err
}

// Acknowledge is the library's.
func (s *pubsubServer) Acknowledge(ctx context.Context, req *pubsubpb.AcknowledgeRequest) (*emptypb.Empty, error) {
	defer s.use(req.Subscription)()
	resp, err := s.GServer.Acknowledge(ctx, req)
	if err == nil {
		s.acknowledged(req.Subscription, req.AckIds)
	}
	return resp, err
}

// ModifyAckDeadline is the library's.
func (s *pubsubServer) ModifyAckDeadline(ctx context.Context, req *pubsubpb.ModifyAckDeadlineRequest) (*emptypb.Empty, error) {
	defer s.use(req.Subscription)()
	return s.GServer.ModifyAckDeadline(ctx, req)
}

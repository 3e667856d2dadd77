package app

import (
	"context"
	"errors"
	"fmt"

	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/wire"
)

// MaxPublish and MaxMessages are the bytes and the messages of the largest request to publish
// that Pub/Sub takes: https://cloud.google.com/pubsub/quotas#resource_limits
const (
	MaxPublish  = 10_000_000
	MaxMessages = 1000
)

// ErrTooLarge says that Pub/Sub never takes a message, however often it is published.
var ErrTooLarge = errors.New("too large for Pub/Sub")

// Broker publishes to Pub/Sub. Client is for those who also set up or read it.
type Broker struct {
	Client  *pubsub.Client
	project string
}

// NewBroker connects lazily, to the emulator at host when one is given.
func NewBroker(ctx context.Context, project, host string) (*Broker, error) {
	var opts []option.ClientOption
	if host != "" {
		opts = append(opts, option.WithEndpoint(host), option.WithoutAuthentication(),
			option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())))
	}
	client, err := pubsub.NewClient(ctx, project, opts...)
	if err != nil {
		return nil, fmt.Errorf("open Pub/Sub: %w", err)
	}
	return &Broker{Client: client, project: project}, nil
}

// Publish is a [cycle.Publish]. All messages that fit go in one request, which keeps their
// order, costs one call, and ends with ctx. The bundling publisher of the library would add a
// wait and outlive ctx. The messages of a batch fit into one document and so into
// one request. A request whose answer is lost is retried by the library: copies, same payload.
func (b *Broker) Publish(ctx context.Context, topic string, msgs []wire.Outgoing) []cycle.Published {
	var out []cycle.Published
	req := &pubsubpb.PublishRequest{Topic: fmt.Sprintf("projects/%s/topics/%s", b.project, topic)}
	empty := proto.Size(req)
	size := empty
	for _, m := range msgs {
		message := &pubsubpb.PubsubMessage{Data: m.Data, Attributes: m.Attributes}
		more := proto.Size(&pubsubpb.PublishRequest{Messages: []*pubsubpb.PubsubMessage{message}})
		if len(req.Messages) > 0 && (size+more > MaxPublish || len(req.Messages) == MaxMessages) {
			out = append(out, b.request(ctx, topic, req, size)...)
			req.Messages, size = nil, empty
		}
		req.Messages, size = append(req.Messages, message), size+more
	}
	return append(out, b.request(ctx, topic, req, size)...)
}

// request publishes the messages of one request. Its outcome is that of each of them.
func (b *Broker) request(ctx context.Context, topic string, req *pubsubpb.PublishRequest, size int) []cycle.Published {
	out := make([]cycle.Published, len(req.Messages))
	if len(out) == 0 {
		return out
	}
	var resp *pubsubpb.PublishResponse
	err := ErrTooLarge
	if size > MaxPublish {
		err = fmt.Errorf("%w: %d bytes, at most %d", err, size, MaxPublish)
	} else {
		resp, err = b.Client.TopicAdminClient.Publish(ctx, req)
	}
	for i := range out {
		switch {
		case err != nil:
			out[i].Err = fmt.Errorf("topic %s: %w", topic, err)
		case i < len(resp.MessageIds) && resp.MessageIds[i] != "":
			out[i].ID = resp.MessageIds[i]
		case i < len(resp.MessageIds):
			out[i].Err = fmt.Errorf("topic %s: %w", topic, cycle.ErrUnconfirmed)
		default:
			out[i].Err = fmt.Errorf("topic %s: %d ids for %d messages", topic, len(resp.MessageIds), len(out))
		}
	}
	return out
}

// Close ends the connection.
func (b *Broker) Close() error { return b.Client.Close() }

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

// MaxPublish is the largest request to publish that Pub/Sub takes, in bytes:
// https://cloud.google.com/pubsub/quotas#resource_limits
const MaxPublish = 10_000_000

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

// Publish is a [cycle.Publish]. All messages go in one request, which keeps their
// order, costs one call, and ends when ctx does; the library's bundling publisher
// would add a wait and outlive ctx. The request's outcome is that of each message:
// the frozen messages of a batch fit into one document and so into one request.
// A request whose answer is lost is retried by the library: copies, same payload.
func (b *Broker) Publish(ctx context.Context, topic string, msgs []wire.Outgoing) []cycle.Published {
	req := &pubsubpb.PublishRequest{Topic: fmt.Sprintf("projects/%s/topics/%s", b.project, topic)}
	for _, m := range msgs {
		req.Messages = append(req.Messages, &pubsubpb.PubsubMessage{Data: m.Data, Attributes: m.Attributes})
	}
	out := make([]cycle.Published, len(msgs))
	var resp *pubsubpb.PublishResponse
	err := ErrTooLarge
	if size := proto.Size(req); size > MaxPublish {
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
			out[i].Err = fmt.Errorf("topic %s: %d ids for %d messages", topic, len(resp.MessageIds), len(msgs))
		}
	}
	return out
}

// Close ends the connection.
func (b *Broker) Close() error { return b.Client.Close() }

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"cloud.google.com/go/bigquery"
	"cloud.google.com/go/firestore"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/api/iterator"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/warehouse"
)

// namesBegin begins every name, and the label marks all that can have one.
const (
	namesBegin = "pgverify"
	label      = "phasegate"
	labelValue = "verify-live"
)

// dataset is a prefix as names of datasets have it.
func dataset(prefix string) string { return strings.ReplaceAll(prefix, "-", "_") }

// clean removes everything that begins with a prefix. Idempotent: what a crash left, the next one
// removes.
func clean(ctx context.Context, project, prefix string) (removed []string, err error) {
	of := []func(context.Context, string, string) ([]string, error){cleanDatasets, cleanPubSub, cleanDocuments}
	var errs []error
	for _, remove := range of {
		names, err := remove(ctx, project, prefix)
		removed, errs = append(removed, names...), append(errs, err)
	}
	return removed, errors.Join(errs...)
}

func cleanDatasets(ctx context.Context, project, prefix string) (removed []string, err error) {
	w := warehouse.New(project, os.Getenv("BIGQUERY_EMULATOR_HOST"))
	defer w.Close()
	client, err := w.Client(ctx)
	if err != nil {
		return nil, err
	}
	var ours []*bigquery.Dataset
	if err := each("datasets", client.Datasets(ctx).Next, func(ds *bigquery.Dataset) error {
		if !strings.HasPrefix(ds.DatasetID, dataset(prefix)+"_") {
			return nil
		}
		meta, err := ds.Metadata(ctx)
		if err != nil {
			return fmt.Errorf("dataset %s: %w", ds.DatasetID, err)
		}
		if meta.Labels[label] == labelValue {
			ours = append(ours, ds)
		}
		return nil
	}); err != nil {
		return nil, err
	}
	for _, ds := range ours {
		if err := ds.DeleteWithContents(ctx); err != nil {
			return removed, fmt.Errorf("dataset %s: %w", ds.DatasetID, err)
		}
		removed = append(removed, "dataset "+ds.DatasetID)
	}
	return removed, nil
}

func cleanPubSub(ctx context.Context, project, prefix string) (removed []string, err error) {
	b, err := app.NewBroker(ctx, project, os.Getenv("PUBSUB_EMULATOR_HOST"))
	if err != nil {
		return nil, err
	}
	defer b.Close()
	ours := func(name string, labels map[string]string) bool {
		return strings.HasPrefix(name[strings.LastIndexByte(name, '/')+1:], prefix+"-") && labels[label] == labelValue
	}
	gone := func(what string, err error) error {
		if err != nil && status.Code(err) != codes.NotFound {
			return err
		}
		removed = append(removed, what)
		return nil
	}
	subscriptions, topics := b.Client.SubscriptionAdminClient, b.Client.TopicAdminClient
	all := subscriptions.ListSubscriptions(ctx, &pubsubpb.ListSubscriptionsRequest{Project: "projects/" + project})
	if err := each("subscriptions", all.Next, func(s *pubsubpb.Subscription) error {
		if !ours(s.Name, s.Labels) {
			return nil
		}
		return gone("subscription "+s.Name, subscriptions.DeleteSubscription(ctx, &pubsubpb.DeleteSubscriptionRequest{Subscription: s.Name}))
	}); err != nil {
		return removed, err
	}
	err = each("topics", topics.ListTopics(ctx, &pubsubpb.ListTopicsRequest{Project: "projects/" + project}).Next, func(t *pubsubpb.Topic) error {
		if !ours(t.Name, t.Labels) {
			return nil
		}
		return gone("topic "+t.Name, topics.DeleteTopic(ctx, &pubsubpb.DeleteTopicRequest{Topic: t.Name}))
	})
	return removed, err
}

// each visits what an iterator of the libraries lists.
func each[T any](what string, next func() (T, error), visit func(T) error) error {
	for {
		v, err := next()
		switch {
		case errors.Is(err, iterator.Done):
			return nil
		case err != nil:
			return fmt.Errorf("list %s: %w", what, err)
		}
		if err := visit(v); err != nil {
			return err
		}
	}
}

func cleanDocuments(ctx context.Context, project, prefix string) (removed []string, err error) {
	client, err := firestore.NewClient(ctx, project)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	err = each("collections", client.Collections(ctx).Next, func(c *firestore.CollectionRef) error {
		if !strings.HasPrefix(c.ID, prefix+"-") {
			return nil
		}
		docs, err := c.Documents(ctx).GetAll()
		if err != nil {
			return fmt.Errorf("collection %s: %w", c.ID, err)
		}
		for _, d := range docs {
			if _, err := d.Ref.Delete(ctx); err != nil {
				return fmt.Errorf("%s/%s: %w", c.ID, d.Ref.ID, err)
			}
		}
		removed = append(removed, fmt.Sprintf("%d documents of %s", len(docs), c.ID))
		return nil
	})
	return removed, err
}

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
	for it := client.Datasets(ctx); ; {
		ds, err := it.Next()
		if errors.Is(err, iterator.Done) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("list datasets: %w", err)
		}
		if !strings.HasPrefix(ds.DatasetID, dataset(prefix)+"_") {
			continue
		}
		meta, err := ds.Metadata(ctx)
		if err != nil {
			return nil, fmt.Errorf("dataset %s: %w", ds.DatasetID, err)
		}
		if meta.Labels[label] == labelValue {
			ours = append(ours, ds)
		}
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
	subscriptions := b.Client.SubscriptionAdminClient.ListSubscriptions(ctx, &pubsubpb.ListSubscriptionsRequest{Project: "projects/" + project})
	for {
		s, err := subscriptions.Next()
		if errors.Is(err, iterator.Done) {
			break
		}
		if err != nil {
			return removed, fmt.Errorf("list subscriptions: %w", err)
		}
		if !ours(s.Name, s.Labels) {
			continue
		}
		if err := b.Client.SubscriptionAdminClient.DeleteSubscription(ctx, &pubsubpb.DeleteSubscriptionRequest{Subscription: s.Name}); err != nil && status.Code(err) != codes.NotFound {
			return removed, err
		}
		removed = append(removed, "subscription "+s.Name)
	}
	topics := b.Client.TopicAdminClient.ListTopics(ctx, &pubsubpb.ListTopicsRequest{Project: "projects/" + project})
	for {
		t, err := topics.Next()
		if errors.Is(err, iterator.Done) {
			return removed, nil
		}
		if err != nil {
			return removed, fmt.Errorf("list topics: %w", err)
		}
		if !ours(t.Name, t.Labels) {
			continue
		}
		if err := b.Client.TopicAdminClient.DeleteTopic(ctx, &pubsubpb.DeleteTopicRequest{Topic: t.Name}); err != nil && status.Code(err) != codes.NotFound {
			return removed, err
		}
		removed = append(removed, "topic "+t.Name)
	}
}

func cleanDocuments(ctx context.Context, project, prefix string) (removed []string, err error) {
	client, err := firestore.NewClient(ctx, project)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	for it := client.Collections(ctx); ; {
		c, err := it.Next()
		if errors.Is(err, iterator.Done) {
			return removed, nil
		}
		if err != nil {
			return removed, fmt.Errorf("list collections: %w", err)
		}
		if !strings.HasPrefix(c.ID, prefix+"-") {
			continue
		}
		docs, err := c.Documents(ctx).GetAll()
		if err != nil {
			return removed, fmt.Errorf("collection %s: %w", c.ID, err)
		}
		for _, d := range docs {
			if _, err := d.Ref.Delete(ctx); err != nil {
				return removed, fmt.Errorf("%s/%s: %w", c.ID, d.Ref.ID, err)
			}
		}
		removed = append(removed, fmt.Sprintf("%d documents of %s", len(docs), c.ID))
	}
}

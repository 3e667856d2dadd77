package main

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"google.golang.org/api/bigquery/v2"
	"google.golang.org/api/pubsub/v1"

	"github.com/phasegate/phasegate/shared/pipeline"
)

// tables looks whether each table of the pipeline has the columns that the file names, and whether
// all datasets are in one location.
func (d *doctor) tables(ctx context.Context) []check {
	var out []check
	where := map[string][]string{} // location → datasets
	for _, name := range append(datasets(d.pipeline), d.config.Staging(), d.config.Archive()) {
		c := check{ID: "dataset " + name, State: checkFailing}
		meta, err := d.bigQuery.Datasets.Get(d.config.Project, name).Context(ctx).Do()
		ours := name == d.config.Staging() || name == d.config.Archive()
		switch {
		case codeOf(err) == http.StatusNotFound && ours, disabled(err):
			out = append(out, d.byDeploying(check{ID: c.ID, Evidence: "does not exist"}))
		case codeOf(err) == http.StatusNotFound:
			c.Evidence, c.Action = "does not exist", fmt.Sprintf("bq --location=LOCATION mk --dataset %s:%s", d.config.Project, name)
			out = append(out, c)
		case err != nil:
			out = append(out, d.unread(c.ID, err, "roles/bigquery.metadataViewer"))
		default:
			where[meta.Location] = append(where[meta.Location], name)
		}
	}
	c := check{ID: "locations of datasets", State: checkOK, Evidence: "all datasets that exist are in " + strings.Join(slices.Sorted(maps.Keys(where)), ", ")}
	if len(where) > 1 {
		c.State, c.Evidence, c.Action = checkFailing, eachLocation(where), "copy the datasets into the location of the tables with bq cp, then make deploy: one statement works in one location"
	}
	if len(where) > 0 {
		out = append(out, c)
	}
	var processors []pipeline.Processor
	for _, phase := range d.pipeline.Phases {
		processors = append(processors, phase.Processors...)
	}
	return append(out, together(8, processors, func(p pipeline.Processor) check { return d.table(ctx, p) })...)
}

// table compares the columns of a table with those that the pipeline file names.
func (d *doctor) table(ctx context.Context, p pipeline.Processor) check {
	c := check{ID: "table " + p.Table, State: checkFailing, Action: "correct " + p.Name + " in the pipeline file, or the table"}
	dataset, name, _ := strings.Cut(p.Table, ".")
	meta, err := d.bigQuery.Tables.Get(d.config.Project, dataset, name).Context(ctx).Do()
	switch {
	case codeOf(err) == http.StatusNotFound:
		c.Evidence, c.Action = "does not exist", "create it, or correct `table` of "+p.Name+" in the pipeline file"
		return c
	case err != nil:
		return d.unread(c.ID, err, "roles/bigquery.metadataViewer")
	case meta.Schema == nil:
		c.State, c.Evidence, c.Action = checkUnknown, "BigQuery names no columns of it", ""
		return c
	}
	var missing []string
	for _, column := range slices.Concat([]string{p.DateColumn, p.OrderBy}, p.Key, p.Filled) {
		if column != "" && !slices.ContainsFunc(meta.Schema.Fields, func(f *bigquery.TableFieldSchema) bool { return strings.EqualFold(f.Name, column) }) && !slices.Contains(missing, column) {
			missing = append(missing, column)
		}
	}
	if len(missing) > 0 {
		c.Evidence = "has no column " + strings.Join(missing, ", ")
		return c
	}
	return check{ID: c.ID, State: checkOK, Evidence: "has the columns that the pipeline file names"}
}

// subscriptions compares each push subscription with the one that a deployment makes.
func (d *doctor) subscriptions(ctx context.Context) []check {
	return together(8, d.pipeline.PushSubscriptions(), func(pl pipeline.PushSubscription) check { return d.subscription(ctx, pl) })
}

func (d *doctor) subscription(ctx context.Context, pl pipeline.PushSubscription) check {
	project := "projects/" + d.config.Project
	name := d.config.Prefix + pl.Name
	c := check{ID: "subscription " + name}
	got, err := d.pubsub.Projects.Subscriptions.Get(project + "/subscriptions/" + name).Context(ctx).Do()
	switch {
	case codeOf(err) == http.StatusNotFound, disabled(err):
		return d.byDeploying(check{ID: c.ID, Evidence: "does not exist"})
	case err != nil:
		return d.unread(c.ID, err, "roles/pubsub.viewer")
	}
	if problems := d.unlike(got, pl); len(problems) > 0 {
		return d.byDeploying(check{ID: c.ID, Evidence: strings.Join(problems, "; ")})
	}
	c.State, c.Evidence = checkOK, fmt.Sprintf("retries after %v to %v, and dead-letters after %d attempts", pl.MinBackoff, pipeline.MaxBackoff, pipeline.MaxAttempts)
	return c
}

// unlike says in what a subscription differs from the deployed form.
func (d *doctor) unlike(s *pubsub.Subscription, pl pipeline.PushSubscription) (out []string) {
	differs := func(what, is, want string) {
		if is != want {
			out = append(out, fmt.Sprintf("%s is %q, not %q", what, is, want))
		}
	}
	prefix := "projects/" + d.config.Project + "/topics/" + d.config.Prefix
	if s.State != "" {
		differs("its state", s.State, "ACTIVE")
	}
	differs("its topic", s.Topic, prefix+pl.Topic)
	differs("its ack deadline", fmt.Sprint(s.AckDeadlineSeconds), fmt.Sprint(int(pipeline.AckDeadline.Seconds())))
	if s.RetryPolicy == nil {
		out = append(out, "it has no retry policy")
	} else {
		differs("its least pause between attempts", s.RetryPolicy.MinimumBackoff, seconds(pl.MinBackoff))
		differs("its longest pause between attempts", s.RetryPolicy.MaximumBackoff, seconds(pipeline.MaxBackoff))
	}
	if s.DeadLetterPolicy == nil {
		out = append(out, "it has no dead-letter policy")
	} else {
		differs("its dead-letter topic", s.DeadLetterPolicy.DeadLetterTopic, prefix+pl.DeadLetter())
		differs("its attempts before dead-lettering", fmt.Sprint(s.DeadLetterPolicy.MaxDeliveryAttempts), fmt.Sprint(pipeline.MaxAttempts))
	}
	if s.ExpirationPolicy != nil && s.ExpirationPolicy.Ttl != "" {
		out = append(out, "it expires after "+s.ExpirationPolicy.Ttl+" without use")
	}
	switch {
	case s.PushConfig == nil || s.PushConfig.PushEndpoint == "":
		out = append(out, "it pushes to no address")
	case !strings.HasSuffix(s.PushConfig.PushEndpoint, pl.Query):
		out = append(out, fmt.Sprintf("it pushes to %s, which does not end in %q", s.PushConfig.PushEndpoint, pl.Query))
	case s.PushConfig.OidcToken == nil:
		out = append(out, "it pushes without an identity")
	default:
		differs("the identity that it pushes as", s.PushConfig.OidcToken.ServiceAccountEmail, d.rights().Pusher(pl.Function))
	}
	return out
}

func seconds(t time.Duration) string { return fmt.Sprintf("%ds", int(t.Seconds())) }

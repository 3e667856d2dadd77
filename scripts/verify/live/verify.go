package main

import (
	"bytes"
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"cloud.google.com/go/bigquery"
	"cloud.google.com/go/civil"
	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/api/googleapi"
	"google.golang.org/api/impersonate"
	"google.golang.org/api/option"

	"github.com/phasegate/phasegate/scripts/dev/serve"
	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/app/production"
	"github.com/phasegate/phasegate/shared/dedup"
	"github.com/phasegate/phasegate/shared/health"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/processor"
	"github.com/phasegate/phasegate/shared/sweep"
	"github.com/phasegate/phasegate/shared/wire"
)

const (
	completions = 300
	within      = 10 * time.Second
	dates       = 30
	location    = "EU"
)

// live is a run of this command.
type live struct {
	*app.App
	options
	id       string
	emulated bool
	table    string // dataset.table
	results  []result
}

// verify makes what it needs and tries it. Results come also with an error.
func verify(ctx context.Context, o options, id string, out io.Writer) ([]result, error) {
	dir, err := os.MkdirTemp("", "phasegate-verify-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	l := &live{options: o, id: id, emulated: os.Getenv("FIRESTORE_EMULATOR_HOST") != "", table: dataset(id) + "_data.t0"}
	file := filepath.Join(dir, "pipeline.yaml")
	if err := os.WriteFile(file, definition(dataset(id)+"_data"), 0o600); err != nil {
		return nil, err
	}
	l.App, err = app.Open(ctx, app.Config{Project: o.project, PipelineFile: file, Store: "firestore", Prefix: id + "-", Claim: time.Minute, Lease: lease.Max,
		LogLevel: "error", PubSubHost: os.Getenv("PUBSUB_EMULATOR_HOST"), BigQueryHost: os.Getenv("BIGQUERY_EMULATOR_HOST"), Local: l.emulated},
		production.Firestore, time.Now, os.Stderr)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	if err := l.make(ctx); err != nil {
		return nil, err
	}
	fmt.Fprintln(out, "everything is made, and is tried now")
	for _, step := range []func(context.Context) error{l.fanIn, l.backfill, l.statements, l.identities, l.deadLetters} {
		if err := step(ctx); err != nil {
			return l.results, err
		}
	}
	return l.results, nil
}

func (l *live) note(what, expected, measured string, ok bool) {
	s := asExpected
	if !ok {
		s = differs
	}
	l.results = append(l.results, result{what, expected, measured, s})
}

func (l *live) untried(what, expected, why string) {
	l.results = append(l.results, result{what, expected, why, untried})
}

//go:embed pipeline.yaml
var template string

// definition is a pipeline of many processors. Only the first one's table exists.
func definition(data string) []byte {
	var rows strings.Builder
	names := make([]string, completions)
	for i := range names {
		names[i] = fmt.Sprint("processor_", i)
		fmt.Fprintf(&rows, "      - {name: %s, kind: thing, table: %s.t%d, date_column: day, key: [day, thing_id], order_by: processed_at, duplicates: remove}\n", names[i], data, i)
	}
	return []byte(strings.NewReplacer("      - PROCESSORS\n", rows.String(), "NAMES", strings.Join(names, ", "), "DATA", data).Replace(template))
}

// make makes topics, subscriptions, datasets and the table.
func (l *live) make(ctx context.Context) error {
	labels := map[string]string{label: labelValue}
	project, t := "projects/"+l.project, l.Pipeline.Transitions[0]
	dead := []string{pipeline.DeadLetterTopic(t.UpstreamTopic), pipeline.DeadLetterTopic(t.ShadowTopic()), pipeline.DeadLetterTopic(l.Pipeline.Schedules[0].Topic())}
	for _, topic := range append([]string{t.UpstreamTopic, t.DownstreamTopic}, dead...) {
		name := project + "/topics/" + l.Config.Prefix + topic
		if _, err := l.Broker.Client.TopicAdminClient.CreateTopic(ctx, &pubsubpb.Topic{Name: name, Labels: labels}); err != nil {
			return fmt.Errorf("topic %s: %w", topic, err)
		}
		if topic == t.UpstreamTopic {
			continue
		}
		if _, err := l.Broker.Client.SubscriptionAdminClient.CreateSubscription(ctx, &pubsubpb.Subscription{Name: project + "/subscriptions/" + l.Config.Prefix + topic,
			Topic: name, AckDeadlineSeconds: 60, Labels: labels}); err != nil {
			return fmt.Errorf("subscription of %s: %w", topic, err)
		}
	}
	client, err := l.Warehouse.Client(ctx)
	if err != nil {
		return err
	}
	for _, name := range []string{dataset(l.id) + "_data", l.Config.Staging(), l.Config.Archive()} {
		meta := &bigquery.DatasetMetadata{Location: location, Labels: labels, DefaultTableExpiration: 24 * time.Hour}
		if err := client.Dataset(name).Create(ctx, meta); err != nil {
			return fmt.Errorf("dataset %s: %w", name, err)
		}
	}
	schema := bigquery.Schema{{Name: "day", Type: bigquery.DateFieldType}, {Name: "thing_id", Type: bigquery.StringFieldType},
		{Name: "value", Type: bigquery.IntegerFieldType}, {Name: "processed_at", Type: bigquery.TimestampFieldType}}
	return client.Dataset(dataset(l.id)+"_data").Table("t0").Create(ctx, &bigquery.TableMetadata{Schema: schema, TimePartitioning: &bigquery.TimePartitioning{Field: "day"}})
}

// fanIn sends the completions to the function's handler, and counts what arrives downstream.
func (l *live) fanIn(ctx context.Context) error {
	h := serve.Handler(pipeline.FunctionTransition, func(context.Context) (*app.App, error) { return l.App, nil })
	began, period := time.Now(), l.Pipeline.Calendar.At(time.Now())
	statuses, slowest := map[int]int{}, time.Duration(0)
	var mu sync.Mutex
	var wg sync.WaitGroup
	pace := time.NewTicker(within / completions)
	defer pace.Stop()
	for i := range completions {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-pace.C:
		}
		wg.Go(func() {
			at := time.Now().UTC()
			data := fmt.Sprintf(`{"processor_name":"processor_%d","game_date":%q,"status":"success","record_count":1,"execution_id":"e%d"}`, i, period, i)
			push := wire.Envelope{MessageID: fmt.Sprint(i), PublishTime: at, Subscription: "s", Data: []byte(data)}.Push()
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, httptest.NewRequestWithContext(ctx, http.MethodPost, "/", bytes.NewReader(push)))
			mu.Lock()
			defer mu.Unlock()
			statuses[rec.Code]++
			slowest = max(slowest, time.Since(at))
		})
	}
	wg.Wait()
	l.note(fmt.Sprintf("%d completions in %s", completions, within), "each is answered 204", fmt.Sprintf("answers by status: %v; the slowest after %s, all after %s",
		statuses, slowest.Round(time.Millisecond), time.Since(began).Round(time.Millisecond)), statuses[http.StatusNoContent] == completions)
	messages, ids, err := l.receive(ctx)
	if err != nil {
		return err
	}
	l.note("messages to the next phase", fmt.Sprintf("%d trigger ids", completions), fmt.Sprintf("%d trigger ids in %d messages", ids, messages), ids == completions)
	return nil
}

// receive takes the messages to the next phase until all trigger ids have arrived, for two minutes at most.
func (l *live) receive(ctx context.Context) (messages, ids int, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	seen := map[string]bool{}
	var mu sync.Mutex
	err = l.Broker.Client.Subscriber(l.Config.Prefix+l.Pipeline.Transitions[0].DownstreamTopic).Receive(ctx, func(_ context.Context, m *pubsub.Message) {
		mu.Lock()
		defer mu.Unlock()
		messages++
		seen[m.Attributes["trigger_id"]] = true
		m.Ack()
		if len(seen) == completions {
			cancel()
		}
	})
	return messages, len(seen), err
}

func (l *live) runner() *processor.Runner {
	return processor.New(processor.Config{Pipeline: l.Pipeline, Store: l.Store, Locks: l.Locks, Warehouse: l.Warehouse, Publish: l.Broker.Publish, Now: l.Now,
		NewID: rand.Text, Prefix: l.Config.Prefix, Staging: l.Config.Staging(), TimeLimit: time.Minute, Log: l.Log})
}

// write runs the processor of the table for a date, with two things; entities: with the first alone.
func (l *live) write(ctx context.Context, p pipeline.Period, value int, entities []string) (processor.Outcome, error) {
	day, err := civil.ParseDate(string(p))
	if err != nil {
		return processor.Outcome{}, err
	}
	return l.runner().Run(ctx, "processor_0", p, processor.Request{Entities: entities}, func(context.Context, processor.Run) (processor.Output, error) {
		out := processor.Output{Entities: entities}
		for _, id := range []string{"a", "b"} {
			if entities == nil || slices.Contains(entities, id) {
				out.Rows = append(out.Rows, dedup.Row{"day": day, "thing_id": id, "value": int64(value), "processed_at": l.Now().UTC().Truncate(time.Microsecond)})
			}
		}
		return out, nil
	})
}

// backfill writes many dates at once.
func (l *live) backfill(ctx context.Context) error {
	began, today := time.Now(), l.Pipeline.Calendar.At(time.Now())
	problems := map[string]int{}
	written := 0
	var mu sync.Mutex
	var wg sync.WaitGroup
	for n := range dates {
		wg.Go(func() {
			out, err := l.write(ctx, l.Pipeline.Calendar.AddDays(today, -n-1), 1, nil)
			mu.Lock()
			defer mu.Unlock()
			if err == nil && out.Category == "" && out.Written.Rows == 2 {
				written++
				return
			}
			problems[fmt.Sprintf("%v %s", err, out.Category)]++
		})
	}
	wg.Wait()
	measured := fmt.Sprintf("%d written, in %s", written, time.Since(began).Round(time.Millisecond))
	if len(problems) > 0 {
		measured += "; " + strings.Join(slices.Sorted(maps.Keys(problems)), "; ")
	}
	l.note(fmt.Sprintf("a backfill of %d dates at once", dates), fmt.Sprintf("%d written", dates), measured, written == dates)
	return ctx.Err()
}

// statements runs each statement that writes, on the newest of the dates.
func (l *live) statements(ctx context.Context) error {
	p := l.Pipeline.Calendar.AddDays(l.Pipeline.Calendar.At(time.Now()), -1)
	for _, s := range []struct {
		what     string
		value    int
		entities []string
		want     string
	}{{"merge", 2, nil, "a=2 b=2"}, {"merge by key", 3, []string{"a"}, "a=3 b=2"}} {
		if _, err := l.write(ctx, p, s.value, s.entities); err != nil {
			return fmt.Errorf("%s: %w", s.what, err)
		}
		if err := l.rows(ctx, s.what, p, s.want); err != nil {
			return err
		}
	}
	if _, err := l.query(ctx, fmt.Sprintf("INSERT INTO `%s` (day, thing_id, value, processed_at) VALUES (DATE '%s', 'b', 1, TIMESTAMP '2020-01-01')", strings.ReplaceAll(l.table, ".", "`.`"), p)); err != nil {
		return fmt.Errorf("insert a duplicate: %w", err)
	}
	if err := l.rows(ctx, "a duplicate row", p, "a=3 b=1 b=2"); err != nil {
		return err
	}
	s, err := sweep.New(l.App)
	if err != nil {
		return err
	}
	report, err := s.Run(ctx, sweep.Order{Table: l.table, From: p, To: p, Force: true, Fix: func(pipeline.Processor) bool { return true }, Actor: "verify-live", Reason: "verify-live"})
	if err != nil {
		return fmt.Errorf("sweep: %w", err)
	}
	if err := l.rows(ctx, "archive copy and removal", p, "a=3 b=2"); err != nil {
		return err
	}
	if _, err := s.Undo(ctx, report.SweepID, "verify-live", "verify-live"); err != nil {
		return fmt.Errorf("undo: %w", err)
	}
	return l.rows(ctx, "undo of the removal", p, "a=3 b=1 b=2")
}

func (l *live) query(ctx context.Context, sql string) (*bigquery.RowIterator, error) {
	client, err := l.Warehouse.Client(ctx)
	if err != nil {
		return nil, err
	}
	q := client.Query(sql)
	q.Location = location
	return q.Read(ctx)
}

// rows notes what the table holds of a period.
func (l *live) rows(ctx context.Context, what string, p pipeline.Period, want string) error {
	it, err := l.query(ctx, fmt.Sprintf("SELECT thing_id, value FROM `%s` WHERE day = DATE '%s' ORDER BY thing_id, value", strings.ReplaceAll(l.table, ".", "`.`"), p))
	if err != nil {
		return err
	}
	var got []string
	for {
		var row []bigquery.Value
		err := it.Next(&row)
		if err != nil {
			if len(got) == 0 {
				got = []string{err.Error()}
			}
			break
		}
		got = append(got, fmt.Sprintf("%v=%v", row[0], row[1]))
	}
	l.note(what, want, strings.Join(got, " "), strings.Join(got, " ") == want)
	return nil
}

// identities asks as one service account about the job of another.
func (l *live) identities(ctx context.Context) error {
	const what, expected = "the job of another service account", "403 without bigquery.jobs.get, DONE with it"
	as := l.as
	switch {
	case l.processor == "":
		l.untried(what, expected, "PROCESSOR= and SWEEPER= name no service accounts")
		return nil
	case as == nil && l.emulated:
		l.untried(what, expected, "an emulator has no identities: only a project of Google Cloud has")
		return nil
	case as == nil:
		as = l.impersonate
	}
	first, err := as(ctx, l.processor)
	if err != nil {
		return err
	}
	defer first.Close()
	second, err := as(ctx, l.sweeper)
	if err != nil {
		return err
	}
	defer second.Close()
	q := first.Query("SELECT 1")
	q.Location = location
	job, err := q.Run(ctx)
	if err != nil {
		return fmt.Errorf("job of %s: %w", l.processor, err)
	}
	if _, err := job.Wait(ctx); err != nil {
		return fmt.Errorf("job of %s: %w", l.processor, err)
	}
	seen, err := second.JobFromIDLocation(ctx, job.ID(), location)
	var refused *googleapi.Error
	switch {
	case err == nil:
		l.note(what, expected, "the second account has the right and sees the job; done: "+strconv.FormatBool(seen.LastStatus().Done()), seen.LastStatus().Done())
	case errors.As(err, &refused):
		l.note(what, expected, fmt.Sprintf("%d %s", refused.Code, refused.Message), refused.Code == http.StatusForbidden)
	default:
		return err
	}
	return nil
}

// impersonate returns a client with the identity of a service account.
func (l *live) impersonate(ctx context.Context, account string) (*bigquery.Client, error) {
	tokens, err := impersonate.CredentialsTokenSource(ctx, impersonate.CredentialsConfig{TargetPrincipal: account, Scopes: []string{bigquery.Scope}})
	if err != nil {
		return nil, fmt.Errorf("impersonate %s: %w", account, err)
	}
	return bigquery.NewClient(ctx, l.project, option.WithTokenSource(tokens))
}

// deadLetters counts the messages of subscriptions that never had one.
func (l *live) deadLetters(ctx context.Context) error {
	const what, expected = "dead letters of empty subscriptions", "0 in each of 3"
	if l.emulated && l.monitoring == nil {
		l.untried(what, expected, "emulators have no Cloud Monitoring: only a project of Google Cloud has")
		return nil
	}
	counts, err := health.DeadLetters(ctx, l.App, l.monitoring...)
	if err != nil {
		l.note(what, expected, err.Error(), false)
		return nil
	}
	sum := int64(0)
	for _, n := range counts {
		sum += n
	}
	l.note(what, expected, fmt.Sprintf("%d in %d subscriptions", sum, len(counts)), sum == 0 && len(counts) == 3)
	return nil
}

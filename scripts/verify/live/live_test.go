package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/bigquery"
	"cloud.google.com/go/firestore"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/api/option"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/app/production"
	"github.com/phasegate/phasegate/shared/emulatortest"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/warehouse/warehousetest"
)

// onEmulators returns a project of the test's own.
func onEmulators(t *testing.T) (project string) {
	t.Helper()
	emulatortest.Firestore(t)
	emulatortest.PubSub(t)
	emulatortest.BigQuery(t)
	return "verify-" + strings.ToLower(rand.Text()[:12])
}

// made opens a run that has created all its resources and tested nothing, as a crash leaves it.
func made(t *testing.T, o options, id string) *live {
	t.Helper()
	file := filepath.Join(t.TempDir(), "pipeline.yaml")
	if err := os.WriteFile(file, definition(dataset(id)+"_data"), 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := app.Open(t.Context(), app.Config{Project: o.project, PipelineFile: file, Store: "firestore", Prefix: id + "-", Claim: time.Minute, Lease: lease.Max, LogLevel: "error",
		PubSubHost: os.Getenv("PUBSUB_EMULATOR_HOST"), BigQueryHost: os.Getenv("BIGQUERY_EMULATOR_HOST"), Local: true}, production.Firestore, time.Now, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	l := &live{App: a, options: o, id: id, emulated: true, table: dataset(id) + "_data.t0"}
	if err := l.make(t.Context()); err != nil {
		t.Fatal(err)
	}
	return l
}

// nothingLeft fails the test if clean finds something of a prefix.
func nothingLeft(t *testing.T, project, prefix string) {
	t.Helper()
	if removed, err := clean(t.Context(), project, prefix); err != nil || len(removed) > 0 {
		t.Errorf("left: %q, %v", removed, err)
	}
}

// onDoubles returns options of a project with the double of BigQuery, whose datasets are in the
// EU, and a Cloud Monitoring that answers with a status and a body.
func onDoubles(t *testing.T, id string, status int, series string) (options, *warehousetest.Platform) {
	t.Helper()
	emulatortest.Firestore(t)
	emulatortest.PubSub(t)
	world := warehousetest.Alone(t)
	platform := world.Platform()
	for _, name := range []string{"_data", "_phasegate_staging", "_phasegate_sweep_archive"} {
		platform.Locations[dataset(id)+name] = location
	}
	t.Setenv("BIGQUERY_EMULATOR_HOST", platform.URL("operator"))
	monitoring := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/v3/projects/"+world.Project+"/timeSeries") {
			t.Errorf("asked for %s", r.URL.Path)
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		fmt.Fprint(w, series)
	}))
	t.Cleanup(monitoring.Close)
	return options{project: world.Project, processor: "writes", sweeper: "asks", yes: true,
		as: func(ctx context.Context, account string) (*bigquery.Client, error) {
			return platform.As(account).Client(ctx)
		},
		monitoring: []option.ClientOption{option.WithEndpoint(monitoring.URL), option.WithoutAuthentication()}}, platform
}

// noSeries is the answer of Cloud Monitoring about subscriptions that never had a message.
const noSeries = "{}"

func TestVerifyLive_TriesEverythingAndRemovesIt(t *testing.T) {
	id := newID()
	o, _ := onDoubles(t, id, http.StatusOK, noSeries)
	var out bytes.Buffer
	code := try(t.Context(), o, id, &out)
	t.Log(out.String())
	if code != 0 {
		t.Errorf("exit %d", code)
	}
	for _, want := range []string{"300 trigger ids in 300 messages", "30 written, in", "a=3 b=1 b=2", "archive copy and removal", "undo of the removal",
		"403 Access Denied: Job ", "0 in 3 subscriptions"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table has no %q", want)
		}
	}
	for _, state := range []state{differs, untried} {
		if strings.Contains(out.String(), "\n"+string(state)+" ") {
			t.Errorf("a line is %q", state)
		}
	}
	nothingLeft(t, o.project, namesBegin)
}

// measured returns the line of a step.
func measured(t *testing.T, l *live, step func(context.Context) error) result {
	t.Helper()
	if err := step(t.Context()); err != nil {
		t.Fatal(err)
	}
	return l.results[len(l.results)-1]
}

func TestVerifyLive_AnotherIdentitySeesTheJobOnlyWithTheRight(t *testing.T) {
	o, platform := onDoubles(t, newID(), http.StatusOK, noSeries)
	l := &live{options: o, emulated: true}
	if r := measured(t, l, l.identities); r.state != asExpected || !strings.Contains(r.measured, "403 Access Denied") {
		t.Errorf("without the right: %+v", r)
	}
	platform.Granted["asks"] = true
	if r := measured(t, l, l.identities); r.state != asExpected || !strings.Contains(r.measured, "done: true") {
		t.Errorf("with the right: %+v", r)
	}
	l.as = nil
	if r := measured(t, l, l.identities); r.state != untried || !strings.Contains(r.measured, "only a project of Google Cloud") {
		t.Errorf("on an emulator: %+v", r)
	}
}

func TestVerifyLive_CountsDeadLettersOfEmptySubscriptionsAsNone(t *testing.T) {
	for _, c := range []struct {
		name, body string
		status     int
		want       state
		measured   string
	}{
		{"no time series", noSeries, http.StatusOK, asExpected, "0 in 3 subscriptions"},
		{"a message", `{"timeSeries":[{"resource":{"labels":{"subscription_id":"SUBSCRIPTION"}},"points":[{"value":{"int64Value":"2"}}]}]}`, http.StatusOK, differs, "2 in 3 subscriptions"},
		{"refused", `{"error":{"code":403,"message":"Permission monitoring.timeSeries.list denied"}}`, http.StatusForbidden, differs, "monitoring.timeSeries.list denied"},
	} {
		t.Run(c.name, func(t *testing.T) {
			id := newID()
			o, _ := onDoubles(t, id, c.status, strings.ReplaceAll(c.body, "SUBSCRIPTION", id+"-completed-dead-letter"))
			l := made(t, o, id)
			if r := measured(t, l, l.deadLetters); r.state != c.want || !strings.Contains(r.measured, c.measured) {
				t.Errorf("%+v", r)
			}
			if code := cleaned(t.Context(), o.project, id, t.Output()); code != 0 {
				t.Errorf("exit %d", code)
			}
			if c.want != asExpected {
				return
			}
			l.monitoring = nil
			if r := measured(t, l, l.deadLetters); r.state != untried || !strings.Contains(r.measured, "only a project of Google Cloud") {
				t.Errorf("without Cloud Monitoring: %+v", r)
			}
		})
	}
}

func TestVerifyLive_DoesNothingUnlessItIsToldYes(t *testing.T) {
	var out bytes.Buffer
	if code := run(t.Context(), []string{"--project", "p"}, strings.NewReader("y\n"), &out); code != exitUsage || !strings.Contains(out.String(), "nothing was done") {
		t.Errorf("exit %d: %s", code, out.String())
	}
	if !strings.Contains(out.String(), "below $0.10") {
		t.Errorf("the output names no cost: %s", out.String())
	}
	if !agreed(options{project: "p"}, strings.NewReader("yes\n"), io.Discard) {
		t.Error("the answer yes is refused")
	}
}

// interrupts cancels a context when the run reports that it has created all its resources.
type interrupts struct {
	bytes.Buffer
	cancel context.CancelFunc
}

func (i *interrupts) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("everything is made")) {
		i.cancel()
	}
	return i.Buffer.Write(p)
}

func TestVerifyLive_RemovesWhatItMadeAfterAnInterrupt(t *testing.T) {
	project := onEmulators(t)
	ctx, cancel := context.WithCancel(t.Context())
	out := &interrupts{cancel: cancel}
	if code := run(ctx, []string{"--project", project, "--yes"}, nil, out); code != exitUnknown {
		t.Errorf("exit %d: %s", code, out.String())
	}
	if !strings.Contains(out.String(), "removed topic") {
		t.Errorf("the run had created no topic: %s", out.String())
	}
	nothingLeft(t, project, namesBegin)
}

// After a crash CLEAN=1 removes the resources of the run, and none of others.
func TestVerifyLive_CleanRemovesWhatACrashLeftAndNothingElse(t *testing.T) {
	project := onEmulators(t)
	l := made(t, options{project: project}, newID())
	client, err := l.Warehouse.Client(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	others := []string{"pgverify_of_others", "verify_data"}
	for i, name := range others {
		labels := []map[string]string{nil, {label: labelValue}}[i]
		if err := client.Dataset(name).Create(t.Context(), &bigquery.DatasetMetadata{Labels: labels}); err != nil {
			t.Fatal(err)
		}
	}
	topic := "projects/" + project + "/topics/pgverify-of-others"
	if _, err := l.Broker.Client.TopicAdminClient.CreateTopic(t.Context(), &pubsubpb.Topic{Name: topic}); err != nil {
		t.Fatal(err)
	}
	documents, err := firestore.NewClient(t.Context(), project)
	if err != nil {
		t.Fatal(err)
	}
	defer documents.Close()
	foreign := documents.Collection("pgverifies").Doc("a")
	for _, ref := range []*firestore.DocumentRef{foreign, documents.Collection(l.Config.Prefix + "phase_periods").Doc("a")} {
		if _, err := ref.Set(t.Context(), map[string]any{"a": 1}); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	if code := run(t.Context(), []string{"--project", project, "--clean", "--yes"}, nil, &out); code != 0 {
		t.Errorf("exit %d: %s", code, out.String())
	}
	for _, want := range []string{"dataset " + dataset(l.id) + "_data", "topic projects/" + project + "/topics/" + l.id + "-completed", "1 documents of " + l.id} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q was not removed: %s", want, out.String())
		}
	}
	nothingLeft(t, project, namesBegin)
	for _, name := range others {
		if _, err := client.Dataset(name).Metadata(t.Context()); err != nil {
			t.Errorf("dataset %s: %v", name, err)
		}
	}
	if _, err := l.Broker.Client.TopicAdminClient.GetTopic(t.Context(), &pubsubpb.GetTopicRequest{Topic: topic}); err != nil {
		t.Error(err)
	}
	if _, err := foreign.Get(t.Context()); err != nil {
		t.Error(err)
	}
}

package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/bigquery"
	"cloud.google.com/go/firestore"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/app/production"
	"github.com/phasegate/phasegate/shared/emulatortest"
	"github.com/phasegate/phasegate/shared/lease"
)

// onEmulators returns a project of the test's own.
func onEmulators(t *testing.T) (project string) {
	t.Helper()
	emulatortest.Firestore(t)
	emulatortest.PubSub(t)
	emulatortest.BigQuery(t)
	return "verify-" + strings.ToLower(rand.Text()[:12])
}

// made opens a run that has made everything and tried nothing, as a crash leaves it.
func made(t *testing.T, project, id string) *live {
	t.Helper()
	file := filepath.Join(t.TempDir(), "pipeline.yaml")
	if err := os.WriteFile(file, definition(dataset(id)+"_data"), 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := app.Open(t.Context(), app.Config{Project: project, PipelineFile: file, Store: "firestore", Prefix: id + "-", Claim: time.Minute, Lease: lease.Max, LogLevel: "error",
		PubSubHost: os.Getenv("PUBSUB_EMULATOR_HOST"), BigQueryHost: os.Getenv("BIGQUERY_EMULATOR_HOST"), Local: true}, production.Firestore, time.Now, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	l := &live{App: a, options: options{project: project}, id: id, emulated: true, table: dataset(id) + "_data.t0"}
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

func TestVerifyLive_TriesEverythingAndRemovesIt(t *testing.T) {
	project := onEmulators(t)
	var out bytes.Buffer
	code := run(t.Context(), []string{"--project", project}, strings.NewReader("yes\n"), &out)
	t.Log(out.String())
	if code != 0 {
		t.Errorf("exit %d", code)
	}
	for _, want := range []string{"300 trigger ids in 300 messages", "30 written, in", "a=3 b=1 b=2", "archive copy and removal", "undo of the removal", "not tried"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table has no %q", want)
		}
	}
	if strings.Contains(out.String(), string(differs)+" ") {
		t.Error("something differs")
	}
	nothingLeft(t, project, namesBegin)
}

func TestVerifyLive_DoesNothingUnlessItIsToldYes(t *testing.T) {
	var out bytes.Buffer
	if code := run(t.Context(), []string{"--project", "p"}, strings.NewReader("y\n"), &out); code != exitUsage || !strings.Contains(out.String(), "nothing was done") {
		t.Errorf("exit %d: %s", code, out.String())
	}
	if !strings.Contains(out.String(), "below $0.10") {
		t.Errorf("it names no cost: %s", out.String())
	}
}

// interrupts ends a context when the run has made everything and said so.
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
		t.Errorf("it had made nothing: %s", out.String())
	}
	nothingLeft(t, project, namesBegin)
}

// After a crash CLEAN=1 removes what is left, and nothing that others have made.
func TestVerifyLive_CleanRemovesWhatACrashLeftAndNothingElse(t *testing.T) {
	project := onEmulators(t)
	l := made(t, project, namesBegin+"-"+strings.ToLower(rand.Text()[:8]))
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

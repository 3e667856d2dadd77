package main

import (
	"strings"
	"testing"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/pipeline"
)

// feeding is a Pub/Sub server with the upstream topic and its subscriptions, by name, each with
// the address that it pushes to, "" for one that is pulled.
func feeding(t *testing.T, subscriptions map[string]string) app.Config {
	t.Helper()
	server := pstest.NewServer()
	t.Cleanup(func() { _ = server.Close() })
	broker, err := app.NewBroker(t.Context(), "p", server.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = broker.Close() })
	const topic = "projects/p/topics/dev-" + completions
	if _, err := broker.Client.TopicAdminClient.CreateTopic(t.Context(), &pubsubpb.Topic{Name: topic}); err != nil {
		t.Fatal(err)
	}
	for name, address := range subscriptions {
		s := &pubsubpb.Subscription{Name: "projects/p/subscriptions/" + name, Topic: topic, AckDeadlineSeconds: 10}
		if address != "" {
			s.PushConfig = &pubsubpb.PushConfig{PushEndpoint: address}
		}
		if _, err := broker.Client.SubscriptionAdminClient.CreateSubscription(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	return app.Config{Project: "p", Prefix: "dev-", PubSubHost: server.Addr}
}

const (
	madeByEventarc = "eventarc-us-central1-phase3-to-phase4-orchestrator-438211-sub-774"
	madeForAnother = "eventarc-us-central1-dashboard-438211-sub-112"
	ours           = "dev-" + completions + "-transition"
)

func TestReplaced_PatternsNameSubscriptionsOfEventarc(t *testing.T) {
	const pattern, address = "eventarc-*-phase3-to-phase4-orchestrator-*", "https://orchestrator.example.com/"
	for name, tc := range map[string]struct {
		replaces      string
		subscriptions map[string]string
		state, says   string
	}{
		"pushes":      {pattern, map[string]string{madeByEventarc: address}, "bad", "through " + madeByEventarc + ", and both would hand over: stop it with `gcloud pubsub subscriptions modify-push-config " + madeByEventarc},
		"stopped":     {pattern, map[string]string{madeByEventarc: ""}, "ok", ""},
		"gone":        {pattern, nil, "ok", ""},
		"another's":   {pattern, map[string]string{madeForAnother: ""}, "ok", ""},
		"ours":        {"dev-*", map[string]string{ours: address}, "ok", ""},
		"by_name":     {"old-feed", map[string]string{"old-feed": ""}, "bad", "it still feeds the previous orchestrator, and both would hand over: keep the output of `gcloud pubsub subscriptions describe old-feed`"},
		"name_is_not": {"old-feed", map[string]string{"old-feed-2": ""}, "ok", ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := &pipeline.Pipeline{Transitions: []*pipeline.Transition{{UpstreamTopic: completions, Replaces: []string{tc.replaces}}}}
			got, err := replaced(t.Context(), feeding(t, tc.subscriptions), p)
			if err != nil || len(got) != 1 || got[0].Name != "replaces "+tc.replaces || got[0].Unknown || (got[0].Problem != "") != (tc.state == "bad") || !strings.Contains(got[0].Problem, tc.says) {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}

// A push subscription that upstream.replaces does not name may feed another orchestrator. The check
// only warns of it.
func TestReplaced_WarnsOfPushSubscriptionsThatAreNotNamed(t *testing.T) {
	c := feeding(t, map[string]string{ours: "https://ours.example.com/", madeByEventarc: "https://orchestrator.example.com/", madeForAnother: "https://dashboard.example.com/", "pulled": ""})
	for name, replaces := range map[string][]string{"named": {"eventarc-*-orchestrator-*"}, "none": nil} {
		p := &pipeline.Pipeline{Transitions: []*pipeline.Transition{{UpstreamTopic: completions, Replaces: replaces}}}
		got, err := replaced(t.Context(), c, p)
		if err != nil {
			t.Fatal(err)
		}
		warned := map[string]string{}
		for _, v := range got {
			if v.Warning != "" {
				warned[v.Name] = v.Warning
			}
		}
		if _, too := warned["subscription "+madeByEventarc]; too != (name == "none") {
			t.Errorf("%s: %v", name, warned)
		}
		if w := warned["subscription "+madeForAnother]; w != "it pushes to https://dashboard.example.com/: if that is an orchestrator, name the subscription in upstream.replaces of topic dev-"+completions || len(warned) > 2 {
			t.Errorf("%s: %v", name, warned)
		}
	}
	if got, err := replaced(t.Context(), app.Config{Project: "p", Local: true}, &pipeline.Pipeline{Transitions: []*pipeline.Transition{{UpstreamTopic: completions}}}); got != nil || err != nil {
		t.Errorf("a local environment queries Google: %v, %v", got, err)
	}
	if got, err := replaced(t.Context(), app.Config{Project: "p", Shadow: "shadow_", PubSubHost: c.PubSubHost}, &pipeline.Pipeline{Transitions: []*pipeline.Transition{{UpstreamTopic: completions, Replaces: []string{"eventarc-*"}}}}); got != nil || err != nil {
		t.Errorf("the check refuses a shadow: %v, %v", got, err)
	}
}

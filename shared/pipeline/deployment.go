package pipeline

import "time"

// The names of the functions: they register under them, and schedules name them.
const (
	FunctionHealth     = "health"
	FunctionReconcile  = "reconcile"
	FunctionSweep      = "sweep"
	FunctionTransition = "transition"
)

// Functions returns the names of the functions, sorted.
func Functions() []string {
	return []string{FunctionHealth, FunctionReconcile, FunctionSweep, FunctionTransition}
}

// ownNames begins the names of what only Phasegate uses.
const ownNames = "phasegate-"

// ResourceName returns the name under which a function, its service or a scheduler's job is deployed,
// without the prefix of the environment.
func ResourceName(name string) string { return ownNames + name }

// The delivery settings of every push subscription.
const (
	AckDeadline = 600 * time.Second
	MinBackoff  = 10 * time.Second
	MaxBackoff  = 600 * time.Second
	MaxAttempts = 100

	jobBackoff = 300 * time.Second // in place of MinBackoff: by then the relay's next job is there
)

// PushSubscription feeds a function with the messages of a topic, and has a dead letter. Names
// have no prefix.
type PushSubscription struct {
	Topic      string
	Name       string
	Function   string
	Query      string // of the function's URL, with the question mark; "" for none
	MinBackoff time.Duration
}

// DeadLetter names the topic of the dead letters, and its subscription.
func (s PushSubscription) DeadLetter() string { return DeadLetterTopic(s.Topic) }

// PushSubscriptions returns those that feed the functions of a pipeline.
func (p *Pipeline) PushSubscriptions() []PushSubscription {
	var out []PushSubscription
	for _, t := range p.Transitions {
		query := "?transition=" + t.ID
		out = append(out, PushSubscription{t.UpstreamTopic, t.Subscription(), FunctionTransition, query, MinBackoff},
			PushSubscription{t.ShadowTopic(), Subscription(t.ShadowTopic(), FunctionTransition), FunctionTransition, query + "&shadow=1", MinBackoff})
	}
	seen := map[string]bool{}
	for _, s := range p.Schedules {
		if !seen[s.Function] {
			seen[s.Function] = true
			out = append(out, PushSubscription{s.Topic(), Subscription(s.Topic(), s.Function), s.Function, "", jobBackoff})
		}
	}
	return out
}

// Subscription names the push subscription by which a function reads a topic.
func Subscription(topic, function string) string { return topic + "-" + function }

// DeadLetterTopic names the topic of the dead letters of a topic's subscription.
func DeadLetterTopic(topic string) string { return topic + "-dead-letter" }

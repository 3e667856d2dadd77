package guardtest

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/emulatortest"
	"github.com/phasegate/phasegate/shared/pipeline"
)

const (
	offense = "team_offense_game_summary"
	defense = "team_defense_game_summary"
	// ownLock is how long the service's own lock lasts; 10 minutes in production, where the claim
	// lasts 11.
	ownLock = 27 * time.Second
)

// phase4 is two instances of the double of the production service (phase4.py), each started by a guard.
type phase4 struct {
	t     *testing.T
	slots []*slot
	urls  []string // of the first guard of each
	log   string
}

// profile returns the profile of the page for a service that answers 200 although it skipped its work.
func profile(t *testing.T) string {
	t.Helper()
	source, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	_, after, begins := strings.Cut(string(source), "\n    guard:\n")
	text, _, ends := strings.Cut(after, "\n```")
	if !begins || !ends || !strings.Contains(text, "ttl: 11m\n") {
		t.Fatalf("%s has no profile with ttl: 11m", page)
	}
	return "    guard:\n" + text + "\n"
}

// newPhase4 starts two instances, with the page's profile or with the defaults.
func newPhase4(t *testing.T, runFor time.Duration, profiled bool) *phase4 {
	t.Helper()
	emulatortest.Firestore(t)
	p := &phase4{t: t}
	folder := t.TempDir()
	p.log = filepath.Join(folder, "runs")
	const of = "    service: nba-phase4-precompute-processors\n"
	before, after, ok := strings.Cut(string(pipeline.Default()), of)
	if !ok {
		t.Fatalf("the default pipeline has no line %q", of)
	}
	definition := before + of + strings.Replace(profile(t), "ttl: 11m", "ttl: "+claimTime.String(), 1) + after
	source, err := os.ReadFile("phase4.py")
	if err == nil {
		err = os.WriteFile(filepath.Join(folder, "phase4.py"), source, 0o600)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(folder, "pipeline.yaml"), []byte(definition), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	environment := []string{"GOOGLE_CLOUD_PROJECT=phase4-" + strings.ToLower(rand.Text()[:20]), "PHASEGATE_STORE=firestore", "PHASEGATE_PREFIX=", "LOG_LEVEL=info",
		"PIPELINE_FILE=" + filepath.Join(folder, "pipeline.yaml"), "RUNS=" + p.log, "LOCKS=" + folder, fmt.Sprintf("LOCK_SECONDS=%v", ownLock.Seconds()),
		fmt.Sprintf("RUN_SECONDS=%v", runFor.Seconds()), "PYTHONDONTWRITEBYTECODE=1"}
	for range 2 {
		s := newSlot(t, "phase4", false, folder, "phase4:app", environment)
		s.flags = []string{"--scope", "phase4", "--paths", "/process", "--ttl", claimTime.String()}
		if profiled {
			s.flags = []string{"--phase", "phase_4_precompute"}
		}
		s.start()
		p.slots, p.urls = append(p.slots, s), append(p.urls, s.guard.url)
	}
	return p
}

func (p *phase4) await(done func() bool) {
	p.t.Helper()
	tick, end := time.NewTicker(20*time.Millisecond), time.After(limit)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-end:
			p.t.Fatalf("no end after %v; the service's log:\n%s", limit, p.text())
		}
	}
}

func (p *phase4) text() string {
	text, _ := os.ReadFile(p.log) // absent before the first run
	return string(text)
}

// count returns how often the service has logged an event of a table.
func (p *phase4) count(event, table string) int { return strings.Count(p.text(), event+" "+table+"\n") }

// post delivers the trigger of a table to an instance.
func (p *phase4) post(instance int, table string) (int, string) {
	data := fmt.Sprintf(`{"source_table":%q,"game_date":"2026-02-03"}`, table)
	body := fmt.Sprintf(`{"message":{"attributes":{"trigger_id":"a~1/%s"},"data":%q,"messageId":"m-%[1]s","publishTime":"2026-02-04T11:00:00Z"},"subscription":"s"}`,
		table, base64.StdEncoding.EncodeToString([]byte(data)))
	resp, err := http.Post(p.urls[instance]+"/process", "application/json", strings.NewReader(body))
	if err != nil {
		return 0, err.Error() // its instance was killed
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text)
}

// deliver is a broker: it delivers to one instance after the other until the message is acknowledged.
func (p *phase4) deliver(table string, instances ...int) {
	for i := 0; ; i++ {
		if status, _ := p.post(instances[i%len(instances)], table); acknowledges(status) || p.t.Context().Err() != nil {
			return
		}
		<-time.After(200 * time.Millisecond)
	}
}

// begun waits until the service works on a table.
func (p *phase4) begun(table string) { p.await(func() bool { return p.count("begin", table) > 0 }) }

// Without the profile the guard takes the answer 200 for success, as Pub/Sub does.
func TestPhase4_DefaultsLoseWorkThatTheServiceSkips(t *testing.T) {
	t.Parallel()
	p := newPhase4(t, 2*time.Second, false)
	var first sync.WaitGroup
	first.Go(func() { p.deliver(offense, 0) })
	p.begun(offense)
	if status, body := p.post(1, defense); status != 200 || !strings.Contains(body, "skipped") {
		t.Errorf("the second table: %d %s", status, body)
	}
	first.Wait()
	if status, _ := p.post(1, defense); status != 204 {
		t.Errorf("a copy: %d, want 204: the receipt says that its work was done", status)
	}
	if done, lost := p.count("effect", offense), p.count("effect", defense); done != 1 || lost != 0 {
		t.Errorf("effects of the two tables: %d and %d, want 1 and 0", done, lost)
	}
}

func TestPhase4_ProfileLosesNothingAndDoesNothingTwice(t *testing.T) {
	t.Parallel()
	p := newPhase4(t, time.Second, true)
	var all sync.WaitGroup
	for i, table := range []string{offense, defense, offense, defense, offense, defense} { // copies, too
		all.Go(func() { p.deliver(table, i%2, 1-i%2) })
	}
	all.Wait()
	if text := p.text(); p.count("effect", offense) != 1 || p.count("effect", defense) != 1 || strings.Contains(text, "skipped") {
		t.Errorf("each table's work is to be done once, and none skipped:\n%s", text)
	}
}

// The lock of a service that was killed outlasts it. The guard's own lock outlasts that.
func TestPhase4_ProfileWaitsForTheLockOfAKilledService(t *testing.T) {
	t.Parallel()
	p := newPhase4(t, time.Second, true)
	var all sync.WaitGroup
	all.Go(func() { p.deliver(offense, 0, 1) })
	p.begun(offense)
	p.slots[0].killService()
	all.Go(func() { p.deliver(defense, 1) })
	all.Wait()
	if text := p.text(); p.count("effect", offense) != 1 || p.count("effect", defense) != 1 || strings.Contains(text, "skipped") {
		t.Errorf("each table's work is to be done once, and none skipped:\n%s", text)
	}
}

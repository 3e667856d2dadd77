package guardtest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/emulatortest"
	"github.com/phasegate/phasegate/shared/guard"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/receipt"
	"github.com/phasegate/phasegate/shared/store/memory"
)

const (
	offense = "team_offense_game_summary"
	defense = "team_defense_game_summary"
	// ownLock is how long the service's own lock lasts; 10 minutes in production, where the claim
	// lasts 11.
	ownLock = 27 * time.Second
)

// phase4 is two instances of the double of the production service (phase4.py), each behind a guard.
type phase4 struct {
	t        *testing.T
	urls     []string // of the guards
	services []*process
	log      string
}

// profiled is the profile for a service that answers 200 although it skipped its work.
func profiled(c *guard.Config, s *memory.Store, kill func()) {
	c.Cooldown, c.Kill = true, kill
	c.SuccessJSON = map[string][]string{"status": {"completed", "no_processors"}}
	c.Locks = lease.New(lease.Config{Store: s, Now: time.Now, NewID: c.NewID, Lease: claimTime, Instance: "i", Log: c.Log})
	c.Serial = func(data []byte) ([]lease.Key, error) {
		var trigger struct {
			Period string `json:"game_date"`
		}
		err := json.Unmarshal(data, &trigger)
		return []lease.Key{{Class: "guard_ShotZones", Period: "2026-02-03"}}, err
	}
}

// naive is a guard with its defaults.
func naive(*guard.Config, *memory.Store, func()) {}

func newPhase4(t *testing.T, runFor time.Duration, profile func(*guard.Config, *memory.Store, func())) *phase4 {
	t.Helper()
	bin := emulatortest.Packages(t, requirements...)
	p := &phase4{t: t}
	folder := t.TempDir()
	p.log = filepath.Join(folder, "runs")
	source, err := os.ReadFile("phase4.py")
	if err == nil {
		err = os.WriteFile(filepath.Join(folder, "phase4.py"), source, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	environment := []string{"RUNS=" + p.log, "LOCKS=" + folder, fmt.Sprintf("LOCK_SECONDS=%v", ownLock.Seconds()),
		fmt.Sprintf("RUN_SECONDS=%v", runFor.Seconds()), "PYTHONDONTWRITEBYTECODE=1"}
	st := memory.New(time.Now)
	var ids atomic.Int64
	for i := range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		address := l.Addr().String()
		l.Close()
		service := launch(t, folder, environment, filepath.Join(bin, "gunicorn"), "--threads", "8", "--bind", address, "phase4:app")
		p.services = append(p.services, service)
		c := guard.Config{Upstream: &url.URL{Scheme: "http", Host: address}, Scope: "phase4", Paths: []string{"/process"}, Success: []int{200},
			Limit: time.Hour, Log: slog.New(slog.DiscardHandler), NewID: func() string { return fmt.Sprint("n", ids.Add(1)) }}
		c.Receipts = receipt.New(receipt.Config{Store: st, Now: time.Now, NewID: c.NewID, TTL: claimTime, Instance: fmt.Sprint(i), Log: c.Log})
		profile(&c, st, service.kill)
		g, err := guard.New(c)
		if err != nil {
			t.Fatal(err)
		}
		front := httptest.NewServer(g)
		t.Cleanup(front.Close)
		p.urls = append(p.urls, front.URL)
		p.await(func() bool {
			conn, err := net.Dial("tcp", address)
			if err == nil {
				conn.Close()
			}
			return err == nil
		})
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
		p.t.Error(err)
		return 0, ""
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text)
}

// deliver is a broker: it delivers until the message is acknowledged.
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
	p := newPhase4(t, 2*time.Second, naive)
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
	p := newPhase4(t, time.Second, profiled)
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
	p := newPhase4(t, time.Second, profiled)
	var all sync.WaitGroup
	all.Go(func() { p.deliver(offense, 0, 1) })
	p.begun(offense)
	p.services[0].kill()
	all.Go(func() { p.deliver(defense, 1) })
	all.Wait()
	if text := p.text(); p.count("effect", offense) != 1 || p.count("effect", defense) != 1 || strings.Contains(text, "skipped") {
		t.Errorf("each table's work is to be done once, and none skipped:\n%s", text)
	}
}

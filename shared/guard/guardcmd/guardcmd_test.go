package guardcmd

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/guard"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/receipt"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/store/memory"
)

// The test binary is the service, too: it reports each request to CONTROL, waits for the
// answer, and does what that says.
func TestMain(m *testing.M) {
	control := os.Getenv("CONTROL")
	if control == "" {
		os.Exit(m.Run())
	}
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		resp, err := http.Get(control)
		if err != nil {
			os.Exit(99)
		}
		order, _ := io.ReadAll(resp.Body)
		if string(order) == "exit" {
			os.Exit(3)
		}
		_, _ = w.Write(order)
	})
	_ = http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), nil)
}

// bench is a guard with its service, and what controls it.
type bench struct {
	t     *testing.T
	store *memory.Store
	asked chan chan string // the service has a request, and waits for its order
	url   string
	stop  context.CancelFunc
	ended chan error
}

func newBench(t *testing.T, args ...string) *bench {
	t.Helper()
	b := &bench{t: t, store: memory.New(time.Now), asked: make(chan chan string), ended: make(chan error, 1)}
	control := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		order := make(chan string)
		select {
		case b.asked <- order:
		case <-r.Context().Done():
			return
		}
		select {
		case text := <-order:
			_, _ = io.WriteString(w, text)
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(control.Close)
	t.Setenv("CONTROL", control.URL)
	cmd := New(func(context.Context) (store.Store, func() error, error) {
		return b.store, func() error { return nil }, nil
	}, shop)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs(append([]string{"--listen", "127.0.0.1:0", "--scope", "phase4"}, args...))
	r, w := io.Pipe()
	cmd.SetOut(w)
	cmd.SetErr(io.Discard)
	var ctx context.Context
	ctx, b.stop = context.WithCancel(t.Context())
	t.Cleanup(b.stop)
	go func() {
		err := cmd.ExecuteContext(ctx)
		w.Close()
		b.ended <- err
	}()
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		var line struct{ Address string }
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.Address != "" {
			b.url = "http://" + line.Address
			break
		}
	}
	go func() { _, _ = io.Copy(io.Discard, r) }()
	return b
}

func (b *bench) post(key string) <-chan int { return b.postTo("", key, "") }

func (b *bench) postTo(path, key, data string) <-chan int {
	status := make(chan int, 1)
	go func() {
		body := fmt.Sprintf(`{"message":{"attributes":{"trigger_id":%q},"data":%q,"messageId":"m1","publishTime":"2026-02-04T11:00:00Z"},"subscription":"s"}`,
			key, base64.StdEncoding.EncodeToString([]byte(data)))
		resp, err := http.Post(b.url+path, "application/json", strings.NewReader(body))
		if err != nil {
			status <- 0
			return
		}
		resp.Body.Close()
		status <- resp.StatusCode
	}()
	return status
}

func (b *bench) state(key string) string {
	b.t.Helper()
	r := receipt.New(receipt.Config{Store: b.store})
	found, _, err := r.Show(b.t.Context(), receipt.Delivery{Scope: "phase4", Route: "/", Key: key}.ID())
	if err != nil {
		b.t.Fatal(err)
	}
	return found.State
}

func parent(args ...string) []string { return append(args, "--", os.Args[0]) }

func TestParent_StartsTheServiceAndWorksADeliveryOnce(t *testing.T) {
	b := newBench(t, parent()...)
	status := b.post("k")
	(<-b.asked) <- "done"
	if got := <-status; got != 200 || b.state("k") != receipt.Done {
		t.Errorf("the delivery: %d, and the receipt is %s", got, b.state("k"))
	}
	if got := <-b.post("k"); got != 204 {
		t.Errorf("the copy: %d", got)
	}
}

func TestParent_EndsWithTheServiceAndReleasesItsDeliveries(t *testing.T) {
	b := newBench(t, parent()...)
	waits := b.post("k1")
	first := <-b.asked // is at work when the service ends
	status := b.post("k2")
	(<-b.asked) <- "exit"
	var ended ExitError
	if err := <-b.ended; !errors.As(err, &ended) || ended.Code != 3 {
		t.Errorf("the guard ended with %v", err)
	}
	if one, two := <-waits, <-status; one != 503 || two != 503 || b.state("k1") != receipt.Released || b.state("k2") != receipt.Released {
		t.Errorf("%d and %d; the receipts are %s and %s", one, two, b.state("k1"), b.state("k2"))
	}
	_ = first
}

func TestParent_StoppedReleasesWhatTheServiceDidNotFinish(t *testing.T) {
	b := newBench(t, parent()...)
	status := b.post("k")
	<-b.asked
	b.stop()
	var ended ExitError
	if err := <-b.ended; !errors.As(err, &ended) || ended.Code != 128+15 {
		t.Errorf("the guard ended with %v", err)
	}
	if got := <-status; got != 503 || b.state("k") != receipt.Released {
		t.Errorf("%d, and the receipt is %s", got, b.state("k"))
	}
}

func TestSidecar_StoppedWaitsForTheService(t *testing.T) {
	begun, end := make(chan bool), make(chan bool)
	up := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		begun <- true
		<-end
	}))
	t.Cleanup(up.Close)
	b := newBench(t, "--upstream", up.URL)
	status := b.post("k")
	<-begun
	b.stop()
	close(end)
	if err := <-b.ended; err != nil {
		t.Errorf("the guard ended with %v", err)
	}
	if got := <-status; got != 200 || b.state("k") != receipt.Done {
		t.Errorf("%d, and the receipt is %s", got, b.state("k"))
	}
}

func TestGuard_EndsIfTheServiceNeverListens(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	b := newBench(t, "--upstream", "http://"+address, "--start-limit", "50ms")
	var ended ExitError
	if err := <-b.ended; !errors.As(err, &ended) || ended.Code != 1 || !strings.Contains(err.Error(), address) {
		t.Errorf("the guard ended with %v", err)
	}
}

func TestGuard_NamesWrongFlags(t *testing.T) {
	for _, test := range []struct{ args, want string }{
		{"", "wants a command after --"},
		{"--upstream http://x -- true", "and not both"},
		{"--scope= -- true", "--scope"},
		{"--on-lost die -- true", "--on-lost"},
		{"--on-lost kill --upstream http://x", "can end only a service that it has started"},
		{"--unkeyed drop -- true", "--unkeyed"},
		{"--success-json status -- true", "--success-json"},
		{"--start-limit 0s -- true", "--start-limit"},
		{"--ttl 1s --upstream http://x", "ttl 1s"},
		{"--limit 2h --upstream http://x", "limit 2h"},
		{"--success 500 --upstream http://x", "success 500"},
		{"--upstream https://x", "upstream"},
		{"--log-level loud --upstream http://x", "loud"},
		{"--listen nowhere:x --upstream http://x", "--listen"},
		{"--scope a/b -- true", "--scope"},
		{"--phase report -- true", `--phase "report": the pipeline file has marts, reports; did you mean "reports"?`},
		{"--phase marts -- true", `--phase "marts": phases[0] of the pipeline file has no guard`},
		{"--phase reports --upstream http://x", "--on-lost kill"},
	} {
		cmd := New(func(context.Context) (store.Store, func() error, error) {
			return memory.New(time.Now), func() error { return nil }, nil
		}, shop)
		cmd.SilenceErrors, cmd.SilenceUsage = true, true
		cmd.SetOut(io.Discard)
		cmd.SetErr(io.Discard)
		cmd.SetArgs(append([]string{"--scope", "s"}, strings.Fields(test.args)...))
		var wrong UsageError
		if err := cmd.ExecuteContext(t.Context()); !errors.As(err, &wrong) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", test.args, err)
		}
	}
}

func TestParent_NamesACommandThatCannotStart(t *testing.T) {
	b := newBench(t, "--", "/no/such/program")
	var ended ExitError
	if err := <-b.ended; !errors.As(err, &ended) || ended.Code != 127 {
		t.Errorf("the guard ended with %v", err)
	}
}

// The reference page is made from the help, on any machine.
func TestGuard_HelpDoesNotDependOnTheEnvironment(t *testing.T) {
	before := New(nil, nil).UsageString()
	for _, name := range []string{"PORT", "K_SERVICE", "PHASEGATE_PREFIX", "LOG_LEVEL"} {
		t.Setenv(name, "debug")
	}
	if after := New(nil, nil).UsageString(); after != before {
		t.Errorf("help:\n%s\nwith other variables:\n%s", before, after)
	}
}

// shop is a pipeline whose second phase is guarded.
func shop() (*pipeline.Pipeline, error) {
	return pipeline.Parse([]byte(`
schema: 1
name: shop
time_zone: UTC
phases:
  - name: marts
    processors:
      - {name: orders, table: shop.orders, date_column: day, key: [id], order_by: at}
      - {name: stock, table: shop.stock, date_column: day, key: [id], order_by: at}
  - name: reports
    guard:
      scope: phase4
      paths: [/process]
      success: [200]
      success_json: {status: ["completed, all", empty]}
      ttl: 11m
      limit: 50m
      cooldown: true
      on_lost: kill
      unkeyed: refuse
      serial: {orders: [RevenueProcessor, MarginProcessor], stock: [MarginProcessor]}
    processors:
      - {name: revenue, table: shop.revenue, date_column: day, key: [day], order_by: at}
      - {name: margin, table: shop.margin, date_column: day, key: [day], order_by: at}
transitions:
  - id: marts_to_reports
    upstream: {phase: marts, topic: shop-marts}
    downstream: {phase: reports, topic: shop-reports}
    modes: [{name: daily, event: after, deadline: "+1d 12:00"}]
`))
}

func TestPhase_GivesTheFlagsTheirDefaults(t *testing.T) {
	var o options
	cmd := New(nil, nil)
	if err := cmd.ParseFlags([]string{"--phase", "reports", "--ttl", "3m", "--success-json", "state=ok"}); err != nil {
		t.Fatal(err)
	}
	o.phase, o.ttl, o.startLimit, o.successJSON = "reports", 3*time.Minute, time.Minute, []string{"state=ok"}
	if err := o.fromFile(cmd.Flags(), shop); err != nil {
		t.Fatal(err)
	}
	c, err := o.config(true)
	want := guard.Config{Scope: "phase4", Paths: []string{"/process"}, Success: []int{200}, SuccessJSON: map[string][]string{"state": {"ok"}}, Limit: 50 * time.Minute, Cooldown: true, RefuseOther: true}
	if got := fmt.Sprintf("%+v", c); err != nil || got != fmt.Sprintf("%+v", want) || o.ttl != 3*time.Minute || o.onLost != "kill" {
		t.Errorf("%s, ttl %s, on lost %s, %v", got, o.ttl, o.onLost, err)
	}
	if err := cmd.ParseFlags(nil); err != nil {
		t.Fatal(err)
	}
	o = options{phase: "reports", startLimit: time.Minute}
	if err := o.fromFile(New(nil, nil).Flags(), shop); err != nil {
		t.Fatal(err)
	}
	if c, err = o.config(true); err != nil || fmt.Sprint(c.SuccessJSON) != "map[status:[completed, all empty]]" || len(c.SuccessJSON["status"]) != 2 || o.ttl != 11*time.Minute {
		t.Errorf("%+v, ttl %s, %v", c, o.ttl, err)
	}
}

// The pipeline file refuses what the guard refuses.
func TestPhase_HasTheBoundsOfTheGuard(t *testing.T) {
	if pipeline.MinGuardTTL != receipt.MinTTL || pipeline.MaxGuarded != receipt.MaxRun {
		t.Errorf("ttl %s and %s, limit %s and %s", pipeline.MinGuardTTL, receipt.MinTTL, pipeline.MaxGuarded, receipt.MaxRun)
	}
}

func TestSerial_WorksOneDeliveryOfAProcessorAtATime(t *testing.T) {
	b := newBench(t, parent("--phase", "reports")...)
	post := func(table, period string) <-chan int {
		return b.postTo("/process", table+period, fmt.Sprintf(`{"source_table":%q,"game_date":%q}`, table, period))
	}
	first := post("orders", "2026-02-03")
	order := <-b.asked
	if got := <-post("stock", "2026-02-03"); got != 429 {
		t.Errorf("a trigger that sets off the same processor: %d", got)
	}
	if held := b.locks(); fmt.Sprint(held) != "[guard_MarginProcessor_2026-02-03 guard_RevenueProcessor_2026-02-03]" {
		t.Errorf("locks %v", held)
	}
	for _, other := range [][2]string{{"stock", "2026-02-04"}, {"customers", "2026-02-03"}} {
		status := post(other[0], other[1])
		(<-b.asked) <- `{"status":"empty"}`
		if got := <-status; got != 200 {
			t.Errorf("another period, or a trigger that needs no lock: %d", got)
		}
	}
	order <- `{"status":"completed, all"}`
	if got := <-first; got != 200 {
		t.Errorf("the first: %d", got)
	}
	if held := b.locks(); len(held) != 0 {
		t.Errorf("locks after the run: %v", held)
	}
	again := post("stock", "2026-02-03")
	(<-b.asked) <- `{"status":"skipped"}`
	if got := <-again; got != 503 {
		t.Errorf("a run that was skipped: %d", got)
	}
	// The service may still have a lock of its own: the guard's lock lasts as long as a claim.
	if held := b.locks(); fmt.Sprint(held) != "[guard_MarginProcessor_2026-02-03]" {
		t.Errorf("locks after a failure: %v", held)
	}
	for doc, err := range b.store.Scan(t.Context(), "lock_tokens", "!", "~") {
		if nonces, _ := doc.Data["nonces"].([]any); err != nil || len(nonces) > 0 || doc.Data["expires_at"] == nil {
			t.Errorf("%s keeps the tokens of runs that have ended: %v, %v", doc.Ref, doc.Data, err)
		}
	}
	if got := <-post("orders", "3 February"); got != 503 {
		t.Errorf("a trigger without a period: %d", got)
	}
}

// locks lists the locks that are held.
func (b *bench) locks() (held []string) {
	b.t.Helper()
	states, _, err := lease.New(lease.Config{Store: b.store}).List(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	for _, s := range states {
		held = append(held, s.Key)
	}
	return held
}

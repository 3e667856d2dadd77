package health_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/app/apptest"
	checks "github.com/phasegate/phasegate/shared/health"
	"github.com/phasegate/phasegate/shared/receipt"
)

// claim claims deliveries under a guard, with claims that last for a while.
func claim(t *testing.T, w *apptest.World, ttl time.Duration, key string) (*receipt.Receipts, *receipt.Claim, receipt.Delivery) {
	t.Helper()
	ids := 0
	r := receipt.New(receipt.Config{Store: w.Store, Now: w.Now, NewID: func() string { ids++; return fmt.Sprint(key, ttl, ids) }, TTL: ttl, Instance: "guard-1", Log: w.Log})
	d := receipt.Delivery{Scope: "phase4", Route: "/process", Key: key, MessageID: "m", Data: []byte(key)}
	c, err := r.Claim(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	return r, c, d
}

func receiptsCheck(t *testing.T, w *apptest.World) checks.Check {
	t.Helper()
	if rec := ask(w, "POST", "/", `{"job":"health"}`); rec.Code != 204 {
		t.Fatalf("%d %s", rec.Code, rec.Body)
	}
	var r checks.Report
	if err := json.Unmarshal(ask(w, "GET", "/report.json", "").Body.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	for _, c := range r.Checks {
		if c.ID == checks.Receipts {
			return c
		}
	}
	t.Fatal("no check of receipts")
	return checks.Check{}
}

// A delivery that is lost, unknown or overlapping is an alarm of the check and of the page, with the
// command that leads on. Forgetting it, with a reason, ends the alarm.
func TestReceipts_AlarmUntilForgotten(t *testing.T) {
	w := apptest.New(t, now.Add(-10*time.Minute))
	claim(t, w, time.Hour, "at work")
	_, unknown, _ := claim(t, w, time.Hour, "<b>unknown</b>")
	if err := unknown.Unknown(t.Context(), "the connection broke"); err != nil {
		t.Fatal(err)
	}
	_, first, _ := claim(t, w, -time.Hour, "overlapping")
	claim(t, w, time.Hour, "overlapping")
	if _, err := first.Done(t.Context(), 200); err != nil {
		t.Fatal(err)
	}
	if c := receiptsCheck(t, w); c.State != checks.Failing || len(c.Evidence) != 2 {
		t.Errorf("%+v", c)
	}
	r, _, lost := claim(t, w, -time.Hour, "lost")
	w.SetNow(now)
	c := receiptsCheck(t, w)
	all := strings.Join(c.Evidence, "\n")
	for _, text := range []string{"<b>unknown</b> of phase4/process is unknown since 2026-02-04 12:10 EST: the connection broke", "overlapping of phase4/process is overlapping since",
		"lost of phase4/process is lost since", "phasectl receipt show " + lost.ID()} {
		if c.State != checks.Failing || !strings.Contains(all+c.Action, text) {
			t.Errorf("no %q in %s: %s", text, c.State, all)
		}
	}
	body := browse(w, "/").Body.String()
	for _, text := range []string{"1 delivery under a guard is lost. 1 delivery under a guard is unknown. 1 delivery under a guard is overlapping.", "&lt;b&gt;unknown&lt;/b&gt;", "<span>show</span> <span>" + lost.ID() + "</span>", "phase4/process", "the connection broke"} {
		if !strings.Contains(body, text) {
			t.Errorf("no %q in the page", text)
		}
	}
	if strings.Contains(body, "<b>unknown") {
		t.Error("a key is markup of the page")
	}
	if err := r.Forget(t.Context(), lost.ID(), "ada", "its message was discarded"); err != nil {
		t.Fatal(err)
	}
	if c := receiptsCheck(t, w); len(c.Evidence) != 2 || strings.Contains(strings.Join(c.Evidence, ""), "lost") {
		t.Errorf("after forget: %+v", c)
	}
}

// However many deliveries are open, the page reads so many of them in so many calls, and says that
// there are more.
func TestReceipts_PageReadsBoundedNumber(t *testing.T) {
	w := apptest.New(t, now)
	calls := func() int64 {
		a := *w.App
		n := watched(w)
		if rec := browse(w, "/"); rec.Code != 200 {
			t.Fatalf("%d", rec.Code)
		}
		*w.App = a
		return n.Load()
	}
	none := calls()
	claim(t, w, -time.Hour, "lost 0")
	one := calls()
	for n := 1; n < 3*checks.MostReceipts; n++ {
		claim(t, w, -time.Hour, fmt.Sprint("lost ", n))
	}
	if many := calls(); one != none+1 || many != one {
		t.Errorf("%d calls without open receipts, %d with one, %d with %d", none, one, many, 3*checks.MostReceipts)
	}
	rec := browse(w, "/")
	if body := rec.Body.String(); strings.Count(body, "<span>phase4~") != checks.MostReceipts || !strings.Contains(body, "; of more than 100 open deliveries") || rec.Body.Len() > 200<<10 {
		t.Errorf("%d rows, %d bytes", strings.Count(body, "<span>phase4~"), rec.Body.Len())
	}
	c := receiptsCheck(t, w)
	if last := c.Evidence[len(c.Evidence)-1]; c.State != checks.Failing || !strings.HasSuffix(last, " more") {
		t.Errorf("%s: %q", c.State, last)
	}
}

package guardtest

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/emulatortest"
)

// push is the body of a delivery with a trigger_id.
func push(key string, data []byte) []byte {
	return fmt.Appendf(nil, `{"message":{"attributes":{"trigger_id":%q},"data":%q,"messageId":"m","publishTime":"2026-02-04T11:00:00Z"},"subscription":"s"}`,
		key, base64.StdEncoding.EncodeToString(data))
}

// guarded starts a guard next to a service, in a project of its own.
func guarded(t testing.TB, upstream string, environment ...string) *process {
	t.Helper()
	emulatortest.Firestore(t)
	file, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	environment = append([]string{"GOOGLE_CLOUD_PROJECT=cost-" + strings.ToLower(rand.Text()[:20]), "PHASEGATE_STORE=", "PHASEGATE_PREFIX=", "LOG_LEVEL=info"}, environment...)
	return launch(t, t.TempDir(), environment, file, "--listen", "127.0.0.1:0", "--scope", "flask", "--paths", "/work", "--upstream", upstream)
}

// Cloud Run sends an instance 80 requests at a time by default.
func TestMemory_EightyDeliveriesOfOneMegabyteAtOnce(t *testing.T) {
	const atOnce, megabyte, limit = 80, 1 << 20, 512
	var all sync.WaitGroup
	all.Add(atOnce)
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		all.Done()
		all.Wait() // until all are at work
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(service.Close)
	guard := guarded(t, service.URL)
	noise := make([]byte, megabyte/2)
	_, _ = rand.Read(noise) // never fails
	data := []byte(hex.EncodeToString(noise))
	var answered sync.WaitGroup
	for i := range atOnce {
		answered.Go(func() {
			resp, err := http.Post(guard.url+"/work", "application/json", bytes.NewReader(push(fmt.Sprint("k", i), data)))
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			if resp.StatusCode != http.StatusNoContent {
				text, _ := io.ReadAll(resp.Body)
				t.Errorf("delivery %d: %d %s", i, resp.StatusCode, text)
			}
		})
	}
	answered.Wait()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", guard.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(raw), "VmHWM:")
	kb := 0
	if _, err := fmt.Sscan(after, &kb); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d deliveries of 1 MB at once: the guard took %d MB at most", atOnce, kb/1000)
	if kb/1000 > limit*9/10 {
		t.Errorf("the guard took %d MB, more than nine tenths of %d", kb/1000, limit)
	}
}

// BenchmarkGuard_TimeThatItAdds calls a Flask service directly, through the guard, and again
// through the guard with a copy, one after the other.
func BenchmarkGuard_TimeThatItAdds(b *testing.B) {
	emulatortest.Firestore(b)
	bin := emulatortest.Packages(b, requirements...)
	folder := b.TempDir()
	source, err := os.ReadFile("service.py")
	if err == nil {
		err = os.WriteFile(folder+"/service.py", source, 0o600)
	}
	if err != nil {
		b.Fatal(err)
	}
	address := "127.0.0.1:" + freePort(b)
	launch(b, folder, []string{"RUNS=" + folder + "/runs", "FAILURES=" + folder, "PYTHONDONTWRITEBYTECODE=1"},
		bin+"/gunicorn", "--workers", "1", "--threads", "1", "--bind", address, "service:app")
	guard := guarded(b, "http://"+address)
	for {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
			break
		}
		<-time.After(20 * time.Millisecond)
	}
	post := func(url string, body []byte, want int) time.Duration {
		began := time.Now()
		resp, err := http.Post(url+"/work", "application/json", bytes.NewReader(body))
		if err != nil {
			b.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode != want {
			b.Fatalf("%s: %d, want %d", url, resp.StatusCode, want)
		}
		return time.Since(began)
	}
	took := map[string][]time.Duration{}
	for i := range b.N {
		key := fmt.Sprint("k", i)
		body := push(key, fmt.Appendf(nil, `{"key":%q}`, key))
		took["direct"] = append(took["direct"], post("http://"+address, body, 200))
		took["guarded"] = append(took["guarded"], post(guard.url, body, 200))
		took["copy"] = append(took["copy"], post(guard.url, body, 204))
	}
	for name, all := range took {
		slices.Sort(all)
		b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, name+"-p50-ms")
		b.ReportMetric(float64(all[len(all)*99/100].Microseconds())/1000, name+"-p99-ms")
	}
}

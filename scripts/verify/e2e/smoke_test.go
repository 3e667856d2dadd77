package e2e

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
)

// This runs on the emulators of Firestore and Pub/Sub. A smoke test sends no message to the
// next phase, and it can be repeated at once.
func TestSmoke_ChecksDeploymentInShadow(t *testing.T) { onBoth(t, smokeTriesADeploymentInShadow) }

func smokeTriesADeploymentInShadow(t *testing.T, s subject) {
	s.definition = s.production
	w := newWorld(t, s)
	for _, tr := range w.pipeline.Transitions {
		shadow := tr.ShadowTopic()
		w.push(shadow, pipeline.Subscription(shadow, "transition"), w.front.server.URL+"/transition?transition="+tr.ID+"&shadow=1", maxAttempts)
	}
	binary, err := phasectl()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		cmd := exec.Command(binary, "smoke", "--timeout", "1m")
		cmd.Env = append(os.Environ(), w.environment...)
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.HasSuffix(string(out), "ok: everything works\n") {
			t.Fatalf("%v:\n%s", err, out)
		}
	}
	for _, d := range w.front.of("/transition", "") {
		if d.status != 204 {
			t.Errorf("a delivery was answered %d", d.status)
		}
	}
	if n := len(w.phase4.messages()); n != 0 {
		t.Errorf("the next phase was sent %d messages", n)
	}
	periods, expiring := 0, 0
	for doc, err := range w.store.Scan(t.Context(), "shadow_phase_periods", w.tr.ID+"_", w.tr.ID+"_~") {
		if err != nil {
			t.Fatal(err)
		}
		periods++
		if at, ok := doc.Data["expires_at"].(time.Time); ok && at.After(w.started) {
			expiring++
		}
	}
	if periods != 1 || expiring != 1 || w.doc("phase_periods", w.tr.ID+"_"+string(w.period(1))).Exists {
		t.Errorf("%d periods in shadow, %d of them expire", periods, expiring)
	}
}

package guardtest

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/phasegate/phasegate/shared/emulatortest"
)

const page = "../../../docs/how-to/flask-on-cloud-run.md"

// block returns the block of code of the page that begins with a line.
func block(t *testing.T, line string) string {
	t.Helper()
	source, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	_, after, ok := strings.Cut(string(source), "\n"+line+"\n")
	code, _, ended := strings.Cut(after, "\n```")
	if !ok || !ended {
		t.Fatalf("%s has no block of code that begins with %q", page, line)
	}
	return line + "\n" + code + "\n"
}

// list returns the words of an instruction of a Dockerfile.
func list(t *testing.T, dockerfile, instruction string) (words []string) {
	t.Helper()
	_, after, _ := strings.Cut(dockerfile, "\n"+instruction+" ")
	line, _, _ := strings.Cut(after, "\n")
	if err := json.Unmarshal([]byte(line), &words); err != nil {
		t.Fatalf("%s of the Dockerfile: %v", instruction, err)
	}
	return words
}

// shown is the service of the page, as it is installed.
type shown struct {
	t           *testing.T
	folder      string
	environment []string
	guard       string // the program
}

func newShown(t *testing.T) *shown {
	t.Helper()
	host := emulatortest.Firestore(t)
	bin := emulatortest.Packages(t, requirements...)
	for _, line := range strings.Split(strings.TrimSpace(block(t, "# requirements.txt")), "\n")[1:] {
		if !slices.Contains(requirements, line) {
			t.Errorf("the page requires %s, and the tests install %s", line, requirements)
		}
	}
	s := &shown{t: t, folder: t.TempDir()}
	if err := os.WriteFile(filepath.Join(s.folder, "main.py"), []byte(block(t, "# main.py")), 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	if s.guard, err = binary(); err != nil {
		t.Fatal(err)
	}
	s.environment = []string{"GOOGLE_CLOUD_PROJECT=page-" + strings.ToLower(rand.Text()[:20]), "FIRESTORE_EMULATOR_HOST=" + host,
		"PHASEGATE_STORE=", "PHASEGATE_PREFIX=", "PATH=" + bin + ":" + os.Getenv("PATH"), "K_SERVICE=reports", "PORT=0", "LOG_LEVEL=info",
		"REPORTS=" + filepath.Join(s.folder, "reports"), "PYTHONDONTWRITEBYTECODE=1"}
	return s
}

// works delivers a trigger twice.
func (s *shown) works(url string) {
	s.t.Helper()
	data := base64.StdEncoding.EncodeToString([]byte(`{"source_table":"orders","game_date":"2026-02-03"}`))
	for i, want := range []int{204, 204} {
		body := fmt.Sprintf(`{"message":{"attributes":{"trigger_id":"a~1/orders"},"data":%q,"messageId":"m%d","publishTime":"2026-02-04T11:00:00Z"},"subscription":"s"}`, data, i)
		resp, err := http.Post(url, "application/json", bytes.NewReader([]byte(body)))
		if err != nil {
			s.t.Fatal(err)
		}
		answer, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != want {
			s.t.Errorf("delivery %d: %d %s, want %d", i+1, resp.StatusCode, answer, want)
		}
	}
	text, err := os.ReadFile(filepath.Join(s.folder, "reports"))
	if err != nil || string(text) != "orders 2026-02-03\n" {
		s.t.Errorf("the service has worked %q, %v", text, err)
	}
}

func TestPage_TheGuardStartsTheService(t *testing.T) {
	s := newShown(t)
	dockerfile := block(t, "# Dockerfile")
	entry := list(t, dockerfile, "ENTRYPOINT")
	if entry[0] != "guard" {
		t.Fatalf("ENTRYPOINT %q", entry)
	}
	entry[0] = s.guard
	guard := launch(t, s.folder, s.environment, append(entry, list(t, dockerfile, "CMD")...)...)
	s.works(guard.url)
	// The plain service has the same lines but for the guard.
	if lines := strings.Count(dockerfile, "guard"); lines != 3 {
		t.Errorf("the Dockerfile names the guard %d times", lines)
	}
}

func TestPage_TheGuardRunsNextToTheService(t *testing.T) {
	s := newShown(t)
	var service struct {
		Spec struct {
			Template struct {
				Spec struct {
					Containers []struct {
						Name          string
						Args, Command []string
					}
				}
			}
		}
	}
	if err := yaml.Unmarshal([]byte(block(t, "# service.yaml")), &service); err != nil {
		t.Fatal(err)
	}
	containers := service.Spec.Template.Spec.Containers
	if len(containers) != 2 || containers[0].Name != "guard" || containers[1].Name != "app" {
		t.Fatalf("containers %+v", containers)
	}
	port := freePort(t)
	here := func(words []string) (out []string) {
		for _, word := range words {
			out = append(out, strings.ReplaceAll(word, "127.0.0.1:8081", "127.0.0.1:"+port))
		}
		return out
	}
	gunicorn := here(containers[1].Command)
	gunicorn[0] = filepath.Join(emulatortest.Packages(t, requirements...), gunicorn[0])
	launch(t, s.folder, s.environment, gunicorn...)
	guard := launch(t, s.folder, s.environment, append([]string{s.guard}, here(containers[0].Args)...)...)
	s.works(guard.url)
}

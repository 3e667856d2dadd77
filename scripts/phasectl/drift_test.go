package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/api/option"

	"github.com/phasegate/phasegate/shared/app"
)

// project has the answers of the platform's APIs about a project, by path. A text that begins
// with a number is an error with that status.
type project map[string]string

const (
	functionsPath = "/v2/projects/phasegate-local/locations/-/functions"
	servicesPath  = "/apis/serving.knative.dev/v1/namespaces/phasegate-local/services"
	jobsPath      = "/v1/projects/phasegate-local/locations/us-central1/jobs"
)

// serve points the clients of the platform to it.
func (p project) serve(t *testing.T) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		key := r.URL.Path
		if page := r.URL.Query().Get("pageToken") + r.URL.Query().Get("continue"); page != "" {
			key += " " + page
		}
		body, ok := p[key]
		switch {
		case !ok:
			t.Errorf("unexpected request for %s", r.URL)
			w.WriteHeader(http.StatusNotFound)
		case strings.HasPrefix(body, "403"):
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprintf(w, `{"error":{"code":403,"message":"Permission denied on %s"}}`, body)
		default:
			fmt.Fprint(w, body)
		}
	}))
	t.Cleanup(s.Close)
	platformOptions = []option.ClientOption{option.WithEndpoint(s.URL), option.WithoutAuthentication()}
	t.Cleanup(func() { platformOptions = nil })
}

func function(name, state, hash string) string {
	return fmt.Sprintf(`{"name":"projects/phasegate-local/locations/us-central1/functions/%[1]s","state":%q,"buildConfig":{"source":{"storageSource":{"bucket":"b","object":"%[1]s%[3]s.zip"}}}}`, name, state, hash)
}

func service(name, commit, traffic string) string {
	if traffic == "" {
		traffic = fmt.Sprintf(`{"revisionName":"%s-7","percent":100,"latestRevision":true}`, name)
	}
	return fmt.Sprintf(`{"metadata":{"name":%[1]q,"labels":{"cloud.googleapis.com/location":"us-central1"%[2]s}},"status":{"latestCreatedRevisionName":"%[1]s-7","latestReadyRevisionName":"%[1]s-7","traffic":[%[3]s]}}`, name, commit, traffic)
}

func job(name, state, cron string) string {
	zone := "America/New_York"
	if strings.HasSuffix(name, "-relay") || strings.HasSuffix(name, "-health") { // which run all day
		zone = "Etc/UTC"
	}
	return fmt.Sprintf(`{"name":"projects/phasegate-local/locations/us-central1/jobs/%s","state":%q,"schedule":%q,"timeZone":%q}`, name, state, cron, zone)
}

const commit = `,"commit-sha":"4f2ac01"`

// sound is a project in which everything is as in a checkout with that hash.
func sound(hash string) project {
	var functions, services []string
	for _, name := range []string{"health", "reconcile", "sweep", "transition"} {
		functions, services = append(functions, function("phasegate-"+name, "ACTIVE", "-"+hash)), append(services, service("phasegate-"+name, "", ""))
	}
	services = append(services, service("nba-phase3-analytics-processors", commit, ""), service("nba-phase4-precompute-processors", commit, ""))
	return project{
		functionsPath: `{"functions":[` + strings.Join(functions[:2], ",") + `],"nextPageToken":"more"}`, functionsPath + " more": `{"functions":[` + strings.Join(functions[2:], ",") + `]}`,
		servicesPath: `{"metadata":{"continue":"more"},"items":[` + strings.Join(services[:3], ",") + `]}`, servicesPath + " more": `{"items":[` + strings.Join(services[3:], ",") + `]}`,
		jobsPath: `{"jobs":[` + strings.Join([]string{job("phasegate-relay", "ENABLED", "*/5 * * * *"), job("phasegate-nightly", "ENABLED", "30 10 * * *"),
			job("phasegate-sweep", "ENABLED", "50 10 * * *"), job("phasegate-health", "ENABLED", "5 * * * *")}, ",") + `]}`,
	}
}

// checkout is a folder whose packaging command prints that hash.
func checkout(t *testing.T, hash string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"go.mod": "module example.com/checkout\n\ngo 1.26\n", "scripts/packaging/main.go": "package main\n\nimport \"fmt\"\n\nfunc main() { fmt.Println(\"" + hash + "\") }\n"} {
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const driftHash = "0123456789ab"

func TestDrift_NamesDifferences(t *testing.T) {
	running(t)
	dir := checkout(t, driftHash)
	replace := func(path, old, with string) func(project) {
		return func(p project) {
			if !strings.Contains(p[path], old) {
				t.Fatalf("no %s in %s", old, p[path])
			}
			p[path] = strings.Replace(p[path], old, with, 1)
		}
	}
	for name, tc := range map[string]struct {
		change func(project)
		code   int
		parts  []string
	}{
		"nothing":      {func(project) {}, 0, []string{"ok       function phasegate-transition\n  source " + driftHash, "ok       service nba-phase3-analytics-processors\n  revision nba-phase3-analytics-processors-7 has all traffic, commit 4f2ac01", "ok       schedule phasegate-relay\n  \"*/5 * * * *\" in Etc/UTC", "ok       schedule phasegate-nightly\n  \"30 10 * * *\" in America/New_York", "\nok: nothing differs\n"}},
		"other_source": {replace(functionsPath, "-"+driftHash, "-ffffffffffff"), 1, []string{"failing  function phasegate-health\n  source ffffffffffff is deployed, and the checkout is " + driftHash, "  fix: make deploy\n"}},
		"missing":      {func(p project) { p[functionsPath+" more"] = `{"functions":[]}` }, 1, []string{"failing  function phasegate-sweep\n  is not deployed", "failing  function phasegate-transition\n  is not deployed"}},
		"failed":       {replace(functionsPath, `"ACTIVE"`, `"FAILED"`), 1, []string{"failing  function phasegate-health\n  its state is FAILED", "gcloud functions describe phasegate-health --v2 --region=us-central1"}},
		"by_hand":      {replace(functionsPath, "phasegate-health-"+driftHash+".zip", "function-source.zip"), 2, []string{"unknown  function phasegate-health\n  its archive's name has no hash"}},
		"unreachable":  {replace(functionsPath, `{"functions"`, `{"unreachable":["europe-west1"],"functions"`), 2, []string{"unknown  function phasegate-sweep\n  functions: europe-west1 cannot be reached", "unknown  schedule phasegate-relay\n  jobs: in which region"}},
		"denied":       {func(p project) { p[functionsPath], p[servicesPath] = "403 functions", "403 services" }, 2, []string{"unknown  function phasegate-health\n  functions: ", "Permission denied on 403 functions", "unknown  service phasegate-health\n  services: ", "unknown  schedule phasegate-relay\n  jobs: in which region they are is not known"}},
		"jobs_denied":  {func(p project) { p[jobsPath] = "403 jobs" }, 2, []string{"unknown  schedule phasegate-nightly\n  jobs of us-central1: ", "ok       function phasegate-health"}},
		"pinned_old": {replace(servicesPath, `{"revisionName":"phasegate-health-7","percent":100,"latestRevision":true}`, `{"revisionName":"phasegate-health-6","percent":100}`), 1,
			[]string{"failing  service phasegate-health\n  100 % of its traffic go to phasegate-health-6, and the latest revision is phasegate-health-7", "gcloud run services update-traffic phasegate-health --to-latest --region=us-central1"}},
		"split":         {replace(servicesPath, `{"revisionName":"phasegate-health-7","percent":100,"latestRevision":true}`, `{"revisionName":"phasegate-health-7","percent":90,"latestRevision":true},{"revisionName":"phasegate-health-5","percent":10}`), 1, []string{"10 % of its traffic go to phasegate-health-5"}},
		"pinned_newest": {replace(servicesPath, `"percent":100,"latestRevision":true`, `"percent":100`), 1, []string{"its traffic is pinned to phasegate-health-7: the next deployment would not get it"}},
		"not_ready":     {replace(servicesPath, `"latestCreatedRevisionName":"phasegate-health-7"`, `"latestCreatedRevisionName":"phasegate-health-8"`), 1, []string{"revision phasegate-health-8 was made and is not ready"}},
		"never_ready":   {replace(servicesPath, `"latestReadyRevisionName":"phasegate-health-7"`, `"latestReadyRevisionName":""`), 1, []string{"failing  service phasegate-health\n  no revision of it is ready"}},
		"no_traffic":    {replace(servicesPath, `{"revisionName":"phasegate-health-7","percent":100,"latestRevision":true}`, ``), 1, []string{"failing  service phasegate-health\n  no traffic goes to it"}},
		"renamed":       {replace(servicesPath+" more", "nba-phase3-analytics-processors", "nba-phase3-processors"), 1, []string{"failing  service nba-phase3-analytics-processors\n  does not exist", "correct the service's name in the pipeline file, or deploy it"}},
		"no_commit":     {replace(servicesPath+" more", commit, ""), 2, []string{"unknown  service nba-phase3-analytics-processors\n  revision nba-phase3-analytics-processors-7 has all traffic; it has no label commit-sha"}},
		"paused":        {replace(jobsPath, `"ENABLED"`, `"PAUSED"`), 1, []string{"failing  schedule phasegate-relay\n  is paused", "gcloud scheduler jobs resume phasegate-relay --location=us-central1"}},
		"other_cron":    {replace(jobsPath, `*/5`, `*/50`), 1, []string{"failing  schedule phasegate-relay\n", `  is at "*/50 * * * *" in Etc/UTC, and the pipeline file says "*/5 * * * *" in Etc/UTC`}},
		"other_zone":    {replace(jobsPath, `America/New_York`, `Etc/UTC`), 1, []string{"failing  schedule phasegate-nightly\n", `  is at "30 10 * * *" in Etc/UTC, and the pipeline file says "30 10 * * *" in America/New_York`}},
		"no_job":        {replace(jobsPath, `jobs/phasegate-nightly`, `jobs/nightly`), 1, []string{"failing  schedule phasegate-nightly\n  does not exist"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := sound(driftHash)
			tc.change(p)
			p.serve(t)
			want(t, tc.code, tc.parts, "drift", "--source", dir)
		})
	}
}

func TestDrift_ListsIgnoredResources(t *testing.T) {
	running(t)
	p := sound(driftHash)
	p[jobsPath] = strings.Replace(p[jobsPath], `{"jobs":[`, `{"jobs":[`+job("nightly-odds", "PAUSED", "0 0 * * *")+",", 1)
	p[servicesPath] = strings.Replace(p[servicesPath], `"latestRevision":true}`, `"latestRevision":true},{"revisionName":"phasegate-health-5","tag":"old"}`, 1)
	p[functionsPath] = strings.Replace(p[functionsPath], `{"functions":[`, `{"functions":[`+function("grading", "ACTIVE", "")+",", 1)
	p.serve(t)
	dir := checkout(t, driftHash)
	want(t, 0, []string{"ignored  function grading: the pipeline does not name it\nignored  schedule nightly-odds: the pipeline does not name it\nignored  service phasegate-health: revision phasegate-health-5 has a tag and no traffic\nok: nothing differs\n"}, "drift", "--source", dir, "--verbose")
	code, stdout, _ := command(t, "drift", "--source", dir, "--json")
	m := object(t, stdout)
	if code != 0 || m["schema"] != 1.0 || m["overall"] != "ok" || len(m["ignored"].([]any)) != 3 || len(m["checks"].([]any)) != 4+4+4+2 {
		t.Errorf("%d %s", code, stdout)
	}
}

// drift also compares the source that a function has recorded in its heartbeat with the deployed one.
func TestDrift_ComparesSourceThatHasRun(t *testing.T) {
	s := running(t)
	sound(driftHash).serve(t)
	if err := s.App.Heartbeat(t.Context(), "reconcile", "relay"); err != nil { // of this test's binary
		t.Fatal(err)
	}
	dir := checkout(t, driftHash)
	want(t, 1, []string{"failing  function phasegate-reconcile\n  source " + driftHash + " is deployed, and " + app.SourceHash + " has run since"}, "drift", "--source", dir)
	// The heartbeat of a function that has not run since its deployment is from the previous source.
	p := sound(driftHash)
	p[functionsPath] = strings.Replace(p[functionsPath], `"state":"ACTIVE"`, `"state":"ACTIVE","updateTime":"2026-02-05T00:00:00.123Z"`, 2)
	p.serve(t)
	want(t, 0, []string{"ok       function phasegate-reconcile\n  source " + driftHash}, "drift", "--source", dir)
}

// F42: a comparison with a path that does not exist is an error, never ok. drift compares the hash
// of the named checkout.
func TestF42_DriftComparesWithACheckoutThatIsThere(t *testing.T) {
	running(t)
	empty, broken := t.TempDir(), checkout(t, driftHash)
	if err := os.WriteFile(filepath.Join(broken, "scripts", "packaging", "main.go"), []byte("package main\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	sound(driftHash).serve(t)
	for name, tc := range map[string]struct {
		dir  string
		code int
		text string
	}{
		"gone":    {filepath.Join(empty, "gone"), 64, "is no folder"},
		"file":    {filepath.Join(broken, "go.mod"), 64, "is no folder"},
		"empty":   {empty, 2, "is no checkout of Phasegate"},
		"broken":  {broken, 2, "hash of the checkout"},
		"another": {checkout(t, "ffffffffffff"), 1, "the deployment differs from the checkout"},
		"the_one": {checkout(t, driftHash), 0, ""},
	} {
		code, stdout, stderr := command(t, "drift", "--source", tc.dir)
		if code != tc.code || !strings.Contains(stderr, tc.text) {
			t.Errorf("%s: %d %s %s", name, code, stdout, stderr)
		}
	}
	// This repository is a checkout.
	hash, err := checkoutHash(t.Context(), filepath.Join("..", ".."), "")
	if err != nil || len(hash) != 12 {
		t.Fatalf("%q %v", hash, err)
	}
	other, err := checkoutHash(t.Context(), filepath.Join("..", ".."), filepath.Join("..", "..", "shared", "pipeline", "nba.yaml"))
	if err != nil || other != hash {
		t.Errorf("with its own pipeline file: %q %v, want %q", other, err, hash)
	}
	platformOptions = nil
	if code, _, stderr := command(t, "drift", "--source", checkout(t, driftHash)); code != 2 || !strings.Contains(stderr, "nothing is deployed on this machine") {
		t.Errorf("%d %s", code, stderr)
	}
}

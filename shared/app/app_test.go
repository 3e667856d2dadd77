package app_test

import (
	"context"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/store/memory"
)

func env(vars map[string]string) func(string) string {
	return func(name string) string { return vars[name] }
}

func TestConfig_Defaults(t *testing.T) {
	c, err := app.ConfigFromEnv(env(map[string]string{"GOOGLE_CLOUD_PROJECT": "p"}))
	if err != nil {
		t.Fatal(err)
	}
	if want := (app.Config{Project: "p", Store: "firestore", Claim: time.Minute, Lease: 10 * time.Minute}); c != want {
		t.Errorf("got %+v, want %+v", c, want)
	}
	if _, err := c.LoadPipeline(); err != nil {
		t.Errorf("the embedded pipeline: %v", err)
	}
}

func TestConfig_ReportsAllProblemsAtOnce(t *testing.T) {
	_, err := app.ConfigFromEnv(env(map[string]string{"PHASEGATE_STORE": "redis", "PHASEGATE_PREFIX": "a/b",
		"PHASEGATE_CLAIM": "soon", "PHASEGATE_LEASE": "11m", "PHASEGATE_SHADOW": "True", "PHASEGATE_TABLES": "none", "PHASEGATE_PAGE": "status.example.com"}))
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"GOOGLE_CLOUD_PROJECT: is required", `PHASEGATE_STORE: "redis"`, `PHASEGATE_PREFIX: "a/b"`,
		`PHASEGATE_CLAIM: "soon"`, `PHASEGATE_LEASE: "11m" is no duration from 2s to 10m`, `PHASEGATE_SHADOW: "True" is not one of true, false`,
		`PHASEGATE_TABLES: "none" is not one of write, read`, `PHASEGATE_PAGE: "status.example.com" is no address such as https://status.example.com`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not named in:\n%v", want, err)
		}
	}
}

func TestConfig_ReadOnlyTables(t *testing.T) {
	for _, tc := range []struct {
		prefix, tables string
		want           bool
	}{
		{"", "", false}, {"", "write", false}, {"", "read", true},
		{"dev-", "", true}, {"dev-", "write", false}, {"dev-", "read", true},
	} {
		c, err := app.ConfigFromEnv(env(map[string]string{"GOOGLE_CLOUD_PROJECT": "p", "PHASEGATE_PREFIX": tc.prefix, "PHASEGATE_TABLES": tc.tables}))
		if err != nil || c.ReadOnly != tc.want {
			t.Errorf("prefix %q, PHASEGATE_TABLES=%q: read only %v, want %v: %v", tc.prefix, tc.tables, c.ReadOnly, tc.want, err)
		}
	}
}

func TestShadow_HasItsOwnState(t *testing.T) {
	for name, tc := range map[string]struct{ shadow, prefix, books string }{
		"default":         {"", "", ""},
		"active":          {"false", "dev-", "dev-"},
		"shadow":          {"true", "", "shadow_"},
		"shadow_prefixed": {"true", "dev-", "dev-shadow_"},
	} {
		c, err := app.ConfigFromEnv(env(map[string]string{"GOOGLE_CLOUD_PROJECT": "p", "PHASEGATE_SHADOW": tc.shadow, "PHASEGATE_PREFIX": tc.prefix}))
		if err != nil || c.StatePrefix() != tc.books || c.Prefix != tc.prefix {
			t.Errorf("%s: state prefix %q, prefix %q, error %v", name, c.StatePrefix(), c.Prefix, err)
		}
	}
	// An environment with such a prefix would write into the shadow state of another environment.
	for _, prefix := range []string{"shadow_", "devshadow_"} {
		_, err := app.ConfigFromEnv(env(map[string]string{"GOOGLE_CLOUD_PROJECT": "p", "PHASEGATE_PREFIX": prefix}))
		if err == nil || !strings.Contains(err.Error(), `PHASEGATE_PREFIX: "`+prefix+`"`) {
			t.Errorf("prefix %q: %v", prefix, err)
		}
	}
}

// A shell that was pointed at the local environment before must not hand production's
// messages to an emulator.
func TestConfig_RefusesPubSubEmulatorWithRealFirestore(t *testing.T) {
	vars := map[string]string{"GOOGLE_CLOUD_PROJECT": "p", "PUBSUB_EMULATOR_HOST": "127.0.0.1:8085"}
	if _, err := app.ConfigFromEnv(env(vars)); err == nil || !strings.Contains(err.Error(), `PUBSUB_EMULATOR_HOST: "127.0.0.1:8085"`) {
		t.Errorf("%v", err)
	}
	for name, value := range map[string]string{"FIRESTORE_EMULATOR_HOST": "127.0.0.1:8081", "PHASEGATE_STORE": "sqlite:x.db"} {
		both := map[string]string{name: value}
		for k, v := range vars {
			both[k] = v
		}
		if _, err := app.ConfigFromEnv(env(both)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestConfig_AcceptsKnownStores(t *testing.T) {
	for name, ok := range map[string]bool{"firestore": true, "firestore:other": true, "sqlite:/tmp/x.db": true, "memory": true,
		"firestore:": false, "sqlite": false, "sqlite:": false, "memory:x": false, "Firestore": false} {
		_, err := app.ConfigFromEnv(env(map[string]string{"GOOGLE_CLOUD_PROJECT": "p", "PHASEGATE_STORE": name}))
		if (err == nil) != ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestConfig_PipelineFileReplacesEmbeddedFile(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "p.yaml")
	if err := os.WriteFile(bad, []byte("schema: 2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{bad, bad + ".missing"} {
		_, err := app.Config{PipelineFile: file}.LoadPipeline()
		if err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// Any package that a deployed function links can fail in it.
func TestFunctions_LinkOnlyFirestoreStore(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "github.com/phasegate/phasegate/functions/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	deps := strings.Fields(string(out))
	for _, d := range deps {
		for _, no := range []string{"/store/sqlite", "/store/memory", "modernc.org/", "spf13/cobra", "/pstest", "phasegate/phasegate/scripts", "testing"} {
			if strings.Contains(d, no) && (no != "testing" || d == no) {
				t.Errorf("functions depend on %s", d)
			}
		}
	}
	if len(deps) < 100 {
		t.Errorf("only %d dependencies listed", len(deps))
	}
}

// With a local store, Phasegate queries only a BigQuery emulator, or no warehouse. With real
// Firestore it always has a warehouse.
func TestConfig_WarehouseIsLocalIfStoreIsLocal(t *testing.T) {
	for name, tc := range map[string]struct {
		vars  map[string]string
		local bool
	}{
		"production":         {nil, false},
		"another_database":   {map[string]string{"PHASEGATE_STORE": "firestore:other"}, false},
		"firestore_emulator": {map[string]string{"FIRESTORE_EMULATOR_HOST": "127.0.0.1:1"}, true},
		"sqlite":             {map[string]string{"PHASEGATE_STORE": "sqlite:x.db"}, true},
		"memory":             {map[string]string{"PHASEGATE_STORE": "memory"}, true},
	} {
		for _, bigquery := range []string{"", "127.0.0.1:9050"} {
			vars := map[string]string{"GOOGLE_CLOUD_PROJECT": "p", "BIGQUERY_EMULATOR_HOST": bigquery}
			maps.Copy(vars, tc.vars)
			c, err := app.ConfigFromEnv(env(vars))
			if err != nil || c.Local != tc.local || c.BigQueryHost != bigquery {
				t.Fatalf("%s: %+v, %v", name, c, err)
			}
			c.PubSubHost = "127.0.0.1:2" // an emulator needs no credentials
			a, err := app.Open(t.Context(), c, func(context.Context, app.Config) (store.Store, error) { return memory.New(time.Now), nil }, time.Now, io.Discard)
			if err != nil {
				t.Fatal(err)
			}
			tr := a.Pipeline.Transitions[0]
			if asked := a.Warehouse != nil; asked != (!tc.local || bigquery != "") || asked != (a.Engine.Expected != nil) {
				t.Errorf("%s, BigQuery %q: asked %t", name, bigquery, asked)
			}
			if s := a.Shadowed(); s.Warehouse != nil || s.Engine.Expected != nil {
				t.Errorf("%s: the shadow has a warehouse", name)
			}
			if a.Warehouse == nil {
				r := a.Engine.Check(t.Context(), cycle.Key{Transition: tr, Period: "2026-02-03"}, "overnight", tr.Order)
				if r.Outcome != cycle.NotChecked || r.Verified() || len(r.Reasons) != 1 {
					t.Errorf("%s: %+v", name, r)
				}
			}
			if err := a.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// The clients are made for the first request, and outlive it.
func TestLazy_ClientsOutliveTheRequestThatOpenedThem(t *testing.T) {
	var opened context.Context
	lazy := &app.Lazy{Open: func(ctx context.Context) (*app.App, error) { opened = ctx; return &app.App{}, nil }}
	request, end := context.WithCancel(t.Context())
	if _, err := lazy.Get(request); err != nil {
		t.Fatal(err)
	}
	end()
	if err := opened.Err(); err != nil {
		t.Errorf("the clients' context ended with the request: %v", err)
	}
}

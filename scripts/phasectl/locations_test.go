package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"testing"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/warehouse"
)

// located is a BigQuery that has datasets in locations, and refuses access to those that are
// "denied".
func located(t *testing.T, datasets map[string]string) *warehouse.Warehouse {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch location := datasets[path.Base(r.URL.Path)]; location {
		case "":
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"error":{"code":404,"message":"Not found: Dataset"}}`)
		case "denied":
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, `{"error":{"code":403,"message":"Access Denied"}}`)
		default:
			fmt.Fprintf(w, `{"location":%q}`, location)
		}
	}))
	t.Cleanup(s.Close)
	w := warehouse.New("test", s.Listener.Addr().String())
	t.Cleanup(func() { _ = w.Close() }) // nothing is written
	return w
}

// A write reaches one location alone: staging elsewhere than the tables fails every write.
func TestLocations_AreComparedWithThoseOfTheTables(t *testing.T) {
	tables := []string{"nba_raw", "nba_analytics", "nba_precompute", "nba_predictions"}
	in := func(location string, others ...string) map[string]string {
		out := map[string]string{}
		for _, dataset := range tables {
			out[dataset] = location
		}
		for i := 0; i < len(others); i += 2 {
			out[others[i]] = others[i+1]
		}
		return out
	}
	p, err := pipeline.Parse(pipeline.Default())
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		datasets map[string]string
		deployed bool
		problem  []string // parts of it
		unknown  bool
	}{
		"before_the_first_deployment": {in("europe-west3"), false, nil, false},
		"in_one":                      {in("EU", "phasegate_staging", "EU", "phasegate_sweep_archive", "EU"), true, nil, false},
		"staging_elsewhere": {in("europe-west3", "phasegate_staging", "US", "phasegate_sweep_archive", "US"), true,
			[]string{"US has phasegate_staging, phasegate_sweep_archive", "europe-west3 has nba_analytics", "make deploy places"}, false},
		"tables_apart":      {in("US", "nba_raw", "EU"), false, []string{"EU has nba_raw; US has nba_analytics"}, false},
		"deployed_and_gone": {in("US", "phasegate_sweep_archive", "US"), true, []string{"phasegate_staging does not exist: make deploy creates it"}, false},
		"denied":            {in("US", "nba_raw", "denied"), false, []string{"dataset nba_raw", "Access Denied"}, true},
		"denied_and_apart":  {in("US", "nba_raw", "denied", "nba_precompute", "EU"), false, []string{"EU has nba_precompute"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			v := locations(t.Context(), located(t, tc.datasets), app.Config{}, p, tc.deployed)
			if (v.Problem != "") != (len(tc.problem) > 0) || v.Unknown != tc.unknown {
				t.Errorf("%+v", v)
			}
			for _, part := range tc.problem {
				if !strings.Contains(v.Problem, part) {
					t.Errorf("no %q in %q", part, v.Problem)
				}
			}
		})
	}
}

func TestSmoke_LooksWhereDatasetsAre(t *testing.T) {
	p, err := pipeline.Parse(pipeline.Default())
	if err != nil {
		t.Fatal(err)
	}
	for location, want := range map[string]string{"US": checkOK, "EU": checkFailing, "denied": checkUnknown} {
		s := &smoke{app: &app.App{Pipeline: p, Config: app.Config{BigQueryHost: "fake"},
			Warehouse: located(t, map[string]string{"nba_analytics": "US", "phasegate_staging": location})}}
		if got := s.located(t.Context()); got.State != want || (got.Action == "") != (want == checkOK) {
			t.Errorf("staging in %s: %+v, want %s, with an action unless it is ok", location, got, want)
		}
	}
}

// A check that is not ok names what to do.
func TestSmoke_ChecksThatAreNotOKHaveAnAction(t *testing.T) {
	found := 0
	for _, name := range []string{"smoke.go", "drill.go"} {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CompositeLit:
				fields := map[string]string{}
				for _, e := range n.Elts {
					if kv, ok := e.(*ast.KeyValueExpr); ok {
						value, _ := kv.Value.(*ast.Ident)
						if fields[fmt.Sprint(kv.Key)] = "given"; value != nil {
							fields[fmt.Sprint(kv.Key)] = value.Name
						}
					}
				}
				if state := fields["State"]; state == "checkFailing" || state == "checkUnknown" {
					if found++; fields["Action"] == "" {
						t.Errorf("%s: a check that is %s has no action", name, state)
					}
				}
			case *ast.CallExpr:
				if f, ok := n.Fun.(*ast.Ident); ok && f.Name == "failed" {
					if l, ok := n.Args[2].(*ast.BasicLit); ok && l.Value == `""` {
						t.Errorf("%s: a check that failed has no action", name)
					}
				}
			}
			return true
		})
	}
	if found < 8 {
		t.Errorf("only %d checks found", found)
	}
}

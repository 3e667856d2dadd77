package terraform

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zclconf/go-cty/cty"

	"github.com/phasegate/phasegate/shared/pipeline"
)

// scheduled is the default pipeline with another cron expression. It has no deadline, before which a
// relay would have to run.
func scheduled(old, cron string) string {
	return strings.NewReplacer(old, `"`+cron+`"`, `deadline: "+1d 10:00"`, "").Replace(string(pipeline.Default()))
}

// The HCL computes intervals from cron expressions. Each must be as long as the longest regular pause
// that the parser of the pipeline definition finds. The day on which the clock is set back makes that
// pause an hour longer.
func TestHeartbeatWindows_FollowSchedules(t *testing.T) {
	for cron, known := range map[string]bool{
		"*/5 * * * *": true, "*/1 * * * *": true, "*/7 * * * *": true, "17 */6 * * *": true, "5 * * * *": true, "30 6 * * *": true, "0 3 * * 1": true, " */5  *   * * * ": true,
		"*/5 6-9 * * *": false, "0 6 1 * *": false, "0,30 * * * *": false, "0 6 * * 1-5": false, "* * * * *": false,
	} {
		p := planned(t, map[string]cty.Value{"pipeline_file": cty.StringVal(definition(t, scheduled(`"*/5 * * * *"`, cron)))})
		if refused := len(p.failed) == 1 && strings.Contains(p.failed[0], "relay: cron "+cron); refused == known {
			t.Errorf("%s: refused %v: %q", cron, refused, p.failed)
		}
		if !known {
			continue
		}
		of, schedule := nba(t), pipeline.Schedule{Cron: cron}
		zone := of.Calendar.Zone()
		var longest time.Duration
		for _, week := range []time.Time{ // two of them with a day of 23 and of 25 hours
			time.Date(2026, 1, 27, 0, 0, 0, 0, zone), time.Date(2026, 3, 1, 0, 0, 0, 0, zone), time.Date(2026, 10, 25, 0, 0, 0, 0, zone),
		} {
			for at := of.NextDue(schedule, week); at.Before(week.AddDate(0, 0, 15)); {
				next := of.NextDue(schedule, at)
				longest, at = max(longest, next.Sub(at)), next
			}
		}
		interval := seconds(t, text(p.local("interval"), "relay"))
		window := seconds(t, text(p.local("heartbeat_window"), "relay"))
		if slack := longest - interval; slack < 0 || slack > time.Hour {
			t.Errorf("%s: interval %v, the longest pause is %v", cron, interval, longest)
		}
		if window < longest || window > 2*interval {
			t.Errorf("%s: window %v for pauses of up to %v", cron, window, longest)
		}
	}
}

// A job that has just been deployed has left no heartbeat yet: its absence is reported after its first
// run was due. A job that runs too rarely for Monitoring is watched by health, or refused.
func TestHeartbeatAbsence_IsNotToldBeforeTheFirstRun(t *testing.T) {
	for cron, watched := range map[string]bool{
		"*/5 * * * *": true, "7 * * * *": true, "17 */6 * * *": true, "17 */12 * * *": true, "17 */23 * * *": true, "30 6 * * *": false, "0 6 * * 1": false,
	} {
		for job, old := range map[string]string{"relay": `"*/5 * * * *"`, "health": `"5 * * * *"`} {
			p := planned(t, map[string]cty.Value{"pipeline_file": cty.StringVal(definition(t, scheduled(old, cron)))})
			if refused := slices.ContainsFunc(p.failed, func(why string) bool { return strings.Contains(why, "health: cron "+cron) }); refused != (job == "health" && !watched) {
				t.Errorf("%s %s: refused %v: %q", job, cron, refused, p.failed)
			}
			found := false
			for _, c := range conditions(policies(t, p)["heartbeat-absent"]) {
				if !strings.Contains(text(c, "display_name"), "Job "+job+" ") {
					continue
				}
				found = true
				duration, err := time.ParseDuration(text(c, "condition_prometheus_query_language", "0", "duration"))
				if interval := seconds(t, text(p.local("interval"), job)); err != nil || duration < interval+5*time.Minute || duration > 84600*time.Second {
					t.Errorf("%s %s: the alert fires after %v, the runs are %v apart: %v", job, cron, duration, interval, err)
				}
			}
			if found != watched {
				t.Errorf("%s %s: watched %v", job, cron, found)
			}
		}
	}
}

func seconds(t *testing.T, s string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(s + "s")
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// Terraform's expressions parse the durations of the definition as Go does.
func TestDurations_AreEqualInTerraformAndGo(t *testing.T) {
	for _, d := range []string{"90s", "5m", "1h30m", "2h", "1h1m1s", "0h10s"} {
		changed := strings.Replace(string(pipeline.Default()), "warn: 5m, critical: 15m", "warn: "+d+", critical: 23h", 1)
		file := definition(t, changed)
		got := seconds(t, text(planned(t, map[string]cty.Value{"pipeline_file": cty.StringVal(file)}).local("hand_over").GetAttr("phase3_to_phase4"), "warn"))
		p, err := pipeline.Parse([]byte(changed))
		if err != nil || got != p.Transitions[0].HandOver.Warn {
			t.Errorf("%s: Terraform reads %v, Go %v", d, got, p.Transitions[0].HandOver.Warn)
		}
	}
}

func TestVariables_AreDescribedTypedAndValidated(t *testing.T) {
	p := planned(t, nil)
	for _, name := range p.module.names("variable.") {
		b := p.module.blocks["variable."+name].Body
		if b.Attributes["type"] == nil || b.Attributes["description"] == nil {
			t.Errorf("variable %s has no type or no description", name)
		}
	}
	for _, name := range p.module.names("output.") {
		if p.module.blocks["output."+name].Body.Attributes["description"] == nil {
			t.Errorf("output %s has no description", name)
		}
	}
	for name, bad := range map[string][]string{
		"project": {"", "Nba", "a"}, "region": {"", "europe", "us-central1-a"}, "prefix": {"dev", "-", "Dev-", "developers-", "shadow_", "1-"},
		"source_hash": {"", "unset", "0123456789AB"}, "claim": {"0s", "11m", "601s", "60", "1h"}, "log_level": {"warn", "error", ""},
		"database": {"", "x", "(other)"}, "email": {"", "oncall", "a@b"}, "slack_channel": {"alerts", "#A"}, "runbooks": {"http://x", ""}, "page": {"status.example.com", "https://x?y"},
	} {
		for _, value := range bad {
			q, err := tryPlan(t, map[string]cty.Value{name: cty.StringVal(value)})
			if err != nil && len(q.failed) == 0 {
				t.Errorf("%s = %q: %v", name, value, err)
			}
			if len(q.failed) == 0 || !strings.HasPrefix(q.failed[0], name+": "+value) {
				t.Errorf("%s = %q is refused with %q", name, value, q.failed)
			}
		}
	}
	if q, _ := tryPlan(t, map[string]cty.Value{"slack_channel": cty.StringVal("#alerts"), "slack_token": cty.NullVal(cty.String)}); len(q.failed) != 1 || !strings.Contains(q.failed[0], "needs slack_token") {
		t.Errorf("a channel without a token is refused with %q", q.failed)
	}
	for _, weeks := range []float64{-1, 15, 0.5} {
		if q, _ := tryPlan(t, map[string]cty.Value{"backup_weeks": cty.NumberFloatVal(weeks)}); len(q.failed) != 1 || !strings.HasPrefix(q.failed[0], "backup_weeks: ") {
			t.Errorf("%v weeks are refused with %q", weeks, q.failed)
		}
	}
	q, _ := tryPlan(t, map[string]cty.Value{"existing_topics": cty.SetVal([]cty.Value{cty.StringVal("nba-phase9")})})
	if len(q.failed) != 1 || !strings.HasPrefix(q.failed[0], "existing_topics: nba-phase9: the pipeline has nba-phase3-analytics-complete") {
		t.Errorf("an unknown topic is refused with %q", q.failed)
	}
}

// tryPlan loads only the root module, and runs the validations of its variables.
func tryPlan(t *testing.T, vars map[string]cty.Value) (*plan, error) {
	t.Helper()
	all := given()
	for name, v := range vars {
		all[name] = v
	}
	p := &plan{t: t}
	_, err := p.load(root, "", all)
	return p, err
}

// The example file sets only variables that exist.
func TestExample_SetsOnlyExistingVariables(t *testing.T) {
	b, err := os.ReadFile(root + "/terraform.tfvars.example")
	if err != nil {
		t.Fatal(err)
	}
	p, found := planned(t, nil), 0
	for _, m := range regexp.MustCompile(`(?m)^(?:# )?([a-z_]+) += `).FindAllStringSubmatch(string(b), -1) {
		found++
		if p.module.blocks["variable."+m[1]] == nil {
			t.Errorf("no variable %s", m[1])
		}
	}
	if found < 6 {
		t.Errorf("only %d variables", found)
	}
}

// Users find the costs and resources of an environment by its labels. The provider sets them on all
// resources with labels. These two kinds have user_labels instead.
func TestLabels_NameThePipelineAndTheEnvironment(t *testing.T) {
	for prefix, environment := range map[string]string{"": "production", "dev-": "dev"} {
		p := planned(t, map[string]cty.Value{"prefix": cty.StringVal(prefix), "slack_channel": cty.StringVal("#a"), "slack_token": cty.StringVal("x")})
		want := map[string]string{"app": "phasegate", "pipeline": "nba", "environment": environment}
		same := func(where string, labels cty.Value) {
			t.Helper()
			for name, value := range want {
				if got := text(labels, name); got != value {
					t.Errorf("%s: label %s is %q, want %q", where, name, got, value)
				}
			}
		}
		providers := 0
		for name, b := range p.module.blocks {
			if strings.HasPrefix(name, "provider.") {
				providers++
				a := b.Body.Attributes["default_labels"]
				if a == nil {
					t.Fatalf("%s has no labels", name)
				}
				labels, err := p.module.eval(a.Expr, nil)
				if err != nil {
					t.Fatal(err)
				}
				same(name, labels)
			}
		}
		if providers != 1 {
			t.Errorf("%d providers", providers)
		}
		for _, kind := range []string{"google_monitoring_alert_policy", "google_monitoring_notification_channel"} {
			for _, i := range p.some(kind) {
				same(i.address, i.at("user_labels"))
			}
		}
	}
}

// Backups are optional, and so is the delete protection of a database that Terraform creates.
func TestDatabase_BackupAndProtection(t *testing.T) {
	location := cty.StringVal("nam5")
	for name, tc := range map[string]struct {
		vars                  map[string]cty.Value
		retention, protection string
	}{
		"exists":             {nil, "", ""},
		"exists_with_backup": {map[string]cty.Value{"backup_weeks": cty.NumberIntVal(14)}, "8467200s", ""}, // the longest retention
		"created":            {map[string]cty.Value{"database_location": location}, "", "DELETE_PROTECTION_ENABLED"},
		"unprotected": {map[string]cty.Value{"database_location": location, "database_delete_protection": cty.False, "backup_weeks": cty.NumberIntVal(1)},
			"604800s", "DELETE_PROTECTION_DISABLED"},
	} {
		p := planned(t, tc.vars)
		var retention, protection string
		for _, b := range p.all("google_firestore_backup_schedule") {
			retention += b.text("retention")
			if b.text("database") != "(default)" || b.text("weekly_recurrence", "0", "day") != "SUNDAY" {
				t.Errorf("%s: %s", name, b.value.GoString())
			}
		}
		for _, d := range p.all("google_firestore_database") {
			protection += d.text("delete_protection_state")
		}
		if retention != tc.retention || protection != tc.protection {
			t.Errorf("%s: backups are kept for %q, want %q; protection %q, want %q", name, retention, tc.retention, protection, tc.protection)
		}
	}
}
